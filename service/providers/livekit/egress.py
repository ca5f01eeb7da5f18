"""Egresses of LiveKit: to RTMP addresses, or into a file of our storage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from livekit import api

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.validation import shown_ends
from service.providers.livekit.calls import LiveKitCalls, each_seen, not_empty
from service.providers.livekit.observed import egress_seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.domain.broadcast import Encoding
    from service.domain.ports import EgressSeen, EgressWanted, Push, RecordingWanted
    from service.providers.storage.links import StorageSettings

# livekit/egress pkg/config/urls.go: `mux://KEY` is short for Mux's global RTMPS ingest.
_MUX = "rtmps://global-live.mux.com:443/app/"
_RTMP = re.compile(r"^(rtmps?://)(.*/)(.*/)(\S*)( live=1)?$")


class Egresses:
    def __init__(
        self, lk: api.LiveKitAPI, calls: LiveKitCalls, storage: StorageSettings | None = None, template_url: str = ""
    ) -> None:
        """*template_url*: the page that an egress opens, with the address of the room and a token to watch it. Empty:
        LiveKit's own.
        """
        self._egress = lk.egress
        self._call = calls
        self._storage = storage
        self._template_url = template_url

    async def start(self, wanted: EgressWanted) -> EgressSeen:
        return await self._start(
            api.RoomCompositeEgressRequest(
                room_name=wanted.room_name,
                layout=wanted.layout,
                custom_base_url=self._template_url,
                audio_only=wanted.audio_only,
                advanced=_encoding(wanted.encoding),
                # At most one StreamOutput is taken, with any number of urls.
                stream_outputs=[
                    api.StreamOutput(
                        protocol=api.StreamProtocol.RTMP, urls=[push.url.reveal() for push in wanted.pushes]
                    )
                ],
            )
        )

    async def record(self, wanted: RecordingWanted) -> EgressSeen:
        """The keys of the storage go with the request. LiveKit keeps and shows it redacted (livekit/protocol
        egress/redact.go), but whoever logs whole requests on its side has them: they should open the one bucket, and
        only for writing.
        """
        if self._storage is None:
            raise ProviderError(
                "no storage is set",
                provider=Provider.LIVEKIT,
                operation=Operation.START_EGRESS,
                outcome=Outcome.REFUSED,
                code="no_storage",
            )
        return await self._start(
            api.RoomCompositeEgressRequest(
                room_name=wanted.room_name,
                layout=wanted.layout,
                custom_base_url=self._template_url,
                audio_only=wanted.audio_only,
                advanced=_encoding(wanted.encoding),
                file_outputs=[
                    api.EncodedFileOutput(
                        file_type=api.EncodedFileType.MP4,
                        filepath=wanted.file,
                        # A JSON file beside each recording that nobody here reads.
                        disable_manifest=True,
                        s3=_s3(self._storage),
                    )
                ],
            )
        )

    async def _start(self, request: api.RoomCompositeEgressRequest) -> EgressSeen:
        info = await self._call(Operation.START_EGRESS, self._egress.start_room_composite_egress(request))
        not_empty(info.egress_id, Operation.START_EGRESS)
        return egress_seen(info)

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        found = await self._call(
            Operation.LIST_EGRESSES, self._egress.list_egress(api.ListEgressRequest(room_name=room_name))
        )
        return await each_seen(found.items, egress_seen)

    async def get(self, egress_id: str) -> EgressSeen | None:
        """An unknown id is answered with 404 (livekit/livekit pkg/service/redisstore.go, LoadEgress)."""
        try:
            found = await self._call(
                Operation.LIST_EGRESSES, self._egress.list_egress(api.ListEgressRequest(egress_id=egress_id))
            )
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                return None
            raise
        shown = next((egress_seen(info) for info in found.items if info.egress_id == egress_id), None)
        not_empty(shown.id if shown is not None else "", Operation.LIST_EGRESSES)
        return shown

    async def list_active(self) -> Sequence[EgressSeen]:
        found = await self._call(Operation.LIST_EGRESSES, self._egress.list_egress(api.ListEgressRequest(active=True)))
        return await each_seen(found.items, egress_seen)

    async def stop(self, egress_id: str) -> None:
        try:
            await self._call(
                Operation.STOP_EGRESS, self._egress.stop_egress(api.StopEgressRequest(egress_id=egress_id))
            )
        except ProviderError as error:
            # 412 "egress with status EGRESS_COMPLETE cannot be stopped", or nothing of that id.
            if error.code not in ("failed_precondition", "not_found"):
                raise

    async def set_layout(self, egress_id: str, layout: str) -> None:
        """No effect on LiveKit's stock template since livekit/egress#806; a custom template takes it."""
        await self._call(
            Operation.SET_LAYOUT,
            self._egress.update_layout(api.UpdateLayoutRequest(egress_id=egress_id, layout=layout)),
        )

    async def set_pushes(self, egress_id: str, *, add: Sequence[Push], remove: Sequence[Push]) -> EgressSeen:
        """Partial where it fails: what could be done is done (livekit/egress pkg/pipeline/controller.go)."""
        info = await self._call(
            Operation.SET_OUTPUTS,
            self._egress.update_stream(
                api.UpdateStreamRequest(
                    egress_id=egress_id,
                    add_output_urls=[push.url.reveal() for push in add],
                    remove_output_urls=[push.url.reveal() for push in remove],
                )
            ),
        )
        not_empty(info.egress_id, Operation.SET_OUTPUTS)
        return egress_seen(info)

    def address_of(self, push: Push) -> str:
        url = push.url.reveal()
        if url.startswith("mux://"):
            url = _MUX + url.removeprefix("mux://")
        parts = _RTMP.match(url)
        if parts is None:
            return ""
        scheme, host, app, key = parts.group(1, 2, 3, 4)
        return f"{scheme}{host}{app}{shown_ends(key)}"


def _encoding(encoding: Encoding) -> api.EncodingOptions:
    # Presets cannot carry a key frame interval and leave it at 4 s; Mux asks for 2 s.
    return api.EncodingOptions(
        width=encoding.width,
        height=encoding.height,
        framerate=encoding.frame_rate,
        video_codec=api.VideoCodec.H264_MAIN,
        # LiveKit counts in kilobits; bits would silently become 2048 kb/s.
        video_bitrate=round(encoding.video_bitrate_bps / 1000),
        audio_codec=api.AudioCodec.AAC,
        audio_bitrate=round(encoding.audio_bitrate_bps / 1000),
        audio_frequency=48_000,
        key_frame_interval=2.0,
    )


def _s3(storage: StorageSettings) -> api.S3Upload:
    return api.S3Upload(
        access_key=storage.access_key.reveal(),
        secret=storage.secret_key.reveal(),
        region=storage.region,
        endpoint=storage.endpoint,
        bucket=storage.bucket,
        force_path_style=storage.force_path_style,
    )
