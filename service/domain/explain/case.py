"""What the rules look at: the facts, and the questions that many of them ask."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import cached_property

from service.domain.broadcast import State, Target, seconds
from service.domain.explain.causes import CauseCode
from service.domain.facts import Facts, Told
from service.domain.health.egress import egress_evidence
from service.domain.health.health_of import Health
from service.domain.health.model import Evidence, noted
from service.domain.planning.steps import Plan
from service.domain.reasons import EventReason
from service.domain.resource_set import ResourceSet
from service.domain.resources import Egress, Phase
from service.domain.timing import Timing

_BEFORE_S = 15.0
"""What broke a broadcast may have been seen a little before its state told of it."""


class Weight(IntEnum):
    """How strong the evidence is."""

    CERTAIN = 90
    """The provider shows it now, or we decided it."""
    SEEN = 70
    """It was seen when the trouble began."""
    LIKELY = 50
    """It fits what was seen."""
    HINT = 30
    """It is so, and may have nothing to do with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule found."""

    code: CauseCode
    weight: int
    message: str
    evidence: tuple[Evidence, ...] = ()


Rule = Callable[["Case"], Finding | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    facts: Facts
    health: Health
    timing: Timing

    @property
    def resource_set(self) -> ResourceSet:
        return self.facts.resource_set

    @property
    def plan(self) -> Plan:
        return self.health.plan

    @property
    def live(self) -> bool:
        """It is on air, and viewers see it as far as we know. What an intent of ours ended is told with its outcome."""
        return self.facts.broadcast.state is State.LIVE and self.resource_set.playable

    @property
    def wanted(self) -> bool:
        return self.facts.broadcast.target is Target.LIVE

    @cached_property
    def dark_since(self) -> datetime:
        """Since when viewers see nothing, or since the start; of what was ended, what led to it. A fallback that is
        entered meanwhile is an answer to the trouble and no new one.
        """
        broadcast = self.facts.broadcast
        since = broadcast.start_time or broadcast.create_time
        playing = broadcast.live_time is not None
        for told in self.facts.story:
            if told.reason == EventReason.STATE_LIVE or (told.reason == EventReason.STATE_INTERRUPTED and playing):
                since, playing = told.time, told.reason == EventReason.STATE_LIVE
        return since

    def recent(self, *reasons: EventReason, before_s: float = _BEFORE_S) -> Told | None:
        """The latest event with one of these reasons that the present trouble may come from."""
        told = self.facts.last(*reasons)
        return told if told is not None and self.counts(told.time, before_s) else None

    def counts(self, moment: datetime, before_s: float = _BEFORE_S) -> bool:
        return moment >= self.dark_since - seconds(before_s)

    @cached_property
    def failed_egress(self) -> Egress | None:
        """The last egress that did not do what it should, while the trouble lasts. The next may be on its way."""
        if self.live:
            return None
        for egress in reversed(self.resource_set.egresses):
            if egress.delivering and egress.phase is Phase.PRESENT:
                return None
            if (egress.fault or egress.refused or (egress.failures and not egress.external_id)) and self.counts(
                egress.changed_at
            ):
                return egress
        return None

    def delivered(self, egress: Egress) -> bool:
        """Whether its connection to the live stream ever stood, as far as the story tells."""
        return any(
            told.reason == EventReason.EGRESS_CONNECTED and told.time >= egress.intended_at for told in self.facts.story
        )


def start_evidence(case: Case, egress: Egress) -> tuple[Evidence, ...]:
    """The evidence of *egress*, and the last error if it is that of a start of an egress."""
    trouble = case.facts.broadcast.status.last_error
    told: tuple[Evidence, ...] = ()
    if trouble is not None and trouble.operation.starts_egress:
        told = noted(("last_error", f"{trouble.operation}: {trouble.code} {trouble.message}".strip(), trouble.time))
    return (*egress_evidence(egress), *told)


def with_detail(text: str, detail: str) -> str:
    """*text* as a sentence, or with a *detail* behind a colon."""
    return f"{text}: {detail}" if detail else f"{text}."
