"""Health of what is on Mux's side: what arrives at the live stream, what a player gets, what is recorded."""

from dataclasses import replace

from service.domain.broadcast import FallbackMode, PlaybackPolicy, RecordingPolicy, State, Target, seconds
from service.domain.facts import PROBED_S, SEEN_S, Facts
from service.domain.health.common import believed, existence, resting, still_there
from service.domain.health.egress import unconnected_since
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.ports import PlaylistSeen
from service.domain.reasons import Fault
from service.domain.resource_set import wants_egress
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
            ("encoder_connected", encoder_connected(facts, current), current.connected_at),
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
            message, since = "the encoder left; Mux waits for it within the reconnect window", stream.connected_at
            return replace(part, state=HealthState.DOWN, reason="DISCONNECTED", message=message, since=since)
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
    if (since := unconnected_since(facts, egress, timing)) is not None:
        message = "the egress runs and has no connection to it"
        return replace(part, state=HealthState.DOWN, reason=Fault.NOT_CONNECTED, message=message, since=since)
    since = max(egress.status_since or egress.changed_at, stream.status_since or egress.changed_at)
    late = facts.now >= since + seconds(timing.ingest_start_s / 2)
    return replace(
        part,
        state=HealthState.DOWN if late else HealthState.PENDING,
        reason="NO_MEDIA" if late else "WAITING_FOR_MEDIA",
        message="the egress runs and Mux sees no media" if late else "the egress runs, Mux becomes active",
        since=since,
    )


def encoder_connected(facts: Facts, stream: Stream) -> bool | None:
    """What webhooks said of it, until a look shows that it cannot be so any more: the word of the change may be lost.

    One that is gone is followed by silence when the reconnect window is over; media after a silence have a new one.
    """
    said, at = stream.connected, stream.connected_at
    if said is None or at is None:
        return None
    fed, silent = stream.fed_at, stream.silent_at
    if said:
        return None if fed is not None and silent is not None and at < fed < silent else True
    compared = facts.seen_at(stream)
    if stream.status is StreamStatus.ACTIVE and fed is not None and compared is not None:
        fed = max(fed, compared)
    if fed is None:
        return False
    over = at + seconds(facts.broadcast.spec.reconnect_window_s + SEEN_S)
    return None if fed > over or (silent is not None and at < silent < fed) else False


def encoder_left(facts: Facts, stream: Stream) -> bool:
    """Whether Mux said so. Its status goes on through the reconnect window. Where the egress says that it sends, one of
    the two is out of date, and what viewers get tells which.
    """
    if encoder_connected(facts, stream) is not False or stream.connected_at is None:
        return False
    egress = facts.view.egress
    if egress is None or not egress.delivering or egress.delivering_since is None:
        return True
    return stream.connected_at > egress.delivering_since and facts.probe.stalled


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
    if since is not None and facts.probe.stalled:
        message = f"the playlist did not move on since {since:%H:%M:%S} UTC"
        return replace(part, state=HealthState.DOWN, reason="STALLED", message=message, since=since)
    if facts.probe.advanced_at is None:
        message = "the playlist is there; whether it moves on is seen at the next look"
        return replace(part, state=HealthState.PENDING, reason="SEEN_ONCE", message=message, since=live_since)
    return replace(part, state=HealthState.OK, reason="ADVANCING", message="", since=live_since)


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
    if (local := _own(facts, part)) is not None:
        return local
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


def _own(facts: Facts, part: PartHealth) -> PartHealth | None:
    """What is recorded to our own storage, or should be. None: nothing is."""
    broadcast = facts.broadcast
    if broadcast.target is not Target.LIVE:
        return None if broadcast.state.over else still_there(facts, ChainPart.RECORDING)
    if facts.view.recordings and facts.view.recordings[-1].phase is not Phase.GONE:
        return _local(facts, facts.view.recordings[-1], part)
    if (failed := failed_recording(facts)) is None:
        return None
    return replace(
        part,
        state=HealthState.DOWN,
        reason=failed.fault or "LOCAL_FAILED",
        message=failed.error or "the room is to be recorded to our own storage, and the last try failed",
        since=failed.changed_at,
        observed_at=failed.observed_at,
        evidence=recording_evidence(failed),
    )


def _local(facts: Facts, local: LocalRecording, part: PartHealth) -> PartHealth:
    running = replace(
        part,
        state=HealthState.PENDING,
        reason="LOCAL_STARTING",
        message="the room is recorded to our own storage",
        since=local.status_since or local.changed_at,
        evidence=recording_evidence(local),
    )
    if local.status is EgressStatus.ACTIVE:
        running = replace(running, state=HealthState.OK, reason="LOCAL_RECORDING")
    if (since := facts.view.missing_since(local)) is not None:
        message = "LiveKit lists it as active, and it is not in its room"
        running = replace(running, state=HealthState.DEGRADED, reason="NOT_IN_ROOM", message=message, since=since)
    if local.fault:
        message = "its worker is gone, and what it had written with it"
        running = replace(running, state=HealthState.DOWN, reason=local.fault, message=message)
    if local.status in (EgressStatus.FAILED, EgressStatus.ABORTED):
        running = replace(running, state=HealthState.DOWN, reason="LOCAL_FAILED", message=local.error)
    return believed(facts, local, running)


def failed_recording(facts: Facts) -> LocalRecording | None:
    """The last one that a fallback asked for and that made no file, while it asks and none runs."""
    broadcast = facts.broadcast
    since = broadcast.fallback.since
    if FallbackMode.LOCAL_RECORDING not in broadcast.fallback.modes or since is None:
        return None
    if broadcast.target is not Target.LIVE:
        return None
    for each in reversed(facts.view.recordings):
        runs = each.phase is Phase.PRESENT and each.status is EgressStatus.ACTIVE
        if each.intended_at < since or runs or each.complete:
            return None
        if each.phase is Phase.GONE:
            return each
    return None


def recording_evidence(local: LocalRecording) -> tuple[Evidence, ...]:
    return noted(
        ("livekit_egress_id", local.external_id, local.intended_at),
        ("file", local.file, None),
        ("egress_status", local.status, local.status_since),
        ("egress_fault", local.fault, local.changed_at),
        ("egress_error", local.error, local.observed_at),
        ("recordings_failed", local.failures or None, local.changed_at),
    )


def _told(recording: Recording) -> str:
    return recording.message or f"Mux could not make the recording {recording.asset_id}"
