"""Rules about a fallback and about recordings."""

from service.domain.broadcast import FallbackMode
from service.domain.explain.case import Case, Finding, Rule, Weight, with_detail
from service.domain.explain.causes import CauseCode
from service.domain.health.model import noted
from service.domain.health.recording import failed_recording, recording_evidence
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Fault
from service.domain.resources import RecordingStatus

_SERVED = {
    FallbackMode.DIRECT_WEBRTC: "Viewers watch in the room.",
    FallbackMode.LOCAL_RECORDING: "The room is to be recorded to our own storage.",
}


def fallback_active(case: Case) -> Finding | None:
    fallback = case.facts.broadcast.fallback
    if not fallback.modes:
        return None
    return Finding(
        code=CauseCode.FALLBACK_ACTIVE,
        weight=Weight.HINT + 10,
        message=f"{' '.join(_SERVED[mode] for mode in fallback.modes)} The reason is {fallback.reason}.",
        evidence=noted(("fallback", ", ".join(fallback.modes), fallback.since)),
    )


def local_recording_lost(case: Case) -> Finding | None:
    """The worker of a local recording died. The finding stays until the fallback is left, because the gap in the
    recording stays.
    """
    fallback = case.facts.broadcast.fallback
    since = fallback.since
    if FallbackMode.LOCAL_RECORDING not in fallback.modes or since is None:
        return None
    dead = [
        each
        for each in case.resource_set.recordings
        if each.fault is Fault.GHOST and not each.complete and each.intended_at >= since
    ]
    if not dead:
        return None
    return Finding(
        code=CauseCode.LOCAL_RECORDING_LOST,
        weight=Weight.SEEN,
        message="The worker that recorded the room is gone, and what it had written with it.",
        evidence=noted(
            (f"{ROOMS}_egress_id", dead[-1].external_id, dead[-1].intended_at),
            ("file", dead[-1].file, dead[-1].changed_at),
        ),
    )


def local_recording_failed(case: Case) -> Finding | None:
    failed = failed_recording(case.facts)
    if failed is None or failed.fault is Fault.GHOST:
        return None
    return Finding(
        code=CauseCode.LOCAL_RECORDING_FAILED,
        weight=Weight.SEEN,
        message=with_detail("The room is not recorded to our own storage, as the fallback asks", failed.error),
        evidence=recording_evidence(failed),
    )


def recording_errored(case: Case) -> Finding | None:
    errored = [each for each in case.facts.broadcast.status.recordings if each.status is RecordingStatus.ERRORED]
    if not errored:
        return None
    return Finding(
        code=CauseCode.RECORDING_ERRORED,
        # Any other cause led to it, or is worse.
        weight=Weight.HINT - 5,
        message=with_detail(f"{STREAMS.display_name} could not make the recording", errored[0].message),
        evidence=noted(*((f"{STREAMS}_asset_id", each.asset_id, None) for each in errored)),
    )


RULES: tuple[Rule, ...] = (local_recording_lost, local_recording_failed, fallback_active)
"""For a broadcast that is wanted live. `recording_errored` is asked of every broadcast."""
