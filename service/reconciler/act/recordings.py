"""The steps of the fallback LOCAL_RECORDING: a file egress to our storage, and its hand-over to become an asset."""

from __future__ import annotations

from dataclasses import replace

from service.domain.errors import Overtaken, ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.recordings import uploaded, with_recording
from service.domain.planning.steps import DeleteUpload, RecordingStep, StartRecording, StopRecording, UploadRecording
from service.domain.ports import RecordingWanted, UploadWanted
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import EventReason, Fault
from service.domain.resources import EgressStatus, LocalRecording, Phase, Upload
from service.failpoints import failpoint
from service.reconciler.act.call import delete
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import cut_off, not_created, not_started, record_failure, stopping, trouble_of
from service.reconciler.act.tags import file_of, upload_tag


async def carry_out(context: PassContext, step: RecordingStep) -> None:
    match step:
        case StartRecording():
            await _start(context, step.ordinal)
        case StopRecording():
            await _stop(context, _recording(context, step.ordinal), step.fault)
        case UploadRecording():
            await _upload(context, _recording(context, step.ordinal))
        case DeleteUpload():
            upload = next(each for each in context.resources.uploads if each.ordinal == step.ordinal)
            await delete(context, upload, context.providers.streams.delete_recording, "upload.delete", STREAMS)


def _recording(context: PassContext, ordinal: int) -> LocalRecording:
    return next(each for each in context.resources.recordings if each.ordinal == ordinal)


async def _start(context: PassContext, ordinal: int) -> None:
    spec = context.broadcast.spec
    recording = LocalRecording(
        ordinal=ordinal,
        phase=Phase.INTENDED,
        intended_at=context.now(),
        changed_at=context.now(),
        file=file_of(context.providers.files, context.broadcast.id, ordinal),
        failures=context.resources.recordings[-1].failures if context.resources.recordings else 0,
    )
    await context.intend(recording, "recording.start")
    try:
        seen = await context.while_wanted(
            context.providers.egresses.record(
                RecordingWanted(
                    room_name=context.broadcast.id,
                    encoding=spec.encoding,
                    audio_only=spec.audio_only,
                    layout=spec.layout,
                    file=recording.file,
                )
            )
        )
    except Overtaken:
        await cut_off(context, recording)
        raise
    except ProviderError as error:
        failed = not_started(context, recording, recording.failures + 1, error)
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("recording.start.after_call")
    started = with_recording(recording, seen, context.now())
    if started.status is EgressStatus.UNKNOWN:
        started = replace(started, status=EgressStatus.STARTING)
    started = replace(started, phase=Phase.PRESENT, changed_at=context.now(), failures=0)
    await context.record(
        [started],
        events=[Event(reason=EventReason.RECORDING_STARTED, message=seen.id)],
        recovered=ROOMS,
    )
    failpoint("recording.start.after_record")


async def _stop(context: PassContext, recording: LocalRecording, fault: Fault) -> None:
    leaving = stopping(context, replace(recording, fault=fault or recording.fault))
    await context.intend(leaving, "recording.stop")
    try:
        await context.providers.egresses.stop(recording.external_id)
    except ProviderError as error:
        await record_failure(context, leaving, error)
        return
    failpoint("recording.stop.after_call")
    await context.record([replace(leaving, acked=True, failures=0, retry_at=None)], recovered=ROOMS)


async def _upload(context: PassContext, recording: LocalRecording) -> None:
    broadcast, storage = context.broadcast, context.providers.storage
    earlier = next((each for each in context.resources.uploads if each.ordinal == recording.ordinal), None)
    failures = earlier.failures if earlier is not None else 0
    upload = Upload(
        ordinal=recording.ordinal,
        phase=Phase.INTENDED,
        intended_at=context.now(),
        changed_at=context.now(),
        failures=failures,
        attempt=earlier.attempt + 1 if earlier is not None else 0,
        errored=earlier.errored if earlier is not None else 0,
    )
    if storage is None:
        # There was a storage when it was recorded, and the settings have none any more.
        refused = replace(upload, phase=Phase.GONE, refused=True)
        event = Event(reason=EventReason.UPLOAD_IMPOSSIBLE, message="no storage is configured")
        await context.record([refused], events=[event])
        return
    # A stop does not prevent it: a recording is handed over in any case.
    await context.intend(upload, "upload.create")
    try:
        asset = await context.providers.uploads.create(
            UploadWanted(
                tag=upload_tag(context.providers.tag, broadcast.id, upload),
                url=storage.url_of(recording.file),
                title=broadcast.spec.title,
                playback_policy=broadcast.spec.playback_policy,
                owner_id=broadcast.spec.owner_id,
                broadcast_id=broadcast.id,
                static_rendition=broadcast.spec.static_rendition,
            )
        )
    except ProviderError as error:
        failed = not_created(context, upload, failures + 1, error)
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("upload.create.after_call")
    await context.record(
        [uploaded(upload, asset, context.now())],
        events=[Event(reason=EventReason.UPLOAD_CREATED, message=asset.asset_id)],
        recovered=STREAMS,
    )
    failpoint("upload.create.after_record")
