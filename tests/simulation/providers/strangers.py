"""Other applications in the same LiveKit project and the same Mux environment. Nothing of theirs is ours to touch."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import LatencyMode, PlaybackPolicy
from service.domain.ports import RoomWanted, StreamWanted, UploadWanted
from service.domain.secret import NO_SECRET
from tests.simulation.providers.egresses import TrueEgress, TrueOutput, TrueRoom

if TYPE_CHECKING:
    from tests.simulation.effects import Effect
    from tests.simulation.environment import Environment
    from tests.simulation.providers.livekit import LiveKit
    from tests.simulation.providers.mux import Mux

ROOM = "their-room"
TAGS = ("", "their-tag", "bs1:staging:b0:1", "bs1:simulation:b0:1")
"""Marks of theirs at Mux: none, one of their own, and those of another environment of this service."""
_ADDRESS, _URL = "rtmp://elsewhere.example/live/{the...key}", "rtmp://elsewhere.example/live/their-key"


class Strangers:
    def __init__(self, env: Environment, livekit: LiveKit, mux: Mux) -> None:
        self._env = env
        self._livekit = livekit
        self._mux = mux
        self.ids: set[str] = set()
        """Of everything that is theirs."""
        self.names: set[str] = set()
        """Of rooms of theirs that are names of ours too."""

    def come(self) -> None:
        """With a room that is recorded, live streams, and recordings."""
        wait = timedelta(days=1)
        self.ids.add(ROOM)
        self._livekit.create_room(RoomWanted(name=ROOM, tag="", empty_timeout=wait, departure_timeout=wait))
        self._livekit.join(ROOM, "their host")
        self.record(self._livekit.rooms[ROOM])
        for tag in TAGS:
            self.ids.add(self._mux.create(_stream(tag)).id)
            self.ids.add(self._mux.upload(_upload(tag)).asset_id)

    def take_name(self, name: str) -> None:
        """A room with the name of one of ours, in another environment of this service on the same project."""
        wait = timedelta(days=1)
        tag = f"bs1:staging:{name}"
        self.ids.add(name)
        self.names.add(name)
        self._livekit.create_room(RoomWanted(name=name, tag=tag, empty_timeout=wait, departure_timeout=wait))
        self._livekit.join(name, "their host")
        self.record(self._livekit.rooms[name])
        self._env.effects.watchers.append(self._freed)

    def _freed(self, effect: Effect) -> None:
        """A name is free again when their room is gone."""
        if effect.kind == "room.deleted":
            self.ids.discard(effect.id)

    def record(self, room: TrueRoom) -> TrueEgress:
        """An egress of theirs in any room, one of ours too, which sends to an address of their own."""
        env = self._env
        egress = TrueEgress(
            id=env.id("EG_"),
            room=room,
            wanted=None,
            started_at=env.now(),
            lag_s=0.0,
            outputs=[TrueOutput(name="", address=_ADDRESS, url=_URL)],
            strange=True,
        )
        self.ids.add(egress.id)
        self._livekit.egresses[egress.id] = egress
        self._livekit.launch(egress)
        return egress

    @staticmethod
    def own(name: str) -> bool:
        """Whether the name of a room or the mark of a live stream is theirs."""
        return name in (ROOM, *TAGS)


def _stream(tag: str) -> StreamWanted:
    return StreamWanted(
        tag=tag,
        title="Their show",
        playback_policy=PlaybackPolicy.PUBLIC,
        latency_mode=LatencyMode.REDUCED,
        reconnect_window_s=60.0,
        max_duration_s=3600,
        test=False,
        audio_only=False,
    )


def _upload(tag: str) -> UploadWanted:
    return UploadWanted(tag=tag, url=NO_SECRET, title="Their show", playback_policy=PlaybackPolicy.PUBLIC)
