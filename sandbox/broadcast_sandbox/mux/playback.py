"""The playlists and pictures of live streams and assets, as viewers see them.

Statuses: mux.com/docs, Stream recordings of live streams (412), Secure video playback (403), Get images from a video.
"""

import base64
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.model import Asset, LiveStream
from broadcast_sandbox.mux.playback_token import Use, genuine, subject
from broadcast_sandbox.mux.store import MuxStore, Playable

SEGMENT_S = 2
LIVE_SEGMENTS = 5
"""Mux keeps about 30 s in a live playlist. Less here: the sequence number moves as soon as the stream is active."""

_MULTIVARIANT = """#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS

#EXT-X-STREAM-INF:BANDWIDTH=2516370,AVERAGE-BANDWIDTH=2516370,RESOLUTION=1280x720,CODECS="mp4a.40.2,avc1.640020"
{id}/rendition.m3u8{token}
"""

_PICTURES: Final[dict[str, tuple[Use, str]]] = {
    "thumbnail.png": ("t", "image/png"),
    "storyboard.png": ("s", "image/png"),
    "storyboard.vtt": ("s", "text/vtt"),
}
_PIXEL: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class MuxPlayback:
    def __init__(self, store: MuxStore, life: MuxLife, clock: ScaledClock, faults: FaultTable) -> None:
        self._faults = faults
        self._served: dict[str, str] = {}
        """Playback id -> the last playlist before the fault `hls_stall`, which goes on being served."""
        self._store = store
        self._life = life
        self._clock = clock

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/playback/{id}.m3u8", self._multivariant)
        app.router.add_get("/playback/{id}/rendition.m3u8", self._rendition)
        app.router.add_get("/image/{id}/{picture}", self._picture)
        app.router.add_get("/counts", self._counts)

    async def _multivariant(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        token = f"?token={request.query['token']}" if "token" in request.query else ""
        return _shown(_MULTIVARIANT.format(id=request.match_info["id"], token=token))

    async def _rendition(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        return found if isinstance(found, web.Response) else _shown(self._stalled(request.match_info["id"], found))

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        """A thumbnail or a storyboard, of one pixel."""
        known = _PICTURES.get(request.match_info["picture"])
        if known is None:
            return _plain(404)
        use, type_ = known
        found = self._find(request, use)
        if isinstance(found, web.Response):
            return found
        body = b"WEBVTT\n" if type_ == "text/vtt" else _PIXEL
        return web.Response(body=body, content_type=type_, headers={"Access-Control-Allow-Origin": "*"})

    async def _counts(self, request: web.Request) -> web.StreamResponse:
        """Engagement counts (mux.com/docs, See how many people are watching), of a live stream alone. The documentation
        does not show the answer where no player reports; an empty list is an assumption.
        """
        token = request.query.get("token", "")
        stream_id = subject(token)
        keys = self._store.signing_keys
        if not keys or stream_id not in self._store.streams or not genuine(token, stream_id, keys, "live_stream_id"):
            return _plain(403)
        viewers = self._store.viewers.get(stream_id, 0)
        updated_at = self._clock.now()
        row = {"views": viewers, "viewers": viewers, "updated_at": datetime.fromtimestamp(updated_at, UTC).isoformat()}
        return web.json_response({"data": [row] if viewers else []})

    def _find(self, request: web.Request, use: Use = "v") -> str | web.Response:
        """The media playlist as it is now, or the refusal."""
        playable = self._store.playables.get(request.match_info["id"])
        if playable is None:
            return _plain(404)
        if not self._allowed(playable, request, use):
            return _plain(403)
        text = self._live(playable) if playable.type == "live_stream" else self._recorded(playable)
        if text is None:
            return _plain(412)
        return text

    def _stalled(self, playback_id: str, text: str) -> str:
        owner_id = self._store.playables[playback_id].owner_id
        owner = self._store.streams.get(owner_id) or self._store.assets.get(owner_id)
        target = f"{playback_id} {owner.fault_target if owner else ''}"
        if self._faults.take("playback", target, "hls_stall") is None:
            self._served[playback_id] = text
        return self._served.setdefault(playback_id, text)

    def _allowed(self, playable: Playable, request: web.Request, use: Use) -> bool:
        token = request.query.get("token")
        if playable.playback_id.policy == "public":
            return token is None
        # Mux refuses the url of a signed id with any other parameter: they belong in the token.
        if token is None or len(request.query) != 1:
            return False
        return genuine(token, playable.playback_id.id, self._store.signing_keys, use)

    def _live(self, playable: Playable) -> str | None:
        stream = self._store.streams[playable.owner_id]
        if stream.status == "active" and (recording := self._life.recording(stream)) is not None:
            return _media_playlist(playable, recording.media_s(self._clock.now()), last=LIVE_SEGMENTS)
        # It stays, with its end mark, until the live stream is active again or deleted.
        if stream.ended_at is None or not (ended := self._last_asset(stream)):
            return None
        return _media_playlist(playable, ended.duration_s or 0.0, last=LIVE_SEGMENTS, ended=True)

    def _last_asset(self, stream: LiveStream) -> Asset | None:
        assets = [self._store.assets.get(asset_id) for asset_id in reversed(stream.recent_asset_ids)]
        return next((asset for asset in assets if asset is not None and asset.duration_s is not None), None)

    def _recorded(self, playable: Playable) -> str | None:
        asset = self._store.assets[playable.owner_id]
        if asset.status != "ready":
            return None
        if asset.duration_s is not None:
            return _media_playlist(playable, asset.duration_s, last=None, ended=True)
        stream = self._store.streams.get(asset.live_stream_id)
        recording = self._life.recording(stream) if stream is not None else None
        return _media_playlist(playable, recording.media_s(self._clock.now()) if recording else 0.0, last=None)


def _media_playlist(playable: Playable, media_s: float, *, last: int | None, ended: bool = False) -> str:
    segments = int(media_s // SEGMENT_S)
    first = 0 if last is None else max(segments - last, 0)
    lines = ["#EXTM3U", "#EXT-X-VERSION:6", f"#EXT-X-TARGETDURATION:{SEGMENT_S}", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    if last is None:
        lines.append(f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}")
    for number in range(first, segments):
        lines += [f"#EXTINF:{SEGMENT_S:.3f},", f"{playable.playback_id.id}/{number}.ts"]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _shown(text: str) -> web.Response:
    response = web.Response(text=text, content_type="application/vnd.apple.mpegurl")
    response.headers.update({"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"})
    return response


def _plain(status: int) -> web.Response:
    return web.Response(status=status, headers={"Access-Control-Allow-Origin": "*"})
