"""Rules about the egress and what it sends."""

from service.domain.broadcast import DestinationState, FallbackMode, seconds
from service.domain.errors import Outcome
from service.domain.explain.case import Case, Finding, Rule, Weight
from service.domain.explain.causes import CauseCode
from service.domain.health.delivery import encoder_left
from service.domain.health.egress import egress_evidence, unconnected_since
from service.domain.health.model import ChainPart, Evidence, noted
from service.domain.health.recording import failed_recording, recording_evidence
from service.domain.reasons import Blocked, Fault, HealthReason
from service.domain.resource_set import recent_starts, wants_egress
from service.domain.resources import (
    Egress,
    EgressStatus,
    Output,
    OutputState,
    Phase,
    RecordingStatus,
    Stream,
    StreamStatus,
)

_ENDS = {
    Fault.FAILED: (CauseCode.EGRESS_FAILED, "The egress failed"),
    Fault.ABORTED: (CauseCode.EGRESS_ABORTED, "The egress was aborted before it began"),
    Fault.COMPLETE: (CauseCode.EGRESS_ENDED_UNASKED, "The egress ended, and we did not stop it"),
    Fault.LIMIT_REACHED: (CauseCode.EGRESS_LIMIT_REACHED, "The egress ran into LiveKit's limit of a session"),
    Fault.LOST: (CauseCode.EGRESS_LOST, "LiveKit does not know the egress any more"),
    Fault.END_TIMEOUT: (CauseCode.EGRESS_GHOST, "The egress began to end and never did"),
}
_SERVED = {
    FallbackMode.DIRECT_WEBRTC: "Viewers watch in the room.",
    FallbackMode.LOCAL_RECORDING: "The room is to be recorded to our own storage.",
}
_NO_SERVERS = "no response from servers"
_NO_PROGRESS = "no outbound progress"
"""What an egress says of a connection that stands and takes nothing (livekit/egress pull request 1244)."""


def _start_outcome(case: Case, egress: Egress) -> str:
    """What the call that started it came to, a value of Outcome; empty: it was answered, or nobody knows."""
    trouble = case.facts.broadcast.status.last_error
    if egress.external_id or trouble is None or not trouble.operation.starts_egress:
        return ""
    return trouble.outcome


def _evidence(case: Case, egress: Egress) -> tuple[Evidence, ...]:
    trouble = case.facts.broadcast.status.last_error
    told = ()
    if trouble is not None and trouble.operation.starts_egress:
        told = noted(("last_error", f"{trouble.operation}: {trouble.code} {trouble.message}".strip(), trouble.time))
    return (*egress_evidence(egress), *told)


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else f"{text}."


def _failed_start(case: Case) -> Egress | None:
    """The last egress, if its start was not answered as it should. While the next is being called, the one before."""
    if case.live:
        return None
    calling: Egress | None = None
    for egress in reversed(case.resource_set.egresses):
        if egress.external_id or not case.counts(egress.intended_at):
            break
        if egress.failures or egress.refused or egress.phase is Phase.UNKNOWN:
            return egress
        if not egress.unresolved:
            break
        calling = calling or egress
    return calling


def start_refused(case: Case) -> Finding | None:
    """EGRESS_REFUSED and EGRESS_QUOTA."""
    egress = _failed_start(case)
    if egress is None:
        return None
    if egress.refused or _start_outcome(case, egress) == Outcome.REFUSED:
        return Finding(
            code=CauseCode.EGRESS_REFUSED,
            weight=Weight.CERTAIN,
            message=_with("LiveKit refuses to start the egress", egress.error),
            evidence=_evidence(case, egress),
        )
    if _start_outcome(case, egress) == Outcome.THROTTLED:
        return Finding(
            code=CauseCode.EGRESS_QUOTA,
            weight=Weight.CERTAIN,
            message=_with("LiveKit takes no more egresses now", egress.error),
            evidence=_evidence(case, egress),
        )
    return None


def no_worker(case: Case) -> Finding | None:
    egress = _failed_start(case)
    if egress is None or _NO_SERVERS not in egress.error:
        return None
    return Finding(
        code=CauseCode.EGRESS_NO_WORKER,
        weight=Weight.CERTAIN,
        message="LiveKit found no egress worker for the start.",
        evidence=_evidence(case, egress),
    )


def start_lost(case: Case) -> Finding | None:
    egress = _failed_start(case)
    if egress is None or _NO_SERVERS in egress.error or egress.refused:
        return None
    if _start_outcome(case, egress) not in ("", Outcome.AMBIGUOUS):
        return None
    if not egress.failures and case.facts.now < egress.intended_at + seconds(case.timing.list_lag_s):
        return None
    return Finding(
        code=CauseCode.EGRESS_START_LOST,
        weight=Weight.SEEN if egress.failures else Weight.LIKELY,
        message=_with("Nobody answered the start of the egress", egress.error),
        evidence=_evidence(case, egress),
    )


