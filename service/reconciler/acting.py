"""Steps of a plan, carried out. Each: a token of the budget, the intent, the call, the record; any line may be the
last.

What a call's failure means for its resource is decided here and nowhere else:
- AMBIGUOUS: the resource is UNKNOWN, and the plan looks for it before anything else;
- anything else: there was no effect; again after a back-off, or never if it was refused for what it asks.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

from service import telemetry
from service.domain.broadcast import (
    NOT_STOPPED,
    Carrier,
    Egress,
    EgressStatus,
    Phase,
    RecordingPolicy,
    Room,
    Stream,
    StreamStatus,
    Target,
    seconds,
)
from service.domain.errors import Outcome, Overtaken, ProviderError
from service.domain.lifecycle import Event
from service.domain.ports import EgressWanted, Push, Relay, StreamWanted
from service.domain.secret import Secret
from service.domain.seen import created_stream, with_egress
from service.domain.step import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
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
from service.domain.view import View
from service.failpoints import failpoint
from service.reconciler.asking import bucket_of, names_of, pushes_of, room_wanted, stream_tag, trouble_of
from service.reconciler.errand import Errand
from service.reconciler.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.domain.timing import Timing
    from service.providers.budget import Rank
    from service.reconciler.asking import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes, Situation


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
        self._view = View(situation.resources)
        self._passes = passes
        self._providers = providers
        self._timing = timing
        self._lease = lease
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

    async def _do(self, step: Step) -> None:  # noqa: C901, PLR0912 - one line a step
        match step:
            case CreateRoom():
                await self._create_room(step)
            case DeleteRoom():
                room = self._room(step.ordinal)
                await self._delete(room, self._providers.rooms.delete, "room.delete", "livekit")
            case CreateStream():
                await self._create_stream(step)
            case DisableStream():
                await self._disable_stream(self._stream(step.ordinal))
            case SettleRecordings():
                await self._settle_recordings(self._stream(step.ordinal))
            case DeleteStream():
                stream = self._stream(step.ordinal)
                await self._delete(stream, self._providers.streams.delete, "stream.delete", "mux")
            case ResetKey():
                await self._reset_key(self._stream(step.ordinal))
            case CutStream():
                await self._cut_stream(self._stream(step.ordinal))
            case StartEgress():
                await self._start_egress(step)
            case StopEgress():
                await self._stop_egress(self._egress(step.ordinal), step)
            case SetLayout():
                await self._set_layout(self._egress(step.ordinal))
            case SetDestinations():
                await self._set_destinations(self._egress(step.ordinal), step)
            case StartRecording() | StopRecording() | UploadRecording():
                await self._recorder.carry_out(step)
            case WriteOff():
                await self._write_off(step)
            case SetFallback():
                await self._set_fallback(step)
            case EndBroadcast():
                await self._passes.record(
                    self._claim, events=[Event(reason="ENDING", message=step.reason)], end=step.reason
                )
                failpoint("end.after_record")
            case _:
                assert_never(step)

    def _room(self, ordinal: int) -> Room:
        return next(room for room in self._view.rooms if room.ordinal == ordinal)

    def _stream(self, ordinal: int) -> Stream:
        return next(stream for stream in self._view.streams if stream.ordinal == ordinal)

    def _egress(self, ordinal: int) -> Egress:
        return next(egress for egress in self._view.egresses if egress.ordinal == ordinal)

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
            self._claim, [present], events=[Event(reason="ROOM_CREATED", message=seen.sid)], recovered="livekit"
        )
        failpoint("room.create.after_record")

    async def _create_stream(self, step: CreateStream) -> None:
        failpoint("stream.create.before_intent")
        spec = self._broadcast.spec
        failures = self._view.streams[-1].failures if self._view.streams else 0
        stream = Stream(
            ordinal=step.ordinal,
            phase=Phase.INTENDED,
            intended_at=self._errand.now(),
            changed_at=self._errand.now(),
            failures=failures,
        )
        await self._errand.intend(stream, "stream.create")
        keys = self._broadcast.destination_keys
        try:
            seen = await self._providers.streams.create(
                StreamWanted(
                    tag=stream_tag(self._providers.tag, self._broadcast.id, step.ordinal),
                    title=spec.title,
                    playback_policy=spec.playback_policy,
                    latency_mode=spec.latency_mode,
                    reconnect_window_s=spec.reconnect_window_s,
                    max_duration_s=spec.max_duration_s,
                    test=spec.test,
                    audio_only=spec.audio_only,
                    relays=tuple(
                        Relay(name=each.name, url=each.url, key=keys.get(each.name, Secret("")))
                        for each in spec.carried_by(Carrier.MUX)
                    ),
                )
            )
        except ProviderError as error:
            failpoint("stream.create.after_failure")
            ambiguous = error.outcome is Outcome.AMBIGUOUS
            failed = replace(
                stream,
                phase=Phase.UNKNOWN if ambiguous else Phase.GONE,
                failures=failures + 1,
                retry_at=None if ambiguous else self._errand.retry(failures + 1, error),
                refused=error.outcome is Outcome.REFUSED,
            )
            await self._passes.record(self._claim, [failed], trouble=trouble_of(error, self._errand.now()))
            return
        failpoint("stream.create.after_call")
        await self._passes.record(
            self._claim,
            [created_stream(stream, seen, self._errand.now())],
            events=[Event(reason="STREAM_CREATED", message=seen.id)],
            recovered="mux",
        )
        failpoint("stream.create.after_record")

    async def _disable_stream(self, stream: Stream) -> None:
        failpoint("stream.disable.before_call")
        try:
            await self._providers.streams.disable(stream.external_id)
        except ProviderError as error:
            await self._errand.failed(stream, error)
            return
        failpoint("stream.disable.after_call")
        await self._passes.record(
            self._claim,
            [replace(stream, disabled=True, failures=0, retry_at=None)],
            events=[Event(reason="STREAM_DISABLED")],
            recovered="mux",
        )
        failpoint("stream.disable.after_record")

    async def _settle_recordings(self, stream: Stream) -> None:
        discard = self._broadcast.spec.recording_policy is RecordingPolicy.DISCARD
        try:
            recordings = await self._providers.streams.list_recordings(stream.external_id)
            for recording in recordings if discard else ():
                await self._providers.streams.delete_recording(recording.asset_id)
        except ProviderError as error:
            await self._errand.failed(stream, error)
            return
        failpoint("recordings.settle.after_call")
        word = "RECORDINGS_DISCARDED" if discard else "RECORDINGS_KEPT"
        settled = replace(
            stream,
            recordings=() if discard else tuple(recordings),
            recordings_settled=True,
            failures=0,
            retry_at=None,
        )
        await self._passes.record(self._claim, [settled], events=[Event(reason=word, message=str(len(recordings)))])
        failpoint("recordings.settle.after_record")

    async def _reset_key(self, stream: Stream) -> None:
        # Whether an answer comes or not: from here on the key we hold may be dead.
        stale = replace(stream, key_stale=True)
        await self._errand.intend(stale, "key.reset")
        try:
            key = await self._providers.streams.reset_key(stream.external_id)
        except ProviderError as error:
            failpoint("key.reset.after_failure")
            await self._errand.failed(stale, error)
            return
        failpoint("key.reset.after_call")
        telemetry.FENCED.add(1)
        fresh = replace(
            stream,
            key=key,
            key_epoch=stream.key_epoch + 1,
            key_reset_at=self._errand.now(),
            key_stale=False,
            failures=0,
            retry_at=None,
        )
        await self._passes.record(self._claim, [fresh], events=[Event(reason="KEY_RESET")], recovered="mux")
        failpoint("key.reset.after_record")

    async def _cut_stream(self, stream: Stream) -> None:
        cutting = replace(stream, cutting=True)
        await self._errand.intend(cutting, "stream.cut", creates=True)
        try:
            await self._providers.streams.disable(stream.external_id)
            failpoint("stream.cut.between")
            await self._providers.streams.enable(stream.external_id)
        except ProviderError as error:
            await self._errand.failed(cutting, error)
            return
        failpoint("stream.cut.after_call")
        now = self._errand.now()
        cut = replace(
            stream,
            cutting=False,
            cut_epoch=stream.key_epoch,
            status=StreamStatus.IDLE,
            status_since=now,
            silent_at=now,
            failures=0,
            retry_at=None,
        )
        await self._passes.record(self._claim, [cut], events=[Event(reason="STREAM_CUT")], recovered="mux")
        failpoint("stream.cut.after_record")

    async def _set_fallback(self, step: SetFallback) -> None:
        fallback = step.fallback
        modes = ", ".join(fallback.modes)
        event = Event(
            reason="FALLBACK_ENTERED" if modes else "FALLBACK_LEFT", message=f"{fallback.reason} {modes}".strip()
        )
        failpoint("fallback.before_record")
        await self._passes.record(self._claim, fallback=fallback, events=[event])
        failpoint("fallback.after_record")

    async def _start_egress(self, step: StartEgress) -> None:
        stream = self._view.stream
        assert stream is not None  # noqa: S101 - the plan starts none without
        failpoint("egress.start.before_intent")
        spec = self._broadcast.spec
        pushes = pushes_of(self._broadcast, stream, self._providers.streams)
        egress = Egress(
            ordinal=step.ordinal,
            phase=Phase.INTENDED,
            intended_at=self._errand.now(),
            changed_at=self._errand.now(),
            key_epoch=stream.key_epoch,
            layout=spec.layout,
            destinations=tuple(sorted(name for name in pushes if name)),
            pushes=pushes,
        )
        await self._errand.intend(egress, "egress.start")
        try:
            seen = await self._providers.egresses.start(
                EgressWanted(
                    room_name=self._broadcast.id,
                    encoding=spec.encoding,
                    audio_only=spec.audio_only,
                    layout=spec.layout,
                    pushes=tuple(Push(name=name, url=url) for name, url in pushes.items()),
                )
            )
        except ProviderError as error:
            await self._start_failed(egress, error)
            return
        failpoint("egress.start.after_call")
        started = replace(
            with_egress(egress, seen, names_of(self._broadcast, pushes, self._providers.egresses), self._errand.now()),
            phase=Phase.PRESENT,
            changed_at=self._errand.now(),
            external_id=seen.id,
            status=seen.status if seen.status is not EgressStatus.UNKNOWN else EgressStatus.STARTING,
            destinations=egress.destinations,
        )
        await self._passes.record(
            self._claim, [started], events=[Event(reason="EGRESS_STARTED", message=seen.id)], recovered="livekit"
        )
        failpoint("egress.start.after_record")

    async def _start_failed(self, egress: Egress, error: ProviderError) -> None:
        failpoint("egress.start.after_failure")
        ambiguous = error.outcome is Outcome.AMBIGUOUS
        failures = len([e for e in self._view.egresses if e.failures]) + 1
        failed = replace(
            egress,
            phase=Phase.UNKNOWN if ambiguous else Phase.GONE,
            # Refused before any worker took it: it cannot publish.
            end_seen=not ambiguous,
            refused=error.outcome is Outcome.REFUSED,
            failures=failures,
            retry_at=None if ambiguous else self._errand.retry(failures, error),
            error=error.message,
            fault="" if ambiguous else error.outcome.upper(),
        )
        changed: list[Room | Egress] = [failed]
        room = self._view.room
        if error.outcome is Outcome.MISSING and room is not None:
            # The room is not there: whether it is coming back is for the next look to say.
            changed.append(replace(room, phase=Phase.UNKNOWN, changed_at=self._errand.now()))
        await self._passes.record(self._claim, changed, trouble=trouble_of(error, self._errand.now()))

    async def _stop_egress(self, egress: Egress, step: StopEgress) -> None:
        leaving = replace(egress, fault=step.fault or egress.fault)
        if egress.phase is not Phase.DELETING or not (egress.acked or egress.failures):
            # A stop that was intended and never answered, by a pass that was cut off, begins anew: its time to be seen
            # runs from here.
            leaving = replace(
                leaving, phase=Phase.DELETING, changed_at=self._errand.now(), acked=False, failures=0, retry_at=None
            )
        await self._errand.intend(leaving, "egress.stop")
        try:
            await self._providers.egresses.stop(egress.external_id)
        except ProviderError as error:
            await self._errand.failed(leaving, error)
            return
        failpoint("egress.stop.after_call")
        await self._passes.record(
            self._claim,
            [replace(leaving, acked=True, failures=0, retry_at=None)],
            events=[Event(reason="EGRESS_STOP_SENT", message=step.why)],
            recovered="livekit",
        )
        failpoint("egress.stop.after_record")

    async def _set_layout(self, egress: Egress) -> None:
        layout = self._broadcast.spec.layout
        try:
            await self._providers.egresses.set_layout(egress.external_id, layout)
        except ProviderError as error:
            await self._errand.failed(egress, error)
            return
        failpoint("layout.set.after_call")
        await self._passes.record(
            self._claim,
            [replace(egress, layout=layout, failures=0, retry_at=None)],
            events=[Event(reason="LAYOUT_SET", message=layout)],
            recovered="livekit",
        )
        failpoint("layout.set.after_record")

    async def _set_destinations(self, egress: Egress, step: SetDestinations) -> None:
        stream = self._view.stream
        assert stream is not None  # noqa: S101 - the plan asks for none without
        wanted = pushes_of(self._broadcast, stream, self._providers.streams)
        pushes = {**egress.pushes, **{name: wanted[name] for name in step.add}}
        # As if it had failed without an answer, which is what a pass that is cut off leaves behind.
        grace = seconds(self._timing.update_grace_s if step.add else 0)
        await self._errand.intend(
            replace(egress, pushes=pushes, retry_at=self._errand.now() + grace), "destinations.set"
        )
        try:
            seen = await self._providers.egresses.set_pushes(
                egress.external_id,
                add=[Push(name=name, url=pushes[name]) for name in step.add],
                remove=[Push(name=name, url=pushes[name]) for name in step.remove if name in pushes],
            )
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                # Partly done perhaps, or done later: the next try comes after a look, when it is too late for that.
                late = step.add and error.outcome is Outcome.AMBIGUOUS
                wait = seconds(self._timing.update_grace_s if late else 0)
                await self._errand.failed(replace(egress, pushes=pushes), error, not_within=wait)
                return
            # What was to be removed had failed and left by itself; the rest is done.
            seen = None
        failpoint("destinations.set.after_call")
        now_has = tuple(sorted({*egress.destinations, *step.add} - {*step.remove}))
        updated = replace(egress, pushes=pushes, destinations=now_has)
        if seen is not None:
            names = names_of(self._broadcast, pushes, self._providers.egresses)
            updated = with_egress(updated, seen, names, self._errand.now())
        await self._passes.record(
            self._claim,
            [replace(updated, destinations=now_has, failures=0, retry_at=None)],
            events=[
                *(Event(reason="DESTINATION_ADDED", message=name) for name in step.add),
                *(Event(reason="DESTINATION_REMOVED", message=name) for name in step.remove),
            ],
            recovered="livekit",
        )
        failpoint("destinations.set.after_record")

    async def _write_off(self, step: WriteOff) -> None:
        everything = (*self._view.streams, *self._view.egresses, *self._view.recordings, *self._view.uploads)
        resource = next(each for each in everything if each.kind is step.kind and each.ordinal == step.ordinal)
        written_off = replace(resource, phase=Phase.GONE, changed_at=self._errand.now())
        if isinstance(written_off, Egress) and not written_off.fault and self._broadcast.target is Target.LIVE:
            fault = NOT_STOPPED if resource.phase is Phase.DELETING else "START_LOST"
            written_off = replace(written_off, fault=fault)
        await self._passes.record(
            self._claim,
            [written_off],
            events=[Event(reason=f"{step.kind.upper()}_WRITTEN_OFF", message=step.why)],
        )
        failpoint("write_off.after_record")

    async def _delete(
        self, resource: Room | Stream, call: Callable[[str], Coroutine[Any, Any, None]], point: str, provider: str
    ) -> None:
        leaving = replace(resource, phase=Phase.DELETING, changed_at=self._errand.now(), acked=False)
        await self._errand.intend(leaving, point)
        try:
            await call(resource.external_id or self._broadcast.id)
        except ProviderError as error:
            await self._errand.failed(leaving, error)
            return
        failpoint(f"{point}.after_call")
        await self._passes.record(
            self._claim, [replace(leaving, acked=True, failures=0, retry_at=None)], recovered=provider
        )
        failpoint(f"{point}.after_record")
