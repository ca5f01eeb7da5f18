"""What of Mux faces encoders and viewers: the simulated RTMP ingest and the live playlists.

The ingest is a WebSocket on `/_ingest/app/{stream_key}`: refusing the upgrade is a rejected publish, the open socket
is the RTMP connection, `{"media": true}` and `{"media": false}` say whether frames flow. Playback statuses:
mux.com/docs, Stream recordings of live streams (412), Secure video playback (403).
"""

import asyncio
import base64
import json
import time
from typing import Any

from aiohttp import WSMsgType, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.model import Asset, Json, LiveStream
from broadcast_sandbox.mux.recording import Publisher, PublishRejectedError
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
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


class MuxIngest:
    def __init__(self, life: MuxLife) -> None:
        self._life = life

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/_ingest/app/{key}", self._publish)

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=0.2)
        if not socket.can_prepare(request).ok:
            return web.json_response({"error": "a WebSocket upgrade is required"}, status=426)
        try:
            publisher = self._life.connect(request.match_info["key"])
        except PublishRejectedError as rejected:
            return web.json_response({"error": str(rejected)}, status=403)
        closer: asyncio.Task[None] | None = None
        try:
            await socket.prepare(request)
            closer = asyncio.get_running_loop().create_task(_close_when_gone(socket, publisher))
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._hear(publisher, message.data)
        finally:
            self._life.leave(publisher)
            if closer is not None:
                await closer
        return socket

    def _hear(self, publisher: Publisher, text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            return
        if isinstance(said, dict) and isinstance(flowing := said.get("media"), bool):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            self._life.media(publisher, flowing=flowing)


async def _close_when_gone(socket: web.WebSocketResponse, publisher: Publisher) -> None:
    await publisher.gone.wait()
    await socket.close()


class MuxPlayback:
    def __init__(
        self, settings: MuxSimulatorSettings, store: MuxStore, life: MuxLife, clock: ScaledClock, faults: FaultTable
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._served: dict[str, str] = {}
        """What the fault `hls_stall` goes on serving, by playback id."""
        self._store = store
        self._life = life
        self._clock = clock

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/playback/{id}.m3u8", self._multivariant)
        app.router.add_get("/playback/{id}/rendition.m3u8", self._rendition)

    async def _multivariant(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        token = f"?token={request.query['token']}" if "token" in request.query else ""
        return _shown(_MULTIVARIANT.format(id=request.match_info["id"], token=token))

    async def _rendition(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request)
        return found if isinstance(found, web.Response) else _shown(self._stalled(request.match_info["id"], found))

    def _find(self, request: web.Request) -> str | web.Response:
        """The media playlist as it is now, or the refusal."""
        playable = self._store.playables.get(request.match_info["id"])
        if playable is None:
            return _plain(404)
        if not self._allowed(playable, request):
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

    def _allowed(self, playable: Playable, request: web.Request) -> bool:
        token = request.query.get("token")
        if playable.playback_id.policy == "public":
            return token is None
        # Everything else belongs into the token of a signed id; beside it Mux refuses the URL.
        return token is not None and len(request.query) == 1 and self._genuine(token, playable.playback_id.id)

    def _genuine(self, token: str, playback_id: str) -> bool:
        try:
            signed, _, signature = token.rpartition(".")
            head, claims = (_decoded(part) for part in signed.split("."))
        except ValueError:
            return False
        if claims.get("sub") != playback_id or claims.get("aud", "v") != "v" or _expired(claims):
            return False
        return not self._settings.signing_keys or self._signed(head, signed, signature)

    def _signed(self, head: Json, signed: str, signature: str) -> bool:
        pem = self._settings.signing_keys.get(str(head.get("kid")))
        if pem is None or head.get("alg") != "RS256":
            return False
        key = serialization.load_pem_public_key(pem.encode())
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        try:
            key.verify(_bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True

    def _live(self, playable: Playable) -> str | None:
        stream = self._store.streams[playable.owner_id]
        if stream.status == "active" and (recording := self._life.recording(stream)) is not None:
            return _media_playlist(playable, recording.media_s(self._clock.now()), last=LIVE_SEGMENTS)
        if not self._just_ended(stream) or not (ended := self._last_asset(stream)):
            return None
        return _media_playlist(playable, ended.duration_s or 0.0, last=LIVE_SEGMENTS, ended=True)

    def _just_ended(self, stream: LiveStream) -> bool:
        return stream.ended_at is not None and self._clock.now() - stream.ended_at < self._settings.endlist_s

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


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _decoded(part: str) -> Json:
    """Raises ValueError."""
    value: Any = json.loads(_bytes(part))
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return value  # pyright: ignore[reportUnknownVariableType]


def _expired(claims: Json) -> bool:
    expires = claims.get("exp")
    return isinstance(expires, int | float) and expires < time.time()


def _shown(text: str) -> web.Response:
    response = web.Response(text=text, content_type="application/vnd.apple.mpegurl")
    response.headers.update({"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"})
    return response


def _plain(status: int) -> web.Response:
    return web.Response(status=status, headers={"Access-Control-Allow-Origin": "*"})
