"""Everything at the wrong moment: stops in the midst of starts, a hundred callers at once, things that get lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
import asyncpg
import pytest
from livekit import api
from structlog.typing import EventDict

from broadcast.v1.broadcast_pb2 import (
    DELIVERY_POLICY_MANUAL,
    DESTINATION_STATE_ACTIVE,
    BroadcastSpec,
    Destination,
)
from broadcast_client import (
    BroadcastClient,
    BroadcastError,
    BroadcastNotFound,
    FieldImmutable,
    RequestIdReused,
    StateForbids,
    state_name,
)
from broadcast_sandbox.effects import Effect
from broadcast_sandbox.faults import Fault, Kind
from tests.e2e.show import Referee, Show, watching, webhook_replica
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, Stack, running_stack
from tests.waiting import eventually

OTHER = "rtmps://93.184.215.14:443/app"
# How long a call of the kind takes in which the stop falls.
CALL_S = 0.3
FACTS = (
    "room.created",
    "stream.created",
    "track.published",
    "egress.started",
    "egress.active",
    "ingest.connected",
    "stream.active",
)
CALLS = ("CreateRoom", "create_live_stream", "StartRoomCompositeEgress", "ListEgress", "get_live_stream")


async def replicas(stack: Stack, count: int = 2, **overrides: str) -> list[BroadcastClient]:
    """Clients of so many replicas; the first gets the webhooks."""
    made = [await webhook_replica(stack, **overrides)]
    made += [await stack.replica(**overrides) for _ in range(count - 1)]
    return [await stack.client(each.target) for each in made]


async def mux(stack: Stack, verb: str, path: str) -> None:
    """Somebody else at Mux's API."""
    url = f"{stack.mux.base_url}/video/v1/live-streams/{path}"
    headers = {"Authorization": aiohttp.encode_basic_auth("token", MUX_SECRET)}
    async with stack.http.request(verb, url, headers=headers) as answer:
        assert answer.status < 300, await answer.text()


class Bell:
    """Rings at the first effect of a kind, and not a poll later."""

    def __init__(self, stack: Stack, show: Show, kind: str) -> None:
        self._show = show
        self._kind = kind
        self._rung = asyncio.Event()
        stack.livekit.effects.subscribe(self._hear)
        stack.mux.effects.subscribe(self._hear)

    def _hear(self, effect: Effect) -> None:
        if effect.kind == self._kind and self._show.effects(self._kind):
            self._rung.set()

    async def rung(self) -> None:
        await asyncio.wait_for(self._rung.wait(), 40)


@contextlib.asynccontextmanager
async def starting(show: Show) -> AsyncGenerator[None]:
    """Is being started meanwhile, with a host who comes as soon as there is a room."""

    async def start() -> None:
        await show.client.start(show.id)
        await show.until_effect("room.created")
        await show.stack.host_joins(show.id)

    task = asyncio.create_task(start())
    yield
    # It may be over before there is a room.
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def stopped_over(show: Show) -> None:
    ended = await show.ended()
    assert ended.status.state_reason == "STOPPED"
    made = Counter(each.kind for each in show.effects("room.created", "stream.created", "egress.started"))
    assert not {kind: count for kind, count in made.items() if count > 1}


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no webhooks"])
async def test_a_stop_at_any_moment_of_the_start(database_url: str, *, webhooks: bool) -> None:
    async with running_stack(database_url, webhooks=webhooks) as stack:
        clients = await replicas(stack)
        referee = Referee(stack)

        async def at(fact: str) -> None:
            show = await Show.create(stack, clients[0])
            bell = Bell(stack, show, fact)
            async with starting(show):
                await bell.rung()
                show.client = clients[1]
                await stopped_over(show)

        async def within(call: str) -> None:
            show = await Show.create(stack, clients[0])
            fault = Fault(kind="latency", operation=call, match=show.id, delay_s=CALL_S)
            (stack.mux if call.islower() else stack.livekit).faults.add(fault)
            async with starting(show):
                await eventually(lambda: fault.times == 0, every=0.005)
                show.client = clients[1]
                await stopped_over(show)

        async def at_once(clients: list[BroadcastClient]) -> None:
            show = await Show.create(stack, clients[0])
            await show.client.start(show.id)
            show.client = clients[-1]
            await stopped_over(show)

        async with asyncio.TaskGroup() as tasks:
            for fact in FACTS:
                tasks.create_task(at(fact))
            for call in CALLS:
                tasks.create_task(within(call))
            for _ in range(3):
                tasks.create_task(at_once(clients))
                tasks.create_task(at_once(clients[:1]))
        referee.check()
        assert not +stack.census()


