"""What one pass knows: its broadcast, the broadcast's resources, which providers answer. Values of one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast
from service.domain.cost.cap import Costs
from service.domain.errors import CREDENTIAL_CODES
from service.domain.measurements import Probe
from service.domain.ports import Heard
from service.domain.resources import AnyResource


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A provider that does not answer, as the observer last saw it."""

    since: datetime
    code: str = ""
    message: str = ""

    @property
    def refuses_us(self) -> bool:
        """Whether the provider does answer, and refuses our credentials."""
        return self.code in CREDENTIAL_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Which providers answer, and whether there is a storage: the same for every broadcast."""

    outages: Mapping[str, Outage] = field(default_factory=dict[str, Outage])
    """By provider. One that is not here answers, as far as the service knows."""
    answering_since: Mapping[str, datetime | None] = field(default_factory=dict[str, datetime | None])
    """Since when a provider has answered every look of the observer. None: it did not answer the last one."""
    storage: bool = False
    """Whether there is a storage for local recordings."""
    signing: bool = False
    """Whether there is a key to sign playback tokens with: without one nobody here can look at a signed playlist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One broadcast as it is stored at one moment of the database's clock."""

    broadcast: Broadcast
    resources: tuple[AnyResource, ...]
    now: datetime
    """The moment at which all of this was read, by the database's clock."""
    availability: Availability = field(default_factory=Availability)
    costs: Costs = field(default_factory=Costs)
    """The prices, and the audience that was measured."""
    read: float = 0.0
    """The event loop's clock, in seconds, just before it was read."""
    probe: Probe = field(default_factory=Probe)
    """The playlist of the broadcast, as the prober saw it. The people in the room are not read here."""
    watching: Watching = NOBODY_KNOWS
    """Of its viewers. Nothing is known of them by default."""
    heard: tuple[tuple[int, Heard], ...] = ()
    """Webhooks about it that no pass has taken into account yet, by their number in the inbox."""
    unverified_since: datetime | None = None
    """Since when the rows may be older than what was done, because the database lost commits. None: they are not, or it
    was not read here.
    """
