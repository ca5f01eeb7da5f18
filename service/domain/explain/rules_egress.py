"""Rules about an egress that runs or ran, and about the media that arrive from it."""

from service.domain.broadcast import DestinationState, seconds
from service.domain.explain.case import Case, Finding, Rule, Weight, start_evidence, with_detail
from service.domain.explain.causes import CauseCode
from service.domain.health.delivery import fell_silent
from service.domain.health.egress import egress_evidence, ghost_since, unconnected_since
from service.domain.health.model import ChainPart, noted
from service.domain.measurements import SEEN_S
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Blocked, Fault, HealthReason
from service.domain.resource_set import recent_failures, recent_starts, wants_egress
from service.domain.resources import Egress, Output, OutputState, Phase

_ENDS = {
    Fault.FAILED: (CauseCode.EGRESS_FAILED, "The egress failed"),
    Fault.ABORTED: (CauseCode.EGRESS_ABORTED, "The egress was aborted before it began"),
    Fault.COMPLETE: (CauseCode.EGRESS_ENDED_UNASKED, "The egress ended, and we did not stop it"),
    Fault.LIMIT_REACHED: (
        CauseCode.EGRESS_LIMIT_REACHED,
        f"The egress ran into {ROOMS.display_name}'s limit of a session",
    ),
    Fault.LOST: (CauseCode.EGRESS_LOST, f"{ROOMS.display_name} does not know the egress any more"),
    Fault.END_TIMEOUT: (CauseCode.EGRESS_GHOST, "The egress began to end and never did"),
}
_NO_PROGRESS = "no outbound progress"
"""The error of an egress whose connection stands and takes nothing (livekit/egress pull request 1244)."""


def _push(egress: Egress) -> Output | None:
    """The output to the live stream, if it failed. None: it did not, or there is none."""
    failed = (OutputState.FAILED,)
    return next((output for output in egress.outputs if output.name == "" and output.state in failed), None)


def ended(case: Case) -> Finding | None:
    """The egress ended and was not told to. Its fault says how."""
    egress = case.failed_egress
    if egress is None or egress.fault not in _ENDS or _push(egress) is not None:
        return None
    code, message = _ENDS[egress.fault]
    return Finding(
        code=code, weight=Weight.SEEN, message=with_detail(message, egress.error), evidence=start_evidence(case, egress)
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
        message=with_detail(
            "The connection from the egress to the live stream broke" if stood else "The live stream takes no encoder",
            push.message,
        ),
        evidence=start_evidence(case, egress),
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
        evidence=start_evidence(case, egress),
    )


def no_media(case: Case) -> Finding | None:
    failed, part = case.failed_egress, case.health.part(ChainPart.INGEST)
    if failed is not None and failed.fault is Fault.NO_MEDIA:
        return Finding(
            code=CauseCode.NO_MEDIA,
            weight=Weight.SEEN,
            message=f"{STREAMS.display_name} saw no media of the egress within {case.timing.ingest_start_s:g} s.",
            evidence=start_evidence(case, failed),
        )
    egress, stream = case.resource_set.egress, case.resource_set.stream
    if (
        part.reason is not HealthReason.NO_MEDIA
        or egress is None
        or not egress.delivering
        or fell_silent(case.facts, egress, stream)
    ):
        return None
    return Finding(
        code=CauseCode.NO_MEDIA,
        weight=Weight.SEEN,
        message=f"The egress is connected, and {STREAMS.display_name} sees no media.",
        evidence=(*part.evidence, *egress_evidence(egress)),
    )


def ingest_stalled(case: Case) -> Finding | None:
    failed, stream = case.failed_egress, case.resource_set.stream
    push = _push(failed) if failed is not None else None
    wedged = push is not None and _NO_PROGRESS in push.message
    if failed is not None and (failed.fault is Fault.INGEST_LOST or wedged):
        return Finding(
            code=CauseCode.INGEST_STALLED,
            weight=Weight.SEEN,
            message="The egress said that it sends, and nothing arrived at the live stream any more.",
            evidence=start_evidence(case, failed),
        )
    egress = case.resource_set.egress
    if (
        egress is None
        or not wants_egress(case.facts.broadcast, case.resource_set)
        or not fell_silent(case.facts, egress, stream)
    ):
        return _perhaps_stalled(case)
    return Finding(
        code=CauseCode.INGEST_STALLED,
        weight=Weight.SEEN,
        message="The egress says that it sends, and nothing arrives at the live stream any more.",
        evidence=(*case.health.part(ChainPart.INGEST).evidence, *egress_evidence(egress)),
    )


