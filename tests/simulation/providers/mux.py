"""Mux as it is: live streams, who is connected to them, what they record.

Where Mux's documents leave it open, the worse for us: a key reset cuts nobody off who is connected, and a second
publisher is let in. What is known: the key is checked when somebody connects, `disable` cuts off at once
(mux.com/docs, Manage stream keys), a live stream stays active through its reconnect window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.domain.ports import PlaylistSeen, StreamSeen, StreamWanted, UploadWanted
from service.domain.resources import Output, OutputState, Recording, RecordingStatus, StreamStatus
from service.domain.secret import NO_SECRET, Secret
from tests.simulation.environment import Environment
from tests.simulation.faults import Kind

LIST_LAG_S = 1.5
WARM_UP_S = (4.0, 10.0)
"""From the first media to active."""
TEST_LIMIT_S = 300.0
SEGMENT_S = 2.0
READY_S = (3.0, 40.0)
"""From the end of a recording until it can be played."""
UPLOAD_ERRORED = 0.4
"""The share of uploads that Mux can make no asset of, at any time: there are few."""


@dataclass(eq=False, slots=True, kw_only=True)
class Session:
    """One RTMP connection."""

    publisher: str
    cut: Callable[[], None]
    """Called when the live stream throws it out."""
    sends: bool
    """Whether media comes with it."""
    since: float = 0.0
    """When it was taken."""


@dataclass(eq=False, slots=True, kw_only=True)
class LiveStream:
    id: str
    tag: str
    key: str
    wanted: StreamWanted
    created_at: datetime
    listed_at: float
    broadcast_id: str
    disabled: bool = False
    deleted: bool = False
    active: bool = False
    media: int = 0
    """Counts beginnings and ends of media, to tell a timer of before."""
    sessions: list[Session] = field(default_factory=list[Session])
    assets: list[Recording] = field(default_factory=list[Recording])
    recording: bool = False
    began_at: float = 0.0
    """When its playlist began."""
    stalled: bool = False
    """Its playlist stands still, whoever sends to it."""
    stood_at: float = 0.0
    """When its playlist last stood still."""
    disabled_at: float = 0.0
    """When it was last disabled."""
    ended_at: float | None = None
    """When its last recording ended, since when its playlist has its end mark. None: it has none."""
    used: bool = False
    """Somebody was connected, or an egress was given a key of it."""

    @property
    def status(self) -> StreamStatus:
        if self.disabled:
            return StreamStatus.DISABLED
        return StreamStatus.ACTIVE if self.active else StreamStatus.IDLE

    @property
    def has_media(self) -> bool:
        return any(session.sends for session in self.sessions)

    def seen(self) -> StreamSeen:
        relaying = OutputState.ACTIVE if self.active else OutputState.FINISHED
        return StreamSeen(
            id=self.id,
            tag=self.tag,
            status=self.status,
            created_at=self.created_at,
            key=Secret(self.key),
            playback_id=f"pb-{self.id}",
            active_asset_id=self.assets[-1].asset_id if self.recording else "",
            relays=tuple(Output(name=relay.name, state=relaying) for relay in self.wanted.relays),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    recording: Recording
    tag: str
    created_at: datetime
    live_stream_id: str = ""
    broadcast_id: str = ""


class Mux:
    def __init__(self, env: Environment, *, tag: str) -> None:
        self._env = env
        self._tag = tag
        self.streams: dict[str, LiveStream] = {}
        self.by_key: dict[str, LiveStream] = {}
        self.assets: dict[str, Asset] = {}
        """The assets that exist: recordings of live streams, and uploads."""
        self.upload_errored = UPLOAD_ERRORED

    @property
    def living(self) -> list[LiveStream]:
        return [stream for stream in self.streams.values() if not stream.deleted]

    def create(self, wanted: StreamWanted) -> StreamSeen:
        env = self._env
        stream = LiveStream(
            id=env.id("LS"),
            tag=wanted.tag,
            key=env.canaries.make(),
            wanted=wanted,
            created_at=env.now(),
            listed_at=env.loop.time() + env.rng.uniform(0, LIST_LAG_S),
            broadcast_id=self._broadcast_of(wanted.tag),
        )
        self.streams[stream.id] = stream
        self.by_key[stream.key] = stream
        env.effects.add("stream.created", stream.id, stream.broadcast_id, stream.tag)
        self._tell("video.live_stream.created", stream)
        return stream.seen()

    def get(self, stream_id: str) -> LiveStream | None:
        stream = self.streams.get(stream_id)
        return None if stream is None or stream.deleted else stream

    def listed(self) -> list[LiveStream]:
        """Oldest first."""
        now = self._env.loop.time()
        return [stream for stream in self.streams.values() if not stream.deleted and stream.listed_at <= now]

    def give(self, stream_id: str, broadcast_id: str) -> None:
        """A live stream of the pool is a broadcast's from now on, whatever its mark says still."""
        self.streams[stream_id].broadcast_id = broadcast_id

    def reset_key(self, stream: LiveStream) -> Secret:
        self.by_key.pop(stream.key, None)
        stream.key = self._env.canaries.make()
        self.by_key[stream.key] = stream
        self._env.effects.add("key.reset", stream.id, stream.broadcast_id)
        return Secret(stream.key)

    def set_title(self, stream: LiveStream, title: str, tag: str = "") -> None:
        stream.wanted = replace(stream.wanted, title=title)
        stream.tag = tag or stream.tag
        self._env.effects.add("stream.titled", stream.id, stream.broadcast_id, title)

    def disable(self, stream: LiveStream, by: str = "us") -> None:
        if stream.disabled:
            return
        stream.disabled, stream.disabled_at = True, self._env.loop.time()
        self._env.effects.add("stream.disabled", stream.id, stream.broadcast_id, by)
        self._cut_all(stream)
        self._idle(stream)
        self._tell("video.live_stream.disabled", stream)

    def delete(self, stream: LiveStream, by: str = "us") -> None:
        if stream.deleted:
            return
        stream.deleted = True
        self.by_key.pop(stream.key, None)
        self._env.effects.add("stream.deleted", stream.id, stream.broadcast_id, by)
        self._cut_all(stream)
        self._idle(stream)
        self._tell("video.live_stream.deleted", stream)

    def enable(self, stream: LiveStream) -> None:
        if stream.disabled and not stream.deleted:
            stream.disabled = False
            self._env.effects.add("stream.enabled", stream.id, stream.broadcast_id)
            self._tell("video.live_stream.enabled", stream)

    def recordings(self, stream_id: str) -> list[Recording]:
        return [asset.recording for asset in self.assets.values() if asset.live_stream_id == stream_id]

    def recording(self, asset_id: str) -> Recording | None:
        asset = self.assets.get(asset_id)
        return None if asset is None else asset.recording

    def delete_recording(self, asset_id: str, by: str = "us") -> None:
        asset = self.assets.pop(asset_id, None)
        if asset is not None:
            self._env.effects.add("asset.deleted", asset_id, asset.broadcast_id, by)

    def upload(self, wanted: UploadWanted) -> Recording:
        env = self._env
        asset = Asset(
            recording=Recording(asset_id=env.id("up"), playback_id=env.id("pb"), uploaded=True),
            tag=wanted.tag,
            created_at=env.now(),
            broadcast_id=self._broadcast_of(wanted.tag),
        )
        self.assets[asset.recording.asset_id] = asset
        env.effects.add("upload.created", asset.recording.asset_id, asset.broadcast_id, wanted.tag)
        ready = env.rng.random() >= self.upload_errored
        if not ready:
            env.faults.count(Kind.UPLOAD_ERRORED, wanted.tag)
        env.after(*READY_S, lambda: self._finish(asset.recording.asset_id, ready=ready))
        return asset.recording

    @property
    def uploads(self) -> list[Asset]:
        """Oldest first."""
        return [asset for asset in self.assets.values() if not asset.live_stream_id]

    def _broadcast_of(self, tag: str) -> str:
        """Empty: the mark is not ours."""
        return tag.removeprefix(self._tag).rpartition(":")[0] if tag.startswith(self._tag) else ""

    def _ready(self, asset_id: str) -> None:
        self._finish(asset_id, ready=self._env.rng.random() < 0.95)

    def _finish(self, asset_id: str, *, ready: bool) -> None:
        asset = self.assets.get(asset_id)
        if asset is None:
            return
        recording = replace(
            asset.recording,
            status=RecordingStatus.READY if ready else RecordingStatus.ERRORED,
            duration_s=10.0 if ready else None,
        )
        self.assets[asset_id] = replace(asset, recording=recording)
        kind = "video.asset.ready" if ready else "video.asset.errored"
        self._env.tell("mux", kind, asset.broadcast_id, recording=recording, stream_id=asset.live_stream_id)

    def stall(self, stream: LiveStream, for_s: float | None = None) -> None:
        """The segmenter hangs. *for_s*: seconds until Mux mends it; None: it hangs until another encoder connects."""
        stream.stalled, stream.stood_at = True, self._env.loop.time()
        self._env.effects.add("playlist.stalled", stream.id, stream.broadcast_id)
        if for_s is not None:
            self._env.loop.call_later(for_s, lambda: self._moves(stream))

    def _moves(self, stream: LiveStream) -> None:
        stream.stalled = False

    def playlist(self, playback_id: str) -> PlaylistSeen:
        """The answer to a player. An active live stream's playlist moves on, with a slate while nothing is sent. It
        stays, with its end mark, until the live stream is active again or deleted.
        """
        stream = next((each for each in self.living if f"pb-{each.id}" == playback_id), None)
        if stream is None or (not stream.active and stream.ended_at is None):
            return PlaylistSeen(status=404 if stream is None else 412)
        until = stream.stood_at if stream.stalled else self._env.loop.time()
        if not stream.active and stream.ended_at is not None:
            until = stream.ended_at
        return PlaylistSeen(
            status=200,
            media_sequence=int((until - stream.began_at) / SEGMENT_S),
            segments=6,
            ended=not stream.active,
            target_duration_s=SEGMENT_S,
        )

    def connect(self, key: str, session: Session) -> LiveStream | None:
        """None: refused, for the key is of no live stream that takes publishers."""
        stream = self.by_key.get(key)
        if stream is None or stream.disabled or stream.deleted:
            return None
        session.since = self._env.loop.time()
        stream.sessions.append(session)
        stream.stalled = False
        stream.used = True
        self._env.effects.add("rtmp.connected", stream.id, stream.broadcast_id, session.publisher)
        self._tell("video.live_stream.connected", stream, connected=True)
        self._media_changed(stream)
        return stream

    def disconnect(self, stream: LiveStream, session: Session) -> None:
        if session not in stream.sessions:
            return
        stream.sessions.remove(session)
        self._env.effects.add("rtmp.left", stream.id, stream.broadcast_id, session.publisher)
        self._tell("video.live_stream.disconnected", stream, connected=bool(stream.sessions))
        self._media_changed(stream)

    def media_stopped(self, stream: LiveStream, session: Session) -> None:
        session.sends = False
        self._media_changed(stream)

    def _media_changed(self, stream: LiveStream) -> None:
        env = self._env
        stream.media += 1
        counted = stream.media
        if stream.has_media:
            if not stream.active:
                env.after(*WARM_UP_S, lambda: self._activate(stream, counted))
        elif stream.active:
            window = stream.wanted.reconnect_window_s
            env.loop.call_later(window, lambda: self._window_over(stream, counted))

    def _activate(self, stream: LiveStream, counted: int) -> None:
        if stream.media != counted or stream.disabled or stream.deleted:
            return
        stream.active, stream.recording, stream.ended_at = True, True, None
        stream.began_at, stream.stalled = self._env.loop.time(), False
        number = len(stream.assets) + 1
        recording = Recording(asset_id=f"as-{stream.id}-{number}", playback_id=f"pb-{stream.id}-{number}")
        stream.assets.append(recording)
        self.assets[recording.asset_id] = Asset(
            recording=recording,
            tag=stream.tag,
            created_at=self._env.now(),
            live_stream_id=stream.id,
            broadcast_id=stream.broadcast_id,
        )
        self._env.effects.add("stream.active", stream.id, stream.broadcast_id)
        self._tell("video.live_stream.active", stream)
        if stream.wanted.test and number == 1:
            self._env.loop.call_later(TEST_LIMIT_S, lambda: self.disable(stream, "the test limit"))

    def _window_over(self, stream: LiveStream, counted: int) -> None:
        if stream.media == counted and not stream.deleted:
            self._idle(stream)

    def _idle(self, stream: LiveStream) -> None:
        if not stream.active:
            return
        stream.active, stream.recording, stream.ended_at = False, False, self._env.loop.time()
        stream.media += 1
        self._env.effects.add("stream.idle", stream.id, stream.broadcast_id)
        asset_id = stream.assets[-1].asset_id
        self._env.after(*READY_S, lambda: self._ready(asset_id))
        self._tell("video.live_stream.idle", stream)

    def _cut_all(self, stream: LiveStream) -> None:
        sessions, stream.sessions = stream.sessions, []
        stream.media += 1
        for session in sessions:
            self._env.effects.add("rtmp.cut", stream.id, stream.broadcast_id, session.publisher)
            session.cut()

    def _tell(self, type: str, stream: LiveStream, *, connected: bool | None = None) -> None:
        seen = replace(stream.seen(), key=NO_SECRET)
        self._env.tell("mux", type, stream.broadcast_id, stream=seen, stream_id=stream.id, connected=connected)
