"""The simulated RTMP ingest, as encoders see it.

It is a WebSocket on `/_ingest/app/{stream_key}`. A refused upgrade stands for a rejected publish, the open socket for
the RTMP connection, and `{"media": true}` and `{"media": false}` on it say whether frames flow. `"behind_s"` beside it
says how many seconds ago the frame that arrives was taken up.
"""

import asyncio
import json
from typing import Any, cast

from aiohttp import WSMsgType, web

from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.recording import Publisher, PublishRejectedError


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
        if not isinstance(said, dict):
            return
        message = cast("dict[str, Any]", said)
        if isinstance(behind_s := message.get("behind_s"), int | float):
            publisher.behind_s = float(behind_s)
        if isinstance(flowing := message.get("media"), bool):
            self._life.media(publisher, flowing=flowing)


async def _close_when_gone(socket: web.WebSocketResponse, publisher: Publisher) -> None:
    await publisher.gone.wait()
    await socket.close()
