"""Steps of the fallback LOCAL_RECORDING: a file egress to our storage, and its upload to Mux."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.domain.errors import ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.provider_state import uploaded, with_recording
from service.domain.planning.steps import DeleteUpload, RecordingStep, StartRecording, StopRecording, UploadRecording
from service.domain.ports import RecordingWanted, UploadWanted
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import EventReason, Fault
from service.domain.resources import EgressStatus, LocalRecording, Phase, Upload
from service.failpoints import failpoint
from service.reconciler.act.requests import file_of, trouble_of, upload_tag

if TYPE_CHECKING:
    from service.domain.resource_set import ResourceSet
    from service.reconciler.act.call import Errand
    from service.reconciler.act.requests import Providers
    from service.store.passes import Passes


class Recorder:
    def __init__(self, errand: Errand, resource_set: ResourceSet, passes: Passes, providers: Providers) -> None:
        self._errand = errand
        self._view = resource_set
        self._passes = passes
        self._providers = providers

    async def carry_out(self, step: RecordingStep) -> None:
        match step:
            case StartRecording():
                await self._start(step.ordinal)
            case StopRecording():
                await self._stop(self._recording(step.ordinal), step.fault)
            case UploadRecording():
                await self._upload(self._recording(step.ordinal))
            case DeleteUpload():
                upload = next(each for each in self._view.uploads if each.ordinal == step.ordinal)
                await self._errand.delete(upload, self._providers.streams.delete_recording, "upload.delete", STREAMS)

    def _recording(self, ordinal: int) -> LocalRecording:
        return next(each for each in self._view.recordings if each.ordinal == ordinal)

    async def _start(self, ordinal: int) -> None:
        errand, spec = self._errand, self._errand.broadcast.spec
        recording = LocalRecording(
            ordinal=ordinal,
            phase=Phase.INTENDED,
            intended_at=errand.now(),
            changed_at=errand.now(),
            file=file_of(self._providers.files, errand.broadcast.id, ordinal),
            failures=self._view.recordings[-1].failures if self._view.recordings else 0,
        )
        await errand.intend(recording, "recording.start")
        try:
            seen = await self._providers.egresses.record(
                RecordingWanted(
                    room_name=errand.broadcast.id,
                    encoding=spec.encoding,
                    audio_only=spec.audio_only,
                    layout=spec.layout,
                    file=recording.file,
                )
            )
        except ProviderError as error:
            failed = errand.not_created(recording, recording.failures + 1, error)
            failed = replace(failed, end_seen=failed.phase is Phase.GONE, error=error.message)
            await self._passes.record(errand.claim, [failed], trouble=trouble_of(error, errand.now()))
            return
        failpoint("recording.start.after_call")
        started = with_recording(recording, seen, errand.now())
        if started.status is EgressStatus.UNKNOWN:
            started = replace(started, status=EgressStatus.STARTING)
        started = replace(started, phase=Phase.PRESENT, changed_at=errand.now(), failures=0)
        await self._passes.record(
            errand.claim,
            [started],
            events=[Event(reason=EventReason.RECORDING_STARTED, message=seen.id)],
            recovered=ROOMS,
        )
        failpoint("recording.start.after_record")

    async def _stop(self, recording: LocalRecording, fault: Fault) -> None:
        errand = self._errand
        leaving = errand.leaving(replace(recording, fault=fault or recording.fault))
        await errand.intend(leaving, "recording.stop")
        try:
            await self._providers.egresses.stop(recording.external_id)
        except ProviderError as error:
            await errand.failed(leaving, error)
            return
        failpoint("recording.stop.after_call")
        await self._passes.record(
            errand.claim, [replace(leaving, acked=True, failures=0, retry_at=None)], recovered=ROOMS
        )

    async def _upload(self, recording: LocalRecording) -> None:
        errand, broadcast, storage = self._errand, self._errand.broadcast, self._providers.storage
        earlier = next((each for each in self._view.uploads if each.ordinal == recording.ordinal), None)
        failures = earlier.failures if earlier is not None else 0
        upload = Upload(
            ordinal=recording.ordinal,
            phase=Phase.INTENDED,
            intended_at=errand.now(),
            changed_at=errand.now(),
            failures=failures,
            attempt=earlier.attempt + 1 if earlier is not None else 0,
            errored=earlier.errored if earlier is not None else 0,
        )
        if storage is None:
            # The storage was there when it was recorded, and was taken out of the settings since.
            refused = replace(upload, phase=Phase.GONE, refused=True)
            event = Event(reason=EventReason.UPLOAD_IMPOSSIBLE, message="no storage is configured")
            await self._passes.record(errand.claim, [refused], events=[event])
            return
        # Begun before a stop or after it: what was recorded is uploaded in any case.
        await errand.intend(upload, "upload.create")
        try:
            asset = await self._providers.uploads.create(
                UploadWanted(
                    tag=upload_tag(self._providers.tag, broadcast.id, upload),
                    url=storage.url_of(recording.file),
                    title=broadcast.spec.title,
                    playback_policy=broadcast.spec.playback_policy,
                )
            )
        except ProviderError as error:
            failed = errand.not_created(upload, failures + 1, error)
            await self._passes.record(errand.claim, [failed], trouble=trouble_of(error, errand.now()))
            return
        failpoint("upload.create.after_call")
        await self._passes.record(
            errand.claim,
            [uploaded(upload, asset, errand.now())],
            events=[Event(reason=EventReason.UPLOAD_CREATED, message=asset.asset_id)],
            recovered=STREAMS,
        )
        failpoint("upload.create.after_record")
