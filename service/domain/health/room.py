"""Health of the parts in the room: the room itself, the host who publishes in it, the viewers who watch in it."""

from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import Broadcast, FallbackMode, State, seconds
from service.domain.facts import Facts
from service.domain.health.common import Answer, chain_part, of_a_resource
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.measurements import PROBED_S, REPORTED_S, Quality
from service.domain.ports import RoomPeople, TrackKind
from service.domain.provider import ROOMS
from service.domain.reasons import HealthReason
from service.domain.resource_set import host_deadline
from service.domain.resources import Phase, Room
from service.domain.sentences import clock
from service.domain.timing import Timing

_PROBE_TAKES_S = 2.0
"""At most, from a look of the prober to its being stored."""


@chain_part(ChainPart.ROOM)
@of_a_resource(ChainPart.ROOM, "the room", lambda facts: facts.resource_set.rooms)
def room(_facts: Facts, _timing: Timing, last: Room) -> Answer:
    part = PartHealth(
        part=ChainPart.ROOM,
        state=HealthState.OK,
        reason=HealthReason.PRESENT,
        since=last.changed_at,
        evidence=noted(
            (f"{ROOMS}_room_name", last.external_id, None), (f"{ROOMS}_room_sid", last.sid, last.observed_at)
        ),
    )
    return Answer(part, rests_on=last)


@chain_part(ChainPart.HOST)
def host(facts: Facts, timing: Timing) -> Answer:
    last = facts.resource_set.room
    if last is None or last.phase is not Phase.PRESENT:
        lost = facts.broadcast.live_time is not None
        return Answer(
            PartHealth(
                part=ChainPart.HOST,
                state=HealthState.DOWN if lost else HealthState.IDLE,
                reason=HealthReason.NO_ROOM,
                message="there is no room to be in",
                since=last.changed_at if last is not None else None,
            )
        )
    publishing, seen = publishes(facts, last)
    part = PartHealth(
        part=ChainPart.HOST,
        state=HealthState.UNKNOWN,
        reason=HealthReason.NOT_OBSERVED,
        message="nobody looked yet" if last.forgotten_at is None else "the room is not listed, so nobody can look",
        since=last.host_since,
        evidence=(*noted(("host_publishing", publishing, seen)), *_people_evidence(facts)),
    )
    if publishing is None:
        return Answer(part)
    if publishing:
        part = _publishing(facts, part)
    else:
        part = _absent(facts, part, host_deadline(facts.broadcast, facts.resource_set, timing))
    if people(facts) is not None:
        return Answer(replace(part, observed_at=seen))
    return Answer(part, rests_on=last)


def people(facts: Facts) -> RoomPeople | None:
    """Who was in the room when the prober looked last. None: it has not looked lately, or the provider of rooms does
    not answer.
    """
    counts = ROOMS not in facts.availability.outages and facts.fresh(facts.probe.people_at, PROBED_S)
    return facts.probe.people if counts else None


def publishes(facts: Facts, room: Room) -> tuple[bool | None, datetime | None]:
    """Whether somebody publishes, and when that was seen, by the later of two looks: that of the prober, and that of a
    pass or of the observer. None: nobody looked yet.
    """
    seen, probed = facts.seen_at(room, listed=False), facts.probe.people_at
    there = people(facts)
    if there is not None and probed is not None and _counts(probed, seen, room.host_since):
        return bool(there.publishers), probed
    return room.host_publishing, seen


def _counts(probed: datetime, seen: datetime | None, changed: datetime | None) -> bool:
    """Whether the prober looked after the other look (*seen*) and after the last change that it found (*changed*). Its
    look is stored up to two seconds after the answer of the provider, so a change within that time may be newer.
    """
    return (seen is None or probed > seen) and (changed is None or probed > changed + seconds(_PROBE_TAKES_S))


