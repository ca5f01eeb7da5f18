"""Health of what is on Mux's side: what arrives at the live stream, what a player gets, what is recorded."""

from dataclasses import replace

from service.domain.broadcast import FallbackMode, PlaybackPolicy, RecordingPolicy, State, Target, seconds
from service.domain.chain import ChainPart, HealthState, PartHealth, noted
from service.domain.facts import PROBED_S, Facts
from service.domain.health_ground import believed, existence, resting
from service.domain.ports import PlaylistSeen
from service.domain.resources import (
    EgressStatus,
    LocalRecording,
    Phase,
    Recording,
    RecordingStatus,
    Stream,
    StreamStatus,
)
from service.domain.timing import Timing
from service.domain.view import wants_egress

MOVES_WITHIN = 3
"""Target durations of the playlist: one that stood still for longer is stalled."""
_OK, _NOT_THERE, _NOT_ON_AIR = 200, 404, 412


def ingest(facts: Facts, timing: Timing) -> PartHealth:
    if (rest := resting(facts, ChainPart.INGEST)) is not None:
        return rest
    streams = facts.view.streams
    current = facts.view.stream
    if current is None or current.phase is not Phase.PRESENT:
        absent = existence(facts, ChainPart.INGEST, streams, "the live stream")
        if absent is not None:
            return absent
    assert current is not None  # noqa: S101 - for the type checker: it is there
    part = PartHealth(
        part=ChainPart.INGEST,
        state=HealthState.IDLE,
        reason="IDLE",
        message="nothing is to arrive now",
        since=current.status_since or current.changed_at,
        evidence=noted(
            ("mux_live_stream_id", current.external_id, None),
            ("mux_status", current.status, current.status_since),
            ("mux_asset_id", current.active_asset_id, None),
            ("encoder_connected", current.connected, current.heard_at),
        ),
    )
    return believed(facts, current, _arrives(facts, current, part, timing))


def _arrives(facts: Facts, stream: Stream, part: PartHealth, timing: Timing) -> PartHealth:  # noqa: PLR0911 - one a case
    egress = facts.view.egress
    match stream.status:
        case StreamStatus.DISABLED if stream.cutting:
            return replace(part, state=HealthState.PENDING, reason="CUTTING", message="who is connected is cut off")
        case StreamStatus.DISABLED:
            return replace(part, state=HealthState.DOWN, reason="DISABLED", message="somebody disabled it at Mux")
        case StreamStatus.UNKNOWN:
            return replace(part, state=HealthState.UNKNOWN, reason="NOT_OBSERVED", message="nobody looked yet")
        case StreamStatus.ACTIVE if encoder_left(facts, stream):
            message = "the encoder left; Mux waits for it within the reconnect window"
            return replace(part, state=HealthState.DOWN, reason="DISCONNECTED", message=message, since=stream.heard_at)
        case StreamStatus.ACTIVE:
            return replace(part, state=HealthState.OK, reason="ACTIVE", message="")
        case StreamStatus.IDLE:
            pass
    if egress is None or not wants_egress(facts.broadcast, facts.view):
        live = facts.broadcast.state is State.INTERRUPTED
        return (
            replace(part, state=HealthState.DOWN, reason="NO_ENCODER", message="nothing sends to it") if live else part
        )
    if egress.status is not EgressStatus.ACTIVE:
        return replace(part, state=HealthState.PENDING, reason="WAITING_FOR_EGRESS", message="")
    since = max(egress.status_since or egress.changed_at, stream.status_since or egress.changed_at)
    late = facts.now >= since + seconds(timing.ingest_start_s / 2)
    return replace(
        part,
        state=HealthState.DOWN if late else HealthState.PENDING,
        reason="NO_MEDIA" if late else "WAITING_FOR_MEDIA",
        message="the egress runs and Mux sees no media" if late else "the egress runs, Mux becomes active",
        since=since,
    )


def encoder_left(facts: Facts, stream: Stream) -> bool:
    """Whether Mux said so. Its status goes on through the reconnect window. Where the egress says that it sends, one of
    the two is out of date, and what viewers get tells which.
    """
    if stream.connected is not False:
        return False
    egress = facts.view.egress
    if egress is None or not egress.delivering or egress.delivering_since is None:
        return True
    return stream.heard_at is not None and stream.heard_at > egress.delivering_since and stalled(facts)


