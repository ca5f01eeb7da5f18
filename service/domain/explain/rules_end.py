"""Rules about the end of a broadcast, and about the service itself."""

from datetime import datetime

from service.domain.broadcast import EndReason, ProviderTrouble, State, Target, seconds
from service.domain.cost.cap import judge
from service.domain.cost.money import CostLevel
from service.domain.errors import Outcome
from service.domain.explain.case import Case, Finding, Rule, Weight, with_detail
from service.domain.explain.causes import CauseCode
from service.domain.health.model import Evidence, noted
from service.domain.provider import STREAMS
from service.domain.reasons import EventReason
from service.domain.resources import AnyResource, Kind
from service.domain.sentences import clock, failed_call, failed_operation

TAKE_DOWN_S = 20.0
"""A take-down that nothing holds up takes less than this many seconds."""

_ENDS: dict[EndReason, tuple[CauseCode, str]] = {
    EndReason.STOPPED: (CauseCode.STOPPED_BY_CALLER, "A caller stopped it."),
    EndReason.NO_HOST: (CauseCode.NO_HOST, "No host came in time."),
    EndReason.HOST_LEFT: (CauseCode.HOST_LEFT, "The host left and did not come back in time."),
    EndReason.MAX_DURATION: (CauseCode.MAX_DURATION, "It was on air for its maximum duration."),
    EndReason.COST_CAP: (CauseCode.COST_CAP, "It has cost as much as its cost cap."),
    EndReason.TEST_LIMIT: (CauseCode.TEST_LIMIT, f"{STREAMS.display_name} cuts test streams after 5 minutes."),
    EndReason.START_TIMEOUT: (CauseCode.START_TIMEOUT, "Room and live stream could not be made in time."),
    EndReason.STREAMS_UNREACHABLE: (
        CauseCode.STREAMS_UNREACHABLE,
        f"{STREAMS.display_name} did not answer for too long, and nothing else was left to try.",
    ),
    EndReason.EGRESS_FAILED: (CauseCode.EGRESS_FAILED, "The egresses kept failing, and nothing else was left to try."),
}
_REFUSED = {
    Kind.ROOM: CauseCode.ROOMS_REFUSED,
    Kind.STREAM: CauseCode.STREAMS_REFUSED,
    Kind.EGRESS: CauseCode.EGRESS_REFUSED,
}


def _decided(case: Case) -> tuple[Evidence, ...]:
    broadcast = case.facts.broadcast
    told = case.facts.last(EventReason.ENDING, EventReason.STOP_REQUESTED)
    return noted(
        ("end_reason", broadcast.end_reason, None),
        ("event", f"{told.reason} {told.message}".strip() if told else None, told.time if told else None),
        ("actor", told.actor if told else None, None),
    )


def end_decided(case: Case) -> Finding | None:
    reason = case.facts.broadcast.end_reason
    if case.facts.broadcast.target is not Target.ENDED or reason is None or reason not in _ENDS:
        return None
    code, message = _ENDS[reason]
    told = case.facts.last(EventReason.STOP_REQUESTED)
    if reason is EndReason.STOPPED and told is not None and told.message:
        message = f"A caller stopped it: {told.message}"
    # These two end reasons only name the result. If the cause of it was seen, that ranks first.
    general = reason in (EndReason.START_TIMEOUT, EndReason.EGRESS_FAILED)
    return Finding(code=code, weight=Weight.HINT if general else Weight.SEEN, message=message, evidence=_decided(case))


def refused(case: Case) -> Finding | None:
    """A provider refused the room, the live stream or the egress as the spec asks for it."""
    broadcast = case.facts.broadcast
    if broadcast.end_reason is not EndReason.PROVIDER_REFUSED:
        return None
    resource = next((each for each in reversed(case.facts.resources) if each.refused), None)
    code = _REFUSED.get(resource.kind) if resource is not None else None
    if resource is None or code is None:
        return None
    trouble = broadcast.status.last_error
    message, told = "", ""
    if trouble is not None:
        message = with_detail(f"{trouble.provider.display_name} refuses {trouble.operation}", trouble.message)
        told = failed_call(trouble)
    return Finding(
        code=code,
        weight=Weight.CERTAIN,
        message=message or f"The provider refuses the {resource.kind}.",
        evidence=(*_decided(case), *noted(("last_error", told, trouble.time if trouble is not None else None))),
    )