def _absent(facts: Facts, part: PartHealth, deadline: datetime | None) -> PartHealth:
    until = f" until {clock(deadline)}" if deadline is not None else ""
    if facts.broadcast.live_time is None:
        return replace(
            part, state=HealthState.IDLE, reason=HealthReason.WAITING_FOR_HOST, message=f"a host is waited for{until}"
        )
    return replace(
        part,
        state=HealthState.DOWN,
        reason=HealthReason.HOST_LEFT,
        message=f"nobody publishes; a host may come back{until}",
    )


def _publishing(facts: Facts, part: PartHealth) -> PartHealth:
    part = replace(part, state=HealthState.OK, reason=HealthReason.PUBLISHING, message="")
    there = people(facts)
    if there is None:
        return part
    if missing := silence(facts.broadcast, there):
        reason, message = missing
        return replace(part, state=HealthState.DEGRADED, reason=reason, message=message, since=None)
    if poor := poor_uplinks(facts, there):
        identity, quality = poor[0]
        return replace(
            part,
            state=HealthState.DEGRADED,
            reason=HealthReason.UPLINK_POOR,
            message=f"{identity} reports a {quality.lower()} connection",
            since=None,
        )
    return part


def silence(broadcast: Broadcast, there: RoomPeople) -> tuple[HealthReason, str] | None:
    """Why viewers do not see or do not hear anybody although somebody publishes: the reason, which is NO_VIDEO or
    HOST_MUTED, and a message. None: picture and sound are there.
    """
    tracks = [track for publisher in there.publishers for track in publisher.tracks]
    video = [track for track in tracks if track.kind is TrackKind.VIDEO]
    audio = [track for track in tracks if track.kind is TrackKind.AUDIO]
    if not broadcast.spec.audio_only and not video and tracks:
        return HealthReason.NO_VIDEO, "nobody publishes a picture"
    if not broadcast.spec.audio_only and video and all(track.muted for track in video):
        return HealthReason.HOST_MUTED, "every camera is muted: the picture is black"
    if audio and all(track.muted for track in audio):
        return HealthReason.HOST_MUTED, "every microphone is muted: there is no sound"
    return None


def poor_uplinks(facts: Facts, there: RoomPeople) -> list[tuple[str, Quality]]:
    """Identity and quality of each publisher whose browser reports a poor or lost connection, if the report is at most
    REPORTED_S old.
    """
    poor: list[tuple[str, Quality]] = []
    for publisher in there.publishers:
        reported = facts.stats.get(publisher.identity)
        if reported is None or not facts.fresh(reported.time, REPORTED_S):
            continue
        if reported.stats.quality in (Quality.POOR, Quality.LOST):
            poor.append((publisher.identity, reported.stats.quality))
    return poor


def _people_evidence(facts: Facts) -> tuple[Evidence, ...]:
    there = people(facts)
    if there is None:
        return ()
    return noted(("publishers", len(there.publishers), facts.probe.people_at))


@chain_part(ChainPart.VIEWERS)
def viewers(facts: Facts, _timing: Timing) -> Answer:
    broadcast = facts.broadcast
    part = PartHealth(part=ChainPart.VIEWERS, state=HealthState.IDLE, reason=HealthReason.NOTHING_TO_WATCH)
    if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
        limit = broadcast.spec.max_webrtc_viewers
        count = facts.viewers or 0
        full = count >= limit
        return Answer(
            replace(
                part,
                state=HealthState.DEGRADED if full else HealthState.OK,
                reason=HealthReason.ROOM_FULL if full else HealthReason.IN_THE_ROOM,
                message=f"{count} of at most {limit} watch in the room",
                since=broadcast.fallback.since,
                observed_at=facts.now,
                evidence=noted(("webrtc_viewers", count, facts.now)),
            )
        )
    if broadcast.state not in (State.LIVE, State.INTERRUPTED):
        return Answer(part)
    message = "status.audience tells how many watch; health does not judge by it"
    return Answer(replace(part, state=HealthState.UNKNOWN, reason=HealthReason.NOT_MEASURED, message=message))
