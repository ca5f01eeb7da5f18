"""Live streams of Mux, and the recordings that it makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mux_python

from service.domain.errors import Outcome, ProviderError
from service.domain.ports.pages import at_once
from service.domain.reasons import Operation
from service.domain.secret import Secret
from service.providers.mux.calls import PAGE, SEARCH_PAGES, SKEW, MuxCalls
from service.providers.mux.observed import asset_seen, assets_seen, key_seen, stream_seen, streams_seen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from service.domain.broadcast import StaticRendition
    from service.domain.ports import StreamSeen, StreamWanted
    from service.domain.ports.pages import NextPage
    from service.domain.resources import Recording


class Streams:
    def __init__(self, client: mux_python.ApiClient, calls: MuxCalls, ingest_url: str) -> None:
        # The SDK is not typed.
        self._live: Any = mux_python.LiveStreamsApi(client)
        self._assets: Any = mux_python.AssetsApi(client)
        self._calls = calls
        self._ingest_url = ingest_url

    async def create(self, wanted: StreamWanted) -> StreamSeen:
        return await self._calls.read(
            Operation.CREATE_STREAM, stream_seen, self._live.create_live_stream, _body(wanted)
        )

    async def get(self, stream_id: str) -> StreamSeen | None:
        return await self._calls.found(Operation.GET_STREAM, stream_seen, self._live.get_live_stream, stream_id)

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        found: list[StreamSeen] = []
        for page in range(1, SEARCH_PAGES + 1):
            if page > 1:
                await next_page()
            streams = await self._list(page=page)
            found.extend(stream for stream in streams if stream.tag == tag)
            if len(streams) < PAGE or streams[-1].created_at < since - SKEW:
                break
        return sorted(found, key=lambda stream: stream.created_at)

    async def list_active(self, *, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        active: list[StreamSeen] = []
        page = 1
        while True:
            streams = await self._list(page=page, status="active")
            active.extend(streams)
            if len(streams) < PAGE:
                return active
            page += 1
            await next_page()

    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        streams = await self._list(page=page)
        return [stream for stream in streams if stream.tag.startswith(prefix)], len(streams) == PAGE

    async def disable(self, stream_id: str) -> None:
        try:
            await self._calls.call(Operation.DISABLE_STREAM, self._live.disable_live_stream, stream_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    async def set_title(self, stream_id: str, title: str, *, owner_id: str, broadcast_id: str, tag: str = "") -> None:
        """A PATCH of a dictionary changes what is in it and nothing else; through the SDK's model it would reset three
        settings. Of `new_asset_settings` it changes `meta` alone (mux.com/docs, Update a live stream), so recordings
        keep the mark that the live stream was made with.
        """
        named = {"meta": named_by(title, owner_id, broadcast_id) | {"title": title}}
        body: dict[str, Any] = {"meta": {"title": title}, "new_asset_settings": named}
        if tag:
            body["passthrough"] = tag
        await self._calls.call(Operation.SET_TITLE, self._live.update_live_stream, stream_id, body)

    async def enable(self, stream_id: str) -> None:
        await self._calls.call(Operation.ENABLE_STREAM, self._live.enable_live_stream, stream_id)

    async def complete(self, stream_id: str) -> None:
        """End the recording now and keep the stream. The encoder stays connected for 60 s more (mux.com/docs, Manage
        stream keys), so this is not how a broadcast ends: that is `disable`.
        """
        await self._calls.call(Operation.COMPLETE_STREAM, self._live.signal_live_stream_complete, stream_id)

    async def delete(self, stream_id: str) -> None:
        try:
            await self._calls.call(Operation.DELETE_STREAM, self._live.delete_live_stream, stream_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    async def reset_key(self, stream_id: str) -> Secret:
        return await self._calls.read(Operation.RESET_KEY, key_seen, self._live.reset_stream_key, stream_id)

    async def list_recordings(self, stream_id: str, *, page: int) -> tuple[Sequence[Recording], bool]:
        assets = await self._calls.read(
            Operation.LIST_ASSETS,
            assets_seen,
            self._assets.list_assets,
            limit=PAGE,
            page=page,
            live_stream_id=stream_id,
        )
        recordings = [asset.recording for asset in sorted(assets, key=lambda asset: asset.created_at)]
        return recordings, len(assets) == PAGE

    async def recording(self, asset_id: str) -> Recording | None:
        asset = await self._calls.found(Operation.GET_ASSET, asset_seen, self._assets.get_asset, asset_id)
        return asset.recording if asset else None

    async def delete_recording(self, asset_id: str) -> None:
        try:
            await self._calls.call(Operation.DELETE_ASSET, self._assets.delete_asset, asset_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    def push_url(self, key: Secret) -> Secret:
        return Secret(self._ingest_url.replace("{key}", key.reveal()))

    async def _list(self, *, page: int, **filters: str) -> list[StreamSeen]:
        return await self._calls.read(
            Operation.LIST_STREAMS, streams_seen, self._live.list_live_streams, limit=PAGE, page=page, **filters
        )


def named_by(title: str, owner_id: str, broadcast_id: str) -> dict[str, str]:
    """The names of a recording: those that are not empty."""
    named = {"title": title, "creator_id": owner_id, "external_id": broadcast_id}
    return {name: text for name, text in named.items() if text}


def renditions(wanted: StaticRendition) -> list[dict[str, str]]:
    return [{"resolution": wanted.replace("_", "-")}]


def _body(wanted: StreamWanted) -> dict[str, Any]:
    body: dict[str, Any] = {
        "playback_policies": [wanted.playback_policy],
        # The recording is playable and traceable only if it is told so too.
        "new_asset_settings": {
            "playback_policies": [wanted.playback_policy],
            "passthrough": wanted.tag,
        },
        "passthrough": wanted.tag,
        "latency_mode": wanted.latency_mode,
        # Said always: the default is 0 with low and reduced latency, where any blip ends the stream.
        "reconnect_window": wanted.reconnect_window_s,
        "test": wanted.test,
        "audio_only": wanted.audio_only,
    }
    if wanted.title:
        # A live stream takes no other name (LiveStreamMetadata of the SDK): owner and broadcast are in its passthrough,
        # and in the names of its recordings.
        body["meta"] = {"title": wanted.title}
    if named := named_by(wanted.title, wanted.owner_id, wanted.broadcast_id):
        # Whether Mux copies the names of a live stream to its recordings its documents do not say.
        body["new_asset_settings"]["meta"] = named
    if wanted.static_rendition is not None:
        body["new_asset_settings"]["static_renditions"] = renditions(wanted.static_rendition)
    if wanted.captions_language:
        # Mux makes a name for the track of the language (mux.com/docs, Add auto-generated live captions).
        body["generated_subtitles"] = [{"language_code": wanted.captions_language}]
    if wanted.slate_url:
        body["reconnect_slate_url"] = wanted.slate_url
    if wanted.latency_mode == "standard" and wanted.reconnect_window_s > 0:
        # Without a slate the playlist stalls in the window; with low and reduced latency it is implied.
        body["use_slate_for_standard_latency"] = True
    if not wanted.test:
        # 400 "Cannot use max continuous duration with test live streams" (muxinc/mux-php#68).
        body["max_continuous_duration"] = wanted.max_duration_s
    if wanted.relays:
        body["simulcast_targets"] = [
            {"url": relay.url, "stream_key": relay.key.reveal(), "passthrough": relay.name} for relay in wanted.relays
        ]
    return body
