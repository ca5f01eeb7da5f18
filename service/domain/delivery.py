"""What was decided about the delivery of a broadcast of the policy ON_DEMAND, and of what. Values only.

A decision is kept with its inputs, so that it can be made again: see `audience.decide`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.domain.audience.watching import Watching
from service.domain.words import Word


class DeliveryReason(Word):
    """Why an egress runs for the viewers of a broadcast of the delivery policy ON_DEMAND, or does not."""

    NO_VIEWER = "NO_VIEWER", "Nobody watches: no egress runs until somebody does."
    VIEWERS = "VIEWERS", "Somebody watches, or did within the linger time."
    MIN_RUN = "MIN_RUN", "Nobody watches, and the egress runs for less than the minimum run."
    RECORDING = "RECORDING", "Nobody watches, and the recording that has begun is not to be interrupted."
    HOLD = "HOLD", "Nobody knows whether somebody watches: the viewers were not counted without a gap."
    FLAPPING = "FLAPPING", "It was started too often within an hour, and runs on to the end of the broadcast."
    SCHEDULE = "SCHEDULE", "The scheduled start is near."


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    wanted: bool = False
    """Whether an egress is to run for viewers. Whether one runs depends on the host too."""
    reason: DeliveryReason = DeliveryReason.NO_VIEWER
    since: datetime | None = None
    """Since when `wanted` is what it is. None: nothing was decided yet."""
    starts: tuple[datetime, ...] = ()
    """When `wanted` became true while a host published, within the last hour, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings of a decision, in seconds but for `starts`."""

    linger_s: float
    """From the last sign of a viewer to the stop. It counts as `window_s` if it is shorter."""
    window_s: float
    """A viewer who gave a sign within this time may be there still."""
    min_run_s: float
    """From the decision to run to the earliest stop."""
    stale_s: float
    """If no replica counted for longer, nobody knows whether somebody watches."""
    hold_s: float
    """From a gap in the counting to the earliest stop."""
    warm_s: float
    """From the start without a viewer to the scheduled start of the show."""
    flap_s: float
    """The window of `starts`."""
    starts: int
    """With so many starts in `flap_s` the egress runs on to the end of the broadcast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a decision depends on."""

    now: datetime
    before: Decided
    watching: Watching
    limits: Limits
    running: bool
    """Whether an egress runs or is being started. It counts where nothing was decided before."""
    host: bool
    """Whether a host publishes: without one an egress is not started, and costs nothing."""
    recording: bool
    """Whether a recording has begun that is not to be interrupted."""
    scheduled_at: datetime | None = None
    """When the show is to begin. None: no schedule says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The stored decision. Without inputs: none was made yet, or the policy is another one."""

    decided: Decided = Decided()
    inputs: Inputs | None = None

    @property
    def wanted(self) -> bool:
        return self.decided.wanted


UNDECIDED: Final = Delivery()
