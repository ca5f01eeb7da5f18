"""Steps of a plan, carried out. Each: a token of the budget, the intent, the call, the record; any line may be the
last.

What a call's failure means for its resource is decided here and in `Errand`, and nowhere else:
- AMBIGUOUS: the resource is UNKNOWN, and the plan looks for it before anything else;
- anything else: there was no effect; again after a back-off, or never if it was refused for what it asks.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, assert_never

from service import telemetry
from service.domain.broadcast import Target
from service.domain.errors import Outcome, Overtaken, ProviderError
from service.domain.lifecycle import Event
from service.domain.planning.steps import (
    WRITTEN_OFF,
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DeleteUpload,
    DisableStream,
    EndBroadcast,
    ResetKey,
    SetDestinations,
    SetFallback,
    SetLayout,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.provider import ROOMS
from service.domain.reasons import EventReason, Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import Egress, LocalRecording, Phase, Room, Stream
from service.failpoints import failpoint
from service.reconciler.act.call import Errand
from service.reconciler.act.egresses import EgressSteps
from service.reconciler.act.recordings import Recorder
from service.reconciler.act.requests import bucket_of, room_wanted, trouble_of
from service.reconciler.act.streams import StreamSteps

if TYPE_CHECKING:
    from service.domain.situation import Situation
    from service.domain.timing import Timing
    from service.providers.budget import Rank
    from service.reconciler.act.requests import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes


class Actor:
    """Carries out the steps of one plan."""

    def __init__(
        self,
        claim: Claim,
        situation: Situation,
        passes: Passes,
        providers: Providers,
        timing: Timing,
        *,
        lease: timedelta,
    ) -> None:
        self._errand = Errand(claim, situation, passes, lease)
        self._claim = claim
        self._broadcast = situation.broadcast
        self._view = ResourceSet(situation.resources)
        self._passes = passes
        self._providers = providers
        self._timing = timing
        self._lease = lease
        self._streams = StreamSteps(self._errand, self._view, passes, providers)
        self._egresses = EgressSteps(self._errand, self._view, passes, providers, timing)
        self._recorder = Recorder(self._errand, self._view, passes, providers)

    async def carry_out(self, step: Step, *, rank: Rank) -> datetime | None:
        """None: done, whatever came of it. Otherwise when there is a token for it."""
        bucket = bucket_of(step)
        turn = self._broadcast.turn_at
        if bucket is not None and (come_back := await self._providers.budget.take(bucket, rank, turn=turn)) is not None:
            if isinstance(step, DisableStream):
                # Waiting for a token must not keep the egress running: see the plan of the end.
                stream = replace(self._stream(step.ordinal), retry_at=come_back)
                await self._passes.intend(self._claim, stream, self._lease)
            return come_back
        with telemetry.tracer.start_as_current_span(f"step {type(step).__name__}"), contextlib.suppress(Overtaken):
            await self._do(step)
        return None

    async def _do(self, step: Step) -> None:
        match step:
            case CreateRoom():
                await self._create_room(step)
            case DeleteRoom():
                room = self._room(step.ordinal)
                await self._errand.delete(room, self._providers.rooms.delete, "room.delete", ROOMS)
            case CreateStream() | DisableStream() | SettleRecordings() | DeleteStream() | ResetKey() | CutStream():
                await self._streams.carry_out(step)
            case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
                await self._egresses.carry_out(step)
            case StartRecording() | StopRecording() | UploadRecording() | DeleteUpload():
                await self._recorder.carry_out(step)
            case WriteOff():
                await self._write_off(step)
            case SetFallback():
                await self._set_fallback(step)
            case EndBroadcast():
                await self._passes.record(
                    self._claim, events=[Event(reason=EventReason.ENDING, message=step.reason)], end=step.reason
                )
                failpoint("end.after_record")
            case _:
                assert_never(step)

    def _room(self, ordinal: int) -> Room:
        return next(room for room in self._view.rooms if room.ordinal == ordinal)

    def _stream(self, ordinal: int) -> Stream:
        return next(stream for stream in self._view.streams if stream.ordinal == ordinal)

    async def _create_room(self, step: CreateRoom) -> None:
        failpoint("room.create.before_intent")
        earlier = next((room for room in self._view.rooms if room.ordinal == step.ordinal), None)
        room = earlier or Room(
            ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=self._errand.now(), changed_at=self._errand.now()
        )
        await self._errand.intend(room, "room.create")
        try:
            seen = await self._providers.rooms.create(
                room_wanted(self._broadcast.id, self._providers.tag, self._timing)
            )
        except ProviderError as error:
            ambiguous = error.outcome is Outcome.AMBIGUOUS
            failed = replace(
                room,
                phase=Phase.UNKNOWN if ambiguous else Phase.INTENDED,
                failures=room.failures + 1,
                retry_at=self._errand.retry(room.failures + 1, error),
                refused=error.outcome is Outcome.REFUSED,
            )
            await self._passes.record(self._claim, [failed], trouble=trouble_of(error, self._errand.now()))
            return
        failpoint("room.create.after_call")
        present = replace(
            room,
            phase=Phase.PRESENT,
            external_id=seen.name,
            sid=seen.sid,
            changed_at=self._errand.now(),
            failures=0,
            retry_at=None,
            host_publishing=seen.publishers > 0,
            host_since=self._errand.now(),
            observed_at=self._errand.now(),
        )
        await self._passes.record(
            self._claim,
            [present],
            events=[Event(reason=EventReason.ROOM_CREATED, message=seen.sid)],
            recovered=ROOMS,
        )
        failpoint("room.create.after_record")

    async def _set_fallback(self, step: SetFallback) -> None:
        fallback = step.fallback
        modes = ", ".join(fallback.modes)
        event = Event(
            reason=EventReason.FALLBACK_ENTERED if modes else EventReason.FALLBACK_LEFT,
            message=f"{fallback.reason} {modes}".strip(),
        )
        failpoint("fallback.before_record")
        await self._passes.record(self._claim, fallback=fallback, events=[event])
        failpoint("fallback.after_record")

    async def _write_off(self, step: WriteOff) -> None:
        everything = (*self._view.streams, *self._view.egresses, *self._view.recordings, *self._view.uploads)
        resource = next(each for each in everything if each.kind is step.kind and each.ordinal == step.ordinal)
        written_off = replace(resource, phase=Phase.GONE, changed_at=self._errand.now())
        if isinstance(written_off, Egress) and not written_off.fault and self._broadcast.target is Target.LIVE:
            fault = Fault.NOT_STOPPED if resource.phase is Phase.DELETING else Fault.START_LOST
            written_off = replace(written_off, fault=fault)
        if isinstance(written_off, LocalRecording) and not written_off.fault and resource.phase is Phase.DELETING:
            # Its record may stay as it is for ever, and is not to be taken for one that came late.
            written_off = replace(written_off, fault=Fault.NOT_STOPPED)
        fault = written_off.fault if isinstance(written_off, Egress | LocalRecording) else Fault.NONE
        message = f"{' '.join(filter(None, (written_off.external_id, fault)))}: {step.why}".removeprefix(": ")
        await self._passes.record(
            self._claim, [written_off], events=[Event(reason=WRITTEN_OFF[step.kind], message=message)]
        )
        failpoint("write_off.after_record")
