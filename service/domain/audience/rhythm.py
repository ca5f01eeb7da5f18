"""How often viewers are to give a sign, so that none stops counting although a replica dies with one sign of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.domain.timing import Timing

FLUSH_S: Final = 1.0
"""From a sign to the flush that tells of it, at most."""
RECOVERY_S: Final = 5.0
"""By so much the next sign may be late: its caller looks for another replica first."""
_LEAST_S: Final = 1.0


def keep_alive_s(timing: Timing) -> float:
    """Seconds from one sign of a viewer to the next.

    A sign counts for the window. Where one is lost, the next one must be told within the window of the one before it:
    after two intervals, the time that the caller needs to reach another replica, and the flush.
    """
    return max(min(timing.keep_alive_s, (timing.audience_window_s - FLUSH_S - RECOVERY_S) / 2), _LEAST_S)
