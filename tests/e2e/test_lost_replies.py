"""Every provider call that changes something goes wrong in every way: with the effect and without the answer, without
both, with the effect later, refused, hanging. The broadcast becomes live and ends, nothing is doubled, nothing is left.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

import pytest
from structlog.typing import EventDict

from broadcast.v1.broadcast_pb2 import (
    DESTINATION_STATE_ACTIVE,
    RECORDING_POLICY_DISCARD,
    BroadcastSpec,
    Destination,
)
from broadcast_client import BroadcastClient
from broadcast_sandbox.faults import Fault, Kind
from service.domain.reasons import Operation as Called
from tests.e2e.show import Referee, Show, webhook_replica
from tests.stack import Stack, running_stack
from tests.waiting import eventually


class Operation(StrEnum):
    CREATE_ROOM = "CreateRoom"
    START_EGRESS = "StartRoomCompositeEgress"
    ADD_DESTINATION = "UpdateStream, add"
    REMOVE_DESTINATION = "UpdateStream, remove"
    SET_LAYOUT = "UpdateLayout"
    STOP_EGRESS = "StopEgress"
    DELETE_ROOM = "DeleteRoom"
    CREATE_STREAM = "create_live_stream"
    RESET_KEY = "reset_stream_key"
    SET_TITLE = "update_live_stream"
    DISABLE_STREAM = "disable_live_stream"
    DELETE_STREAM = "delete_live_stream"
    DELETE_RECORDING = "delete_asset"

    @property
    def method(self) -> str:
        return self.partition(",")[0]

    @property
    def at_mux(self) -> bool:
        return self.method.islower()


READS = frozenset(
    {
        Called.LIST_ROOMS,
        Called.LIST_PARTICIPANTS,
        Called.LIST_EGRESSES,
        Called.GET_STREAM,
        Called.LIST_STREAMS,
        Called.GET_ASSET,
        Called.LIST_ASSETS,
        Called.LOOK_AT_PLAYLIST,
        Called.COUNT_VIEWERS,
    }
)
ELSEWHERE = {
    Called.CREATE_ASSET: "tests/e2e/test_recordings.py, a file of a fallback that is handed over",
    Called.ENABLE_STREAM: "tests/simulation, the second half of a cut",
    Called.COMPLETE_STREAM: "no step makes this call",
    Called.MUTE_TRACK: "tests/contract/test_livekit_adapter.py, moderation is no step",
    Called.REMOVE_PARTICIPANT: "tests/integration/test_stage.py, an answer that is lost",
}
"""Calls that change something and are no part of the show of these tests, and where they go wrong."""


def test_every_call_that_changes_something_goes_wrong_somewhere() -> None:
    here = {operation.method for operation in Operation}
    assert here.isdisjoint(ELSEWHERE)
    assert here | set(ELSEWHERE) == set(Called) - READS


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    kind: Kind
    times: int = 1
    status: int = 500
    delay_s: float = 0.0
    patient: bool = True
    """The broadcast is stopped only when what comes late has come."""


MISHAPS = {
    "reply lost": Mishap(kind="lost_reply"),
    "reply lost twice": Mishap(kind="lost_reply", times=2),
    "connection reset": Mishap(kind="reset"),
    "late, on air": Mishap(kind="late_effect", delay_s=1.0),
    "late, after the end": Mishap(kind="late_effect", delay_s=3.0, patient=False),
    "500": Mishap(kind="error", status=500),
    "503": Mishap(kind="error", status=503),
    "429": Mishap(kind="error", status=429),
    "no answer": Mishap(kind="hang"),
}
LONG = ("reply lost twice", "connection reset", "500", "503", "429")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in MISHAPS]
)
async def test_whatever_becomes_of_a_call(database_url: str, name: str, logs: list[EventDict]) -> None:
    await every_call(database_url, MISHAPS[name], logs)


@pytest.mark.long
@pytest.mark.parametrize("name", MISHAPS)
async def test_whatever_becomes_of_a_call_without_webhooks(database_url: str, name: str, logs: list[EventDict]) -> None:
    await every_call(database_url, MISHAPS[name], logs, webhooks=False, replicas=2)


async def every_call(
    database_url: str, mishap: Mishap, logs: list[EventDict], *, webhooks: bool = True, replicas: int = 1
) -> None:
    """A broadcast for every operation, all at the same time, each with a mishap of its own."""
    async with running_stack(database_url, webhooks=webhooks) as stack:
        client = await stack.client((await webhook_replica(stack)).target)
        for _ in range(replicas - 1):
            await stack.replica()
        referee = Referee(stack)
        trials = [Trial(stack, client, operation, mishap, number) for number, operation in enumerate(Operation)]
        results = await asyncio.gather(*(trial.run() for trial in trials), return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {len(trials)}", failures)
        assert stack.mux.faults.hits[mishap.kind] >= sum(trial.operation.at_mux for trial in trials)
        assert stack.livekit.faults.hits[mishap.kind] >= sum(not trial.operation.at_mux for trial in trials)
        referee.check()
        assert not +stack.census(), stack.census()
        swept = [entry for entry in logs if entry["event"] == "orphan_swept"]
        if mishap.kind != "late_effect":
            assert not swept, "only what comes late may need the sweeper"


class Trial:
    def __init__(
        self, stack: Stack, client: BroadcastClient, operation: Operation, mishap: Mishap, number: int
    ) -> None:
        self.stack = stack
        self.client = client
        self.operation = operation
        self.mishap = mishap
        self.address = f"rtmp://93.184.215.14/{number}"
        """Of a destination that no other broadcast has."""
        self.hit: asyncio.Task[float] | None = None
        """When."""

    async def run(self) -> None:
        spec = BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD)
        show = await Show.create(self.stack, self.client, spec)
        try:
            await self._run(show, spec)
        except Exception as failure:
            failure.add_note(f"{self.operation}\n" + "\n".join(await show.story()))
            raise
        finally:
            if self.hit is not None:
                self.hit.cancel()

    async def _run(self, show: Show, spec: BroadcastSpec) -> None:
        updates = (
            Operation.ADD_DESTINATION,
            Operation.REMOVE_DESTINATION,
            Operation.SET_LAYOUT,
            Operation.SET_TITLE,
        )
        if self.operation not in updates:
            self.break_it(show)
        await show.live()
        if self.operation in updates:
            await self.update(show, spec)
        if self.mishap.patient:
            await self.landed()
            await show.until("LIVE")
        if self.mishap.kind == "late_effect":
            await self.client.stop(show.id)
            await show.until("ENDED")
        else:
            await show.ended()
        await self.landed()
        await eventually(lambda: show.left() == [] and self.connected() == 0)
        assert self.hit is not None
        hit = self.hit
        # It looks every few milliseconds, and what is left may be gone in between.
        await eventually(hit.done)
        self.check(show)

    def break_it(self, show: Show) -> None:
        mishap, operation = self.mishap, self.operation
        fault = Fault(
            kind=mishap.kind,
            operation=operation.method,
            match=show.id,
            times=mishap.times,
            status=mishap.status,
            delay_s=mishap.delay_s,
        )
        self.hit = asyncio.create_task(self.until_hit(fault))
        if operation.at_mux:
            self.stack.mux.faults.add(fault)
        else:
            self.stack.livekit.add_fault(fault)
        if operation is Operation.RESET_KEY:
            # A start without an answer is what a reset is for.
            self.stack.livekit.add_fault(Fault(kind="reset", operation=Operation.START_EGRESS, match=show.id))

    async def update(self, show: Show, spec: BroadcastSpec) -> None:
        if self.operation is Operation.SET_LAYOUT:
            self.break_it(show)
            spec.layout = "speaker"
            await self.client.update(show.id, mask=["spec.layout"], spec=spec)
            await show.until_effect("egress.layout")
            await show.settled()
            return
        if self.operation is Operation.SET_TITLE:
            self.break_it(show)
            spec.title = "Another title"
            await self.client.update(show.id, mask=["spec.title"], spec=spec)
            await show.until_effect("stream.updated")
            await show.settled()
            [stream] = [each for each in self.stack.mux.store.streams.values() if show.id in each.passthrough]
            assert stream.extra["meta"]["title"] == "Another title"
            return
        if self.operation is Operation.ADD_DESTINATION:
            self.break_it(show)
        spec.destinations.append(Destination(name="other", url=self.address, stream_key="0123456789"))
        await self.client.update(show.id, mask=["spec.destinations"], spec=spec)
        await show.until_destination("other", DESTINATION_STATE_ACTIVE)
        if self.operation is Operation.REMOVE_DESTINATION:
            self.break_it(show)
            del spec.destinations[:]
            await self.client.update(show.id, mask=["spec.destinations"], spec=spec)
        await show.settled()
        await self.landed()
        await show.settled()
        assert self.connected() == (self.operation is Operation.ADD_DESTINATION)

    def connected(self) -> int:
        return self.counted("destination.connected") - self.counted("destination.disconnected")

    def counted(self, kind: str) -> int:
        return sum(each.id.startswith(self.address) for each in self.stack.livekit.effects.of(kind))

    async def until_hit(self, fault: Fault) -> float:
        await eventually(lambda: fault.times < self.mishap.times, within=40)
        return asyncio.get_running_loop().time()

    async def landed(self) -> None:
        """Until what comes late has come. It may have no effect of its own: what it is about may be gone."""
        if self.hit is not None and self.hit.done():
            lands_at = self.hit.result() + self.mishap.delay_s
            await eventually(lambda: asyncio.get_running_loop().time() > lands_at, within=self.mishap.delay_s + 30)

    def check(self, show: Show) -> None:
        late = self.mishap.kind == "late_effect"
        rooms, streams, egresses = (show.count(kind) for kind in ("room.created", "stream.created", "egress.started"))
        # One that is given up may come late, beside the one that was made in its place.
        # A create asks whether a room is there that no delete finds. It makes one where there is none.
        asked = self.operation is Operation.DELETE_ROOM
        assert 1 <= rooms <= 1 + (late and self.operation is Operation.CREATE_ROOM) + asked
        assert 1 <= streams <= 1 + (late and self.operation is Operation.CREATE_STREAM)
        assert 1 <= egresses <= 1 + (late and self.operation in (Operation.START_EGRESS, Operation.RESET_KEY))
        assert show.count("asset.created") == show.count("asset.deleted")
        adds = self.operation in (Operation.ADD_DESTINATION, Operation.REMOVE_DESTINATION)
        assert self.counted("destination.connected") == adds, "LiveKit sends twice to what is added twice"


async def test_a_change_without_an_answer_is_looked_at_before_it_is_tried_again(database_url: str) -> None:
    """Nobody tells: no webhook comes, and the observer comes seldom."""
    waits = {"BROADCAST_OBSERVE_S": "15", "BROADCAST_TIMING_UPDATE_GRACE_S": "0.5"}
    async with running_stack(database_url) as stack:
        client = await stack.client((await webhook_replica(stack, **waits)).target)
        spec = BroadcastSpec()
        show = await Show.create(stack, client, spec)
        await show.live()
        stack.livekit.webhooks.sender.enabled = False
        stack.livekit.add_fault(Fault(kind="lost_reply", operation="UpdateStream"))
        spec.destinations.append(Destination(name="other", url="rtmp://93.184.215.14/app", stream_key="0123456789"))
        await client.update(show.id, mask=["spec.destinations"], spec=spec)
        await show.until_destination("other", DESTINATION_STATE_ACTIVE)
        await show.settled()
        assert stack.livekit.faults.hits["lost_reply"] == 1
        assert show.count("egress.urls_added") == 1
        await show.ended()