async def test_a_stop_between_the_plan_and_the_call(database_url: str) -> None:
    """A pass has planned to create and waits for its token: what the caller wants changes under it."""
    async with running_stack(database_url) as stack:
        clients = await replicas(stack)
        # From the first on there is a row of the budget to hold.
        first = await Show.create(stack, clients[0])
        await first.ready()
        show = await Show.create(stack, clients[0])
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM budget WHERE name = 'mux.post' FOR UPDATE")
                await show.client.start(show.id)

                async def held() -> bool:
                    await connection.execute("SELECT pg_stat_clear_snapshot()")
                    return await connection.fetchval(
                        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'budget'"
                    )

                await eventually(held)
                await clients[1].stop(show.id)
        finally:
            await connection.close()
        await show.over()
        assert show.count("stream.created") == 0, "made after the stop"
        await first.ended()


async def test_what_a_state_forbids(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        created = await Show.create(stack, client)
        ended = await client.stop(created.id)
        assert state_name(ended.status.state) == "ENDED"
        assert created.effects() == []
        with pytest.raises(StateForbids):
            await client.start(created.id)
        assert state_name((await client.stop(created.id)).status.state) == "ENDED"
        await client.delete(created.id)
        for call in (client.get, client.start, client.stop):
            with pytest.raises(BroadcastNotFound):
                await call(created.id)

        show = await Show.create(stack, client)
        with pytest.raises(StateForbids):
            await client.issue_host_access(show.id, "ann")
        await show.live()
        with pytest.raises(StateForbids) as refused:
            await client.delete(show.id)
        assert refused.value.metadata == {"broadcast_id": show.id, "state": "LIVE", "method": "DeleteBroadcast"}
        with pytest.raises(StateForbids):
            await client.set_on_air(show.id, True)
        with pytest.raises(FieldImmutable):
            await client.update(show.id, mask=["spec.audio_only"], spec=BroadcastSpec(audio_only=True))
        assert await show.state() == "LIVE"
        assert state_name((await client.start(show.id)).broadcast.status.state) == "LIVE"

        stops = await asyncio.gather(*(client.stop(show.id, note=str(n), wait=20) for n in range(10)))
        assert {state_name(each.status.state) for each in stops} == {"ENDED"}
        assert (await show.reasons()).count("STOP_REQUESTED") == 1
        for call in (client.start(show.id), client.issue_host_access(show.id, "ann")):
            with pytest.raises(StateForbids):
                await call
        await show.until_effect("stream.deleted")
        show.assert_once()


async def test_a_delete_has_to_wait_for_the_end(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        show = await Show.create(stack, client)
        await show.live()
        await client.stop(show.id)
        states: list[str] = []

        async def gone() -> bool:
            try:
                await client.delete(show.id)
            except StateForbids as error:
                states.append(error.metadata["state"])
                return False
            return True

        await eventually(gone)
        assert set(states) == {"STOPPING"}
        assert show.running() == []
        with pytest.raises(BroadcastNotFound):
            await show.get()
        # The row deletes it when the last viewer has seen the end, although callers do not see the row any more.
        await show.until_effect("stream.deleted")
        assert show.left() == []


async def test_a_hundred_identical_calls_are_one(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        clients = await replicas(stack)
        creates = await asyncio.gather(
            *(clients[n % 2].create(title="A show", request_id="create-1") for n in range(100))
        )
        [broadcast_id] = {each.id for each in creates}
        with pytest.raises(RequestIdReused):
            await clients[0].create(title="Another show", request_id="create-1")
        show = Show(stack, clients[0], broadcast_id)
        starts = await asyncio.gather(
            *(clients[n % 2].start(show.id, request_id="start-1" if n < 100 else f"start-{n}") for n in range(200))
        )
        assert {each.broadcast.id for each in starts} == {show.id}
        await show.live()
        assert (await show.reasons()).count("START_REQUESTED") == 1
        await asyncio.gather(*(clients[n % 2].stop(show.id, request_id=f"stop-{n % 7}") for n in range(100)))
        await show.over()
        assert (await show.reasons()).count("STOP_REQUESTED") == 1
        show.assert_once()
        listed = await clients[1].list()
        assert [each.id for each in listed.broadcasts] == [show.id]


async def test_callers_who_know_nothing_of_each_other(database_url: str) -> None:
    """Two replicas, and callers who start, change and stop without looking."""
    async with running_stack(database_url) as stack:
        clients = await replicas(stack)
        referee = Referee(stack)
        shows = [await Show.create(stack, clients[0]) for _ in range(6)]
        refused = Counter[str]()

        async def caller(show: Show, number: int) -> None:
            chance = random.Random(f"{shows.index(show)} {number}")
            client = clients[number % 2]
            layout = BroadcastSpec(layout=f"layout-{number}")
            ways: list[Callable[[], Awaitable[object]]] = [
                lambda: client.start(show.id),
                lambda: client.update(show.id, mask=["spec.layout"], spec=layout),
                lambda: stack.host_joins(show.id),
                lambda: stack.control("leave", room=show.id, identity="ann"),
                lambda: client.stop(show.id) if number == 3 else client.get(show.id),
            ]
            for _ in range(12):
                try:
                    await chance.choice(ways)()
                except BroadcastError as error:
                    refused[error.reason] += 1
                except AssertionError:
                    # Nobody is there who could leave.
                    pass

        await asyncio.gather(*(caller(show, number) for show in shows for number in range(4)))
        assert set(refused) <= {"STATE_FORBIDS"}

        async def end(show: Show) -> None:
            await show.client.stop(show.id)
            await show.until("ENDED")
            # A host who came to a room before, or after, it was ours.
            await eventually(lambda: show.left() == [])
            assert show.count("stream.created") <= 1
            await show.client.delete(show.id)

        await asyncio.gather(*(end(show) for show in shows))
        referee.check()


async def test_a_change_in_the_midst_of_the_start(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        clients = await replicas(stack)

        async def change(moment: str, number: int) -> None:
            url = f"{OTHER}{number}"
            spec = BroadcastSpec(destinations=[Destination(name="old", url=url, stream_key="0123456789")])
            show = await Show.create(stack, clients[0], spec)
            fault = Fault(kind="latency", operation=moment, match=show.id, delay_s=CALL_S)
            # In lower case it is an effect, which the bell waits for without any fault.
            if not moment.islower():
                stack.livekit.add_fault(fault)
            bell = Bell(stack, show, moment)
            async with starting(show):
                await (bell.rung() if moment.islower() else eventually(lambda: fault.times == 0, every=0.005))
                spec.layout = "speaker"
                spec.destinations[0].name = "new"
                spec.destinations[0].stream_key = "9876543210"
                await clients[1].update(show.id, mask=["spec.layout", "spec.destinations"], spec=spec)
                await show.until_effect("track.published")
            await show.until("LIVE")
            await show.settled()
            await show.until_destination("new", DESTINATION_STATE_ACTIVE)
            address = f"{url}/{{987...210}}"
            effects = stack.livekit.effects
            assert [each.id for each in effects.of("destination.connected")].count(address) == 1
            [egress] = show.effects("egress.started")
            layouts = [egress.detail["layout"], *(each.detail["layout"] for each in show.effects("egress.layout"))]
            assert layouts[-1] == "speaker"
            await show.ended()
            old = f"{url}/{{012...789}}"
            counts = [
                [each.id for each in effects.of(f"destination.{kind}")].count(old)
                for kind in ("connected", "disconnected")
            ]
            assert counts[0] == counts[1] <= 1

        moments = ("room.created", "stream.created", "egress.started", "egress.active", "StartRoomCompositeEgress")
        async with asyncio.TaskGroup() as tasks:
            for number, moment in enumerate(moments):
                tasks.create_task(change(moment, number))


async def test_a_destination_that_is_removed_and_added_with_another_key(database_url: str) -> None:
    """Faster than the reconciler: it never sees the broadcast without it."""
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        spec = BroadcastSpec(destinations=[Destination(name="other", url=OTHER, stream_key="0123456789")])
        show = await Show.create(stack, client, spec)
        await show.live()
        await show.until_destination("other", DESTINATION_STATE_ACTIVE)
        # What is asked of LiveKit meanwhile takes its time.
        slow = Fault(kind="latency", operation="UpdateLayout", delay_s=CALL_S)
        stack.livekit.add_fault(slow)
        await client.update(show.id, mask=["spec.layout"], spec=BroadcastSpec(layout="speaker"))
        await eventually(lambda: slow.times == 0)
        await client.update(show.id, mask=["spec.destinations"], spec=BroadcastSpec())
        spec.destinations[0].stream_key = "9876543210"
        await client.update(show.id, mask=["spec.destinations"], spec=spec)

        def moved() -> bool:
            effects = stack.livekit.effects
            gone = [each.id for each in effects.of("destination.disconnected")]
            return gone == [f"{OTHER}/{{012...789}}"] and len(effects.of("destination.connected")) == 2

        await eventually(moved)
        await show.until_destination("other", DESTINATION_STATE_ACTIVE)
        await show.settled()
        await show.ended()


@pytest.mark.parametrize("kind", ["worker_loss", "egress_stuck", "egress_fail", "egress_ghost"])
async def test_an_egress_that_does_not_do_is_replaced(database_url: str, kind: Kind) -> None:
    waits = {
        "BROADCAST_TIMING_EGRESS_START_S": "4",
        "BROADCAST_TIMING_INGEST_START_S": "4",
        "BROADCAST_TIMING_EGRESS_STOP_S": "3",
    }
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1, **waits)
        referee = Referee(stack)
        spec = BroadcastSpec()
        spec.reconnect_window.FromSeconds(30)
        show = await Show.create(stack, client, spec)
        async with watching(client, show.id) as watched:
            if kind in ("worker_loss", "egress_stuck"):
                operation = "StartRoomCompositeEgress" if kind == "worker_loss" else "egress"
                stack.livekit.add_fault(Fault(kind=kind, operation=operation))
                await show.live()
            else:
                await show.live()
                stack.livekit.add_fault(Fault(kind=kind, operation="egress"))
                await show.until("INTERRUPTED")
                await show.until("LIVE")
            assert stack.livekit.faults.hits[kind] == 1
            egresses = [each.id for each in show.effects("egress.started")]
            assert len(egresses) == (1 if kind == "worker_loss" else 2)
            assert (await show.get()).status.provider_ids.livekit_egress_id == egresses[-1]
            await show.ended()
            await eventually(lambda: watched.states[-1] == "ENDED")
        interrupted = [] if kind in ("worker_loss", "egress_stuck") else ["LIVE", "INTERRUPTED"]
        assert watched.states == ["CREATED", "STARTING", "READY", *interrupted, "LIVE", "STOPPING", "ENDED"]
        assert show.count("stream.created") == show.count("room.created") == 1
        referee.check()


async def test_an_egress_that_cannot_be_stopped_is_not_doubled(database_url: str) -> None:
    """Its worker pushes on, and LiveKit does not reach it: it is written off, and what replaces it must be alone."""
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1, BROADCAST_TIMING_EGRESS_STOP_S="1")
        referee = Referee(stack)
        show = await Show.create(stack, client, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
        await client.set_on_air(show.id, True)
        await show.live()
        deaf = show.effects("egress.started")[0].id
        stack.livekit.add_fault(Fault(kind="error", status=503, operation="StopEgress", match=deaf, times=-1))
        await client.set_on_air(show.id, False)
        await show.until_told("EGRESS_WRITTEN_OFF")
        await client.set_on_air(show.id, True)
        await show.until("LIVE")
        referee.check()


async def test_an_egress_is_not_started_for_ever(database_url: str) -> None:
    waits = {"BROADCAST_TIMING_STARTS_LIMIT": "2", "BROADCAST_TIMING_EGRESS_START_S": "0.5"}
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1, **waits)
        stack.livekit.add_fault(Fault(kind="egress_stuck", operation="egress", times=-1))
        show = await Show.create(stack, client)
        await show.ready()
        await stack.host_joins(show.id)

        async def blocked() -> bool:
            broadcast = await show.get()
            reasons = [condition.reason for condition in broadcast.status.conditions]
            assert "START_LIMIT" in reasons, reasons
            return True

        await eventually(blocked)
        assert show.count("egress.started") == 2
        await show.ended()


async def test_a_room_that_somebody_else_deletes_is_made_again(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        referee = Referee(stack)
        show = await Show.create(stack, client)
        await show.live()
        async with api.LiveKitAPI(stack.livekit.base_url, "sandbox", LIVEKIT_SECRET, failover=False) as livekit:
            await livekit.room.delete_room(api.DeleteRoomRequest(room=show.id))
        await show.until("INTERRUPTED")
        await show.until_effect("room.created", 2)
        await stack.host_joins(show.id)
        await show.until("LIVE")
        assert show.count("stream.created") == 1
        await show.ended()
        referee.check()


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no webhooks"])
@pytest.mark.parametrize("stage", ["READY", "LIVE"])
async def test_a_live_stream_that_somebody_else_deletes(database_url: str, stage: str, *, webhooks: bool) -> None:
    async with running_stack(database_url, webhooks=webhooks) as stack:
        # The list of active streams does not show one that is idle: its own look is the last resort.
        [client] = await replicas(stack, 1, BROADCAST_TIMING_REPLAN_S="1")
        show = await Show.create(stack, client)
        await (show.live() if stage == "LIVE" else show.ready())
        await mux(stack, "DELETE", show.effects("stream.created")[0].id)
        failed = await show.over("FAILED")
        assert failed.status.state_reason == "STREAM_LOST"
        assert show.count("stream.created") == 1


async def test_a_live_stream_that_somebody_else_disables(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        show = await Show.create(stack, client)
        await show.live()
        await mux(stack, "PUT", f"{show.effects('stream.created')[0].id}/disable")
        failed = await show.over("FAILED")
        assert failed.status.state_reason == "STREAM_DISABLED"
        show.assert_once()


@pytest.mark.parametrize("closes", [True, False], ids=["publisher cut", "publisher kept"])
async def test_a_stream_key_that_somebody_else_resets(database_url: str, *, closes: bool) -> None:
    """Who is connected may stay connected. Who is not needs the new key."""
    async with running_stack(database_url, mux={"reset_closes_publisher": closes}) as stack:
        [client] = await replicas(stack, 1)
        referee = Referee(stack)
        show = await Show.create(stack, client)
        first = (await show.live()).status.provider_ids.livekit_egress_id
        await mux(stack, "POST", f"{show.effects('stream.created')[0].id}/reset-stream-key")

        def told() -> list[str]:
            return [each.event for each in stack.mux.webhooks.deliveries]

        if not closes:
            connected = stack.mux.effects.of("ingest.connected")
            await eventually(lambda: "video.live_stream.updated" in told())
            stack.livekit.add_fault(Fault(kind="rtmp_drop", operation="publish", match=show.id))
            assert connected == stack.mux.effects.of("ingest.connected"), "nobody was disturbed before"
        replaced = await show.until_effect("egress.started", 2)
        assert replaced.id != first
        await show.until("LIVE")
        assert (await show.get()).status.provider_ids.livekit_egress_id == replaced.id
        await show.ended()
        referee.check()


async def test_a_host_with_an_old_token_cannot_bring_the_room_back(database_url: str, logs: list[EventDict]) -> None:
    async with running_stack(database_url) as stack:
        [client] = await replicas(stack, 1)
        show = await Show.create(stack, client, BroadcastSpec(delivery_policy=DELIVERY_POLICY_MANUAL))
        access = (await client.start(show.id, wait=10, host_identity="ann")).host_access
        await show.ended()
        await stack.control("join", token=access.token, publish=["camera"])
        assert show.left() == [f"room {show.id}"]
        await eventually(lambda: show.left() == [])
        assert await show.state() == "ENDED"
        assert [entry["kind"] for entry in logs if entry["event"] == "orphan_swept"] == ["room"]
        assert show.count("egress.started") == 0
