"""A real host in a process of its own: joins a room over WebRTC and does what it is told, one line of JSON at a time.

`python host.py URL TOKEN` answers each command on standard input with one line on standard output: `{"ok": true}`, or
`{"error": "..."}`. A test that kills the process sees what LiveKit makes of a browser that is gone without a word.
"""

import asyncio
import json
import sys
from typing import Any

from livekit import rtc

_SOURCES = {
    "camera": rtc.TrackSource.SOURCE_CAMERA,
    "microphone": rtc.TrackSource.SOURCE_MICROPHONE,
    "screen_share": rtc.TrackSource.SOURCE_SCREENSHARE,
}
_WIDTH, _HEIGHT = 320, 180
_SAMPLE_RATE = 48_000


class Host:
    def __init__(self) -> None:
        self._room = rtc.Room()
        self._tracks: dict[str, rtc.LocalTrackPublication] = {}
        self._feeds: list[asyncio.Task[None]] = []

    async def join(self, url: str, token: str) -> None:
        await self._room.connect(url, token)

    async def do(self, command: dict[str, Any]) -> None:
        source = command.get("source", "")
        match command["do"]:
            case "publish":
                await self._publish(source)
            case "unpublish":
                await self._room.local_participant.unpublish_track(self._tracks.pop(source).sid)
            case "mute":
                self._local(source).mute()
            case "unmute":
                self._local(source).unmute()
            case "data":
                await self._room.local_participant.publish_data("hello")
            case "leave":
                await self._room.disconnect()
            case other:
                raise ValueError(f"unknown command {other}")

    def _local(self, source: str) -> rtc.LocalVideoTrack | rtc.LocalAudioTrack:
        track = self._tracks[source].track
        if not isinstance(track, rtc.LocalVideoTrack | rtc.LocalAudioTrack):
            raise TypeError(f"{source} is no local track")
        return track

    async def _publish(self, source: str) -> None:
        if source == "microphone":
            audio = rtc.AudioSource(_SAMPLE_RATE, 1)
            track = rtc.LocalAudioTrack.create_audio_track(source, audio)
            self._feeds.append(asyncio.create_task(_silence(audio)))
        else:
            video = rtc.VideoSource(_WIDTH, _HEIGHT)
            track = rtc.LocalVideoTrack.create_video_track(source, video)
            self._feeds.append(asyncio.create_task(_grey(video)))
        options = rtc.TrackPublishOptions(source=_SOURCES[source])
        self._tracks[source] = await self._room.local_participant.publish_track(track, options)


async def _grey(source: rtc.VideoSource) -> None:
    frame = rtc.VideoFrame(_WIDTH, _HEIGHT, rtc.VideoBufferType.RGBA, bytes([128]) * (_WIDTH * _HEIGHT * 4))
    while True:
        source.capture_frame(frame)
        await asyncio.sleep(0.1)


async def _silence(source: rtc.AudioSource) -> None:
    frame = rtc.AudioFrame.create(_SAMPLE_RATE, 1, _SAMPLE_RATE // 100)
    while True:
        await source.capture_frame(frame)


async def _serve(url: str, token: str) -> None:
    host = Host()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await _answer(host.join(url, token))
    while line := await reader.readline():
        await _answer(host.do(json.loads(line)))


async def _answer(deed: Any) -> None:
    try:
        await deed
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
    else:
        print(json.dumps({"ok": True}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
