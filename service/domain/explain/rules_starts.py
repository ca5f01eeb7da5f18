"""Rules about the start of an egress."""

from service.domain.broadcast import seconds
from service.domain.errors import Outcome
from service.domain.explain.case import Case, Finding, Rule, Weight, start_evidence, with_detail
from service.domain.explain.causes import CauseCode
from service.domain.health.model import Evidence, noted
from service.domain.provider import ROOMS
from service.domain.reasons import Fault
from service.domain.resources import Egress, EgressStatus, Phase

_NO_WORKER = "unavailable"
"""The code of a start that no worker took. LiveKit has several texts for it (livekit/psrpc, client/rpc.go)."""
_ANSWERED_S = 5.0
"""A start that a worker takes is answered within a second or two; one that takes longer waits for a worker."""


def _start_outcome(case: Case, egress: Egress) -> str:
    """The outcome of the call that started it, a value of Outcome. Empty: the call was answered, or its outcome is not
    known any more.
    """
    trouble = case.facts.broadcast.status.last_error
    if egress.external_id or trouble is None or not trouble.operation.starts_egress:
        return ""
    return trouble.outcome


def _failed_start(case: Case) -> Egress | None:
    """The latest egress whose start failed, was refused or got no answer. A start that is under way is passed over, and
    is the answer only if no earlier one failed. None: the latest start that matters now was answered.
    """
    if case.live:
        return None
    calling: Egress | None = None
    for egress in reversed(case.resource_set.egresses):
        if egress.external_id or not case.counts(egress.intended_at):
            break
        lost = egress.phase is Phase.UNKNOWN or egress.fault is Fault.START_LOST
        if egress.failures or egress.refused or lost:
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
            message=with_detail(f"{ROOMS.display_name} refuses to start the egress", egress.error),
            evidence=start_evidence(case, egress),
        )
    if _start_outcome(case, egress) == Outcome.THROTTLED:
        return Finding(
            code=CauseCode.EGRESS_QUOTA,
            weight=Weight.CERTAIN,
            message=with_detail(f"{ROOMS.display_name} takes no more egresses now", egress.error) + _own_slot(case),
            evidence=(*start_evidence(case, egress), *_own_recording(case)),
        )
    return None


def _own_recording(case: Case) -> tuple[Evidence, ...]:
    """The local recording of this broadcast, if it holds a slot that the start needs."""
    held = [each for each in case.resource_set.recordings if each.phase in (Phase.PRESENT, Phase.DELETING)]
    return noted(*(("local_recording", each.external_id, each.changed_at) for each in held))


def _own_slot(case: Case) -> str:
    return " Our own recording holds a slot, which it gives up for delivery." if _own_recording(case) else ""


def _found_no_worker(case: Case, egress: Egress) -> bool:
    """Whether the start of *egress* was refused because no worker took it, and no list shows it."""
    trouble = case.facts.broadcast.status.last_error
    told = trouble is not None and trouble.operation.starts_egress and trouble.code == _NO_WORKER
    return not egress.external_id and (egress.fault is Fault.UNAVAILABLE or told)


def _under_way(case: Case, egress: Egress) -> bool:
    """Whether the call that starts *egress* may still be answered."""
    called = egress.phase is Phase.INTENDED and not egress.failures
    tried_s = case.timing.start_answer_s + case.timing.list_lag_s
    return called and case.facts.now < egress.intended_at + seconds(tried_s)


def no_worker(case: Case) -> Finding | None:
    egress = _failed_start(case)
    if egress is None:
        return None
    if _found_no_worker(case, egress):
        return Finding(
            code=CauseCode.EGRESS_NO_WORKER,
            weight=Weight.CERTAIN,
            message=f"{ROOMS.display_name} found no egress worker for the start." + _own_slot(case),
            evidence=(*start_evidence(case, egress), *_own_recording(case)),
        )
    if not _under_way(case, egress) or case.facts.now < egress.intended_at + seconds(_ANSWERED_S):
        return None
    return Finding(
        code=CauseCode.EGRESS_NO_WORKER,
        weight=Weight.LIKELY,
        message=f"{ROOMS.display_name} does not answer the start: it looks for an egress worker that is free.",
        evidence=start_evidence(case, egress),
    )


def start_lost(case: Case) -> Finding | None:
    egress = _failed_start(case)
    if egress is None or egress.refused or _found_no_worker(case, egress) or _under_way(case, egress):
        return None
    if _start_outcome(case, egress) not in ("", Outcome.AMBIGUOUS):
        return None
    return Finding(
        code=CauseCode.EGRESS_START_LOST,
        weight=Weight.SEEN if egress.failures else Weight.LIKELY,
        message=with_detail("Nobody answered the start of the egress", egress.error),
        evidence=start_evidence(case, egress),
    )


def start_stuck(case: Case) -> Finding | None:
    failed, current = case.failed_egress, case.resource_set.egress
    if failed is not None and failed.fault is Fault.START_TIMEOUT:
        return Finding(
            code=CauseCode.EGRESS_START_STUCK,
            weight=Weight.SEEN,
            message=f"The egress did not start within {case.timing.egress_start_s:g} s.",
            evidence=start_evidence(case, failed),
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
        evidence=start_evidence(case, current),
    )


RULES: tuple[Rule, ...] = (start_refused, no_worker, start_lost, start_stuck)
