"""explain(): why a broadcast is in its state, from the stored facts. Pure.

Each rule looks for one cause and says how strong its evidence is. A consequence ranks below its cause where both are
found, however strong its own evidence is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import ConditionType, EndReason, State
from service.domain.explain import rules_egress, rules_end, rules_fallback, rules_host, rules_providers, rules_starts
from service.domain.explain.case import Case, Finding, Rule, Weight
from service.domain.explain.causes import Blame, CauseCode
from service.domain.explain.consequences import CONSEQUENCES
from service.domain.explain.overrides import Override, overrides
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.health.model import ChainPart, Evidence, HealthState, noted
from service.domain.reporting.next_action import NextAction
from service.domain.sentences import dated
from service.domain.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    code: CauseCode
    message: str
    evidence: tuple[Evidence, ...]
    blame: Blame
    """Who is to look."""
    remedy: str
    """What a person can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    broadcast_id: str
    state: State
    summary: str
    causes: tuple[Cause, ...]
    """The likeliest first. Empty: nothing is wrong."""
    next_action: NextAction
    overrides: tuple[Override, ...]
    time: datetime


_WRONG = (HealthState.DOWN, HealthState.DEGRADED)
_FINE = {
    State.CREATED: "It was not started.",
    State.STARTING: "Room and live stream are being made.",
    State.READY: "Room and live stream are ready, and the egress is on its way.",
    State.LIVE: "Viewers see the show.",
    State.INTERRUPTED: "Viewers see nothing.",
    State.STOPPING: "It is being taken down.",
    State.ENDED: "It is over.",
    State.FAILED: "It could not be what was asked for.",
}


def explain(facts: Facts, timing: Timing) -> Explanation:
    """*facts*: read at one moment of the database's clock, which is the time of the explanation."""
    broadcast = facts.broadcast
    case = Case(facts=facts, health=health_of(facts, timing), timing=timing)
    found = ranked([finding for rule in _rules(case) if (finding := rule(case)) is not None]) or unexplained(case)
    causes = tuple(
        Cause(
            code=finding.code,
            message=finding.message,
            evidence=finding.evidence,
            blame=finding.code.blame,
            remedy=finding.code.remedy,
        )
        for finding in found
    )
    return Explanation(
        broadcast_id=broadcast.id,
        state=broadcast.state,
        summary=f"{broadcast.state}: {causes[0].message if causes else _fine(case)}",
        causes=causes,
        next_action=case.health.next_action,
        overrides=overrides(broadcast, {cause.code for cause in causes}),
        time=facts.now,
    )


def _fine(case: Case) -> str:
    """The summary without a cause. That viewers see the show is said only if PLAYABLE is met and the playlist was seen
    to move on lately.
    """
    broadcast, playback = case.facts.broadcast, case.health.part(ChainPart.PLAYBACK)
    playable = next((each for each in broadcast.status.conditions if each.type is ConditionType.PLAYABLE), None)
    met = playable is not None and playable.met is True
    scheduled = broadcast.spec.scheduled_start_time
    if broadcast.state is State.CREATED and scheduled is not None:
        return f"It is scheduled for {dated(scheduled)}, and is made ready ahead of it without StartBroadcast."
    if broadcast.state is not State.LIVE or (met and playback.state is HealthState.OK):
        return _FINE[broadcast.state]
    why = playback.message or (playable.message if playable is not None else "")
    if case.health.part(ChainPart.INGEST).state is HealthState.OK:
        return f"Media arrives at the live stream. Whether viewers see it is not known: {why}."
    return f"It was live when it was looked at last. Whether viewers see it now is not known: {why}."


def unexplained(case: Case) -> list[Finding]:
    """A cause for what is wrong and was found by no rule. Empty: nothing is wrong."""
    broadcast, health = case.facts.broadcast, case.health
    wrong = health.overall in (HealthState.DOWN, HealthState.DEGRADED)
    if not wrong and broadcast.state not in (State.INTERRUPTED, State.FAILED):
        return []
    part = next((each for worst in _WRONG for each in health.parts if each.state is worst), None)
    status = broadcast.status
    message = "Viewers see nothing, and nobody knows why yet"
    evidence = noted(("state_reason", status.state_reason or broadcast.state, status.state_time))
    if broadcast.state is State.FAILED:
        message = f"It could not be what was asked for, and ended with {status.state_reason}"
    elif part is not None:
        told, evidence = part.message or part.reason.meaning.rstrip("."), part.evidence or evidence
        message = f"{part.part.capitalize()} {part.name}".rstrip() + f": {told}"
    return [Finding(code=CauseCode.UNEXPLAINED, weight=Weight.HINT, message=f"{message}.", evidence=evidence)]


def _rules(case: Case) -> Iterable[Rule]:
    """For a finished broadcast, use only rules about its end."""
    yield from rules_end.RULES
    yield rules_fallback.recording_errored
    if case.facts.broadcast.state is State.CREATED:
        return
    yield from rules_providers.RULES
    if case.wanted:
        yield from rules_host.RULES
    if case.wanted or case.facts.broadcast.end_reason is EndReason.EGRESS_FAILED:
        yield from rules_starts.RULES
        yield from rules_egress.RULES
        yield from rules_fallback.RULES


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, the likeliest first: one finding a code, and consequences below their causes. Findings of the same
    weight stay in their order.
    """
    best: dict[CauseCode, Finding] = {}
    for finding in findings:
        if finding.code not in best or finding.weight > best[finding.code].weight:
            best[finding.code] = finding
    weights = {code: float(finding.weight) for code, finding in best.items()}
    for _ in weights:
        for code, weight in [*weights.items()]:
            if best[code].weight <= Weight.HINT:
                # It may have nothing to do with the trouble, so nothing is known to follow from it.
                continue
            for follows in CONSEQUENCES.get(code, frozenset()) & weights.keys():
                weights[follows] = min(weights[follows], weight - 0.5)
    return sorted(best.values(), key=lambda finding: -weights[finding.code])
