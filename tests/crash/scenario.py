"""One case: a broadcast is brought up and taken down, the service is broken at one point on the way, and in the end
there is exactly what is wanted. Judged by what the simulators did and by the rows, not by what the service says alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path as Directory
from random import Random
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from broadcast.v1.broadcast_pb2 import (
    DELIVERY_POLICY_MANUAL,
    DELIVERY_POLICY_ON_DEMAND,
    RECORDING_POLICY_DISCARD,
    RECORDING_POLICY_KEEP,
    BroadcastSpec,
    Destination,
)
from broadcast.v1.cost_pb2 import COST_CAP_ACTION_WARN, CostCap, Money
from broadcast_client import (
    BroadcastNotFound,
    CallCancelled,
    DeadlineExceeded,
    ServiceFault,
    Unavailable,
    state_name,
)
from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.environment import BUCKET, storage_environment
from broadcast_sandbox.faults import Fault
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from tests.chaos import judge
from tests.chaos.watchers import Watcher, violations
from tests.crash.migrating import migrate
from tests.crash.points import Armed, Case, Mode, Path, Stage
from tests.crash.replicas import A, Replicas
from tests.crash.verdict import Verdict
from tests.stack import running_stack
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.broadcast_pb2 import Broadcast
    from broadcast_client import BroadcastClient

_T = TypeVar("_T")

WITHIN_S = 60.0
"""From the crash to exactly what is wanted."""
HOLD_S = 0.7
"""For so long it has to stay as it is: half a minute of the providers' time, and a round of the sweeper."""
_MET_WITHIN_S = 40.0
_NOT_NOW = (Unavailable, DeadlineExceeded, CallCancelled)

_ENVIRONMENT = {
    "BROADCAST_LEASE_S": "2.5",
    "BROADCAST_TIMING_START_ANSWER_S": "2",
    "BROADCAST_TIMING_STREAM_GRACE_S": "1.5",
    "BROADCAST_TIMING_EGRESS_GRACE_S": "2",
    "BROADCAST_TIMING_DELETE_RETRY_S": "1",
    "BROADCAST_SWEEP_S": "0.4",
    "BROADCAST_SWEEP_GRACE_S": "1",
}
_FALLBACKS = (Path.FALLBACK, Path.UPLOAD_ERRORED)
_RECORDED = {
    "BROADCAST_TIMING_FALLBACK_FAULTS": "1",
    "BROADCAST_TIMING_FALLBACK_RETURN_S": "1",
    "BROADCAST_TIMING_UPLOAD_GRACE_S": "4",
}
_OF_PATH = {
    Path.NO_HOST: {"BROADCAST_TIMING_HOST_WAIT_S": "0.5"},
    Path.GHOST: {"BROADCAST_TIMING_GHOST_S": "0.3", "BROADCAST_TIMING_GHOST_STOP_S": "0.5"},
    Path.POOLED: {"BROADCAST_POOL": "reduced:public=1"},
    Path.FALLBACK: _RECORDED,
    Path.UPLOAD_ERRORED: {**_RECORDED, "BROADCAST_TIMING_UPLOAD_RETRY_S": "0.3"},
}
_ENDS = {Path.FAILED_EGRESS: "failed", Path.GHOST: "ghost", **dict.fromkeys(_FALLBACKS, "failed")}
"""How the first egress ends."""
_DESTINATION = Destination(name="other", url="rtmp://93.184.215.14/app", stream_key="key-of-the-other-place")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    case: Case
    converged_s: float
    """From the crash to the last moment at which it was not yet as wanted."""
    seen: tuple[str, ...]
    """Which recoveries."""


