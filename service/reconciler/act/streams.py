"""Steps of a live stream: made, fenced, cut off, disabled, its recordings settled, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service import telemetry
from service.domain.broadcast import Carrier, RecordingPolicy
from service.domain.errors import ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.provider_state import created_stream
from service.domain.planning.steps import (
    CreateStream,
    CutStream,
    DeleteStream,
    DisableStream,
    ResetKey,
    SettleRecordings,
    StreamStep,
)
from service.domain.ports import Relay, StreamWanted
from service.domain.provider import STREAMS
from service.domain.reasons import EventReason
from service.domain.resource_set import ResourceSet
from service.domain.resources import Phase, Stream, StreamStatus
from service.domain.secret import Secret
from service.failpoints import failpoint
from service.reconciler.act.call import Errand
from service.reconciler.act.requests import stream_tag, trouble_of

if TYPE_CHECKING:
    from service.reconciler.act.requests import Providers
    from service.store.passes import Passes


class StreamSteps:
    def __init__(self, errand: Errand, resource_set: ResourceSet, passes: Passes, providers: Providers) -> None:
        self._errand = errand
        self._claim = errand.claim
        self._broadcast = errand.broadcast
        self._view = resource_set
        self._passes = passes
        self._providers = providers

    async def carry_out(self, step: StreamStep) -> None:
        if isinstance(step, CreateStream):
            await self._create(step)
            return
        stream = next(stream for stream in self._view.streams if stream.ordinal == step.ordinal)
        match step:
            case DisableStream():
                await self._disable(stream)
            case SettleRecordings():
                await self._settle(stream)
            case DeleteStream():
                await self._errand.delete(stream, self._providers.streams.delete, "stream.delete", STREAMS)
            case ResetKey():
                await self._reset_key(stream)
            case CutStream():
                await self._cut(stream)

    async def _create(self, step: CreateStream) -> None:
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
            failed = self._errand.not_created(stream, failures + 1, error)
            await self._passes.record(self._claim, [failed], trouble=trouble_of(error, self._errand.now()))
            return
        failpoint("stream.create.after_call")
        await self._passes.record(
            self._claim,
            [created_stream(stream, seen, self._errand.now())],
            events=[Event(reason=EventReason.STREAM_CREATED, message=seen.id)],
            recovered=STREAMS,
        )
        failpoint("stream.create.after_record")

    async def _disable(self, stream: Stream) -> None:
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
            events=[Event(reason=EventReason.STREAM_DISABLED)],
            recovered=STREAMS,
        )
        failpoint("stream.disable.after_record")

    async def _settle(self, stream: Stream) -> None:
        """One call at a time: what is to be discarded is listed first, and what is left of it is kept in the row."""
        if stream.discarding:
            await self._discard(stream, *stream.discarding)
            return
        try:
            recordings = await self._providers.streams.list_recordings(stream.external_id)
        except ProviderError as error:
            await self._errand.failed(stream, error)
            return
        failpoint("recordings.settle.after_call")
        listed, events = replace(stream, failures=0, retry_at=None), list[Event]()
        if self._broadcast.spec.recording_policy is not RecordingPolicy.DISCARD:
            listed = replace(listed, recordings=tuple(recordings), recordings_settled=True)
            events.append(Event(reason=EventReason.RECORDINGS_KEPT, message=str(len(recordings))))
        else:
            ids = tuple(recording.asset_id for recording in recordings)
            listed = replace(listed, recordings=(), discarding=ids, recordings_settled=not ids)
        await self._passes.record(self._claim, [listed], events=events, recovered=STREAMS)
        failpoint("recordings.settle.after_record")

    async def _discard(self, stream: Stream, asset_id: str, *left: str) -> None:
        try:
            await self._providers.streams.delete_recording(asset_id)
        except ProviderError as error:
            await self._errand.failed(stream, error)
            return
        failpoint("recordings.discard.after_call")
        discarded = replace(stream, discarding=left, recordings_settled=not left, failures=0, retry_at=None)
        event = Event(reason=EventReason.RECORDINGS_DISCARDED, message=asset_id)
        await self._passes.record(self._claim, [discarded], events=[event], recovered=STREAMS)
        failpoint("recordings.discard.after_record")

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
        await self._passes.record(self._claim, [fresh], events=[Event(reason=EventReason.KEY_RESET)], recovered=STREAMS)
        failpoint("key.reset.after_record")

    async def _cut(self, stream: Stream) -> None:
        """Half of it at a time, each of one call: disabled it throws out who is connected."""
        cutting = replace(stream, cutting=True)
        await self._errand.intend(cutting, "stream.cut", creates=True)
        disabled = stream.cutting and stream.status is StreamStatus.DISABLED
        turn = self._providers.streams.enable if disabled else self._providers.streams.disable
        try:
            await turn(stream.external_id)
        except ProviderError as error:
            await self._errand.failed(cutting, error)
            return
        now = self._errand.now()
        if not disabled:
            failpoint("stream.cut.between")
            half = replace(cutting, status=StreamStatus.DISABLED, status_since=now, failures=0, retry_at=None)
            await self._passes.record(self._claim, [half], recovered=STREAMS)
            return
        failpoint("stream.cut.after_call")
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
        await self._passes.record(self._claim, [cut], events=[Event(reason=EventReason.STREAM_CUT)], recovered=STREAMS)
        failpoint("stream.cut.after_record")
