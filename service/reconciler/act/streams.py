"""The steps of a live stream: create, reset the key, cut off, disable, settle its recordings, delete."""

from __future__ import annotations

from dataclasses import replace

import structlog

from service import telemetry
from service.domain.broadcast import Carrier, RecordingPolicy
from service.domain.errors import ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.streams import created_stream
from service.domain.planning.steps import (
    CreateStream,
    CutStream,
    DeleteStream,
    DisableStream,
    ResetKey,
    SetTitle,
    SettleRecordings,
    StreamStep,
)
from service.domain.pool import profile_of
from service.domain.ports import Relay, StreamWanted
from service.domain.provider import STREAMS
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Stream, StreamStatus
from service.domain.secret import Secret
from service.failpoints import failpoint
from service.reconciler.act.call import delete
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import not_created, record_failure, retry_at, trouble_of
from service.reconciler.act.tags import stream_tag

log = structlog.get_logger(__name__)


async def carry_out(context: PassContext, step: StreamStep) -> None:
    if isinstance(step, CreateStream):
        await _create(context, step)
        return
    stream = next(stream for stream in context.resources.streams if stream.ordinal == step.ordinal)
    match step:
        case DisableStream():
            await _disable(context, stream)
        case SettleRecordings():
            await _settle(context, stream)
        case DeleteStream():
            await delete(context, stream, context.providers.streams.delete, "stream.delete", STREAMS)
        case ResetKey():
            await _reset_key(context, stream)
        case CutStream():
            await _cut(context, stream)
        case SetTitle():
            await _set_title(context, stream)


async def take_pooled(context: PassContext, step: CreateStream) -> bool:
    """Take a live stream that was made ahead instead of making one: no call, and no token, is needed. Answers whether
    there was one. Raises Overtaken, LeaseLost, StoreUnavailable.
    """
    profile = profile_of(context.broadcast.spec)
    if not context.providers.pooled or profile is None:
        return False
    failpoint("pool.take.before_record")
    taken = await context.passes.take_pooled(context.claim, step.ordinal, profile)
    telemetry.POOL_TAKEN.add(1, {"profile": profile.text, "found": "yes" if taken else "no"})
    if taken:
        log.info("pool_stream_taken", broadcast_id=context.broadcast.id, profile=profile.text)
        failpoint("pool.take.after_record")
    return taken


async def _create(context: PassContext, step: CreateStream) -> None:
    failpoint("stream.create.before_intent")
    spec = context.broadcast.spec
    before = context.resources.streams[-1] if context.resources.streams else None
    failures = before.failures if before is not None else 0
    stream = Stream(
        ordinal=step.ordinal,
        phase=Phase.INTENDED,
        intended_at=context.now(),
        changed_at=context.now(),
        failures=failures,
        queued_s=context.queued_s(before) if before is not None else 0.0,
        title=spec.title,
    )
    await context.intend(stream, "stream.create")
    keys = context.broadcast.destination_keys
    try:
        seen = await context.providers.streams.create(
            StreamWanted(
                tag=stream_tag(context.providers.tag, context.broadcast.id, step.ordinal),
                title=spec.title,
                playback_policy=spec.playback_policy,
                latency_mode=spec.latency_mode,
                reconnect_window_s=spec.reconnect_window_s,
                max_duration_s=spec.max_duration_s,
                test=spec.test,
                audio_only=spec.audio_only,
                owner_id=spec.owner_id,
                broadcast_id=context.broadcast.id,
                relays=tuple(
                    Relay(name=each.name, url=each.url, key=keys.get(each.name, Secret("")))
                    for each in spec.carried_by(Carrier.STREAM)
                ),
                # Nobody could download the file of a recording that is discarded.
                static_rendition=None if spec.recording_policy is RecordingPolicy.DISCARD else spec.static_rendition,
                captions_language=spec.captions_language,
                slate_url=spec.slate_url,
            )
        )
    except ProviderError as error:
        failpoint("stream.create.after_failure")
        failed = not_created(context, stream, failures + 1, error)
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("stream.create.after_call")
    await context.record(
        [created_stream(stream, seen, context.now())],
        events=[Event(reason=EventReason.STREAM_CREATED, message=seen.id)],
        recovered=STREAMS,
    )
    failpoint("stream.create.after_record")


async def _disable(context: PassContext, stream: Stream) -> None:
    failpoint("stream.disable.before_call")
    try:
        await context.providers.streams.disable(stream.external_id)
    except ProviderError as error:
        await record_failure(context, stream, error)
        return
    failpoint("stream.disable.after_call")
    await context.record(
        [replace(stream, disabled=True, disabled_at=context.now(), failures=0, retry_at=None)],
        events=[Event(reason=EventReason.STREAM_DISABLED)],
        recovered=STREAMS,
    )
    failpoint("stream.disable.after_record")


