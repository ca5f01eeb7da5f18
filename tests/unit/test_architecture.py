"""What import-linter cannot see: where a provider is named, how long a module is, and that the domain is pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
NAMES = ("livekit", "mux")
MAY_NAME_A_PROVIDER = (
    # It speaks to it, or reads what it sends.
    "providers/",
    "webhooks/",
    # They have its settings, and put its adapter in its role.
    "settings/",
    "app/",
    # They declare it, and the words of its that are stored.
    "domain/provider.py",
    "domain/reasons.py",
)
NAMES_OF_THE_CONTRACT = (
    "api/messages/broadcast.py",
    "api/services/playback.py",
)
"""They fill fields of the contract that have a provider in their name."""
TEXTS_THAT_ARE_STORED = (
    "domain/broadcast.py",
    "domain/explain/causes.py",
)
"""They declare words whose text has a provider in it and stays."""
STILL = (
    "api/transport/server.py",
    # It takes the addresses of RTMP out of messages of gRPC, whatever their scheme.
    "telemetry.py",
)
"""They name one although a role would do. This list only shrinks."""
EXCEPTIONS = (*NAMES_OF_THE_CONTRACT, *TEXTS_THAT_ARE_STORED, *STILL)
MODULES = sorted(
    path for path in SERVICE.rglob("*.py") if not path.relative_to(SERVICE).as_posix().startswith(MAY_NAME_A_PROVIDER)
)


def named(tree: ast.AST) -> Iterator[str]:
    """Identifiers and texts with the name of a provider. Docstrings and comments may cite one as a source."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        words: list[str | None] = []
        match node:
            case ast.Name(id=word) | ast.arg(arg=word) | ast.keyword(arg=word) | ast.Attribute(attr=word):
                words = [word]
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
                words = [word]
            case ast.alias(name=word, asname=other):
                words = [word, other]
            case ast.ImportFrom(module=word):
                words = [word]
            case ast.Constant(value=str(word)) if id(node) not in told:
                words = [word]
            case _:
                pass
        yield from (word for word in words if word and any(name in word.lower() for name in NAMES))


def names_of(path: Path) -> list[str]:
    return sorted({*named(ast.parse(path.read_text()))})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SERVICE).as_posix())
def test_a_provider_is_named_where_it_is_spoken_to(path: Path) -> None:
    if path.relative_to(SERVICE).as_posix() not in EXCEPTIONS:
        assert names_of(path) == [], "name a role of service/domain/provider.py instead"


@pytest.mark.parametrize("name", [*NAMES_OF_THE_CONTRACT, *TEXTS_THAT_ARE_STORED])
def test_an_exception_is_one(name: str) -> None:
    assert names_of(SERVICE / name), f"{name} names no provider any more: take it off the list"


def test_a_name_is_found_in_code_and_not_in_a_docstring() -> None:
    source = '"""LiveKit says so."""\nasync def f(mux_id): return g(livekit_url=f"{a} Mux", b="ok").mux.c'
    assert sorted(named(ast.parse(source))) == [" Mux", "livekit_url", "mux", "mux_id"]


@pytest.mark.parametrize("path", sorted(SERVICE.rglob("*.py")), ids=lambda path: path.relative_to(SERVICE).as_posix())
def test_a_module_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "split it"


IMPURE = {"asyncio", "io", "os", "pathlib", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
CLOCKS = {"now", "utcnow", "today"}


@pytest.mark.parametrize("path", sorted((SERVICE / "domain").rglob("*.py")), ids=lambda path: path.name)
def test_the_domain_has_no_clock_no_chance_and_no_input(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                assert not IMPURE & {each.name.partition(".")[0] for each in names}
            case ast.ImportFrom(module=str(module)):
                assert module.partition(".")[0] not in IMPURE
            case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=attr)):
                assert attr not in CLOCKS, "the time is an argument, by the clock of the database"
            case _:
                pass
