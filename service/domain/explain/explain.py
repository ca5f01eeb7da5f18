"""explain(): why a broadcast is in its state, from the stored facts. Pure.

Each rule looks for one cause and says how strong its evidence is. A consequence ranks below its cause where both are
found, however strong its own evidence is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import EndReason, State
from service.domain.explain import rules_egress, rules_end, rules_fallback, rules_host, rules_providers, rules_starts
from service.domain.explain.case import Case, Finding, Rule
from service.domain.explain.causes import Blame, CauseCode
from service.domain.explain.consequences import CONSEQUENCES
from service.domain.explain.overrides import Override, overrides
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.health.model import ChainPart, Evidence, HealthState
from service.domain.reporting.next_action import NextAction
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


_FINE = {
    State.CREATED: "It was not started.",
    State.STARTING: "Room and live stream are being made.",
    State.READY: "Room and live stream are ready, and the egress is on its way.",
    State.LIVE: "Viewers see the show.",
    State.INTERRUPTED: "Viewers see nothing, and nobody knows why yet.",
    State.STOPPING: "It is being taken down.",
    State.ENDED: "It is over.",
    State.FAILED: "It could not be what was asked for.",
}


def explain(facts: Facts, timing: Timing) -> Explanation:
    """*facts*: read at one moment of the database's clock, which is the time of the explanation."""
    broadcast = facts.broadcast
    case = Case(facts=facts, health=health_of(facts, timing), timing=timing)
    found = ranked([finding for rule in _rules(case) if (finding := rule(case)) is not None])
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
    """The summary without a cause. That viewers see the show is said only if the playlist was seen to move on."""
    state, playback = case.facts.broadcast.state, case.health.part(ChainPart.PLAYBACK)
    if state is not State.LIVE or playback.state is HealthState.OK:
        return _FINE[state]
    return f"Media arrives at the live stream. Whether viewers see it is not known: {playback.message}."


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
            for follows in CONSEQUENCES.get(code, frozenset()) & weights.keys():
                weights[follows] = min(weights[follows], weight - 0.5)
    return sorted(best.values(), key=lambda finding: -weights[finding.code])
