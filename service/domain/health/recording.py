"""Health of the recording: that of the live stream, or the local one of a fallback."""

from dataclasses import replace

from service.domain.broadcast import FallbackMode, RecordingPolicy, Target
from service.domain.facts import Facts
from service.domain.health.common import Answer, chain_part, still_there
from service.domain.health.egress import ghost_since
from service.domain.health.model import ChainPart, Evidence, HealthState, PartHealth, noted
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import HealthReason
from service.domain.resources import EgressStatus, LocalRecording, Phase, Recording, RecordingStatus, StreamStatus
from service.domain.timing import Timing


def _nothing(facts: Facts) -> PartHealth:
    made = facts.broadcast.status.recordings
    return PartHealth(
        part=ChainPart.RECORDING,
        state=HealthState.IDLE,
        reason=HealthReason.NONE,
        since=facts.broadcast.status.state_time,
        evidence=noted(*((f"{STREAMS}_asset_{each.status}", each.asset_id, None) for each in made)),
    )


def _made(facts: Facts) -> PartHealth | None:
    """The health of what was recorded, told after the end too: a recording becomes ready minutes after it. None: there
    is no more to tell than of every part.
    """
    broadcast, part = facts.broadcast, _nothing(facts)
    if broadcast.spec.recording_policy is RecordingPolicy.DISCARD:
        message = "the recording is not kept"
        return replace(part, reason=HealthReason.DISCARDED, message=message, evidence=())
    made = broadcast.status.recordings
    if errored := [each for each in made if each.status is RecordingStatus.ERRORED]:
        return replace(part, state=HealthState.DOWN, reason=HealthReason.ERRORED, message=_told(errored[0]))
    if broadcast.target is Target.LIVE:
        return None
    if not broadcast.state.over and (stuck := still_there(facts, ChainPart.RECORDING)) is not None:
        return stuck
    if any(each.status is RecordingStatus.PREPARING for each in made):
        message = f"{STREAMS.display_name} is still at work on it"
        return replace(part, state=HealthState.PENDING, reason=HealthReason.PREPARING, message=message)
    return replace(part, state=HealthState.OK, reason=HealthReason.READY) if made else None


@chain_part(ChainPart.RECORDING, first=_made)
def recording(facts: Facts, timing: Timing) -> Answer:
    part, local = _nothing(facts), facts.resource_set.recordings[-1] if facts.resource_set.recordings else None
    if local is not None and local.phase is not Phase.GONE:
        return Answer(_local(facts, local, part, timing), rests_on=local)
    if (failed := failed_recording(facts)) is not None:
        return Answer(
            replace(
                part,
                state=HealthState.DOWN,
                reason=failed.fault or HealthReason.LOCAL_FAILED,
                message=failed.error or "the room is to be recorded to our own storage, and the last try failed",
                since=failed.changed_at,
                observed_at=failed.observed_at,
                evidence=recording_evidence(failed),
            )
        )
    stream = facts.resource_set.stream
    if stream is None or not stream.active_asset_id or stream.status is not StreamStatus.ACTIVE:
        return Answer(part)
    running = replace(
        part,
        state=HealthState.OK,
        reason=HealthReason.RECORDING,
        since=stream.status_since,
        evidence=noted((f"{STREAMS}_asset_id", stream.active_asset_id, stream.status_since)),
    )
    return Answer(running, rests_on=stream)


def _local(facts: Facts, local: LocalRecording, part: PartHealth, timing: Timing) -> PartHealth:
    running = replace(
        part,
        state=HealthState.PENDING,
        reason=HealthReason.LOCAL_STARTING,
        message="the room is recorded to our own storage",
        since=local.status_since or local.changed_at,
        evidence=recording_evidence(local),
    )
    if local.status is EgressStatus.ACTIVE:
        running = replace(running, state=HealthState.OK, reason=HealthReason.LOCAL_RECORDING)
    if (since := ghost_since(facts, local, timing)) is not None:
        message = f"{ROOMS.display_name} lists it as active, and it is not in its room"
        running = replace(
            running, state=HealthState.DEGRADED, reason=HealthReason.NOT_IN_ROOM, message=message, since=since
        )
    if local.fault:
        message = "its worker is gone, and what it had written with it"
        running = replace(running, state=HealthState.DOWN, reason=local.fault, message=message)
    if local.status in (EgressStatus.FAILED, EgressStatus.ABORTED):
        running = replace(running, state=HealthState.DOWN, reason=HealthReason.LOCAL_FAILED, message=local.error)
    return running


def failed_recording(facts: Facts) -> LocalRecording | None:
    """The last local recording, if it made no file. None: the fallback in use asks for none, one runs, or the last one
    made its file.
    """
    broadcast = facts.broadcast
    since = broadcast.fallback.since
    if FallbackMode.LOCAL_RECORDING not in broadcast.fallback.modes or since is None:
        return None
    if broadcast.target is not Target.LIVE:
        return None
    for each in reversed(facts.resource_set.recordings):
        runs = each.phase is Phase.PRESENT and each.status is EgressStatus.ACTIVE
        if each.intended_at < since or runs or each.complete:
            return None
        if each.phase is Phase.GONE:
            return each
    return None


def recording_evidence(local: LocalRecording) -> tuple[Evidence, ...]:
    return noted(
        (f"{ROOMS}_egress_id", local.external_id, local.intended_at),
        ("file", local.file, None),
        ("egress_status", local.status, local.status_since),
        ("egress_fault", local.fault, local.changed_at),
        ("egress_error", local.error, local.observed_at),
        ("recordings_failed", local.failures or None, local.changed_at),
    )


def _told(recording: Recording) -> str:
    return recording.message or f"{STREAMS.display_name} could not make the recording {recording.asset_id}"
