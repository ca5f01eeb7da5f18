"""Everything that is known of one broadcast at one moment. Health and explanation are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast, ProviderTrouble, Target, seconds
from service.domain.cost.cap import Costs
from service.domain.lifecycle import Event
from service.domain.measurements import SEEN_S, Probe, ReportedStats
from service.domain.provider import OWNER
from service.domain.reasons import Actor, EventReason, Operation
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Kind, Phase, Resource
from service.domain.situation import Availability

BEHIND_S: Final = 10.0
"""A broadcast that is due is claimed within a second or two. If it is not for this many seconds, no replica works."""
_ENDED_BY: Final[Mapping[Kind, tuple[Operation, ...]]] = {
    Kind.ROOM: (Operation.DELETE_ROOM,),
    Kind.STREAM: (
        Operation.DISABLE_STREAM,
        Operation.DELETE_STREAM,
        Operation.LIST_ASSETS,
        Operation.GET_ASSET,
        Operation.DELETE_ASSET,
    ),
    Kind.EGRESS: (Operation.STOP_EGRESS,),
    Kind.RECORDING: (Operation.STOP_EGRESS,),
}
"""The operations that bring a resource to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event of the story."""

    event: Event
    time: datetime
    actor: Actor

    @property
    def reason(self) -> EventReason:
        return self.event.reason

    @property
    def message(self) -> str:
        return self.event.message


@dataclass(frozen=True, kw_only=True)
class Facts:
    broadcast: Broadcast
    resources: tuple[AnyResource, ...]
    now: datetime
    """By the database's clock, when all of this was read."""
    availability: Availability = field(default_factory=Availability)
    costs: Costs = field(default_factory=Costs)
    """The prices, and the audience that was measured."""
    looked_at: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """When the last round of the observer began that was shown everything by a provider, by provider."""
    probe: Probe = field(default_factory=Probe)
    stats: Mapping[str, ReportedStats] = field(default_factory=dict[str, ReportedStats])
    """By the host's identity."""
    watching: Watching = NOBODY_KNOWS
    """Of its viewers. Nothing is known of them by default."""
    story: tuple[Told, ...] = ()
    """Its last events, oldest first."""
    viewers: int | None = None
    """The number of viewers in the room, by the places that are taken. None: viewers do not watch in the room."""
    claimable_since: datetime | None = None
    """Since when a replica could have claimed the broadcast. None: it is not due, or a replica works on it."""

    @property
    def behind_since(self) -> datetime | None:
        """Since when a replica should have taken the broadcast up. None: it is not due, or not for long."""
        since = self.claimable_since
        return since if since is not None and self.now - since >= seconds(BEHIND_S) else None

    @property
    def change_held_up(self) -> bool:
        """Whether the last call failed while the providers do not have the newest spec yet."""
        status = self.broadcast.status
        return status.last_error is not None and status.observed_generation != self.broadcast.generation

    @cached_property
    def resource_set(self) -> ResourceSet:
        return ResourceSet(self.resources)

    def last(self, *reasons: EventReason) -> Told | None:
        """The latest event with one of these reasons."""
        return next((told for told in reversed(self.story) if told.reason in reasons), None)

    def fresh(self, moment: datetime | None, within_s: float) -> bool:
        return moment is not None and self.now - moment <= seconds(within_s)

    def seen_at(self, resource: Resource, *, listed: bool = True) -> datetime | None:
        """The last moment at which a resource was known to be as stored: by a look at it, or by a round of the
        observer, which compares all resources with their rows, that found no difference. None: it was never seen.

        *listed*: whether the observer's lists show the fact in question. If they do, a round that began after somebody
        said that the resource changed answers that too. Who publishes in a room they do not show.

        In an outage it stays what it was when the provider fell silent.
        """
        seen, compared, doubted = resource.observed_at, self._compared_at(resource), self.broadcast.dirty_at
        if seen is None or compared is None:
            return seen
        if doubted is not None and seen < doubted and not (listed and doubted < compared):
            return seen
        return max(seen, compared)

    def _compared_at(self, resource: Resource) -> datetime | None:
        """When the last round of the observer began that compared *resource* with its row. None: none did."""
        return self.looked_at.get(OWNER[resource.kind]) if self.broadcast.target is Target.LIVE else None

    def known(self, resource: Resource, *, listed: bool = True) -> bool:
        """Whether the stored state of *resource* is fresh enough to be told as its present state. *listed*: see
        `seen_at`.
        """
        away = OWNER[resource.kind] in self.availability.outages
        return not away and self.fresh(self.seen_at(resource, listed=listed), SEEN_S)

    def does_not_go(self, resource: Resource) -> bool:
        """Whether the calls that are to end *resource* fail, so that it still runs as far as is known. A live stream is
        disabled before it is deleted.
        """
        ends = self.broadcast.target is Target.ENDED and resource.kind is Kind.STREAM
        leaving = resource.phase is Phase.DELETING or (ends and resource.phase is Phase.PRESENT)
        return leaving and resource.failures > 0

    def trouble_with(self, resource: Resource) -> ProviderTrouble | None:
        """The last error, if its call was to end *resource*. None: it is about something else, or there is none."""
        trouble = self.broadcast.status.last_error
        return trouble if trouble is not None and trouble.operation in _ENDED_BY.get(resource.kind, ()) else None
