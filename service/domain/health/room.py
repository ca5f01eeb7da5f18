"""Health of the room: that it exists, who publishes in it, and who watches in it."""

from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import Broadcast, FallbackMode, State, seconds
from service.domain.facts import PROBED_S, REPORTED_S, Facts, Quality
from service.domain.health.common import believed, existence, resting
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.ports import RoomPeople, TrackKind
from service.domain.reasons import HealthReason
from service.domain.resource_set import host_deadline
from service.domain.resources import Phase, Room
from service.domain.timing import Timing

_PROBE_TAKES_S = 2.0


def room(facts: Facts) -> PartHealth:
    if (rest := resting(facts, ChainPart.ROOM)) is not None:
        return rest
    rooms = facts.view.rooms
    if (absent := existence(facts, ChainPart.ROOM, rooms, "the room")) is not None:
        return absent
    last = rooms[-1]
    part = PartHealth(
        part=ChainPart.ROOM,
        state=HealthState.OK,
        reason="PRESENT",
        since=last.changed_at,
        evidence=noted(("livekit_room_name", last.external_id, None), ("livekit_room_sid", last.sid, last.observed_at)),
    )
    return believed(facts, last, part)


def host(facts: Facts, timing: Timing) -> PartHealth:
    if (rest := resting(facts, ChainPart.HOST)) is not None:
        return rest
    last = facts.view.room
    if last is None or last.phase is not Phase.PRESENT:
        lost = facts.broadcast.live_time is not None
        return PartHealth(
            part=ChainPart.HOST,
            state=HealthState.DOWN if lost else HealthState.IDLE,
            reason="NO_ROOM",
            message="there is no room to be in",
            since=last.changed_at if last is not None else None,
        )
    publishing, seen = publishes(facts, last)
    evidence = (
        *noted(("host_publishing", publishing, seen)),
        *_people_evidence(facts),
    )
    part = PartHealth(
        part=ChainPart.HOST,
        state=HealthState.UNKNOWN,
        reason="NOT_OBSERVED",
        message="nobody looked yet",
        since=last.host_since,
        evidence=evidence,
    )
    if publishing is None:
        return part
    if publishing:
        part = _publishing(facts, part)
    else:
        part = _absent(facts, part, host_deadline(facts.broadcast, facts.view, timing))
    if people(facts) is not None:
        return replace(part, observed_at=seen)
    return believed(facts, last, part)


def people(facts: Facts) -> RoomPeople | None:
    """Who was seen in the room, as far as that still counts."""
    counts = "livekit" not in facts.around.outages and facts.fresh(facts.probe.people_at, PROBED_S)
    return facts.probe.people if counts else None


def publishes(facts: Facts, room: Room) -> tuple[bool | None, datetime | None]:
    """Whether somebody publishes, by the later of two looks, and when that was."""
    seen, probed = facts.seen_at(room), facts.probe.people_at
    there = people(facts)
    if there is not None and probed is not None and _counts(probed, seen, room.host_since):
        return bool(there.publishers), probed
    return room.host_publishing, seen


def _counts(probed: datetime, seen: datetime | None, changed: datetime | None) -> bool:
    """Whether the prober looked later: its answer is stored a little after its look."""
    return (seen is None or probed > seen) and (changed is None or probed > changed + seconds(_PROBE_TAKES_S))


def _absent(facts: Facts, part: PartHealth, deadline: datetime | None) -> PartHealth:
    until = f" until {deadline:%H:%M:%S} UTC" if deadline is not None else ""
    if facts.broadcast.live_time is None:
        return replace(part, state=HealthState.IDLE, reason="WAITING_FOR_HOST", message=f"a host is waited for{until}")
    return replace(
        part, state=HealthState.DOWN, reason="HOST_LEFT", message=f"nobody publishes; a host may come back{until}"
    )


def _publishing(facts: Facts, part: PartHealth) -> PartHealth:
    part = replace(part, state=HealthState.OK, reason="PUBLISHING", message="")
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
            reason="UPLINK_POOR",
            message=f"{identity} reports a {quality.lower()} connection",
            since=None,
        )
    return part


def silence(broadcast: Broadcast, there: RoomPeople) -> tuple[HealthReason, str] | None:
    """What viewers do not see or hear although somebody publishes; the reason and a message."""
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
    """Publishers whose browser says so, within the time that a report counts."""
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


def viewers(facts: Facts) -> PartHealth:
    if (rest := resting(facts, ChainPart.VIEWERS)) is not None:
        return rest
    broadcast = facts.broadcast
    part = PartHealth(part=ChainPart.VIEWERS, state=HealthState.IDLE, reason="NOTHING_TO_WATCH")
    if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
        limit = broadcast.spec.max_webrtc_viewers
        count = facts.viewers or 0
        full = count >= limit
        return replace(
            part,
            state=HealthState.DEGRADED if full else HealthState.OK,
            reason="ROOM_FULL" if full else "IN_THE_ROOM",
            message=f"{count} of at most {limit} watch in the room",
            since=broadcast.fallback.since,
            observed_at=facts.now,
            evidence=noted(("webrtc_viewers", count, facts.now)),
        )
    if broadcast.state not in (State.LIVE, State.INTERRUPTED):
        return part
    return replace(part, state=HealthState.UNKNOWN, reason="NOT_MEASURED", message="nobody counts viewers of HLS")
