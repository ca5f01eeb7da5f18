"""Assets that Mux makes of a file of ours: it fetches the file itself, some time after it was asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mux_python

from service.domain.ports import UploadSeen
from service.domain.ports.pages import at_once
from service.domain.reasons import Operation
from service.providers.mux.calls import PAGE, SEARCH_PAGES, SKEW, MuxCalls
from service.providers.mux.observed import asset_seen, assets_seen
from service.providers.mux.streams import named_by, renditions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from service.domain.ports import UploadWanted
    from service.domain.ports.pages import NextPage
    from service.domain.resources import Recording
    from service.providers.mux.observed import Asset


class Uploads:
    def __init__(self, client: mux_python.ApiClient, calls: MuxCalls) -> None:
        # The SDK is not typed.
        self._assets: Any = mux_python.AssetsApi(client)
        self._calls = calls

    async def create(self, wanted: UploadWanted) -> Recording:
        asset = await self._calls.read(Operation.CREATE_ASSET, asset_seen, self._assets.create_asset, _body(wanted))
        return asset.recording

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[Recording]:
        found: list[Asset] = []
        for page in range(1, SEARCH_PAGES + 1):
            if page > 1:
                await next_page()
            assets = await self._calls.read(
                Operation.LIST_ASSETS, assets_seen, self._assets.list_assets, limit=PAGE, page=page
            )
            # What was recorded from a live stream is none, whatever tag the stream gave it.
            found.extend(asset for asset in assets if asset.tag == tag and not asset.live_stream_id)
            if len(assets) < PAGE or assets[-1].created_at < since - SKEW:
                break
        return [asset.recording for asset in sorted(found, key=lambda asset: asset.created_at)]

    async def list_tagged(self, prefix: str, *, since: datetime, page: int) -> tuple[Sequence[UploadSeen], bool]:
        assets = await self._calls.read(
            Operation.LIST_ASSETS, assets_seen, self._assets.list_assets, limit=PAGE, page=page
        )
        tagged = [
            UploadSeen(id=asset.recording.asset_id, tag=asset.tag, created_at=asset.created_at)
            for asset in assets
            if asset.tag.startswith(prefix) and not asset.live_stream_id
        ]
        return tagged, len(assets) == PAGE and assets[-1].created_at >= since - SKEW

    async def get(self, asset_id: str) -> Recording | None:
        asset = await self._calls.found(Operation.GET_ASSET, asset_seen, self._assets.get_asset, asset_id)
        return asset.recording if asset else None


def _body(wanted: UploadWanted) -> dict[str, Any]:
    body: dict[str, Any] = {
        "inputs": [{"url": wanted.url.reveal()}],
        "playback_policies": [wanted.playback_policy],
        "passthrough": wanted.tag,
    }
    if named := named_by(wanted.title, wanted.owner_id, wanted.broadcast_id):
        body["meta"] = named
    if wanted.static_rendition is not None:
        body["static_renditions"] = renditions(wanted.static_rendition)
    return body
