"""From a room that a provider shows to the row of it. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from service.domain.lifecycle import Event
from service.domain.observing.learned import Learned
from service.domain.ports import RoomSeen
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Room


def room_seen(
    room: Room, seen: RoomSeen | None, now: datetime, *, missing: Mapping[str, datetime] | None = None
) -> Learned:
    """*seen* None: the provider does not have the room. *missing*: see `ResourceSet.missing`."""
    if seen is None:
        gone = replace(room, phase=Phase.GONE, observed_at=now, changed_at=now, host_publishing=False, host_since=now)
        reason = EventReason.ROOM_DELETED if room.phase is Phase.DELETING else EventReason.ROOM_LOST
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if room.phase is Phase.DELETING:
        return Learned(resources=(replace(room, observed_at=now),))
    publishing = seen.publishers > 0
    changed = publishing is not room.host_publishing
    events: tuple[Event, ...] = ()
    if changed and (publishing or room.host_publishing):
        events = (Event(reason=EventReason.HOST_PUBLISHING if publishing else EventReason.HOST_STOPPED),)
    return Learned(
        resources=(
            replace(
                room,
                phase=Phase.PRESENT,
                observed_at=now,
                changed_at=room.changed_at if room.phase is Phase.PRESENT else now,
                external_id=seen.name,
                sid=seen.sid,
                host_publishing=publishing,
                host_since=now if changed or room.host_since is None else room.host_since,
                recorded=seen.recorded,
                missing=missing or {},
            ),
        ),
        events=events,
    )
