"""One case: a broadcast is brought up and taken down, the service is broken at one point on the way, and in the end
there is exactly what is wanted. Judged by what the simulators did and by the rows, not by what the service says alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path as Directory
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from broadcast.v1.broadcast_pb2 import (
    DELIVERY_POLICY_MANUAL,
    RECORDING_POLICY_DISCARD,
    BroadcastSpec,
    Destination,
)
from broadcast_client import (
    BroadcastNotFound,
    CallCancelled,
    DeadlineExceeded,
    ServiceFault,
    Unavailable,
    state_name,
)
from service.sandbox.faults import Fault
from tests.crash.points import Armed, Case, Mode, Path, Stage
from tests.crash.replicas import A, Replicas
from tests.stack import running_stack
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.broadcast_pb2 import Broadcast
    from broadcast_client import BroadcastClient
    from tests.stack import Stack

_T = TypeVar("_T")

WITHIN_S = 60.0
"""From the crash to exactly what is wanted."""
HOLD_S = 0.7
"""For so long it has to stay as it is: half a minute of the providers' time, and a round of the sweeper."""
_MET_WITHIN_S = 40.0
_NOT_NOW = (Unavailable, DeadlineExceeded, CallCancelled)

_ENVIRONMENT = {
    "BROADCAST_LEASE_S": "2.5",
    "BROADCAST_TIMING_STREAM_GRACE_S": "1.5",
    "BROADCAST_TIMING_EGRESS_GRACE_S": "2",
    "BROADCAST_TIMING_DELETE_RETRY_S": "1",
    "BROADCAST_SWEEP_S": "0.4",
    "BROADCAST_SWEEP_GRACE_S": "1",
}
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
    environment = dict(_ENVIRONMENT)
    if case.point.path is Path.NO_HOST:
        environment["BROADCAST_TIMING_HOST_WAIT_S"] = "0.5"
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool,
        # An encoder that drains for long: who starts another one beside it is seen.
        running_stack(
            database_url, scale=scale, webhooks=case.point.webhooks, livekit={"egress_stop_s": 20.0}
        ) as stack,
    ):
        scenario = Scenario(case, stack, pool, environment, directory)
        play = asyncio.create_task(scenario.play())
        watch = asyncio.create_task(scenario.replicas.watch())
        try:
            done, _ = await asyncio.wait({play, watch}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            return play.result()
        except AssertionError as failure:
            failure.add_note("\n".join(await scenario.story()))
            raise
        finally:
            play.cancel()
            watch.cancel()
            await asyncio.gather(play, watch, return_exceptions=True)


class Scenario:
    def __init__(
        self,
        case: Case,
        stack: Stack,
        pool: asyncpg.Pool[asyncpg.Record],
        environment: dict[str, str],
        directory: Directory,
    ) -> None:
        self.case = case
        self.point = case.point
        self.stack = stack
        self.pool = pool
        self.replicas = Replicas(stack, directory, case.point, case.mode, environment, self._remember, self._taken_over)
        self.broadcast_id = ""
        self._answered = False
        """A call that met the crash, or came after it, has its answer."""
        self._repeated = False
        self._changed = False
        self._over = False
        self._lease: asyncpg.Record | None = None

    async def play(self) -> Outcome:
        point, replicas = self.point, self.replicas
        self._break_providers()
        await replicas.begin(armed=point.armed is Armed.START)
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
            case _:
                pass

    async def _bring_up(self) -> None:
        path = self.point.path
        spec = BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD)
        if path is Path.MANUAL:
            spec.delivery_policy = DELIVERY_POLICY_MANUAL
        # Without an id of ours: a repeated create would make a second broadcast, were it not for the request id.
        created = await self._ask(lambda client: client.create(spec, title="A show", request_id="create"))
        self.broadcast_id = created.id
        wait = 0.0 if self.point.stage is Stage.CUT else 5.0
        await self._ask(lambda client: client.start(created.id, wait=wait, host_identity="ann", request_id="start"))
        await eventually(lambda: self._in("READY", "STOPPING", "ENDED"), within=WITHIN_S, every=0.05)
        if path is Path.NO_HOST:
            return
        if self.point.armed is Armed.HOST:
            await self.replicas.arm()
        await self.stack.host_joins(created.id)
        if path is Path.MANUAL:
            await self._ask(lambda client: client.set_on_air(created.id, True, request_id="on-air"))
        if path in (Path.CHANGED, Path.FAILED_EGRESS) or self.point.stage is Stage.DOWN:
            await eventually(self._is_live, within=WITHIN_S, every=0.05)
        if path is Path.CHANGED:
            spec.layout = "speaker"
            spec.destinations.append(_DESTINATION)
            mask = ("spec.layout", "spec.destinations")
            self._changed = True
            await self._ask(lambda client: client.update(created.id, mask=mask, spec=spec, request_id="update"))
        if path is Path.FAILED_EGRESS:
            [egress_id] = self._egresses()
            await self.stack.control("egress", egress_id=egress_id, end="failed")

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
            return await client.get(self.broadcast_id, timeout=3)
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
        assert not self.stack.doubles()
        rooms, streams, egresses = self._rooms(), self._streams(), self._egresses()
        assert (len(rooms), len(streams), len(egresses)) == (1, 1, 1), (rooms, streams, egresses)
        assert self._living("mux", "ingest.connected", "ingest.disconnected") == 1
        present = await self._present()
        assert present == {("room", *rooms), ("stream", *streams), ("egress", *egresses)}, present
        broadcast = await self._get()
        assert broadcast is not None
        assert state_name(broadcast.status.state) == "LIVE", state_name(broadcast.status.state)
        if self._changed:
            assert broadcast.status.observed_generation == broadcast.generation == 2, "the change is not carried out"
            pushes = self._living("livekit", "destination.connected", "destination.disconnected")
            assert 1 <= pushes <= (1 + self._unfenced), f"{pushes} pushes to one destination"
            assert self.stack.livekit.effects.of("egress.layout"), "the layout was not set"
        return True

    async def _is_over(self) -> bool:
        assert not self.stack.doubles()
        left = (self._rooms(), self._streams(), self._egresses())
        assert left == (set(), set(), set()), left
        assert self._living("mux", "ingest.connected", "ingest.disconnected") == 0
        assert self._living("livekit", "destination.connected", "destination.disconnected") == 0
        assert self._living("mux", "asset.created", "asset.deleted") == 0, "a recording that was to be discarded"
        row = await self.pool.fetchrow("SELECT state, deleted, lease_until, lease_owner, due_at FROM broadcast")
        assert row is not None
        assert row["state"] == "ENDED", row["state"]
        self._over = True
        assert (row["lease_until"], row["lease_owner"], row["due_at"]) == (None, None, None), row
        assert await self.pool.fetchval("SELECT count(*) FROM resource WHERE phase <> 'gone'") == 0
        try:
            assert await self._in("ENDED")
        except BroadcastNotFound:
            assert row["deleted"]
        return True

    @property
    def _unfenced(self) -> bool:
        """LiveKit takes the same output twice, and no key of ours keeps out who comes late to add it."""
        return self.case.mode is Mode.STOP and self.point.name == "destinations.set.before_call"

    def _rooms(self) -> set[str]:
        effects = self.stack.livekit.effects
        return {each.id for each in effects.of("room.created")} - {each.id for each in effects.of("room.deleted")}

    def _streams(self) -> set[str]:
        effects = self.stack.mux.effects
        return {each.id for each in effects.of("stream.created")} - {each.id for each in effects.of("stream.deleted")}

    def _egresses(self) -> set[str]:
        effects = self.stack.livekit.effects
        return {each.id for each in effects.of("egress.started")} - {each.id for each in effects.of("egress.ended")}

    def _living(self, provider: str, born: str, died: str) -> int:
        effects = self.stack.mux.effects if provider == "mux" else self.stack.livekit.effects
        return len(effects.of(born)) - len(effects.of(died))

    async def _present(self) -> set[tuple[str, str]]:
        rows = await self.pool.fetch("SELECT kind, external_id FROM resource WHERE phase = 'present'")
        return {(row["kind"], row["external_id"]) for row in rows}

    async def story(self) -> list[str]:
        rows = await self.pool.fetch("SELECT time, reason, message, actor, state FROM event ORDER BY revision")
        told = [f"{row['time']:%M:%S.%f} {row['state']:<9} {row['reason']} {row['message']}" for row in rows]
        now = await self.pool.fetch("SELECT kind, ordinal, phase, external_id, detail FROM resource ORDER BY 1, 2")
        done = [f"{each.provider} {each.kind} {each.id} {each.detail}" for each in self.stack.effects()]
        return [*told, *map(str, now), *done]

    async def _reasons(self) -> list[str]:
        return [row["reason"] for row in await self.pool.fetch("SELECT reason FROM event ORDER BY revision")]

    async def _check(self) -> None:
        """What has to be true of the whole story."""
        self.replicas.check()
        assert not self.stack.doubles()
        assert await self.pool.fetchval("SELECT count(*) FROM broadcast") == 1
        reasons = await self._reasons()
        once = {"CREATED", "START_REQUESTED", "STATE_STARTING", "STOP_REQUESTED", "ON_AIR_REQUESTED", "UPDATED"}
        once |= {"DELETED", "STATE_ENDED", "ENDING"}
        twice = {reason for reason in once if reasons.count(reason) > 1}
        assert not twice, f"applied twice: {twice}"
        assert reasons.count("STATE_ENDED") == 1
        ended = await self.pool.fetchval("SELECT extract(epoch FROM end_time)::float8 FROM broadcast")
        late = [each for each in self.stack.mux.effects.of("ingest.connected") if each.time > ended]
        assert not late, f"published after the end: {late}"

    async def _seen(self) -> tuple[str, ...]:
        reasons = await self._reasons()
        words = {
            "call repeated": self._repeated,
            "adopted": "EGRESS_ADOPTED" in reasons or "STREAM_ADOPTED" in reasons,
            "fenced": "KEY_RESET" in reasons,
            "written off": "EGRESS_WRITTEN_OFF" in reasons or "STREAM_WRITTEN_OFF" in reasons,
            "surplus removed": "EGRESS_SURPLUS" in reasons or "STREAM_SURPLUS" in reasons,
            "swept": self.replicas.logged("orphan_swept") > 0,
            "destination added twice": self._unfenced and len(self.stack.livekit.effects.of("egress.urls_added")) > 1,
            "zombie stood down": self.case.mode is Mode.STOP and self.replicas.logged("lease_lost") > 0,
        }
        return tuple(word for word, is_so in words.items() if is_so)

    # When the zombie comes back.

    async def _remember(self) -> None:
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
        if name.startswith("webhook."):
            return True
        assert self._lease is not None
        return await self.pool.fetchval(
            "SELECT fence > $1 AND now() > $2::timestamptz + interval '1 s' FROM broadcast",
            self._lease["fence"],
            self._lease["ends"],
        )
