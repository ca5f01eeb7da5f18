"""The recipes of docs/clients.md for Go and Node, run as they are written there."""

import asyncio
import importlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fakes.broadcast_service import FakeServer

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"
GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
)
_NO_REGISTRY = ("dial tcp", "no such host", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "network", "i/o timeout")
_LISTS_FILES = """#!{python}
import sys
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
response.file.add(name="{name}.txt", content="\\n".join(request.file_to_generate))
sys.stdout.buffer.write(response.SerializeToString())
"""


def _run(*command: str | Path, cwd: Path, path: Path | None = None, more: Mapping[str, str] | None = None) -> str:
    environment = os.environ | dict(more or {})
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280)
    told = done.stdout + done.stderr
    if done.returncode and any(text in told for text in _NO_REGISTRY):
        pytest.skip(f"!!! SKIPPED: no package registry can be reached: {told.strip().splitlines()[-1]}")
    assert done.returncode == 0, told
    return done.stdout


def _needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"!!! SKIPPED: there is no {program} here")


async def _against_a_server(*command: str | Path, cwd: Path) -> list[str]:
    """The lines that a recipe prints."""
    server = FakeServer()
    await server.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *command, server.target, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    finally:
        await server.stop()
    assert process.returncode == 0, out.decode()
    return out.decode().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the recipes need of a checkout, without anything that was generated."""
    for folder in ("protos", "clients/go", "clients/node"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("gen", "node_modules", "*.py", "*.pyi")
        )
    return tmp_path


@pytest.mark.parametrize(
    ("template", "plugins"),
    [
        ("clients/go/buf.gen.yaml", ["protoc-gen-go", "protoc-gen-go-grpc"]),
        ("clients/node/buf.gen.yaml", ["clients/node/node_modules/.bin/protoc-gen-es"]),
    ],
)
def test_templates_generate_the_contract_and_leave_out_validate(
    checkout: Path, template: str, plugins: Sequence[str]
) -> None:
    """A second copy of validate.proto would panic at the start of a Go program that uses protovalidate."""
    programs = checkout / "programs"
    for plugin in plugins:
        program = checkout / plugin if "/" in plugin else programs / plugin
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(_LISTS_FILES.format(python=sys.executable, name=program.name))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    _run(BUF, "generate", "--template", template, cwd=checkout, path=programs)
    files = sorted(
        str(path.relative_to(checkout / "protos")) for path in (checkout / "protos/broadcast").rglob("*.proto")
    )
    lists = list((checkout / "clients").rglob("protoc-gen-*.txt"))
    assert len(lists) == len(plugins)
    for each in lists:
        assert sorted(each.read_text().splitlines()) == files


def test_every_file_names_its_package_in_other_languages() -> None:
    for path in (ROOT / "protos/broadcast/v1").glob("*.proto"):
        options = importlib.import_module(f"broadcast.v1.{path.stem}_pb2").DESCRIPTOR.GetOptions()
        assert options.go_package == "broadcast.internal/gen/broadcast/v1;broadcastv1"
        assert (options.java_package, options.java_multiple_files) == ("broadcast.v1", True)
        assert options.csharp_namespace == "BroadcastApi.V1"


@pytest.mark.registry
@pytest.mark.long
@pytest.mark.timeout(600)
async def test_go_with_protovalidate_in_the_same_program(checkout: Path) -> None:
    _needs("go")
    programs = checkout / "programs"
    for plugin in GO_PLUGINS:
        _run("go", "install", plugin, cwd=checkout, more={"GOBIN": str(programs)})
    _run(BUF, "generate", "--template", "clients/go/buf.gen.yaml", cwd=checkout, path=programs)
    folder = checkout / "clients/go"
    _run("go", "build", "-o", "example", ".", cwd=folder)
    lines = await _against_a_server(folder / "example", cwd=folder)
    assert lines == [
        "invalid: spec.layout",
        "created: made-1",
        "host enters at: ws://127.0.0.1:7880",
        "state: BROADCAST_STATE_READY",
        "stopped: BROADCAST_STATE_ENDED",
        "error: NotFound BROADCAST_NOT_FOUND",
    ]


@pytest.mark.registry
@pytest.mark.timeout(300)
async def test_node_with_grpc_js_and_with_connect(checkout: Path) -> None:
    _needs("npm")
    folder = checkout / "clients/node"
    _run("npm", "ci", "--no-audit", "--no-fund", "--fetch-retries", "0", cwd=folder)
    told = ["created: made-1", "host enters at: ws://127.0.0.1:7880"]
    assert await _against_a_server("node", "grpc.js", cwd=folder) == [
        *told,
        "state: BROADCAST_STATE_READY",
        "stopped: BROADCAST_STATE_ENDED",
        "error: NOT_FOUND there is no such broadcast",
    ]
    _run(BUF, "generate", "--template", "clients/node/buf.gen.yaml", cwd=checkout)
    invalid, *others = await _against_a_server("node", "connect.js", cwd=folder)
    assert invalid.startswith("invalid: spec.layout: does not match regex pattern")
    assert others == [*told, "state: READY", "stopped: ENDED", "error: NotFound there is no such broadcast"]