async def _settle(context: PassContext, stream: Stream) -> None:
    """One call a step. The recordings are listed page by page, and those that are to be discarded are deleted only when
    all pages were read, for a deletion moves those behind it to another page. How far it got is kept in the row.
    """
    if stream.discarding and not stream.pages_listed:
        await _discard(context, stream, *stream.discarding)
        return
    page = stream.pages_listed + 1
    try:
        found, more = await context.providers.streams.list_recordings(stream.external_id, page=page)
    except ProviderError as error:
        await record_failure(context, stream, error)
        return
    failpoint("recordings.settle.after_call")
    listed = replace(stream, failures=0, retry_at=None, pages_listed=page if more else 0)
    events: list[Event] = []
    # A page is newer than the next one. One that is met twice was moved there by a new one.
    newer = () if page == 1 else stream.recordings
    if context.broadcast.spec.recording_policy is not RecordingPolicy.DISCARD:
        known = {recording.asset_id for recording in newer}
        recordings = (*(each for each in found if each.asset_id not in known), *newer)
        listed = replace(listed, recordings=recordings, recordings_settled=not more)
        if not more:
            events.append(Event(reason=EventReason.RECORDINGS_KEPT, message=str(len(recordings))))
    else:
        before = () if page == 1 else stream.discarding or ()
        ids = tuple(dict.fromkeys([*before, *(recording.asset_id for recording in found)]))
        listed = replace(listed, recordings=(), discarding=ids, recordings_settled=not ids and not more)
    await context.record([listed], events=events, recovered=STREAMS)
    failpoint("recordings.settle.after_record")


async def _discard(context: PassContext, stream: Stream, asset_id: str, *left: str) -> None:
    try:
        await context.providers.streams.delete_recording(asset_id)
    except ProviderError as error:
        await record_failure(context, stream, error)
        return
    failpoint("recordings.discard.after_call")
    discarded = replace(stream, discarding=left, recordings_settled=not left, failures=0, retry_at=None)
    event = Event(reason=EventReason.RECORDINGS_DISCARDED, message=asset_id)
    await context.record([discarded], events=[event], recovered=STREAMS)
    failpoint("recordings.discard.after_record")


async def _reset_key(context: PassContext, stream: Stream) -> None:
    # The key that we hold may be dead from here on, with or without an answer.
    stale = replace(stream, key_stale=True)
    await context.intend(stale, "key.reset")
    try:
        key = await context.providers.streams.reset_key(stream.external_id)
    except ProviderError as error:
        failpoint("key.reset.after_failure")
        await record_failure(context, stale, error)
        return
    failpoint("key.reset.after_call")
    telemetry.FENCED.add(1)
    fresh = replace(
        stream,
        key=key,
        key_epoch=stream.key_epoch + 1,
        key_reset_at=context.now(),
        key_stale=False,
        failures=0,
        retry_at=None,
    )
    await context.record([fresh], events=[Event(reason=EventReason.KEY_RESET)], recovered=STREAMS)
    failpoint("key.reset.after_record")


async def _set_title(context: PassContext, stream: Stream) -> None:
    """Its failures are counted apart: they must not put off a fence."""
    spec = context.broadcast.spec
    try:
        await context.providers.streams.set_title(
            stream.external_id,
            spec.title,
            owner_id=spec.owner_id,
            broadcast_id=context.broadcast.id,
            tag=stream_tag(context.providers.tag, context.broadcast.id, stream.ordinal) if stream.unnamed else "",
        )
    except ProviderError as error:
        failures = stream.title_failures + 1
        again = retry_at(context, failures, error)
        failed = replace(stream, title_failures=failures, title_retry_at=again)
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("title.set.after_call")
    await context.record(
        [replace(stream, title=spec.title, unnamed=False, title_failures=0, title_retry_at=None)],
        events=[
            Event(reason=EventReason.STREAM_NAMED if stream.unnamed else EventReason.TITLE_SET, message=spec.title)
        ],
        recovered=STREAMS,
    )
    failpoint("title.set.after_record")


async def _cut(context: PassContext, stream: Stream) -> None:
    """One of two calls a step: disable, which cuts off a connected encoder, then enable."""
    cutting = replace(stream, cutting=True)
    await context.intend(cutting, "stream.cut", creates=True)
    disabled = stream.cutting and stream.status is StreamStatus.DISABLED
    turn = context.providers.streams.enable if disabled else context.providers.streams.disable
    try:
        await turn(stream.external_id)
    except ProviderError as error:
        await record_failure(context, cutting, error)
        return
    now = context.now()
    if not disabled:
        failpoint("stream.cut.between")
        half = replace(cutting, status=StreamStatus.DISABLED, status_since=now, failures=0, retry_at=None)
        await context.record([half], recovered=STREAMS)
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
    await context.record([cut], events=[Event(reason=EventReason.STREAM_CUT)], recovered=STREAMS)
    failpoint("stream.cut.after_record")
