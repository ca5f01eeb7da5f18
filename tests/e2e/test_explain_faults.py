"""Thirty and more faults, put one at a time into the whole: what ExplainBroadcast says first is what was done.

Each fault hits one broadcast of its own, so most run at the same time; an outage hits all, and comes after them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from livekit import api

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_LIVE,
    DELIVERY_POLICY_MANUAL,
    FALLBACK_MODE_LOCAL_RECORDING,
    BroadcastSpec,
    BroadcastState,
    Destination,
    FallbackPolicy,
)
from broadcast.v1.health_pb2 import CONNECTION_QUALITY_POOR, HostStats
from broadcast_client import BroadcastClient, BroadcastError, state_name
from broadcast_sandbox.faults import Fault, Kind
from service.store.database import Database
from tests.e2e.show import TAG, Show, webhook_replica
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, Stack, running_stack
from tests.waiting import eventually

WITHIN_S = 30.0
AT_ONCE = 16
BEGINNING = frozenset({"WAITING_FOR_HOST", "EGRESS_START_LOST", "EGRESS_START_STUCK", "UNEXPLAINED"})
"""May come first before any fault is to be seen: the waits are short here, and a start takes long on a busy machine.
UNEXPLAINED says that something is wrong and no cause was found yet."""
STAYS_S = 3.0
"""So long every answer must be right from the first on that is."""
STARTS_LIMIT = 2
"""Of the stack in which one failed egress is enough for a fallback."""
# Real seconds; the providers' time runs 40 times faster.
WAITS = {
    "BROADCAST_TIMING_EGRESS_START_S": "3",
    "BROADCAST_TIMING_INGEST_START_S": "6",
    "BROADCAST_TIMING_INGEST_LOST_S": "1",
    "BROADCAST_TIMING_CONNECT_S": "5.5",
    "BROADCAST_TIMING_GHOST_S": "0.5",
    # A room closes by itself a minute after them, of the providers' time.
    "BROADCAST_TIMING_HOST_WAIT_S": "6000",
    "BROADCAST_TIMING_HOST_RETURN_S": "3000",
    "DATABASE_POOL": "30",
}


@dataclass
class Bench:
    stack: Stack
    client: BroadcastClient
    livekit: api.LiveKitAPI
    database: Database
    holding: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])

    async def show(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        return await Show.create(self.stack, self.client, spec, broadcast_id=name)

    async def ready(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        show = await self.show(name, spec)
        await show.ready()
        return show

    async def live(self, name: str, spec: BroadcastSpec | None = None) -> Show:
        show = await self.show(name, spec)
        await show.live()
        return show

    def at_livekit(self, kind: Kind, operation: str, show: Show, **fields: Any) -> None:
        """For as long as it lasts, whatever is tried."""
        given: dict[str, Any] = {"times": -1, **fields}
        self.stack.livekit.add_fault(Fault(kind=kind, operation=operation, match=show.id, **given))

    def at_mux(self, kind: Kind, operation: str, show: Show, **fields: Any) -> None:
        given: dict[str, Any] = {"times": -1, **fields}
        self.stack.mux.add_fault(Fault(kind=kind, operation=operation, match=f"{TAG}{show.id}:", **given))

    async def mux(self, method: str, show: Show, path: str = "") -> None:
        """What somebody does in Mux's dashboard."""
        stream_id = (await show.get()).status.provider_ids.mux_live_stream_id
        url = f"{self.stack.mux.base_url}/video/v1/live-streams/{stream_id}{path}"
        headers = {"Authorization": aiohttp.encode_basic_auth("token", MUX_SECRET)}
        async with self.stack.http.request(method, url, headers=headers) as answer:
            assert answer.status < 300, await answer.text()


Inject = Callable[[Bench, str], Awaitable[Show]]


@dataclass(frozen=True, slots=True)
class Named:
    codes: tuple[str, ...]
    """The first causes, in this order."""
    inject: Inject
    before: frozenset[str] = frozenset()
    """Other causes that may come first until then: they are true, and what follows is not to be seen yet."""
    alone: bool = False
    """It hits every broadcast there is."""
    slow: bool = False
    in_fallback: bool = False
    """Put in where one failed egress is enough for a fallback."""


FAULTS: dict[str, Named] = {}


