"""Rules about the host and the room, and about the delivery policies that wait for somebody."""

from service.domain.broadcast import DeliveryPolicy, State
from service.domain.explain.case import Case, Finding, Rule, Weight
from service.domain.explain.causes import CauseCode
from service.domain.health.model import Evidence, noted
from service.domain.health.room import people, poor_uplinks, publishes, silence
from service.domain.measurements import Quality, ReportedStats
from service.domain.provider import ROOMS
from service.domain.reasons import ConditionReason, EventReason, HealthReason
from service.domain.resource_set import unwatched
from service.domain.resources import Phase, Room
from service.domain.sentences import clock, dated

_SILENCES = {HealthReason.HOST_MUTED: CauseCode.HOST_MUTED, HealthReason.NO_VIDEO: CauseCode.NO_VIDEO}


def _room(case: Case) -> Room | None:
    room = case.resource_set.room
    return room if room is not None and room.phase is Phase.PRESENT else None


def _absent(case: Case) -> tuple[Evidence, ...] | None:
    """The evidence that nobody publishes in the room. None: somebody does, nobody looked yet, or there is no room."""
    room = _room(case)
    if room is None:
        return None
    publishing, seen = publishes(case.facts, room)
    if publishing is not False:
        return None
    left = case.facts.last(EventReason.HOST_STOPPED)
    return noted(
        ("host_publishing", publishing, seen),
        ("host_since", room.host_since, room.host_since),
        ("event", left.reason if left is not None else None, left.time if left is not None else None),
    )


def waiting_for_host(case: Case) -> Finding | None:
    evidence = _absent(case)
    broadcast = case.facts.broadcast
    if evidence is None or broadcast.ready_time is None or broadcast.live_time is not None:
        return None
    scheduled, when = broadcast.spec.scheduled_start_time, ""
    if scheduled is not None and scheduled > case.facts.now:
        when = f" ahead of the scheduled start at {dated(scheduled)}"
    return Finding(
        code=CauseCode.WAITING_FOR_HOST,
        weight=Weight.CERTAIN,
        message=f"Room and live stream are ready{when}, and no host publishes yet.",
        evidence=evidence,
    )


def host_left(case: Case) -> Finding | None:
    evidence, broadcast = _absent(case), case.facts.broadcast
    status = broadcast.status
    no_host = status.state_reason == ConditionReason.NO_HOST.value
    if evidence is None and broadcast.state is State.INTERRUPTED and no_host:
        # The prober saw a host later, or its look was on its way when the host left. The state holds until a pass
        # looks.
        evidence = noted(("state_reason", status.state_reason, status.state_time))
    if evidence is None or broadcast.live_time is None:
        return None
    return Finding(
        code=CauseCode.HOST_LEFT,
        weight=Weight.CERTAIN,
        message="The host was live and does not publish any more.",
        evidence=evidence,
    )


def host_silent(case: Case) -> Finding | None:
    """HOST_MUTED and NO_VIDEO: somebody publishes, and viewers see or hear nothing."""
    there = people(case.facts)
    missing = silence(case.facts.broadcast, there) if there is not None else None
    if there is None or missing is None:
        return None
    reason, message = missing
    tracks = [(publisher.identity, track) for publisher in there.publishers for track in publisher.tracks]
    evidence = noted(
        *(
            (
                "track",
                f"{identity} {track.source} {track.kind}{' muted' if track.muted else ''} {track.sid}",
                case.facts.probe.people_at,
            )
            for identity, track in tracks
        )
    )
    return Finding(
        code=_SILENCES[reason], weight=Weight.LIKELY, message=message[0].upper() + message[1:] + ".", evidence=evidence
    )


def uplink_poor(case: Case) -> Finding | None:
    there = people(case.facts)
    poor = poor_uplinks(case.facts, there) if there is not None else []
    if not poor:
        return None
    lost = any(quality is Quality.LOST for _, quality in poor)
    identity, quality = poor[0]
    return Finding(
        code=CauseCode.HOST_UPLINK_POOR,
        weight=Weight.SEEN if lost else Weight.LIKELY + 5,
        message=f"The browser of {identity} reports a {quality.lower()} connection.",
        evidence=tuple(each for identity, _ in poor for each in _measured(identity, case.facts.stats[identity])),
    )


