"""`python -m broadcast_sandbox`, as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from tests.ports import free_port
from tests.waiting import eventually

SIMULATORS = ("livekit", "mux", "storage")


async def started(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broadcast_sandbox", *arguments),
        env={**{name: value for name, value in os.environ.items() if name != "DATABASE_URL"}, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def on_ports() -> tuple[dict[str, int], list[str]]:
    """Free ports of the simulators, and the arguments that choose them."""
    ports = {name: free_port() for name in SIMULATORS}
    return ports, [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]


async def printed(process: asyncio.subprocess.Process, until: str) -> str:
    assert process.stdout is not None
    text = ""
    while until not in text:
        line = await process.stdout.readline()
        assert line, "it ended"
        text += line.decode()
    return text


@contextlib.asynccontextmanager
async def sandbox(*arguments: str, **environment: str) -> AsyncGenerator[tuple[dict[str, int], dict[str, str]]]:
    """Its ports, and the environment that it prints for the service."""
    ports, chosen = on_ports()
    process = await started("--no-service", *chosen, *arguments, **environment)
    try:
        # The last that is printed.
        text = await printed(process, "BROADCAST_TIMING_WATCH_S")
        yield ports, dict(re.findall(r"^export (\w+)='(.*)'$", text, re.MULTILINE))
    finally:
        process.terminate()
        await process.communicate()


async def refused(*arguments: str, **environment: str) -> str:
    """The one line that it ends with."""
    process = await started(*arguments, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (1, b"")
    assert len(err.splitlines()) == 1, err.decode()
    return err.decode()


def descendants(parent: int) -> dict[int, str]:
    """Process id -> command line of everything that *parent* started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, new = set[int](), {parent}
    while new:
        new = {child for child, of in parents.items() if of in new}
        found |= new
    return {child: command_of(child) for child in found}


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def test_two_stand_side_by_side(database_url: str) -> None:
    given = ("--database-url", database_url)
    async with sandbox(*given) as one, sandbox(*given) as two, aiohttp.ClientSession() as http:
        for ports, environment in (one, two):
            assert environment["DATABASE_URL"] == database_url
            assert environment["LIVEKIT_URL"] == f"http://127.0.0.1:{ports['livekit']}"
            assert environment["MUX_BASE_URL"] == f"http://127.0.0.1:{ports['mux']}"
            assert environment["BROADCAST_S3_ENDPOINT"] == f"http://127.0.0.1:{ports['storage']}"
            for port in ports.values():
                async with http.get(f"http://127.0.0.1:{port}/_state") as answer:
                    assert answer.status == 200


async def test_the_database_of_the_shell_is_left_alone() -> None:
    """Nothing listens there: a sandbox that took it would not start."""
    of_the_shell = f"postgresql://user:hunter2@127.0.0.1:{free_port()}/production"
    async with sandbox(DATABASE_URL=of_the_shell) as (_, environment):
        assert environment["DATABASE_URL"] != of_the_shell


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:1/production",
        "postgresql://user:hun#ter2@127.0.0.1/production",
        "mysql://user:hunter2@127.0.0.1/production",
        "hunter2",
    ],
)
async def test_a_database_that_cannot_be_used_is_one_line_without_the_password(url: str) -> None:
    _, chosen = on_ports()
    line = await refused("--no-service", *chosen, "--database-url", url)
    assert line.startswith("sandbox: --database-url: ")
    assert not re.search("hun|ter2", line)


@pytest.mark.parametrize(
    ("argument", "variable"),
    [("--livekit-port", ""), ("--mux-port", ""), ("--storage-port", ""), ("", "GRPC_PORT"), ("", "HTTP_PORT")],
)
async def test_a_port_that_is_taken_is_one_line_with_the_option(argument: str, variable: str) -> None:
    _, chosen = on_ports()
    service = {"GRPC_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [*chosen, *((argument, port) if argument else ())]
        line = await refused(*arguments, **{**service, **({variable: port} if variable else {})})
    assert port in line
    assert (argument or variable) in line


async def test_one_port_for_two_is_one_line_with_the_option() -> None:
    port = str(free_port())
    line = await refused("--no-service", "--livekit-port", port, "--mux-port", port)
    assert port in line
    assert "--mux-port" in line


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("--livekit-port", "0"), {}, "--livekit-port"),
        (("--mux-port", "65536"), {}, "--mux-port"),
        (("--time-scale", "0"), {}, "--time-scale"),
        (("--time-scale", "inf"), {}, "--time-scale"),
        ((), {"GRPC_PORT": "grpc"}, "GRPC_PORT"),
        ((), {"HTTP_PORT": "0"}, "HTTP_PORT"),
    ],
)
async def test_bad_options_are_refused_by_name(
    arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    process = await started(*arguments, **environment)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert named in err.decode().splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of the end of their parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
async def test_everything_ends_with_the_sandbox(number: signal.Signals) -> None:
    """Postgres and the service too, and the ports are free again."""
    ports, chosen = on_ports()
    of_service = {"GRPC_PORT": free_port(), "HTTP_PORT": free_port()}
    environment = {name: str(port) for name, port in of_service.items()}
    process = await started(*chosen, **environment)
    async with asyncio.timeout(90):
        await printed(process, "Ctrl-C ends all of it.")
    children = descendants(process.pid)
    commands = " ".join(children.values())
    assert "-m service serve" in commands
    assert "postgres" in commands
    process.send_signal(number)
    await asyncio.wait_for(process.wait(), 60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)

    def gone() -> bool:
        return not [pid for pid, command in children.items() if command and command_of(pid) == command]

    await eventually(gone)
    for port in (*ports.values(), *of_service.values()):
        socket.create_server(("127.0.0.1", port)).close()