def start_stuck(case: Case) -> Finding | None:
    failed, current = case.failed_egress, case.resource_set.egress
    if failed is not None and failed.fault is Fault.START_TIMEOUT:
        return Finding(
            code=CauseCode.EGRESS_START_STUCK,
            weight=Weight.SEEN,
            message=f"The egress did not start within {case.timing.egress_start_s:g} s.",
            evidence=_evidence(case, failed),
        )
    starting = (EgressStatus.UNKNOWN, EgressStatus.STARTING)
    if case.live or current is None or current.phase is not Phase.PRESENT or current.status not in starting:
        return None
    if case.facts.now < current.intended_at + seconds(case.timing.egress_start_s / 2):
        return None
    return Finding(
        code=CauseCode.EGRESS_START_STUCK,
        weight=Weight.LIKELY,
        message="The egress takes long to start.",
        evidence=_evidence(case, current),
    )


def _push(egress: Egress) -> Output | None:
    """The connection to the live stream, where it failed."""
    failed = (OutputState.FAILED,)
    return next((output for output in egress.outputs if output.name == "" and output.state in failed), None)


def ended(case: Case) -> Finding | None:
    """The egress is over by itself: the word it was given says how."""
    egress = case.failed_egress
    if egress is None or egress.fault not in _ENDS or _push(egress) is not None:
        return None
    code, message = _ENDS[egress.fault]
    return Finding(
        code=code, weight=Weight.SEEN, message=_with(message, egress.error), evidence=_evidence(case, egress)
    )


def push_failed(case: Case) -> Finding | None:
    """RTMP_REFUSED and RTMP_LOST."""
    egress = case.failed_egress or (None if case.live else case.resource_set.egress)
    push = _push(egress) if egress is not None else None
    if egress is None or push is None or _NO_PROGRESS in push.message or egress.fault is Fault.NOT_CONNECTED:
        return None
    stood = case.delivered(egress)
    return Finding(
        code=CauseCode.RTMP_LOST if stood else CauseCode.RTMP_REFUSED,
        weight=Weight.SEEN + 5,
        message=_with(
            "The connection from the egress to the live stream broke" if stood else "The live stream takes no encoder",
            push.message,
        ),
        evidence=_evidence(case, egress),
    )


def not_connected(case: Case) -> Finding | None:
    egress = case.failed_egress
    if egress is None or egress.fault is not Fault.NOT_CONNECTED:
        egress = case.resource_set.egress
        if case.live or egress is None or unconnected_since(case.facts, egress, case.timing) is None:
            return None
    return Finding(
        code=CauseCode.RTMP_NOT_CONNECTED,
        weight=Weight.SEEN,
        message="The egress runs and never got its connection to the live stream.",
        evidence=_evidence(case, egress),
    )


def no_media(case: Case) -> Finding | None:
    failed, part = case.failed_egress, case.health.part(ChainPart.INGEST)
    if failed is not None and failed.fault is Fault.NO_MEDIA:
        return Finding(
            code=CauseCode.NO_MEDIA,
            weight=Weight.SEEN,
            message=f"Mux saw no media of the egress within {case.timing.ingest_start_s:g} s.",
            evidence=_evidence(case, failed),
        )
    egress, stream = case.resource_set.egress, case.resource_set.stream
    if (
        part.reason is not HealthReason.NO_MEDIA
        or egress is None
        or not egress.delivering
        or _fell_silent(case, egress, stream)
    ):
        return None
    return Finding(
        code=CauseCode.NO_MEDIA,
        weight=Weight.SEEN,
        message="The egress is connected, and Mux sees no media.",
        evidence=(*part.evidence, *egress_evidence(egress)),
    )


def _fell_silent(case: Case, egress: Egress, stream: Stream | None) -> bool:
    """Whether media of this egress arrived, and does not any more although it says that it sends."""
    if stream is None or not egress.delivering:
        return False
    if stream.status is StreamStatus.ACTIVE and encoder_left(case.facts, stream):
        return True
    since = egress.delivering_since or egress.status_since
    fell = stream.status_since is not None and since is not None and stream.status_since > since
    return stream.status is StreamStatus.IDLE and fell


