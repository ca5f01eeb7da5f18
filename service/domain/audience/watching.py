"""Whether anybody watches, as far as a pass needs to know it: no number, three times."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """All are moments of the database's clock."""

    last_seen: datetime | None = None
    """When a viewer was seen last, by any replica. None: none ever was."""
    counted_up_to: datetime | None = None
    """Up to when all replicas told what they saw. After it nobody knows whether anybody watches. None: none counts."""
    counted_since: datetime | None = None
    """Since when at least one replica told without a gap. Before it signs of viewers may be missing. None: none counts.
    """


NOBODY_KNOWS: Final = Watching()
