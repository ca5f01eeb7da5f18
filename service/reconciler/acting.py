"""Steps of a plan, carried out. Each: a token of the budget, the intent, the call, the record; any line may be the
last.

What a call's failure means for its resource is decided here and nowhere else:
- AMBIGUOUS: the resource is UNKNOWN, and the plan looks for it before anything else;
- anything else: there was no effect; again after a back-off, or never if it was refused for what it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

from service import telemetry
from service.domain.broadcast import (
    Carrier,
    Egress,
    EgressStatus,
    Kind,
    Phase,
    RecordingPolicy,
    Room,
    Stream,
    seconds,
)
from service.domain.errors import LeaseLost, Outcome, Overtaken, ProviderError
from service.domain.lifecycle import Event
from service.domain.plan import View
from service.domain.ports import EgressWanted, Push, Relay, StreamWanted
from service.domain.secret import Secret
from service.domain.seen import created_stream, with_egress
from service.domain.step import (
    CreateRoom,
    CreateStream,
    DeleteRoom,
    DeleteStream,
    DisableStream,
    EndBroadcast,
    ResetKey,
    SetDestinations,
    SetLayout,
    SettleRecordings,
    StartEgress,
    Step,
    StopEgress,
    WriteOff,
)
from service.failpoints import failpoint
from service.reconciler.asking import backoff, bucket_of, names_of, pushes_of, room_wanted, stream_tag, trouble_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.domain.plan import Timing
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
        self._claim = claim
        self._broadcast = situation.broadcast
        self._view = View(situation.resources)
        self._read_at = situation.now
        self._began = asyncio.get_running_loop().time()
        self._passes = passes
        self._providers = providers
        self._timing = timing
        self._lease = lease

    def _now(self) -> datetime:
        """The database's time, moved on by our own clock: what a call told is as old as its end."""
        return self._read_at + seconds(asyncio.get_running_loop().time() - self._began)

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
            case StartEgress():
                await self._start_egress(step)
            case StopEgress():
                await self._stop_egress(self._egress(step.ordinal), step.why)
            case SetLayout():
                await self._set_layout(self._egress(step.ordinal))
            case SetDestinations():
                await self._set_destinations(self._egress(step.ordinal), step)
            case WriteOff():
                await self._write_off(step)
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

    async def _intend(self, resource: Room | Stream | Egress, point: str) -> None:
        """The intent, and the last look at the clock before the call.

        A process that was stopped here for longer than its lease must not call any more: another replica has looked.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        # A stop that was committed since the plan was made must not be followed by a create.
        planned_for = self._broadcast.target if resource.phase is Phase.INTENDED else None
        await self._passes.intend(self._claim, resource, self._lease, planned_for=planned_for)
        failpoint(f"{point}.after_intent")
        if loop.time() - began > self._lease.total_seconds() / 2:
            raise LeaseLost(self._claim.broadcast_id)
        failpoint(f"{point}.before_call")

    def _retry(self, failures: int, error: ProviderError) -> datetime:
        return self._now() + max(backoff(failures), error.retry_after or timedelta())

    async def _create_room(self, step: CreateRoom) -> None:
        failpoint("room.create.before_intent")
        earlier = next((room for room in self._view.rooms if room.ordinal == step.ordinal), None)
        room = earlier or Room(
            ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=self._now(), changed_at=self._now()
        )
        await self._intend(room, "room.create")
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
                retry_at=self._retry(room.failures + 1, error),
                refused=error.outcome is Outcome.REFUSED,
            )
            await self._passes.record(self._claim, [failed], trouble=trouble_of(error, self._now()))
            return
        failpoint("room.create.after_call")
        present = replace(
            room,
            phase=Phase.PRESENT,
            external_id=seen.name,
            sid=seen.sid,
            changed_at=self._now(),
            failures=0,
            retry_at=None,
            host_publishing=seen.publishers > 0,
            host_since=self._now(),
            observed_at=self._now(),
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
            intended_at=self._now(),
            changed_at=self._now(),
            failures=failures,
        )
        await self._intend(stream, "stream.create")
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
                retry_at=None if ambiguous else self._retry(failures + 1, error),
                refused=error.outcome is Outcome.REFUSED,
            )
            await self._passes.record(self._claim, [failed], trouble=trouble_of(error, self._now()))
            return
        failpoint("stream.create.after_call")
        await self._passes.record(
            self._claim,
            [created_stream(stream, seen, self._now())],
            events=[Event(reason="STREAM_CREATED", message=seen.id)],
            recovered="mux",
        )
        failpoint("stream.create.after_record")

    async def _disable_stream(self, stream: Stream) -> None:
        failpoint("stream.disable.before_call")
        try:
            await self._providers.streams.disable(stream.external_id)
        except ProviderError as error:
            await self._failed(stream, error)
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
            await self._failed(stream, error)
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
        await self._intend(stale, "key.reset")
        try:
            key = await self._providers.streams.reset_key(stream.external_id)
        except ProviderError as error:
            failpoint("key.reset.after_failure")
            await self._failed(stale, error)
            return
        failpoint("key.reset.after_call")
        telemetry.FENCED.add(1)
        fresh = replace(
            stream,
            key=key,
            key_epoch=stream.key_epoch + 1,
            key_reset_at=self._now(),
            key_stale=False,
            failures=0,
            retry_at=None,
        )
        await self._passes.record(self._claim, [fresh], events=[Event(reason="KEY_RESET")], recovered="mux")
        failpoint("key.reset.after_record")

    async def _start_egress(self, step: StartEgress) -> None:
        stream = self._view.stream
        assert stream is not None  # noqa: S101 - the plan starts none without
        failpoint("egress.start.before_intent")
        spec = self._broadcast.spec
        pushes = pushes_of(self._broadcast, stream, self._providers.streams)
        egress = Egress(
            ordinal=step.ordinal,
            phase=Phase.INTENDED,
            intended_at=self._now(),
            changed_at=self._now(),
            key_epoch=stream.key_epoch,
            layout=spec.layout,
            destinations=tuple(sorted(name for name in pushes if name)),
            pushes=pushes,
        )
        await self._intend(egress, "egress.start")
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
            with_egress(egress, seen, names_of(self._broadcast, pushes, self._providers.egresses), self._now()),
            phase=Phase.PRESENT,
            changed_at=self._now(),
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
            retry_at=None if ambiguous else self._retry(failures, error),
            error=error.message,
        )
        changed: list[Room | Egress] = [failed]
        room = self._view.room
        if error.outcome is Outcome.MISSING and room is not None:
            # The room is not there: whether it is coming back is for the next look to say.
            changed.append(replace(room, phase=Phase.UNKNOWN, changed_at=self._now()))
        await self._passes.record(self._claim, changed, trouble=trouble_of(error, self._now()))

    async def _stop_egress(self, egress: Egress, why: str) -> None:
        leaving = egress
        if egress.phase is not Phase.DELETING or not (egress.acked or egress.failures):
            # A stop that was intended and never answered, by a pass that was cut off, begins anew: its time to be seen
            # runs from here.
            leaving = replace(
                egress, phase=Phase.DELETING, changed_at=self._now(), acked=False, failures=0, retry_at=None
            )
        await self._intend(leaving, "egress.stop")
        try:
            await self._providers.egresses.stop(egress.external_id)
        except ProviderError as error:
            await self._failed(leaving, error)
            return
        failpoint("egress.stop.after_call")
        await self._passes.record(
            self._claim,
            [replace(leaving, acked=True, failures=0, retry_at=None)],
            events=[Event(reason="EGRESS_STOP_SENT", message=why)],
            recovered="livekit",
        )
        failpoint("egress.stop.after_record")

    async def _set_layout(self, egress: Egress) -> None:
        layout = self._broadcast.spec.layout
        try:
            await self._providers.egresses.set_layout(egress.external_id, layout)
        except ProviderError as error:
            await self._failed(egress, error)
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
        await self._intend(replace(egress, pushes=pushes, retry_at=self._now() + grace), "destinations.set")
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
                await self._failed(replace(egress, pushes=pushes), error, not_within=wait)
                return
            # What was to be removed had failed and left by itself; the rest is done.
            seen = None
        failpoint("destinations.set.after_call")
        now_has = tuple(sorted({*egress.destinations, *step.add} - {*step.remove}))
        updated = replace(egress, pushes=pushes, destinations=now_has)
        if seen is not None:
            names = names_of(self._broadcast, pushes, self._providers.egresses)
            updated = with_egress(updated, seen, names, self._now())
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
        resource: Stream | Egress = (
            self._stream(step.ordinal) if step.kind is Kind.STREAM else self._egress(step.ordinal)
        )
        await self._passes.record(
            self._claim,
            [replace(resource, phase=Phase.GONE, changed_at=self._now())],
            events=[Event(reason=f"{step.kind.upper()}_WRITTEN_OFF", message=step.why)],
        )
        failpoint("write_off.after_record")

    async def _failed(
        self, resource: Room | Stream | Egress, error: ProviderError, *, not_within: timedelta = timedelta()
    ) -> None:
        failures = resource.failures + 1
        retry_at = max(self._retry(failures, error), self._now() + not_within)
        await self._passes.record(
            self._claim,
            [replace(resource, failures=failures, retry_at=retry_at)],
            trouble=trouble_of(error, self._now()),
        )

    async def _delete(
        self, resource: Room | Stream, call: Callable[[str], Coroutine[Any, Any, None]], point: str, provider: str
    ) -> None:
        leaving = replace(resource, phase=Phase.DELETING, changed_at=self._now(), acked=False)
        await self._intend(leaving, point)
        try:
            await call(resource.external_id or self._broadcast.id)
        except ProviderError as error:
            await self._failed(leaving, error)
            return
        failpoint(f"{point}.after_call")
        await self._passes.record(
            self._claim, [replace(leaving, acked=True, failures=0, retry_at=None)], recovered=provider
        )
        failpoint(f"{point}.after_record")