def ingest_stalled(case: Case) -> Finding | None:
    failed, stream = case.failed_egress, case.resource_set.stream
    push = _push(failed) if failed is not None else None
    wedged = push is not None and _NO_PROGRESS in push.message
    if failed is not None and (failed.fault is Fault.INGEST_LOST or wedged):
        return Finding(
            code=CauseCode.INGEST_STALLED,
            weight=Weight.SEEN,
            message="The egress said that it sends, and nothing arrived at the live stream any more.",
            evidence=_evidence(case, failed),
        )
    egress = case.resource_set.egress
    if (
        egress is None
        or not wants_egress(case.facts.broadcast, case.resource_set)
        or not _fell_silent(case, egress, stream)
    ):
        return None
    return Finding(
        code=CauseCode.INGEST_STALLED,
        weight=Weight.SEEN,
        message="The egress says that it sends, and nothing arrives at the live stream any more.",
        evidence=(*case.health.part(ChainPart.INGEST).evidence, *egress_evidence(egress)),
    )


def ghost(case: Case) -> Finding | None:
    """A worker that died: its record stays as it was, nobody is in the room, and no stop is answered."""
    deaf = [
        egress
        for egress in case.resource_set.egresses
        if egress.external_id
        and case.counts(egress.changed_at)
        and (egress.fault is Fault.GHOST or _answers_no_stop(egress))
    ]
    if case.live or not deaf:
        return None
    how = "is not in its room" if deaf[-1].fault is Fault.GHOST else "answers no stop"
    return Finding(
        code=CauseCode.EGRESS_GHOST,
        weight=Weight.SEEN + 5,
        message=f"The egress is listed and {how}: its worker is gone.",
        evidence=(*egress_evidence(deaf[-1]), *noted(("stops_failed", deaf[-1].failures or None, deaf[-1].changed_at))),
    )


def _answers_no_stop(egress: Egress) -> bool:
    if egress.fault is Fault.NOT_STOPPED or (egress.phase is Phase.DELETING and egress.failures):
        return True
    # Written off after its stop: nobody saw it end.
    return egress.phase is Phase.GONE and not egress.end_seen


def playlist_stalled(case: Case) -> Finding | None:
    part, stream, failed = case.health.part(ChainPart.PLAYBACK), case.resource_set.stream, case.failed_egress
    held = stream is not None and stream.stalled_since is not None
    answered = failed is not None and failed.fault is Fault.STALLED
    if not (held or answered or part.reason is HealthReason.STALLED):
        return None
    return Finding(
        code=CauseCode.PLAYLIST_STALLED,
        weight=Weight.LIKELY + 10,
        message="The playlist that viewers play stands still.",
        evidence=part.evidence,
    )


def start_limit(case: Case) -> Finding | None:
    if case.plan.blocked is not Blocked.START_LIMIT:
        return None
    window = case.timing.starts_window_s / 60
    recent = recent_starts(case.resource_set.egresses, case.facts.now, case.timing)
    return Finding(
        code=CauseCode.START_LIMIT,
        weight=Weight.LIKELY,
        message=f"{len(recent)} egresses were started within {window:g} min: no more before the window is over.",
        evidence=noted(
            *(("egress_start", egress.external_id or "not started", egress.intended_at) for egress in recent)
        ),
    )


def destination_failed(case: Case) -> Finding | None:
    failed = [each for each in case.facts.broadcast.status.destinations if each.state is DestinationState.FAILED]
    if not failed:
        return None
    names = ", ".join(each.name for each in failed)
    return Finding(
        code=CauseCode.DESTINATION_FAILED,
        weight=Weight.LIKELY,
        message=_with(f"The destination {names} failed", failed[0].message),
        evidence=noted(*((f"destination_{each.name}", each.message or each.state, None) for each in failed)),
    )


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
    """The same of a file egress. Told as long as the fallback lasts that it is part of: the gap in the file stays."""
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
            ("livekit_egress_id", dead[-1].external_id, dead[-1].intended_at),
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
        message=_with("The room is not recorded to our own storage, as the fallback asks", failed.error),
        evidence=recording_evidence(failed),
    )


def recording_errored(case: Case) -> Finding | None:
    errored = [each for each in case.facts.broadcast.status.recordings if each.status is RecordingStatus.ERRORED]
    if not errored:
        return None
    return Finding(
        code=CauseCode.RECORDING_ERRORED,
        # Whatever else is so led to it, or is worse.
        weight=Weight.HINT - 5,
        message=_with("Mux could not make the recording", errored[0].message),
        evidence=noted(*(("mux_asset_id", each.asset_id, None) for each in errored)),
    )


RULES: tuple[Rule, ...] = (
    start_refused,
    no_worker,
    start_lost,
    start_stuck,
    ended,
    push_failed,
    not_connected,
    no_media,
    ingest_stalled,
    ghost,
    playlist_stalled,
    start_limit,
    destination_failed,
    local_recording_lost,
    local_recording_failed,
    fallback_active,
)
"""Of a broadcast that is wanted live."""
