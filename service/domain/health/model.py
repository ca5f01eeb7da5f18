"""The words of health: the parts of the chain from the host to the viewers, the state of each, and its evidence."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.domain.reasons import Fault, HealthReason
from service.domain.sentences import dated


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


MOVING = frozenset({"media_sequence", "last_segment", "advanced", "seen_by"})
"""Names of the evidence that has another value after every look although nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact, as it was seen. It has no secrets, because the rows and answers that it is taken from have none."""

    name: str
    """A stable lower-case word."""
    value: str
    time: datetime | None = None
    """When it was seen, or since when it is so, by the database's clock. None: it has no time of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    part: ChainPart
    name: str = ""
    """The name of the destination. Empty for every other part."""
    state: HealthState
    reason: HealthReason | Fault
    message: str = ""
    since: datetime | None = None
    """Since when the reason holds. None: not known."""
    observed_at: datetime | None = None
    """When it was last seen to be so. None: the state does not come from a look at a provider."""
    evidence: tuple[Evidence, ...] = ()


def noted(*facts: tuple[str, object, datetime | None]) -> tuple[Evidence, ...]:
    """Evidence of (name, value, time). A fact without a value (None, "" or ()) is left out."""
    return tuple(
        Evidence(name=name, value=_text(value), time=time) for name, value, time in facts if value not in (None, "", ())
    )


def _text(value: object) -> str:
    """*value* for people and for programs in other languages."""
    # Texts first: nearly all are.
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return dated(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
