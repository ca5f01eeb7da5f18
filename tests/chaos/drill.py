"""Postgres restarts under load: replicas as processes, callers, watchers, the providers' webhooks, and a database that
goes and comes back. Then everything is brought down, and judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast

import aiohttp

from broadcast_client import BroadcastClient, RetryPolicy, WatchItem
from broadcast_client import Change as ClientChange
from broadcast_sandbox.faults import Fault
from broadcast_sandbox.postgres.server import EmbeddedPostgres
from service.store.migrate import migrate
from tests.chaos import judge
from tests.chaos.callers import NOT_NOW, Caller
from tests.chaos.history import History, Kind, Triage
from tests.chaos.monkey import Harm, How, harm
from tests.chaos.watchers import Watcher, lags, violations
from tests.e2e.show import TAG
from tests.ports import free_port
from tests.stack import Process, Stack, running_stack, serving
from tests.waiting import eventually

_ONCE = RetryPolicy(attempts=1)
_DATABASE = "chaos"
# The providers' time: LiveKit retries a webhook for 15 s of it, Mux for a day.
_SCALE = 10.0
_READY_WITHIN_S = 30.0
_OVER_WITHIN_S = 60.0
# asyncpg, of a connection whose server went away in the midst of something; the service reports what it means.
_HARMLESS = ("Resetting connection with an active transaction",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    replicas: int = 2
    callers: int = 4
    watchers: int = 2
    """With hang-ups of their own; one that stays, and one by the client, come on top."""
    cycles: Sequence[How] = ()
    """These, one after the other; none: whatever comes, until *seconds* are over."""
    seconds: float = 120.0
    down_s: tuple[float, float] = (0.0, 2.0)
    calm_s: tuple[float, float] = (2.0, 5.0)
    """From ready to the next."""
    least: int = 0
    """So many writes are acknowledged, of every kind, before it ends: however long that takes on this machine."""
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    history: History
    harms: list[Harm]
    found: list[str]
    """What is wrong."""
    lags: list[float]
    changes: int
    resumed: int
    broken: int
    webhooks: int
    retried_webhooks: int
    broadcasts: int
    seconds: float
    ambiguous: int
    """Attempts without an answer that had their effect all the same."""

    @property
    def recoveries(self) -> list[float]:
        return [each.recovery_s for each in self.harms]

    def __str__(self) -> str:
        history, recoveries = self.history, self.recoveries
        triage = Counter(str(each.triage) for each in history.operations)
        hows = ", ".join(f"{times} {how}" for how, times in Counter(str(each.how) for each in self.harms).items())
        tries = sum(each.attempts for each in history.operations)
        p99 = statistics.quantiles(self.lags, n=100)[98]
        told = f"""\
{len(self.harms)} cycles in {self.seconds:.0f} s: {hows}
ready again: median {statistics.median(recoveries):.2f} s, longest {max(recoveries):.2f} s
{history.acknowledged} writes acknowledged, {triage["fail"]} refused as they should, {triage["info"]} without an answer
{tries} tries of them, {self.ambiguous} with their effect and without an answer
{self.broadcasts} broadcasts; {self.webhooks} webhooks accepted, {self.retried_webhooks} of them at a later try
{self.changes} changes told over {self.broken} broken and {self.resumed} resumed watches
in calm they were told within {p99:.2f} s (p99) and {max(self.lags):.2f} s (longest)
{len(self.found)} violations"""
        return "\n".join([told, *self.found])


async def drill(wanted: Wanted, directory: Path) -> Report:
    """Raises AssertionError where nothing could be judged."""
    server = EmbeddedPostgres(data_dir=directory / "postgres")
    await server.start()
    try:
        database_url = await server.create_database(_DATABASE)
        await migrate(database_url)
        async with running_stack(database_url, scale=_SCALE) as stack:
            return await _Drill(wanted, server, database_url, stack, directory).run()
    finally:
        await server.stop()


class _Drill:
    def __init__(
        self, wanted: Wanted, server: EmbeddedPostgres, database_url: str, stack: Stack, directory: Path
    ) -> None:
        self._wanted = wanted
        self._server = server
        self._database_url = database_url
        self._stack = stack
        self._directory = directory
        self._random = Random(wanted.seed)
        self._history = History()
        self._over = asyncio.Event()
        self._harms: list[Harm] = []
        self._processes: list[Process] = []
        self._http: list[str] = []
        self._clients: list[BroadcastClient] = []
        self._watchers: list[Watcher] = []
        self._by_client: list[int] = []

    async def run(self) -> Report:
        began = time.monotonic()
        await self._begin()
        async with self._watching():
            callers = [self._caller(f"c{number}") for number in range(self._wanted.callers)]
            # A caller that fails ends the drill.
            async with asyncio.TaskGroup() as tasks:
                for caller in callers:
                    tasks.create_task(caller.run())
                await self._harm()
                self._over.set()
            await self._bring_down()
            await self._told_everything()
        judged = await self._judge(time.monotonic() - began)
        await self._end()
        judged.found += self._logged()
        return judged

    async def _begin(self) -> None:
        for number in range(self._wanted.replicas):
            http_port = self._stack.environment["WEBHOOK_PORT"] if number == 0 else str(free_port())
            process = await self._stack.process(
                self._directory / f"replica-{number}.log", HTTP_PORT=http_port, BROADCAST_REPLICA=f"replica-{number}"
            )
            self._processes.append(process)
            self._http.append(f"http://127.0.0.1:{http_port}")
        for process in self._processes:
            await serving(process, within=60)
            client = BroadcastClient(process.target, retry=_ONCE)
            self._stack.cleanup.push_async_callback(client.close)
            self._clients.append(client)
        for _ in range(3):
            # Mux sends some of them twice, and some late.
            self._stack.mux.faults.add(Fault(kind="webhook_duplicate", times=5))
            self._stack.mux.faults.add(Fault(kind="webhook_delay", times=3, delay_s=20))

    def _caller(self, name: str) -> Caller:
        return Caller(
            name, self._clients, self._stack, self._history, random=Random(self._random.random()), over=self._over
        )

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncGenerator[None]:
        targets = [process.target for process in self._processes]
        for number in range(self._wanted.watchers + 1):
            self._watchers.append(Watcher(targets, Random(self._random.random()), cuts=number > 0))
        tasks = [asyncio.create_task(watcher.run()) for watcher in self._watchers]
        tasks.append(asyncio.create_task(self._watch_by_client()))
        try:
            yield
            for task in tasks:
                assert not task.done(), f"a watch is over: {task}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_by_client(self) -> None:
        async with BroadcastClient(self._processes[-1].target) as client:
            watch = client.watch(heartbeat_interval=1)
            async for item in watch:
                self._hear(item)

    def _hear(self, item: WatchItem) -> None:
        if isinstance(item, ClientChange):
            self._by_client.append(item.revision)

    async def _harm(self) -> bool:
        canary = self._caller("canary")
        ends = time.monotonic() + self._wanted.seconds
        cycles = iter(self._wanted.cycles)
        hows: list[How] = []
        await self._busy()
        while True:
            if self._wanted.cycles:
                how = next(cycles, None)
            elif time.monotonic() < ends:
                # Each as often as the others.
                hows = hows or self._random.sample([*How], len(How))
                how = hows.pop()
            else:
                how = None
            if how is None:
                return await eventually(self._enough, within=60)
            down_s = self._random.uniform(*self._wanted.down_s)
            await eventually(self._rooms, within=60)
            done = await harm(self._server, _DATABASE, how, down_s=down_s, meanwhile=self._webhook_not_taken)
            await asyncio.gather(*(self._ready(number, canary) for number in range(len(self._processes))))
            done.ready = time.time()
            self._harms.append(done)
            await asyncio.sleep(self._random.uniform(*self._wanted.calm_s))

    async def _webhook_not_taken(self) -> None:
        """Until a webhook met the outage. On a busy machine nothing may happen at the providers in the time of one, so
        somebody looks into a room, of which LiveKit tells.
        """
        livekit = self._stack.livekit
        since = time.time()
        if not (rooms := self._rooms()):
            return
        await self._stack.control("join", room=rooms[-1], identity="passer-by", publish=[])

        def refused() -> bool:
            deliveries = [*livekit.webhooks.sender.deliveries, *self._stack.mux.webhooks.deliveries]
            return any(each.time >= since and not each.accepted for each in deliveries)

        await eventually(refused, within=20)

    def _rooms(self) -> list[str]:
        """The names of those that are open."""
        effects = self._stack.livekit.effects
        closed = {each.id for each in effects.of("room.deleted")}
        return [each.id for each in effects.of("room.created") if each.id not in closed]

    async def _busy(self) -> None:
        """Until there is something to lose."""
        await eventually(lambda: self._stack.mux.effects.of("ingest.connected"), within=30)

    def _enough(self) -> bool:
        history = self._history
        return not self._wanted.least or (
            history.acknowledged >= self._wanted.least
            and all(history.of(kind, triage=Triage.OK) for kind in Kind)
            and bool(history.of(Kind.UPDATE, triage=Triage.FAIL))
        )

    async def _ready(self, number: int, canary: Caller) -> None:
        """It says so at /readyz, and takes a write."""
        ends = time.monotonic() + _READY_WITHIN_S
        timeout = aiohttp.ClientTimeout(total=3)
        while True:
            assert time.monotonic() < ends, f"replica {number} is not ready again"
            assert self._processes[number].running, f"replica {number} ended by itself"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, *NOT_NOW):
                async with self._stack.http.get(f"{self._http[number]}/readyz", timeout=timeout) as answer:
                    if answer.status == 200 and await canary.wrote(self._clients[number]):
                        return
            await asyncio.sleep(0.02)

    async def _bring_down(self) -> None:
        closer = self._caller("closer")
        stored = await judge.read(self._database_url)
        await asyncio.gather(
            *(closer.stop(row.id) for row in stored.rows if row.state not in ("CREATED", "ENDED", "FAILED"))
        )

        async def over() -> bool:
            stored = await judge.read(self._database_url)
            going = [f"{row.id} {row.state}" for row in stored.rows if row.state not in ("CREATED", "ENDED", "FAILED")]
            assert not going, going
            assert not +self._stack.census(), self._stack.census()
            return True

        await eventually(over, within=_OVER_WITHIN_S, every=0.3)

    async def _told_everything(self) -> None:
        head = (await judge.read(self._database_url)).head

        def caught_up() -> bool:
            behind = [watcher.up_to for watcher in self._watchers if watcher.up_to < head]
            assert not behind, f"watchers are at {behind}, the log is at {head}"
            assert self._by_client, "the client was told of no change"
            assert self._by_client[-1] == head, f"the client was told of {self._by_client[-1]}, the log is at {head}"
            return True

        await eventually(caught_up)

    async def _judge(self, seconds: float) -> Report:
        stored = await judge.read(self._database_url)
        log = stored.log
        found = judge.acknowledged(self._history, stored)
        found += judge.effects(stored, self._stack.effects(), TAG)
        deliveries = {
            "livekit": list(self._stack.livekit.webhooks.sender.deliveries),
            "mux": list(self._stack.mux.webhooks.deliveries),
        }
        found += judge.webhooks(stored, deliveries)
        connections = [each for watcher in self._watchers for each in watcher.connections]
        for number, watcher in enumerate(self._watchers):
            found += violations(f"watcher {number}", watcher.connections, log)
            found += [f"watcher {number} was refused: {what}" for what in watcher.refused]
        told = set(self._by_client)
        if self._by_client != sorted(told):
            found.append("by the client: not in order, or twice")
        if missing := [
            each.revision for each in log if each.revision >= self._by_client[0] and each.revision not in told
        ]:
            found.append(f"by the client: {missing[:9]} are missing")
        attempts = [each for all_of in deliveries.values() for each in all_of]
        return Report(
            history=self._history,
            harms=self._harms,
            found=found,
            lags=lags(connections, log, self._calm()),
            changes=sum(each.revision is not None for connection in connections for each in connection.told),
            resumed=sum(each.resumed is not None for each in connections),
            broken=sum(each.end not in ("", "cut") for each in connections),
            webhooks=sum(each.accepted for each in attempts),
            retried_webhooks=sum(each.accepted and each.attempt > 1 for each in attempts),
            broadcasts=len(stored.rows),
            seconds=seconds,
            ambiguous=self._ambiguous(stored),
        )

    def _ambiguous(self, stored: judge.Stored) -> int:
        """As far as updates and creates show it: applied before the try that was answered, or never answered."""
        times = {title: entry.time for entry in reversed(stored.entries) if (title := entry.title) is not None}
        return sum(
            operation.request_id in times
            and (
                operation.triage is Triage.INFO
                # A transaction may begin a moment after its try, and never before.
                or (operation.attempts > 1 and times[operation.request_id] < operation.last_attempt - 0.005)
            )
            for operation in self._history.of(Kind.CREATE, Kind.UPDATE)
        )

    def _calm(self) -> list[tuple[float, float]]:
        """From a moment after one was ready again to the next harm."""
        ends = [*(each.began for each in self._harms[1:]), time.time()]
        return [(each.ready + 1, end) for each, end in zip(self._harms, ends, strict=True)]

    async def _end(self) -> None:
        """A replica that is told to go goes, and says that nothing went wrong."""
        for process in self._processes:
            process.tell(signal.SIGTERM)
        for process in self._processes:
            code = await asyncio.wait_for(process.process.wait(), 40)
            assert code == 0, f"{process.output}: it ended with {code}"

    def _logged(self) -> list[str]:
        return [
            f"{process.output.name}: {line[:2000]}"
            for process in self._processes
            for line in process.output.read_text().splitlines()
            if _unexpected(line)
        ]


def _unexpected(line: str) -> bool:
    try:
        entry = cast("dict[str, Any]", json.loads(line))
    except ValueError:
        return "Traceback" in line
    return entry.get("level") in ("error", "critical") and not str(entry["event"]).startswith(_HARMLESS)
