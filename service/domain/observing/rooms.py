"""From a room that a provider shows to the row of it. Pure.

Who publishes is read from the participants, never from the counts of a room: the counts are late, and the flag that
they count by stays set after an unpublish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.observing.evidence import absent, believed_gone
from service.domain.observing.learned import Learned
from service.domain.ports import RoomInside, RoomSeen
from service.domain.reasons import EventReason
from service.domain.resource_set import next_ordinal
from service.domain.resources import Phase, Room
from service.domain.timing import Timing


def room_absent(
    room: Room, now: datetime, timing: Timing, *, contradicted: bool, source_closed: bool = False
) -> Learned:
    """The row after a look that did not show the room. *contradicted*: media arrive that only this room can send.
    *source_closed*: the room's egress ended by itself, as it does with its room.

    A room that was deleted is expected to be absent. One that was not keeps its host until its absence is believed. Of
    a forgotten room a look says nothing: a create is asked for it (`room_asked`).
    """
    contradicted = contradicted or (room.phase is Phase.PRESENT and room.forgotten_at is not None)
    confirmed = source_closed or (room.phase is Phase.DELETING and room.acked)
    if not believed_gone(room, now, timing, confirmed=confirmed, contradicted=contradicted):
        return Learned(resources=(absent(room, now),))
    gone = replace(absent(room, now), phase=Phase.GONE, changed_at=now, host_publishing=False, host_since=now)
    reason = EventReason.ROOM_DELETED if room.phase is Phase.DELETING else EventReason.ROOM_LOST
    return Learned(resources=(gone,), events=(Event(reason=reason),))


def room_created(room: Room, seen: RoomSeen, rooms: Sequence[Room], now: datetime) -> Learned:
    """The rows after a create of *room* that was answered with *seen*. *rooms*: all rows.

    A create answers with the room of that name if there is one. So if one of *rooms* has its sid, that room was there
    all the time, although the provider had said that it was not: its row goes on, and *room* was never made.
    """
    known = next((each for each in rooms if each.sid == seen.sid), None) if seen.sid else None
    present = replace(
        known or room,
        phase=Phase.PRESENT,
        external_id=seen.name,
        sid=seen.sid,
        changed_at=now,
        failures=0,
        retry_at=None,
        # The answer counts those who ever published: who does now is for a look to say.
        host_publishing=False if seen.publishers == 0 and known is None else None,
        host_since=now,
        observed_at=now,
    )
    if known is None:
        return Learned(resources=(present,), events=(Event(reason=EventReason.ROOM_CREATED, message=seen.sid),))
    kept = replace(present, forgotten_at=known.forgotten_at or now)
    never = () if known.ordinal == room.ordinal else (replace(room, phase=Phase.GONE, changed_at=now),)
    return Learned(resources=(kept, *never), events=_forgotten_told(known))


def room_asked(room: Room, seen: RoomSeen, rooms: Sequence[Room], now: datetime, timing: Timing) -> Learned:
    """The rows after a create that asked for *room*, which the provider's store does not know. *rooms*: all rows.

    Answered with the same sid the room is there. It cannot be deleted, and closes by itself some time after the last
    participant left: so one that is to be deleted is as good as gone when it is empty. Answered with another sid the
    room was gone, and the create has made another one, which takes its place or is to be deleted.
    """
    leaving = room.phase is Phase.DELETING
    if seen.sid == room.sid:
        deserted_at = (room.deserted_at or now) if seen.participants == 0 else None
        kept = replace(room, doubted=False, forgotten_at=room.forgotten_at or now, deserted_at=deserted_at)
        if leaving and deserted_at is not None and now - deserted_at >= seconds(timing.counts_lag_s):
            gone = replace(kept, phase=Phase.GONE, changed_at=now)
            return Learned(resources=(gone,), events=(Event(reason=EventReason.ROOM_DESERTED, message=room.sid),))
        return Learned(resources=(kept,), events=_forgotten_told(room))
    if leaving:
        other = replace(room, sid=seen.sid, doubted=False, forgotten_at=None, deserted_at=None)
        return Learned(resources=(replace(other, changed_at=now, failures=0, retry_at=None),))
    gone = replace(room, phase=Phase.GONE, changed_at=now, host_publishing=False, host_since=now)
    made = Room(ordinal=next_ordinal(rooms), phase=Phase.INTENDED, intended_at=now, changed_at=now)
    created = room_created(made, seen, rooms, now)
    return Learned(resources=(gone, *created.resources), events=(Event(reason=EventReason.ROOM_LOST), *created.events))


def _forgotten_told(room: Room) -> tuple[Event, ...]:
    if room.forgotten_at is not None:
        return ()
    return (Event(reason=EventReason.ROOM_FORGOTTEN, message=room.sid),)


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
                forgotten_at=None,
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
