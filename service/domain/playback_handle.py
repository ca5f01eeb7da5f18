"""The playback handle: how all viewers of a broadcast watch. Its rules are in `reporting/handle.py`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class HandleKind(StrEnum):
    """How viewers watch."""

    STARTING = "starting"
    """There is nothing to watch yet."""
    HLS = "hls"
    WEBRTC = "webrtc"
    """They enter the room."""
    RECORDING = "recording"
    """It is over, and a recording of it can be played."""
    ENDED = "ended"
    """It is over, and there is no recording, or none that can be played yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackHandle:
    """How all viewers of a broadcast watch, and how often that has changed."""

    kind: HandleKind
    playback_ids: tuple[str, ...] = ()
    """What is played: the live stream's id, or those of the recordings."""
    generation: int
    """From 1. Grows by one with every change."""
    since: datetime