def cost_near_cap(case: Case) -> Finding | None:
    broadcast = case.facts.broadcast
    if broadcast.target is not Target.LIVE or broadcast.cost_level is CostLevel.UNDER:
        return None
    told = case.facts.last(EventReason.COST_NEAR_CAP, EventReason.COST_CAP_REACHED)
    verdict = judge(broadcast, case.facts.resources, case.facts.now, case.facts.costs)
    message = "The cost is near the cost cap" if verdict is None else f"It has cost {verdict.message}"
    return Finding(
        code=CauseCode.COST_NEAR_CAP,
        weight=Weight.HINT,
        message=f"{message}.",
        evidence=noted(
            ("cost_level", broadcast.cost_level, told.time if told else None),
            ("event", f"{told.reason} {told.message}" if told else None, told.time if told else None),
        ),
    )


def take_down_blocked(case: Case) -> Finding | None:
    broadcast, left = case.facts.broadcast, case.resource_set.left
    if broadcast.state is not State.STOPPING:
        return None
    failing = [resource for resource in left if case.facts.does_not_go(resource)]
    since = broadcast.status.state_time
    late = since is not None and case.facts.now - since > seconds(TAKE_DOWN_S)
    if not left or not (failing or late):
        return None
    what = "; ".join(_still(case, each) for each in failing or left)
    return Finding(
        code=CauseCode.TAKE_DOWN_BLOCKED,
        weight=Weight.CERTAIN + 7,
        message=f"Not everything is gone yet: {what}.",
        evidence=noted(*(_left(each) for each in left), *(_failing(case, each) for each in failing)),
    )


def stream_stays(case: Case) -> Finding | None:
    """The broadcast is over, and the calls that delete its live stream fail."""
    kept = [each for each in case.resource_set.streams if case.facts.does_not_go(each)]
    if not case.facts.broadcast.state.over or not kept:
        return None
    return Finding(
        code=CauseCode.TAKE_DOWN_BLOCKED,
        weight=Weight.HINT,
        message=f"It is over and nobody can publish to it: {'; '.join(_still(case, each) for each in kept)}.",
        evidence=noted(*(_left(each) for each in kept), *(_failing(case, each) for each in kept)),
    )


def _still(case: Case, resource: AnyResource) -> str:
    what = f"{resource.kind} {resource.external_id}".strip()
    if not case.facts.does_not_go(resource):
        return what
    trouble = case.facts.trouble_with(resource)
    last = f", the last: {failed_operation(trouble)}" if trouble is not None else ""
    return f"{what} does not go, {resource.failures} calls failed{last}"


def _left(resource: AnyResource) -> tuple[str, str, datetime]:
    text = f"{resource.phase} {resource.external_id}".strip()
    if resource.failures:
        text += f", {resource.failures} calls failed"
    return f"{resource.kind}_left", text, resource.changed_at


def _failing(case: Case, resource: AnyResource) -> tuple[str, str, datetime | None]:
    trouble = case.facts.trouble_with(resource)
    if trouble is None:
        return "", "", None
    return "last_error", failed_call(trouble), trouble.time


def service_fault(case: Case) -> Finding | None:
    fault = case.facts.broadcast.fault
    if fault is None:
        return None
    return Finding(
        code=CauseCode.SERVICE_FAULT,
        weight=Weight.CERTAIN + 5,
        message=f"The service's own work on it fails since {clock(fault.since)}: {fault.message}",
        evidence=noted(("fault", fault.code, fault.since), ("passes_failed", fault.count, fault.since)),
    )


def service_behind(case: Case) -> Finding | None:
    since = case.facts.behind_since
    if since is None:
        return None
    return Finding(
        code=CauseCode.SERVICE_BEHIND,
        weight=Weight.CERTAIN + 8,
        message=f"It is due since {clock(since)}, and no replica takes it up.",
        evidence=noted(("due_since", since, since)),
    )


def waiting_for_budget(case: Case) -> Finding | None:
    turn = case.health.turn
    if turn is None:
        return None
    message = f"What comes next waits for its turn at the provider's rate limit, at {clock(turn)}."
    trouble = case.facts.broadcast.status.last_error
    if trouble is not None and waits_for_us(case, trouble):
        message += f" It waits in the service; the last call failed: {failed_call(trouble)}."
    return Finding(
        code=CauseCode.WAITING_FOR_BUDGET, weight=Weight.HINT, message=message, evidence=noted(("turn", turn, turn))
    )


def waits_for_us(case: Case, trouble: ProviderTrouble) -> bool:
    """Whether the call of *trouble* would be made again now, were it not for its turn in the service. The provider may
    take it: that it failed before does not say why it waits.
    """
    passing = trouble.outcome in (Outcome.NOT_SENT, Outcome.UNAVAILABLE, Outcome.AMBIGUOUS)
    return case.health.turn is not None and passing and trouble.provider not in case.facts.availability.outages


RULES: tuple[Rule, ...] = (
    end_decided,
    refused,
    cost_near_cap,
    take_down_blocked,
    stream_stays,
    service_fault,
    service_behind,
    waiting_for_budget,
)
