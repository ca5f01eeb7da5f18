"""The list of failpoints and the places where they stand are the same, and each is part of the crash matrix."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.failpoints import NAMES
from tests.crash.points import CASES, POINTS, Mode

_SERVICE = Path(__file__).parents[2] / "service"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Source:
    """Resolves the names of all failpoints, also those that are put together from what a caller handed down."""

    def __init__(self, root: Path) -> None:
        self._trees = {path: ast.parse(path.read_text()) for path in root.rglob("*.py")}
        self._within: dict[ast.AST, _Function] = {}
        self._in: dict[ast.AST, ast.Module] = {}
        for tree in self._trees.values():
            for function in (node for node in ast.walk(tree) if isinstance(node, _Function)):
                for node in ast.walk(function):
                    # Walked from outside to inside: the innermost function stays.
                    self._within[node] = function
                    self._in[node] = tree

    def names(self) -> Iterator[str]:
        for path, tree in self._trees.items():
            for call in _calls(tree, "failpoint"):
                match call.args:
                    case [ast.Constant(value=str(name))]:
                        yield name
                    case [ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id=of)), ast.Constant(value=end)])]:
                        yield from (f"{start}{end}" for start in self._values(of, self._within[call], set()))
                    case _:
                        pytest.fail(f"{path}:{call.lineno}: the name of this failpoint cannot be told")

    def _values(self, variable: str, function: _Function, seen: set[tuple[str, _Function]]) -> set[str]:
        """Every text that *variable* can be in *function*, but for the empty one."""
        if (variable, function) in seen:
            return set()
        seen.add((variable, function))
        found: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == variable for t in node.targets):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Name):
                        found |= _constants(self._in[function], part.id)
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        if variable in names:
            position = names.index(variable)
            for call in (call for tree in self._trees.values() for call in _calls(tree, function.name)):
                passed = call.args[position] if position < len(call.args) else None
                if isinstance(passed, ast.Constant) and isinstance(passed.value, str):
                    found.add(passed.value)
                elif isinstance(passed, ast.Name):
                    found |= self._values(passed.id, self._within[call], seen)
        return found - {""}


def _constants(tree: ast.Module, name: str) -> set[str]:
    """The texts in a dictionary of the module."""
    return {
        value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        if any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        for value in node.value.values
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def _calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if (isinstance(called, ast.Name) and called.id == name) or (
                isinstance(called, ast.Attribute) and called.attr == name
            ):
                yield node


def test_every_failpoint_is_listed_and_every_listed_one_stands_somewhere() -> None:
    assert set(_Source(_SERVICE).names()) == set(NAMES)
    assert len(set(NAMES)) == len(NAMES) >= 48


def test_every_failpoint_is_met_in_the_matrix() -> None:
    assert {point.name for point in POINTS} == set(NAMES)
    assert len({case.id for case in CASES}) == len(CASES) == len(POINTS) * 3


def broken(entry: str, *, passings: int = 1) -> subprocess.CompletedProcess[str]:
    program = f"from service.failpoints import failpoint\nfor _ in range({passings}): failpoint('lease.after_claim')"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FAILPOINTS": entry},
        cwd=_SERVICE.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_passing_that_was_asked_for_is_hit() -> None:
    assert broken("lease.after_claim=raise@2").returncode == 0
    assert broken("observe.after_read=raise").returncode == 0
    hit = broken("lease.after_claim=raise@2", passings=2)
    assert "failpoint lease.after_claim: raise\n" in hit.stderr
    assert hit.stderr.rstrip().endswith("InjectedFailure: lease.after_claim")
    killed = broken("observe.after_read=raise,lease.after_claim=kill9")
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "failpoint lease.after_claim: kill9\n")


@pytest.mark.parametrize("entry", ["lease.after_clam=kill9", "lease.after_claim=explode", "lease.after_claim"])
def test_what_cannot_be_armed_is_refused(entry: str) -> None:
    assert "unknown name or action" in broken(entry).stderr


def test_the_modes_are_those_of_the_service() -> None:
    for mode in Mode:
        assert "unknown" not in broken(f"observe.after_read={mode}").stderr
