"""The words of health: the parts of the chain from the host to the viewers, how each does, and what that rests on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ChainPart(StrEnum):
    ROOM = "ROOM"
    HOST = "HOST"
    EGRESS = "EGRESS"
    INGEST = "INGEST"
    PLAYBACK = "PLAYBACK"
    RECORDING = "RECORDING"
    DESTINATION = "DESTINATION"
    VIEWERS = "VIEWERS"


class HealthState(StrEnum):
    OK = "OK"
    IDLE = "IDLE"
    PENDING = "PENDING"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


MOVING = frozenset({"media_sequence", "last_segment", "advanced"})
"""Evidence that has another value with every look while nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact, as it was seen. Without secrets: what it is taken from has none."""

    name: str
    """A stable lower-case word."""
    value: str
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    part: ChainPart
    name: str = ""
    """A destination's."""
    state: HealthState
    reason: str
    message: str = ""
    since: datetime | None = None
    observed_at: datetime | None = None
    evidence: tuple[Evidence, ...] = ()


def noted(*facts: tuple[str, object, datetime | None]) -> tuple[Evidence, ...]:
    """Name, value and time of each; those without a value are left out."""
    return tuple(
        Evidence(name=name, value=str(value), time=time) for name, value, time in facts if value not in (None, "", ())
    )