async def run_case(case: Case, database_url: str, directory: Directory, *, scale: float = 40) -> Outcome:
    """Raises AssertionError with what is wrong."""
    environment = {**_ENVIRONMENT, **_OF_PATH.get(case.point.path, {})}
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool,
        # An encoder that drains for long: who starts another one beside it is seen.
        running_stack(
            database_url, scale=scale, webhooks=case.point.webhooks, livekit={"egress_stop_s": 20.0}
        ) as stack,
        contextlib.AsyncExitStack() as cleanup,
    ):
        storage = None
        if case.point.path in _FALLBACKS:
            storage = await _storage(cleanup, stack.mux.clock, environment)
            if case.mode is Mode.STOP:
                # An upload has no fence of ours: who stands still must be back before it is given up.
                environment["BROADCAST_TIMING_UPLOAD_GRACE_S"] = "30"
        verdict = Verdict(stack, pool, storage)
        scenario = Scenario(case, verdict, environment, directory, database_url)
        play = asyncio.create_task(scenario.play())
        watch = asyncio.create_task(scenario.watch())
        try:
            done, _ = await asyncio.wait({play, watch}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            return play.result()
        except AssertionError as failure:
            failure.add_note("\n".join(await scenario.verdict.story()))
            raise
        finally:
            play.cancel()
            watch.cancel()
            await asyncio.gather(play, watch, return_exceptions=True)


async def _storage(cleanup: contextlib.AsyncExitStack, clock: ScaledClock, environment: dict[str, str]) -> S3Simulator:
    secret = "storage-secret-of-the-tests"
    storage = S3Simulator(S3SimulatorSettings(bucket=BUCKET, access_key="sandbox", secret_key=secret), clock=clock)
    environment.update(storage_environment(await storage.start(), secret))
    cleanup.push_async_callback(storage.stop)
    return storage


class Scenario:
    def __init__(
        self, case: Case, verdict: Verdict, environment: dict[str, str], directory: Directory, database_url: str
    ) -> None:
        self.case = case
        self.point = case.point
        self.verdict = verdict
        self.stack = verdict.stack
        self.pool = verdict.pool
        self.database_url = database_url
        self.watcher: Watcher | None = None
        self.replicas = Replicas(
            self.stack, directory, case.point, case.mode, environment, self._remember, self._taken_over
        )
        self.broadcast_id = ""
        self._answered = False
        """A call that met the crash, or came after it, has its answer."""
        self._repeated = False
        self._changed = False
        self._over = False
        self._stood = 0.0
        self._lease: asyncpg.Record | None = None

    async def watch(self) -> None:
        """What becomes of the replicas."""
        if self.point.path is not Path.MIGRATED:
            await self.replicas.watch()

    async def play(self) -> Outcome:
        point, replicas = self.point, self.replicas
        self._break_providers()
        if point.path is Path.MIGRATED:
            await self._migrate()
        await replicas.begin(armed=point.armed is Armed.START)
        if point.path is Path.WATCHED:
            self.watcher = self._begin_watch()
        if point.stage is Stage.CUT:
            await self._cut_short()
        else:
            await self._bring_up()
        if point.stage is Stage.UP:
            await self._met()
            converged_s = await self._steadily(self._is_live)
            await self._stop()
            await self._steadily(self._is_over)
        else:
            if point.armed is Armed.STOP:
                await replicas.arm()
            if point.path is not Path.NO_HOST:
                await self._stop()
            if point.path is Path.DELETED:
                await eventually(self._is_over, within=WITHIN_S)
                await self._ask(lambda client: client.delete(self.broadcast_id, allow_missing=True))
            await self._met()
            converged_s = await self._steadily(self._is_over)
            if point.path is Path.NO_HOST:
                await self._stop()
        await self._check()
        return Outcome(case=self.case, converged_s=converged_s, seen=await self._seen())

    def _begin_watch(self) -> Watcher:
        watcher = Watcher(self.replicas.targets, Random(1), cuts=False)
        task = asyncio.create_task(watcher.run())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.cleanup.push_async_callback(end)
        return watcher

    # The way of a broadcast.

    def _break_providers(self) -> None:
        start, create = "StartRoomCompositeEgress", "create_live_stream"
        match self.point.path:
            case Path.START_REFUSED:
                self.stack.livekit.add_fault(Fault(kind="reset", operation=start))
            case Path.START_LOST:
                self.stack.livekit.add_fault(Fault(kind="lost_reply", operation=start))
            case Path.STREAM_LOST:
                self.stack.mux.faults.add(Fault(kind="lost_reply", operation=create))
            case Path.STREAM_LATE:
                self.stack.mux.faults.add(Fault(kind="late_effect", operation=create, delay_s=3))
            case Path.RESET_LOST:
                self.stack.livekit.add_fault(Fault(kind="reset", operation=start))
                self.stack.mux.faults.add(Fault(kind="lost_reply", operation="reset_stream_key"))
            case Path.DELETE_LOST:
                self.stack.livekit.add_fault(Fault(kind="lost_reply", operation="DeleteRoom"))
            case Path.UPLOAD_ERRORED:
                self.stack.mux.faults.add(Fault(kind="upload_fail", operation="upload"))
            case _:
                pass

    def _spec(self) -> BroadcastSpec:
        spec = BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD)
        match self.point.path:
            case Path.MANUAL:
                spec.delivery_policy = DELIVERY_POLICY_MANUAL
            case Path.GHOST:
                # Active while nobody publishes: who is connected cannot be told from it.
                spec.reconnect_window.FromSeconds(1800)
            case Path.SCHEDULED:
                # Nearer than the shortest lead: it is begun at once.
                spec.scheduled_start_time.FromSeconds(int(time.time()) + 60)
            case Path.FALLBACK | Path.UPLOAD_ERRORED:
                spec.recording_policy = RECORDING_POLICY_KEEP
            case Path.CAPPED:
                # The first second of an egress costs more.
                spec.cost_cap.CopyFrom(CostCap(amount=Money(nanos=1), action=COST_CAP_ACTION_WARN))
            case _:
                pass
        return spec

    async def _bring_up(self) -> None:
        path, spec = self.point.path, self._spec()
        if path is Path.POOLED:
            await eventually(self._pool_is_filled, within=WITHIN_S, every=0.05)
        # Without an id of ours: a repeated create would make a second broadcast, were it not for the request id.
        created = await self._ask(lambda client: client.create(spec, title="A show", request_id="create"))
        self.broadcast_id = created.id
        wait = 0.0 if self.point.stage is Stage.CUT else 5.0
        if path is not Path.SCHEDULED:
            await self._ask(lambda client: client.start(created.id, wait=wait, host_identity="ann", request_id="start"))
        await eventually(lambda: self._in("READY", "STOPPING", "ENDED"), within=WITHIN_S, every=0.05)
        if path is Path.NO_HOST:
            return
        if self.point.armed is Armed.HOST:
            await self.replicas.arm()
        await self.stack.host_joins(created.id)
        if path is Path.MANUAL:
            await self._ask(lambda client: client.set_on_air(created.id, True, request_id="on-air"))
        if path in (Path.CHANGED, Path.ON_DEMAND, *_ENDS) or self.point.stage is Stage.DOWN:
            await eventually(lambda: self._in("LIVE"), within=WITHIN_S, every=0.05)
        await self._change(created.id, spec)
        if path in _ENDS:
            [egress] = self.stack.livekit.effects.of("egress.started")
            await self.stack.control("egress", egress_id=egress.id, end=_ENDS[path])

    async def _change(self, broadcast_id: str, spec: BroadcastSpec) -> None:
        """Whatever is changed on air, by a caller."""
        match self.point.path:
            case Path.CHANGED:
                spec.title = "Another title"
                spec.layout = "speaker"
                spec.destinations.append(_DESTINATION)
                mask = ("spec.title", "spec.layout", "spec.destinations")
                self._changed = True
            case Path.ON_DEMAND:
                spec.delivery_policy = DELIVERY_POLICY_ON_DEMAND
                mask = ("spec.delivery_policy",)
            case _:
                return
        await self._ask(lambda client: client.update(broadcast_id, mask=mask, spec=spec, request_id="update"))

    async def _pool_is_filled(self) -> bool:
        return bool(await self.verdict.idle())

    async def _cut_short(self) -> None:
        bringing = asyncio.create_task(self._bring_up())
        met = asyncio.create_task(self._met())
        await asyncio.wait({bringing, met}, return_when=asyncio.FIRST_COMPLETED)
        if not met.done():
            bringing.result()
            await asyncio.wait({met})
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
        await met

    async def _stop(self) -> None:
        """StopBroadcast is never refused."""
        await self._ask(lambda client: client.stop(self.broadcast_id, note="enough", request_id="stop"))

    async def _met(self) -> None:
        async with asyncio.timeout(_MET_WITHIN_S):
            try:
                await self.replicas.hit.wait()
            except TimeoutError:
                raise AssertionError(f"{self.point.id} was never met") from None

    # Asking.

    async def _ask(self, call: Callable[[BroadcastClient], Awaitable[_T]]) -> _T:
        """As a careful caller does: the same again, with the same request id, until there is an answer."""
        ends = time.monotonic() + WITHIN_S
        while True:
            assert time.monotonic() < ends, "nobody answers"
            self.replicas.check_running()
            client, after = self.replicas.client, self.replicas.hit.is_set()
            if client is None:
                await asyncio.sleep(0.02)
                continue
            attempt = asyncio.ensure_future(call(client))
            hit = asyncio.create_task(self.replicas.hit.wait())
            try:
                waits = {attempt} if after else {attempt, hit}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not attempt.done() and self.case.mode is Mode.RAISE:
                    await asyncio.wait({attempt})
                if attempt.done():
                    answer = attempt.result()
                    self._answered = self._answered or self.replicas.hit.is_set()
                    return answer
                self._repeated = True
            except _NOT_NOW:
                self._repeated = True
                await asyncio.sleep(0.05)
            except ServiceFault:
                # The exception that was asked for, in the midst of a call.
                assert self.case.mode is Mode.RAISE
                assert self.point.name.startswith("api.")
                assert not self._repeated
                self._repeated = True
            finally:
                for task in (attempt, hit):
                    task.cancel()
                await asyncio.gather(attempt, hit, return_exceptions=True)

    async def _get(self) -> Broadcast | None:
        """None: nobody answers now. Raises BroadcastNotFound."""
        client = self.replicas.client
        if client is None or not self.broadcast_id:
            return None
        try:
            return await client.get(self.broadcast_id, timeout=10)
        except _NOT_NOW:
            return None

    async def _in(self, *states: str) -> bool:
        broadcast = await self._get()
        return broadcast is not None and state_name(broadcast.status.state) in states

    # Judging.

    async def _steadily(self, check: Callable[[], Awaitable[bool]]) -> float:
        """Seconds from the crash to the moment from which on the check holds, which has to go on for a while after the
        crash is over.
        """
        ends = time.monotonic() + WITHIN_S
        since: float | None = None
        while True:
            told = ""
            self.replicas.check_running()
            try:
                holds = await check()
            except AssertionError as failure:
                holds, told = False, str(failure)
            now = time.monotonic()
            if not holds:
                since = None
            elif since is None:
                since = now
            settled_at = self.replicas.settled_at or now
            if since is not None and now - max(since, settled_at) >= HOLD_S:
                return since - self.replicas.hit_at
            assert now < ends, f"not within {WITHIN_S:g} s: {told or check.__name__}"
            await asyncio.sleep(0.05)

    async def _is_live(self) -> bool:
        await self.verdict.runs_once()
        if self.point.path in _FALLBACKS:
            await self.verdict.returned()
        broadcast = await self._get()
        assert broadcast is not None
        assert state_name(broadcast.status.state) == "LIVE", state_name(broadcast.status.state)
        if self._changed:
            assert broadcast.status.observed_generation == broadcast.generation == 2, "the change is not carried out"
            pushes = self.verdict.living("livekit", "destination.connected", "destination.disconnected")
            assert 1 <= pushes <= (1 + self._unfenced), f"{pushes} pushes to one destination"
            assert self.stack.livekit.effects.of("egress.layout"), "the layout was not set"
            assert self.stack.mux.effects.of("stream.updated"), "the title was not set"
        return True

    async def _is_over(self) -> bool:
        deleted = await self.verdict.is_gone()
        if self.point.path in _FALLBACKS:
            await self.verdict.returned()
        else:
            self.verdict.nothing_kept()
        self._over = True
        try:
            assert await self._in("ENDED")
        except BroadcastNotFound:
            assert deleted
        return True

    @property
    def _unfenced(self) -> bool:
        """LiveKit takes the same output twice, and no key of ours keeps out who comes late to add it."""
        return self.case.mode is Mode.STOP and self.point.name == "destinations.set.before_call"

    async def _check(self) -> None:
        self.replicas.check()
        await self.verdict.once()
        await self.verdict.charged()
        if self.watcher is not None:
            await self._check_watcher(self.watcher)

    async def _check_watcher(self, watcher: Watcher) -> None:
        """It was told everything, in order, once; and of nothing worse than that it should come again."""
        stored = await judge.read(self.database_url)
        await eventually(lambda: watcher.up_to >= stored.head)
        found = violations("the watcher", watcher.connections, stored.log)
        assert not found, "\n".join(found)
        hit = self.case.mode is Mode.RAISE and self.point.name.startswith("watch.")
        assert len(watcher.refused) == hit, watcher.refused

    async def _seen(self) -> tuple[str, ...]:
        reasons = await self.verdict.reasons()
        words = {
            "call repeated": self._repeated,
            "adopted": "EGRESS_ADOPTED" in reasons or "STREAM_ADOPTED" in reasons,
            "fenced": "KEY_RESET" in reasons,
            "written off": "EGRESS_WRITTEN_OFF" in reasons or "STREAM_WRITTEN_OFF" in reasons,
            "cut off": "STREAM_CUT" in reasons,
            "recorded": "RECORDING_STARTED" in reasons,
            "uploaded": "UPLOAD_CREATED" in reasons,
            "uploaded again": "UPLOAD_ERRORED" in reasons,
            "surplus removed": "EGRESS_SURPLUS" in reasons or "STREAM_SURPLUS" in reasons,
            "swept": self.replicas.logged("orphan_swept") > 0,
            "destination added twice": self._unfenced and len(self.stack.livekit.effects.of("egress.urls_added")) > 1,
            "zombie stood down": self.case.mode is Mode.STOP and self.replicas.logged("lease_lost") > 0,
        }
        return tuple(word for word, is_so in words.items() if is_so)

    async def _migrate(self) -> None:
        replicas = self.replicas
        replicas.hit_at = await migrate(self.case, self.pool, self.stack, replicas.directory)
        replicas.settled_at = time.monotonic()
        replicas.hit.set()
        replicas.settled.set()

    # When the zombie comes back.

    async def _remember(self) -> None:
        self._stood = time.time()
        self._lease = await self.pool.fetchrow("SELECT fence, coalesce(lease_until, now()) AS ends FROM broadcast")

    async def _taken_over(self) -> bool:
        """Somebody else has done, or is doing, what the one that stands still was about to do."""
        name = self.point.name
        if self.point.stage is Stage.CUT and not self._over:
            return False
        if name.startswith("api."):
            return self._answered
        if name.startswith(("sweep.", "observer.")):
            duty = "sweeper" if name.startswith("sweep.") else "observer"
            return await self.pool.fetchval("SELECT owner <> $1 FROM duty WHERE name = $2", A, duty)
        if name in ("webhook.before_verify", "webhook.before_commit", "webhook.after_commit"):
            return True
        if name.startswith("watch."):
            return self.watcher is not None and any(each.opened > self._stood for each in self.watcher.connections)
        assert self._lease is not None
        return await self.pool.fetchval(
            "SELECT fence > $1 AND now() > $2::timestamptz + interval '1 s' FROM broadcast",
            self._lease["fence"],
            self._lease["ends"],
        )