def fault(
    *codes: str, before: Sequence[str] = (), alone: bool = False, slow: bool = False, in_fallback: bool = False
) -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        named = Named(codes, inject, frozenset(before), alone, slow, in_fallback)
        FAULTS[inject.__name__.replace("_", "-")] = named
        return inject

    return add


# The host, and what callers want.


@fault("WAITING_FOR_HOST")
async def no_host_yet(bench: Bench, name: str) -> Show:
    return await bench.ready(name)


@fault("HOST_LEFT")
async def host_leaves(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("leave", room=name, identity="ann")
    return show


@fault("HOST_LEFT")
async def host_stops_publishing(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("unpublish", room=name, identity="ann", sources=["camera", "microphone"])
    return show


@fault("HOST_MUTED")
async def camera_muted(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.control("mute", room=name, identity="ann", source="camera", muted=True)
    return show


@fault("NO_VIDEO")
async def no_camera(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    await bench.stack.host_joins(name, publish=("microphone",))
    await show.until("LIVE")
    return show


@fault("HOST_UPLINK_POOR")
async def bad_uplink(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    stats = HostStats(connection_quality=CONNECTION_QUALITY_POOR, packet_loss_ratio=0.3)
    await bench.client.report_host_stats(name, "ann", stats)
    return show


@fault("NOT_ON_AIR")
async def never_put_on_air(bench: Bench, name: str) -> Show:
    show = await bench.ready(name, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
    await bench.stack.host_joins(name)
    return show


@fault("NOT_ON_AIR")
async def taken_off_air(bench: Bench, name: str) -> Show:
    show = await bench.show(name, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
    await bench.client.set_on_air(name, True)
    await show.live()
    await bench.client.set_on_air(name, False)
    return show


@fault("STOPPED_BY_CALLER")
async def stopped(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await show.ended()
    return show


@fault("TEST_LIMIT", slow=True)
async def cut_as_a_test(bench: Bench, name: str) -> Show:
    show = await bench.live(name, BroadcastSpec(test=True))
    await show.until("ENDED", within=WITHIN_S)
    return show


# Somebody else's hand.


@fault("ROOM_LOST")
async def room_deleted(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.livekit.room.delete_room(api.DeleteRoomRequest(room=name))
    return show


@fault("STREAM_DISABLED_OUTSIDE")
async def stream_disabled(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.mux("PUT", show, "/disable")
    return show


@fault("STREAM_DELETED_OUTSIDE", before=["PLAYBACK_UNREACHABLE", "RTMP_LOST"])
async def stream_deleted(bench: Bench, name: str) -> Show:
    """That it is not found is believed at a second look."""
    show = await bench.live(name)
    await bench.mux("DELETE", show)
    return show


@fault("KEY_RESET_OUTSIDE")
async def key_reset(bench: Bench, name: str) -> Show:
    """And the next one cannot start, so that there is time to ask."""
    show = await bench.live(name)
    bench.at_livekit("egress_stuck", "egress", show)
    await bench.mux("POST", show, "/reset-stream-key")
    bench.at_livekit("rtmp_drop", "publish", show, times=1)
    return show


# The egress.


@fault("EGRESS_REFUSED")
async def egress_refused(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("error", "StartRoomCompositeEgress", show, status=400)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_QUOTA")
async def too_many_egresses(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("error", "StartRoomCompositeEgress", show, status=429)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_NO_WORKER")
async def no_worker(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("worker_loss", "StartRoomCompositeEgress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_START_LOST")
async def start_not_answered(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("reset", "StartRoomCompositeEgress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_START_STUCK")
async def start_stuck(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("egress_stuck", "egress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_ABORTED")
async def egress_aborts(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("egress_abort", "egress", show)
    await bench.stack.host_joins(name)
    return show


@fault("EGRESS_FAILED")
async def egress_fails(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_fail", "egress", show)
    return show


@fault("EGRESS_ENDED_UNASKED")
async def worker_shut_down(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_complete", "egress", show, message="CPU exhausted")
    return show


@fault("EGRESS_LIMIT_REACHED")
async def session_limit(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_limit", "egress", show)
    return show


@fault("EGRESS_GHOST", before=["INGEST_STALLED"], slow=True)
async def worker_dies(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("egress_ghost", "egress", show)
    return show


async def _recorded_beside(bench: Bench, name: str) -> tuple[Show, str, str]:
    """On the way back from a fallback: LIVE, and recorded to a file still. With the ids of both egresses."""
    policy = FallbackPolicy(modes=[FALLBACK_MODE_LOCAL_RECORDING])
    show = await bench.ready(name, BroadcastSpec(fallback_policy=policy))
    bench.at_livekit("rtmp_refuse", "publish", show, times=1)
    await bench.stack.host_joins(name)
    await show.until_told("RECORDING_STARTED")
    live = await show.until("LIVE")
    [file_id] = [each.id for each in show.effects("egress.started") if "file" in each.detail]
    egress_id = live.status.provider_ids.livekit_egress_id
    await eventually(
        lambda: {egress_id, file_id} <= {each.id for each in show.effects("egress.active")}, within=WITHIN_S
    )
    return show, egress_id, file_id


def _kill(bench: Bench, egress_id: str) -> None:
    bench.stack.livekit.add_fault(Fault(kind="egress_ghost", operation="egress", match=egress_id))


@fault("EGRESS_GHOST", before=["FALLBACK_ACTIVE", "INGEST_STALLED"], in_fallback=True)
async def worker_dies_beside_a_recording(bench: Bench, name: str) -> Show:
    show, egress_id, _ = await _recorded_beside(bench, name)
    _kill(bench, egress_id)
    return show


@fault("LOCAL_RECORDING_LOST", before=["FALLBACK_ACTIVE"], in_fallback=True)
async def worker_of_a_recording_dies(bench: Bench, name: str) -> Show:
    show, _, file_id = await _recorded_beside(bench, name)
    _kill(bench, file_id)
    return show


@fault("RTMP_REFUSED")
async def encoder_refused(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_refuse", "publish", show)
    await bench.stack.host_joins(name)
    return show


@fault("RTMP_LOST")
async def connection_breaks(bench: Bench, name: str) -> Show:
    """And the next one cannot start, so that there is time to ask."""
    show = await bench.live(name)
    egress_id = (await show.get()).status.provider_ids.livekit_egress_id
    bench.at_livekit("egress_stuck", "egress", show)
    bench.stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match=egress_id, times=-1))
    bench.at_livekit("rtmp_drop", "publish", show, times=1)
    return show


@fault("RTMP_NOT_CONNECTED")
async def connection_hangs(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_livekit("rtmp_hang", "publish", show)
    await bench.stack.host_joins(name)
    return show


@fault("NO_MEDIA", slow=True)
async def connected_without_media(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_no_media", "publish", show)
    await bench.stack.host_joins(name)
    return show


@fault("INGEST_STALLED", slow=True)
async def rtmp_wedge(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_livekit("rtmp_wedge", "publish", show)
    return show


@fault("PLAYLIST_STALLED", slow=True)
async def playlist_stands_still(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_mux("hls_stall", "playback", show)
    return show


@fault("DESTINATION_FAILED")
async def destination_refuses(bench: Bench, name: str) -> Show:
    place = Destination(name="one", url="rtmps://93.184.216.34:443/app", stream_key="key-of-the-destination")
    show = await bench.show(name, BroadcastSpec(destinations=[place]))
    bench.stack.livekit.add_fault(Fault(kind="rtmp_refuse", operation="publish", match="93.184.216.34:443", times=-1))
    await show.live()
    return show


@fault("FALLBACK_ACTIVE", in_fallback=True)
async def on_the_way_back(bench: Bench, name: str) -> Show:
    """It plays again, and viewers are still served by the fallback."""
    show = await bench.ready(name)
    bench.at_livekit("rtmp_refuse", "publish", show, times=1)
    await bench.stack.host_joins(name)
    await show.until_told("FALLBACK_ENTERED")
    await show.until("LIVE")
    return show


@fault("START_LIMIT", in_fallback=True)
async def started_too_often(bench: Bench, name: str) -> Show:
    """None of them failed: they were not wanted any more."""
    show = await bench.show(name, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
    await bench.client.set_on_air(name, True)
    await show.live()
    for n in range(1, STARTS_LIMIT):
        await bench.client.set_on_air(name, False)
        await show.until_effect("egress.ended", n)
        await bench.client.set_on_air(name, True)
        await show.until_told("EGRESS_STARTED", n + 1)
        await show.until("LIVE")
    await bench.client.set_on_air(name, False)
    await show.until_effect("egress.ended", STARTS_LIMIT)
    await bench.client.set_on_air(name, True)
    return show


@fault("STOPPED_BY_CALLER", "RECORDING_ERRORED", slow=True)
async def recording_without_content(bench: Bench, name: str) -> Show:
    show = await bench.ready(name)
    bench.at_mux("rtmp_no_media", "publish", show)
    await bench.stack.host_joins(name)
    await show.until_told("EGRESS_CONNECTED")
    await show.ended()
    return show


# The providers' APIs.


@fault("LIVEKIT_CREDENTIALS")
async def livekit_key_revoked(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("error", "CreateRoom", show, status=401)
    await bench.client.start(name)
    return show


@fault("LIVEKIT_THROTTLED")
async def livekit_throttles(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("error", "CreateRoom", show, status=429)
    await bench.client.start(name)
    return show


@fault("LIVEKIT_UNREACHABLE")
async def livekit_breaks_off(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_livekit("reset", "CreateRoom", show)
    await bench.client.start(name)
    return show


@fault("MUX_CREDENTIALS")
async def mux_token_revoked(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=401)
    await bench.client.start(name)
    return show


@fault("MUX_THROTTLED")
async def mux_throttles(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=429)
    await bench.client.start(name)
    return show


@fault("MUX_REFUSED")
async def mux_refuses(bench: Bench, name: str) -> Show:
    show = await bench.show(name)
    bench.at_mux("error", "create_live_stream", show, status=400, message="is not possible")
    await bench.client.start(name)
    return show


@fault("STOPPED_BY_CALLER", "TAKE_DOWN_BLOCKED")
async def mux_fails_at_the_end(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_mux("error", "delete_live_stream", show, status=500)
    await bench.client.stop(name)
    return show


@fault("TAKE_DOWN_BLOCKED", before=["STOPPED_BY_CALLER"])
async def both_fail_at_the_end(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    bench.at_mux("error", "disable_live_stream", show, status=500)
    bench.at_livekit("error", "StopEgress", show, status=500)
    await bench.client.stop(name)
    return show


# What hits all.


@fault("MUX_UNREACHABLE", alone=True)
async def mux_is_away(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.mux.frontend.begin("error")
    return show


@fault("LIVEKIT_UNREACHABLE", alone=True)
async def livekit_is_away(bench: Bench, name: str) -> Show:
    show = await bench.live(name)
    await bench.stack.livekit.frontend.begin("error")
    return show


@fault("SERVICE_BEHIND", alone=True)
async def nobody_takes_it_up(bench: Bench, name: str) -> Show:
    """Somebody's session holds the row: who claims skips it."""
    show = await bench.live(name)
    async with bench.database.connection() as connection:
        await connection.execute("UPDATE broadcast SET due_at = now() + interval '2 s' WHERE id = $1", name)
    bench.holding.append(asyncio.create_task(_hold(bench, name)))
    return show


async def _hold(bench: Bench, name: str) -> None:
    async with bench.database.transaction() as connection:
        await connection.execute("SELECT FROM broadcast WHERE id = $1 FOR UPDATE", name)
        while True:
            # What is idle in a transaction is ended after a while.
            await connection.execute("SELECT pg_sleep(1)")


@dataclass(frozen=True, slots=True)
class Asked:
    name: str
    wanted: str
    took_s: float
    wrong: str = ""
    """What was answered, and the story."""


async def ask(bench: Bench, name: str, named: Named) -> Asked:
    """Put the fault in, and ask until it was noticed, and on: the answer must stay right. Nothing else may be named
    first before, but what was so and is no more than the beginning of it.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    wanted = ", ".join(named.codes)
    answers: list[tuple[str, ...]] = []
    states: list[BroadcastState.ValueType] = []
    try:
        show = await named.inject(bench, name)
    except AssertionError as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        return Asked(name, wanted, loop.time() - began, f"{name} was not put in: {error}\n{notes}")

    async def right() -> bool:
        explanation = await bench.client.explain(show.id)
        assert "key-of-the-destination" not in str(explanation)
        states.append(explanation.state)
        answers.append(tuple(cause.code for cause in explanation.causes))
        return answers[-1][: len(named.codes)] == named.codes

    wrong = ""
    try:
        await eventually(right, within=WITHIN_S, every=0.1)
    except AssertionError:
        wrong = "was never right"
    took_s = loop.time() - began
    if early := {codes[0] for codes in answers[:-1] if codes} - named.before - BEGINNING - {*named.codes}:
        wrong = wrong or f"was {early} before"
    until, dark = loop.time() + STAYS_S, states[-1] != BROADCAST_STATE_LIVE
    while not wrong and loop.time() < until:
        await asyncio.sleep(0.1)
        if await right():
            continue
        if dark and states[-1] == BROADCAST_STATE_LIVE:
            # It plays again.
            break
        wrong = "did not stay so"
    if wrong:
        state = state_name((await show.get()).status.state)
        told = [codes for n, codes in enumerate(answers) if n == 0 or answers[n - 1] != codes]
        wrong = "\n".join([f"{name} {wrong}: {wanted}; {state} {told}", *(await show.story())[-60:]])
    return Asked(name, wanted, took_s, wrong)


@contextlib.asynccontextmanager
async def set_up(database_url: str, **waits: str) -> AsyncGenerator[Bench]:
    async with contextlib.AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(running_stack(database_url, **cast("Any", WAITS | waits)))
        replica = await webhook_replica(stack)
        database = await Database.connect(database_url, size=3)
        cleanup.push_async_callback(database.close)
        livekit = await cleanup.enter_async_context(
            api.LiveKitAPI(stack.livekit.base_url, api_key="sandbox", api_secret=LIVEKIT_SECRET)
        )
        bench = Bench(stack, await stack.client(replica.target), livekit, database)
        yield bench
        for task in bench.holding:
            task.cancel()
        await asyncio.gather(*bench.holding, return_exceptions=True)


async def _asked(bench: Bench, faults: dict[str, Named]) -> list[Asked]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, named: Named) -> Asked:
        async with places:
            asked = await ask(bench, name, named)
            # What keeps failing keeps two cores busy.
            with contextlib.suppress(BroadcastError):
                await bench.client.stop(name)
            return asked

    # Those that take their time go first.
    slow_first = sorted(faults.items(), key=lambda item: not item[1].slow)
    asked = list(await asyncio.gather(*(one(name, named) for name, named in slow_first if not named.alone)))
    for name, named in faults.items():
        if named.alone:
            asked.append(await ask(bench, name, named))
            for simulator in (bench.stack.livekit, bench.stack.mux):
                await simulator.frontend.end()
    return asked


def _check(asked: list[Asked]) -> None:
    for each in sorted(asked, key=lambda each: each.took_s):
        print(f"{each.name:<32} {each.wanted:<36} {'wrong' if each.wrong else 'right'} {each.took_s:5.1f} s")
    wrong = [each.wrong for each in asked if each.wrong]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.timeout(400)
async def test_the_true_cause_comes_first(database_url: str) -> None:
    assert len(FAULTS) >= 30
    async with set_up(database_url) as bench:
        _check(await _asked(bench, {name: named for name, named in FAULTS.items() if not named.in_fallback}))


@pytest.mark.timeout(120)
async def test_the_true_cause_comes_first_in_a_fallback(database_url: str) -> None:
    waits = {
        "BROADCAST_TIMING_FALLBACK_FAULTS": "1",
        "BROADCAST_TIMING_STARTS_LIMIT": str(STARTS_LIMIT),
        "BROADCAST_TIMING_STARTS_SPENT": str(STARTS_LIMIT),
        "BROADCAST_TIMING_GHOST_STOP_S": "1",
    }
    async with set_up(database_url, **waits) as bench:
        _check(await _asked(bench, {name: named for name, named in FAULTS.items() if named.in_fallback}))
        await eventually(lambda: _ghost_is_told(bench, "worker-dies-beside-a-recording"), within=WITHIN_S)


async def _ghost_is_told(bench: Bench, name: str) -> bool:
    events = [event async for event in bench.client.events_all(name)]
    started = [event.message for event in events if event.reason == "EGRESS_STARTED"]
    [written_off] = [event.message for event in events if event.reason == "EGRESS_WRITTEN_OFF"]
    return written_off.startswith(f"{started[-1]} GHOST: ")
