"""The warm pool: idle live streams that were made ahead, by what is fixed at their creation. Pure.

Invariant: two specs with one profile can be served by the same idle live stream. What else a broadcast gives its live
stream, its title and its names, can be changed later.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from service.domain.broadcast import Carrier, LatencyMode, PlaybackPolicy, Spec

MOST: Final = 100
"""Idle live streams of one profile, at most: to make so many takes two minutes of all creates."""
_DEFAULTS: Final = Spec()
_WINDOW, _DURATION = re.compile(r"window-(\d{1,4})"), re.compile(r"duration-(\d{2,5})")
_LONGEST_WINDOW_S, _SHORTEST_S, _LONGEST_S = 1800, 60, 43_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    latency_mode: LatencyMode
    playback_policy: PlaybackPolicy
    audio_only: bool = False
    test: bool = False
    reconnect_window_s: float = _DEFAULTS.reconnect_window_s
    max_duration_s: int = _DEFAULTS.max_duration_s

    @property
    def text(self) -> str:
        """As it is written in the settings, and stored."""
        parts = [str(self.latency_mode), str(self.playback_policy)]
        parts += ["audio"] * self.audio_only + ["test"] * self.test
        if self.reconnect_window_s != _DEFAULTS.reconnect_window_s:
            parts.append(f"window-{self.reconnect_window_s:g}")
        if self.max_duration_s != _DEFAULTS.max_duration_s:
            parts.append(f"duration-{self.max_duration_s}")
        return ":".join(parts)


class NotAProfile(ValueError):
    """A text that is no profile."""


def profile_from(text: str) -> Profile:
    """The profile with this text, whose parts after the second may be in any order. Raises NotAProfile."""
    latency, policy, *rest = text.split(":") if ":" in text else ("", "")
    window, duration = _DEFAULTS.reconnect_window_s, _DEFAULTS.max_duration_s
    for part in rest:
        if found := _WINDOW.fullmatch(part):
            window = float(found[1])
        elif found := _DURATION.fullmatch(part):
            duration = int(found[1])
        elif part not in ("audio", "test"):
            raise NotAProfile(part)
    if window > _LONGEST_WINDOW_S or not _SHORTEST_S <= duration <= _LONGEST_S or len(set(rest)) != len(rest):
        raise NotAProfile(text)
    if latency not in list(LatencyMode) or policy not in list(PlaybackPolicy):
        raise NotAProfile(text)
    return Profile(
        latency_mode=LatencyMode(latency),
        playback_policy=PlaybackPolicy(policy),
        audio_only="audio" in rest,
        test="test" in rest,
        reconnect_window_s=window,
        max_duration_s=duration,
    )


def profile_of(spec: Spec) -> Profile | None:
    """The profile whose live streams can serve *spec*. None: it needs one of its own, because it has destinations that
    the live stream relays to, captions, a slate or files to download. Those would each take a call of their own.
    """
    if spec.carried_by(Carrier.STREAM) or spec.captions_language or spec.slate_url or spec.static_rendition is not None:
        return None
    return Profile(
        latency_mode=spec.latency_mode,
        playback_policy=spec.playback_policy,
        audio_only=spec.audio_only,
        test=spec.test,
        reconnect_window_s=spec.reconnect_window_s,
        max_duration_s=spec.max_duration_s,
    )


class PoolPhase(StrEnum):
    INTENDED = "intended"
    """Its create was begun, and was not answered or not yet: it may exist."""
    PRESENT = "present"
    LEAVING = "leaving"
    """It is to be deleted: no broadcast takes it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEntry:
    id: str
    profile: str
    """`Profile.text`."""
    phase: PoolPhase
    external_id: str
    age: timedelta
    """Since its create was begun."""
    unseen: timedelta
    """Since the provider was last asked about it."""