def _perhaps_stalled(case: Case) -> Finding | None:
    """A playlist stands still while egress and live stream say that media flow. The live stream stays active through
    its reconnect window, so until that is over nobody can tell an egress that sends nothing from a provider that makes
    no playlist of what it gets: both are named.
    """
    egress = case.resource_set.egress
    if egress is None or not egress.delivering or not case.resource_set.fed or playlist_stalled(case) is None:
        return None
    standing = case.facts.probe.standing_since
    window = seconds(case.facts.broadcast.spec.reconnect_window_s + SEEN_S)
    if standing is None or case.facts.now - standing > window:
        return None
    return Finding(
        code=CauseCode.INGEST_STALLED,
        weight=Weight.HINT,
        message=f"Or the egress sends nothing any more: {STREAMS.display_name} would not say so yet.",
        evidence=(*case.health.part(ChainPart.INGEST).evidence, *egress_evidence(egress)),
    )


def ghost(case: Case) -> Finding | None:
    """The worker of an egress died: the record of the egress stays as it was, the egress is not in the room, and it
    answers no stop.
    """
    current = case.resource_set.egress
    if current is not None and ghost_since(case.facts, current, case.timing) is not None:
        return Finding(
            code=CauseCode.EGRESS_GHOST,
            weight=Weight.SEEN + 5,
            message="The egress is listed as active and is not in its room: its worker seems to be gone.",
            evidence=(*egress_evidence(current), *case.health.part(ChainPart.INGEST).evidence),
        )
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
    # It was written off after its stop, because it was not seen to end.
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


def playback_unreachable(case: Case) -> Finding | None:
    part = case.health.part(ChainPart.PLAYBACK)
    if part.reason is not HealthReason.PLAYBACK_UNREACHABLE:
        return None
    return Finding(
        code=CauseCode.PLAYBACK_UNREACHABLE,
        weight=Weight.HINT,
        message=f"Whether viewers see the show is not known: {part.message}.",
        evidence=part.evidence,
    )


def start_limit(case: Case) -> Finding | None:
    if case.plan.blocked is not Blocked.START_LIMIT:
        return None
    window = case.timing.starts_window_s / 60
    recent = recent_failures(case.resource_set.egresses, case.facts.now, case.timing)
    what = "failed"
    if len(recent) < case.timing.starts_limit:
        recent, what = recent_starts(case.resource_set.egresses, case.facts.now, case.timing), "were started"
    return Finding(
        code=CauseCode.START_LIMIT,
        weight=Weight.LIKELY,
        message=f"{len(recent)} egresses {what} within {window:g} min: no more before the window is over.",
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
        message=with_detail(f"The destination {names} failed", failed[0].message),
        evidence=noted(*((f"destination_{each.name}", each.message or each.state, None) for each in failed)),
    )


def destination_stopped(case: Case) -> Finding | None:
    given_up = [each for each in case.facts.broadcast.status.destinations if each.state is DestinationState.STOPPED]
    if not given_up:
        return None
    names = ", ".join(each.name for each in given_up)
    return Finding(
        code=CauseCode.DESTINATION_STOPPED,
        weight=Weight.LIKELY,
        message=with_detail(f"Nothing is sent to {names} any more, after too many failures", given_up[0].error),
        evidence=noted(*((f"destination_{each.name}", each.error or each.state, each.error_time) for each in given_up)),
    )


RULES: tuple[Rule, ...] = (
    ended,
    push_failed,
    not_connected,
    no_media,
    ingest_stalled,
    ghost,
    playlist_stalled,
    playback_unreachable,
    start_limit,
    destination_failed,
    destination_stopped,
)
