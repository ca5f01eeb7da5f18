"""The processes of one case: A, which meets the failpoint, and whoever goes on after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from broadcast_client import BroadcastClient, BroadcastError, RetryPolicy
from tests.crash.points import Mode
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.crash.points import Point
    from tests.stack import Process, Stack

A, B = "a", "b"
_BOOT_S = 60.0
_ONCE = RetryPolicy(attempts=1)
# asyncpg of a BEGIN whose answer came after its time, as it does to who stood still; it is rolled back.
_HARMLESS = "Resetting connection with an active transaction"


@dataclass
class Replicas:
    stack: Stack
    directory: Path
    point: Point
    mode: Mode
    environment: dict[str, str]
    on_hit: Callable[[], Awaitable[None]]
    taken_over: Callable[[], Awaitable[Any]]
    """Answers something true once the zombie may come back: others have done what it was about to do."""
    hit: asyncio.Event = field(default_factory=asyncio.Event)
    hit_at: float = 0.0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """The crash is over: whoever is to run now runs."""
    settled_at: float = 0.0
    client: BroadcastClient | None = None
    """Of a replica that serves; None while there is none."""
    targets: list[str] = field(default_factory=list[str])
    """Where the last one that came serves."""
    _a: Process | None = None
    _all: list[Process] = field(default_factory=list["Process"])
    _gone: list[Process] = field(default_factory=list["Process"])

    async def begin(self, *, armed: bool) -> None:
        self._a = await self._start(A, armed=armed)
        self.client = await self._client_of(self._a)

    async def arm(self) -> None:
        """Restart A with the failpoint, as a deployment would."""
        assert self._a is not None
        before, self.client = self._a, None
        self._gone.append(before)
        before.tell(signal.SIGTERM)
        assert await asyncio.wait_for(before.process.wait(), 40) == 0
        await self.begin(armed=True)

    async def watch(self) -> None:
        """Notice the crash, prove that it is the one that was asked for, and do what would be done about it."""
        match self.mode:
            case Mode.KILL:
                await self._killed()
            case Mode.RAISE:
                await self._noticed(self._said)
            case Mode.STOP:
                await self._stopped()
        self.settled_at = time.monotonic()
        self.settled.set()

    async def _killed(self) -> None:
        victim = await self._noticed(lambda process: not process.running)
        assert victim.process.returncode == -signal.SIGKILL, f"it ended by itself: {_end_of(victim)}"
        self._gone.append(victim)
        self._a = await self._start(A, armed=False)
        self.client = await self._client_of(self._a)

    async def _stopped(self) -> None:
        zombie = await self._noticed(stands_still)
        other = await self._start(B, armed=False)
        self.client = await self._client_of(other)
        await eventually(self.taken_over, within=40, every=0.1)
        assert stands_still(zombie)
        zombie.tell(signal.SIGCONT)
        # It has read its clock and what lay in its sockets once it answers.
        client = await self._client_of(zombie)
        await eventually(lambda: _answers(client), within=40)

    async def _noticed(self, happened: Callable[[Process], bool]) -> Process:
        while True:
            process = self._a
            if process is not None and process not in self._gone:
                if happened(process):
                    break
                assert process.running, f"it ended by itself: {_end_of(process)}"
            await asyncio.sleep(0.01)
        self.hit_at = time.monotonic()
        assert self._said(process), f"not by the failpoint: {_end_of(process)}"
        if self.mode is not Mode.RAISE:
            self.client = None
        await self.on_hit()
        self.hit.set()
        return process

    def _said(self, process: Process) -> bool:
        return f"failpoint {self.point.name}: {self.mode}\n" in process.output.read_text()

    async def _start(self, name: str, *, armed: bool) -> Process:
        environment = {**self.environment, "BROADCAST_REPLICA": name}
        if name == A and self.point.webhooks:
            environment["HTTP_PORT"] = self.stack.environment["WEBHOOK_PORT"]
        if armed:
            environment["FAILPOINTS"] = f"{self.point.name}={self.mode}@{self.point.passing}"
        ends = time.monotonic() + _BOOT_S
        while True:
            process = await self.stack.process(self.directory / f"{name}{len(self._all)}.log", **environment)
            self._all.append(process)
            while process.running and not _served(process):
                assert time.monotonic() < ends, f"it does not start: {_end_of(process)}"
                await asyncio.sleep(0.02)
            if process.running or self._said(process):
                return process
            # As a supervisor would: the port may have been in use for a moment.
            assert time.monotonic() < ends, f"it does not start: {_end_of(process)}"
            self._gone.append(process)

    async def _client_of(self, process: Process) -> BroadcastClient:
        self.targets[:] = [process.target]
        client = BroadcastClient(process.target, retry=_ONCE)
        self.stack.cleanup.push_async_callback(client.close)
        return client

    def check_running(self) -> None:
        if self.client is not None and self.settled.is_set():
            for process in self._all:
                assert process.running or process in self._gone, f"it ended by itself: {_end_of(process)}"

    def check(self) -> None:
        """Everybody who is to run does, and nothing went wrong but what was asked for."""
        self.check_running()
        for process in filter(_served, self._all):
            for line in process.output.read_text().splitlines():
                assert not _unexpected(line), f"{process.output}: {line}"

    def logged(self, event: str) -> int:
        return sum(f'"{event}"' in line for each in self._all for line in each.output.read_text().splitlines())


def _served(process: Process) -> bool:
    return '"event": "serving"' in process.output.read_text()


def stands_still(process: Process) -> bool:
    return stopped(process.process.pid)


def stopped(pid: int) -> bool:
    """State T in /proc/PID/stat, behind the name in parentheses."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"
    return False


def _unexpected(line: str) -> bool:
    try:
        entry = cast("dict[str, Any]", json.loads(line))
    except ValueError:
        return "Traceback" in line
    return (
        entry.get("level") in ("error", "critical")
        and "InjectedFailure" not in line
        and not entry["event"].startswith(_HARMLESS)
    )


async def _answers(client: BroadcastClient) -> bool:
    try:
        await client.list(page_size=1, timeout=10)
    except BroadcastError:
        return False
    return True


def _end_of(process: Process) -> str:
    return f"exit code {process.process.returncode}\n{process.output.read_text()[-3000:]}"