def _measured(identity: str, reported: ReportedStats) -> tuple[Evidence, ...]:
    stats, time = reported.stats, reported.time
    return noted(
        ("connection_quality", f"{identity} {stats.quality}", time),
        ("packet_loss_ratio", stats.packet_loss_ratio, time),
        ("video_bitrate_bps", stats.video_bitrate_bps, time),
        ("round_trip_s", stats.round_trip_s, time),
    )


def not_on_air(case: Case) -> Finding | None:
    broadcast = case.facts.broadcast
    if broadcast.spec.delivery_policy is not DeliveryPolicy.MANUAL or broadcast.on_air or case.live:
        return None
    if broadcast.state not in (State.READY, State.INTERRUPTED):
        return None
    taken_off = case.facts.last(EventReason.OFF_AIR_REQUESTED)
    # Before the show a missing SetOnAir is the foremost cause only if the host is there: otherwise the absent host is.
    alone = _absent(case) is None
    return Finding(
        code=CauseCode.NOT_ON_AIR,
        weight=Weight.CERTAIN + 5 if alone or taken_off is not None else Weight.CERTAIN - 5,
        message="The delivery policy is MANUAL, and SetOnAir was not called.",
        evidence=noted(
            ("delivery_policy", "MANUAL", None),
            ("on_air", broadcast.on_air, case.facts.now),
            ("event", taken_off.reason if taken_off is not None else None, taken_off.time if taken_off else None),
        ),
    )


def no_viewer(case: Case) -> Finding | None:
    broadcast, decided = case.facts.broadcast, case.facts.broadcast.delivery.decided
    if not unwatched(broadcast) or case.live or broadcast.state not in (State.READY, State.INTERRUPTED):
        return None
    seen = case.facts.watching.last_seen
    # Without a host no viewer would see anything: the absent host is the foremost cause.
    return Finding(
        code=CauseCode.NO_VIEWER,
        weight=Weight.CERTAIN + 5 if _absent(case) is None else Weight.CERTAIN - 5,
        message="The delivery policy is ON_DEMAND, and nobody watches.",
        evidence=noted(
            ("delivery_policy", "ON_DEMAND", None),
            ("decision", decided.reason, decided.since),
            ("viewer_seen", clock(seen) if seen is not None else None, seen),
        ),
    )


def _room_not_listed(case: Case) -> Finding | None:
    """Before the absence of the room is believed, when nothing contradicts it any more."""
    room = case.resource_set.room
    if room is None or room.phase is not Phase.PRESENT or room.absent_since is None or case.resource_set.delivered:
        return None
    return Finding(
        code=CauseCode.ROOM_LOST,
        weight=Weight.SEEN + 10,
        message="The room is not listed any more, and we did not delete it.",
        evidence=noted(("absent_since", clock(room.absent_since), room.absent_since)),
    )


def room_lost(case: Case) -> Finding | None:
    if (absent := _room_not_listed(case)) is not None:
        return absent
    lost = None if case.live else case.recent(EventReason.ROOM_LOST)
    failed = case.failed_egress
    if lost is None or (failed is not None and failed.intended_at > lost.time):
        # An egress that was started after the loss failed for a reason of its own.
        return None
    room = case.resource_set.rooms[-1] if case.resource_set.rooms else None
    return Finding(
        code=CauseCode.ROOM_LOST,
        weight=Weight.SEEN + 10,
        message="The room was gone, and we did not delete it.",
        evidence=noted(
            ("event", lost.reason, lost.time),
            (
                f"{ROOMS}_room_sid",
                room.sid if room is not None else None,
                room.observed_at if room is not None else None,
            ),
        ),
    )


RULES: tuple[Rule, ...] = (
    waiting_for_host,
    host_left,
    host_silent,
    uplink_poor,
    not_on_air,
    no_viewer,
    room_lost,
)
