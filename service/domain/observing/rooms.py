"""From a room that a provider shows to the row of it. Pure.

Who publishes is read from the participants, never from the counts of a room: the counts are late, and the flag that
they count by stays set after an unpublish.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.observing.evidence import absent, believed_gone
from service.domain.observing.learned import Learned
from service.domain.ports import RoomInside, RoomSeen
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Room
from service.domain.timing import Timing


def room_absent(
    room: Room, now: datetime, timing: Timing, *, contradicted: bool, source_closed: bool = False
) -> Learned:
    """The row after a look that did not show the room. *contradicted*: media arrive that only this room can send.
    *source_closed*: the room's egress ended by itself, as it does with its room.

    A room that was deleted is expected to be absent. One that was not keeps its host until its absence is believed.
    """
    confirmed = source_closed or (room.phase is Phase.DELETING and room.acked)
    if not believed_gone(room, now, timing, confirmed=confirmed, contradicted=contradicted):
        return Learned(resources=(absent(room, now),))
    gone = replace(absent(room, now), phase=Phase.GONE, changed_at=now, host_publishing=False, host_since=now)
    reason = EventReason.ROOM_DELETED if room.phase is Phase.DELETING else EventReason.ROOM_LOST
    return Learned(resources=(gone,), events=(Event(reason=reason),))


def people_doubted(room: Room, inside: RoomInside, listed: RoomSeen | None, now: datetime, timing: Timing) -> bool:
    """Whether the list of participants is empty and may not be: a host published when the room was seen last, and the
    list of rooms still counts publishers or an egress in it. The counts are late, so after `counts_lag_s` it is
    believed that everybody left.
    """
    counted = listed is not None and (listed.publishers > 0 or listed.recorded)
    if inside.anybody or not counted or not room.host_publishing:
        return False
    return room.absent_since is None or now - room.absent_since < seconds(timing.counts_lag_s)


def room_remains(room: Room, now: datetime) -> Learned:
    """A room that is to be deleted is still listed."""
    return Learned(resources=(replace(room, observed_at=now),))


def room_seen(
    room: Room,
    inside: RoomInside,
    now: datetime,
    *,
    listed: RoomSeen | None = None,
    missing: Mapping[str, datetime] | None = None,
) -> Learned:
    """A room that exists. *listed*: the room as the provider lists it; None: it was not asked, because somebody is
    inside. *missing*: see `ResourceSet.missing`.
    """
    publishing = bool(inside.people.publishers)
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
                absent_since=None,
                changed_at=room.changed_at if room.phase is Phase.PRESENT else now,
                external_id=listed.name if listed is not None else room.external_id,
                sid=listed.sid if listed is not None else room.sid,
                host_publishing=publishing,
                host_since=now if changed or room.host_since is None else room.host_since,
                recorded=inside.recorded,
                missing=missing or {},
            ),
        ),
        events=events,
    )
