"""What matters to every broadcast and belongs to none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A provider that does not answer, as the observer last saw it."""

    since: datetime
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    outages: Mapping[str, Outage] = field(default_factory=dict[str, Outage])
    """By provider: "livekit", "mux"."""
    answering_since: Mapping[str, datetime | None] = field(default_factory=dict[str, datetime | None])
    """Since when a provider answers every look; None: it did not answer the last one."""
    storage: bool = False
    """Whether there is a storage for local recordings."""
