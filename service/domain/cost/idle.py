"""The time for which delivery policy ON_DEMAND runs no egress although a host publishes: what it saves. Pure."""

from datetime import datetime

from service.domain.broadcast import Broadcast, Target
from service.domain.cost.entries import Basis, Entry, picture
from service.domain.cost.prices import CostKind
from service.domain.resource_set import ResourceSet, unwatched
from service.domain.resources import Phase


def idle_since(broadcast: Broadcast, resource_set: ResourceSet) -> datetime | None:
    """Since when an egress would run, were it not that nobody watches; by the database's clock. None: one runs, or
    none would run.
    """
    room, decided = resource_set.room, broadcast.delivery.decided
    if broadcast.target is not Target.LIVE or not unwatched(broadcast) or decided.since is None:
        return None
    if room is None or room.phase is not Phase.PRESENT or not room.host_publishing:
        return None
    if any(egress.phase is not Phase.GONE for egress in resource_set.egresses):
        return None
    ended = max((egress.changed_at for egress in resource_set.egresses), default=decided.since)
    return max(decided.since, ended, room.host_since or room.changed_at)


def idle_entry(broadcast: Broadcast, since: datetime) -> Entry:
    """The entry of an idle time that goes on. The moment of its beginning is its key."""
    return Entry(
        kind=CostKind.IDLE,
        ref=since.isoformat(),
        tier=picture(broadcast.spec),
        from_time=since,
        basis=Basis.SEEN,
    )
