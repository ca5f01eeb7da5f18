"""Health and explanation in the words of the contract."""

from datetime import timedelta

from broadcast.v1 import health_pb2 as health_pb
from service.api.messages.commands import override_command
from service.api.messages.enums import CHAIN_PARTS, HEALTH_STATES, QUALITIES, STATES
from service.api.messages.times import duration_message, given_duration, time_message
from service.domain.explain.explain import Explanation
from service.domain.health.health_of import Health, PublisherHealth
from service.domain.health.model import Evidence, PartHealth
from service.domain.measurements import HostStats, Quality
from service.domain.ports import TrackSeen
from service.domain.reporting.next_action import NextAction


def health_message(health: Health) -> health_pb.BroadcastHealth:
    return health_pb.BroadcastHealth(
        broadcast_id=health.broadcast_id,
        title=health.title,
        owner_id=health.owner_id,
        labels=health.labels,
        state=STATES.number[health.state],
        state_reason=health.state_reason,
        overall=HEALTH_STATES.number[health.overall],
        parts=[_part_message(part) for part in health.parts],
        publishers=[_publisher_message(publisher) for publisher in health.publishers],
        next_action=_next_action_message(health.next_action),
        time=time_message(health.time),
    )


def explanation_message(explanation: Explanation) -> health_pb.Explanation:
    return health_pb.Explanation(
        broadcast_id=explanation.broadcast_id,
        state=STATES.number[explanation.state],
        summary=explanation.summary,
        causes=[
            health_pb.Cause(
                code=cause.code,
                message=cause.message,
                evidence=[_evidence_message(each) for each in cause.evidence],
                blame=cause.blame,
                remedy=cause.remedy,
            )
            for cause in explanation.causes
        ],
        next_action=_next_action_message(explanation.next_action),
        overrides=[
            health_pb.Override(
                description=each.description, command=override_command(explanation.broadcast_id, each.intervention)
            )
            for each in explanation.overrides
        ],
        time=time_message(explanation.time),
    )


def given_stats(message: health_pb.HostStats) -> HostStats:
    """Raises InvalidField."""
    rtt: timedelta | None = None
    if message.HasField("round_trip_time"):
        rtt = given_duration(message.round_trip_time, "stats.round_trip_time")
    return HostStats(
        quality=QUALITIES.member.get(message.connection_quality, Quality.UNKNOWN),
        video_bitrate_bps=message.video_bitrate_bps if message.HasField("video_bitrate_bps") else None,
        audio_bitrate_bps=message.audio_bitrate_bps if message.HasField("audio_bitrate_bps") else None,
        frame_rate=message.frame_rate if message.HasField("frame_rate") else None,
        packet_loss_ratio=message.packet_loss_ratio if message.HasField("packet_loss_ratio") else None,
        round_trip_s=None if rtt is None else rtt.total_seconds(),
    )


def _part_message(part: PartHealth) -> health_pb.PartHealth:
    return health_pb.PartHealth(
        part=CHAIN_PARTS.number[part.part],
        name=part.name,
        state=HEALTH_STATES.number[part.state],
        reason=part.reason,
        message=part.message,
        since=time_message(part.since),
        observed_time=time_message(part.observed_at),
        evidence=[_evidence_message(each) for each in part.evidence],
    )


def _evidence_message(evidence: Evidence) -> health_pb.Evidence:
    return health_pb.Evidence(name=evidence.name, value=evidence.value, time=time_message(evidence.time))


def _next_action_message(action: NextAction) -> health_pb.NextAction:
    return health_pb.NextAction(action=action.action, message=action.message, time=time_message(action.time))


def _publisher_message(publisher: PublisherHealth) -> health_pb.PublisherHealth:
    seen, reported = publisher.seen, publisher.reported
    return health_pb.PublisherHealth(
        identity=seen.identity,
        display_name=seen.name,
        joined_time=time_message(seen.joined_at),
        tracks=[track_message(track) for track in seen.tracks],
        connection_quality=QUALITIES.number[publisher.quality],
        stats=None if reported is None else _stats_message(reported.stats),
        stats_time=None if reported is None else time_message(reported.time),
    )


def track_message(track: TrackSeen) -> health_pb.TrackHealth:
    return health_pb.TrackHealth(
        sid=track.sid,
        source=track.source,
        kind=track.kind,
        muted=track.muted,
        simulcast=track.simulcast,
        mime_type=track.mime_type,
        width=track.width,
        height=track.height,
        layers=[
            health_pb.TrackLayer(
                quality=layer.quality, width=layer.width, height=layer.height, bitrate_bps=layer.bitrate_bps
            )
            for layer in sorted(track.layers, key=lambda layer: layer.width * layer.height)
            if layer.quality != "off"
        ],
    )


def _stats_message(stats: HostStats) -> health_pb.HostStats:
    return health_pb.HostStats(
        connection_quality=QUALITIES.number[stats.quality],
        video_bitrate_bps=stats.video_bitrate_bps,
        audio_bitrate_bps=stats.audio_bitrate_bps,
        frame_rate=stats.frame_rate,
        packet_loss_ratio=stats.packet_loss_ratio,
        round_trip_time=None if stats.round_trip_s is None else duration_message(stats.round_trip_s),
    )