def playback(facts: Facts) -> PartHealth:
    if (rest := resting(facts, ChainPart.PLAYBACK)) is not None:
        return rest
    broadcast = facts.broadcast
    part = PartHealth(
        part=ChainPart.PLAYBACK,
        state=HealthState.IDLE,
        reason="NOT_ON_AIR",
        message="nothing is to be played yet",
        since=broadcast.status.state_time,
    )
    if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
        message = f"viewers watch in the room: {broadcast.fallback.reason}"
        since = broadcast.fallback.since
        return replace(part, state=HealthState.DEGRADED, reason="DIRECT_WEBRTC", message=message, since=since)
    if broadcast.state not in (State.LIVE, State.INTERRUPTED):
        return part
    unknown = replace(part, state=HealthState.UNKNOWN, reason="NOT_OBSERVED", message="nobody looked lately")
    if broadcast.spec.playback_policy is PlaybackPolicy.SIGNED:
        message = "only who holds a viewer's token can look"
        return replace(unknown, reason="SIGNED", message=message)
    seen, seen_at = facts.probe.playlist, facts.probe.playlist_at
    if seen is None or not facts.fresh(seen_at, PROBED_S):
        return replace(unknown, since=seen_at, observed_at=seen_at)
    probed = replace(
        part,
        observed_at=seen_at,
        evidence=noted(
            ("http_status", seen.status, seen_at),
            ("media_sequence", seen.media_sequence, seen_at),
            ("last_segment", seen.last_segment, seen_at),
            ("advanced", facts.probe.advanced_at, facts.probe.advanced_at),
            ("target_duration_s", seen.target_duration_s or None, seen_at),
        ),
    )
    return _plays(facts, seen, probed)


def _plays(facts: Facts, seen: PlaylistSeen, part: PartHealth) -> PartHealth:
    live_since = facts.broadcast.status.state_time
    if seen.status != _OK:
        reasons = {_NOT_ON_AIR: "NOT_ON_AIR", _NOT_THERE: "NOT_THERE"}
        reason = reasons.get(seen.status, "REFUSED")
        return replace(
            part, state=HealthState.DOWN, reason=reason, message=f"the playlist answers {seen.status}", since=None
        )
    if seen.ended:
        return replace(part, state=HealthState.DOWN, reason="ENDED", message="the playlist says it is over", since=None)
    since = facts.probe.standing_since
    if since is not None and stalled(facts):
        message = f"the playlist did not move on since {since:%H:%M:%S} UTC"
        return replace(part, state=HealthState.DOWN, reason="STALLED", message=message, since=since)
    if facts.probe.advanced_at is None:
        message = "the playlist is there; whether it moves on is seen at the next look"
        return replace(part, state=HealthState.PENDING, reason="SEEN_ONCE", message=message, since=live_since)
    return replace(part, state=HealthState.OK, reason="ADVANCING", message="", since=live_since)


def stalled(facts: Facts) -> bool:
    """Whether the playlist stood still for too long when it was last looked at."""
    probe = facts.probe
    if probe.playlist is None or probe.playlist_at is None or probe.standing_since is None:
        return False
    limit = MOVES_WITHIN * (probe.playlist.target_duration_s or 1.0)
    return probe.playlist_at - probe.standing_since > seconds(limit)


def recording(facts: Facts) -> PartHealth:  # noqa: PLR0911 - one a case
    """Also of what is over: a recording becomes ready minutes after the end."""
    broadcast = facts.broadcast
    part = PartHealth(
        part=ChainPart.RECORDING, state=HealthState.IDLE, reason="NONE", since=broadcast.status.state_time
    )
    if broadcast.spec.recording_policy is RecordingPolicy.DISCARD:
        return replace(part, reason="DISCARDED", message="the recording is not kept")
    made = broadcast.status.recordings
    evidence = noted(*((f"mux_asset_{each.status}", each.asset_id, None) for each in made))
    part = replace(part, evidence=evidence)
    if errored := [each for each in made if each.status is RecordingStatus.ERRORED]:
        return replace(part, state=HealthState.DOWN, reason="ERRORED", message=_told(errored[0]))
    local = [each for each in facts.resources if isinstance(each, LocalRecording) and each.phase is not Phase.GONE]
    if local and broadcast.target is Target.LIVE:
        return _local(facts, local[-1], part)
    if broadcast.target is not Target.LIVE:
        if any(each.status is RecordingStatus.PREPARING for each in made):
            return replace(part, state=HealthState.PENDING, reason="PREPARING", message="Mux is still at work on it")
        if made:
            return replace(part, state=HealthState.OK, reason="READY")
        return resting(facts, ChainPart.RECORDING) or part
    stream = facts.view.stream
    if stream is not None and stream.active_asset_id and stream.status is StreamStatus.ACTIVE:
        running = replace(
            part,
            state=HealthState.OK,
            reason="RECORDING",
            since=stream.status_since,
            evidence=noted(("mux_asset_id", stream.active_asset_id, stream.status_since)),
        )
        return believed(facts, stream, running)
    return part


def _local(facts: Facts, local: LocalRecording, part: PartHealth) -> PartHealth:
    running = replace(
        part,
        state=HealthState.PENDING,
        reason="LOCAL_STARTING",
        message="the room is recorded to our own storage",
        since=local.status_since or local.changed_at,
        evidence=noted(
            ("livekit_egress_id", local.external_id, local.intended_at),
            ("file", local.file, None),
            ("egress_status", local.status, local.status_since),
            ("egress_error", local.error, local.observed_at),
        ),
    )
    if local.status is EgressStatus.ACTIVE:
        running = replace(running, state=HealthState.OK, reason="LOCAL_RECORDING")
    if local.status in (EgressStatus.FAILED, EgressStatus.ABORTED):
        running = replace(running, state=HealthState.DOWN, reason="LOCAL_FAILED", message=local.error)
    return believed(facts, local, running)


def _told(recording: Recording) -> str:
    return recording.message or f"Mux could not make the recording {recording.asset_id}"
