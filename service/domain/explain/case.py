"""The case that every rule is asked about: facts, health, and the questions that several rules ask of them."""

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
from service.domain.sentences import failed_call
from service.domain.timing import Timing

_BEFORE_S = 15.0
"""An event may be the cause of a trouble if it is at most this many seconds older: a failure is seen a little before
the state follows it.
"""


class Weight(IntEnum):
    """How strong the evidence is."""

    CERTAIN = 90
    """The provider shows it now, or the service decided it."""
    SEEN = 70
    """It was seen when the trouble began."""
    LIKELY = 50
    """It fits the observations."""
    HINT = 30
    """It is so, and may have nothing to do with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of a rule that found its cause."""

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
        """Whether viewers see the show, as far as the service knows: the stored state says so, and so do the resources,
        which may be newer than the state.
        """
        return self.facts.broadcast.state is State.LIVE and self.resource_set.playable

    @property
    def wanted(self) -> bool:
        return self.facts.broadcast.target is Target.LIVE

    @cached_property
    def dark_since(self) -> datetime:
        """When the present trouble began: the last time that viewers lost the picture, or the start of the broadcast if
        it was never live. For a finished broadcast it is the trouble that led to the end.

        A fallback that is entered meanwhile is an answer to the trouble and begins no new one.
        """
        broadcast = self.facts.broadcast
        since = broadcast.start_time or broadcast.create_time
        playing = broadcast.live_time is not None
        for told in self.facts.story:
            # A broadcast of the policy ON_DEMAND goes from LIVE to READY when nobody watches.
            lost = told.reason in (EventReason.STATE_INTERRUPTED, EventReason.STATE_READY) and playing
            if told.reason == EventReason.STATE_LIVE or lost:
                since, playing = told.time, told.reason == EventReason.STATE_LIVE
        return since

    def recent(self, *reasons: EventReason, before_s: float = _BEFORE_S) -> Told | None:
        """The latest event with one of *reasons*, if it is at most *before_s* older than the present trouble. None:
        there is none.
        """
        told = self.facts.last(*reasons)
        return told if told is not None and self.counts(told.time, before_s) else None

    def counts(self, moment: datetime, before_s: float = _BEFORE_S) -> bool:
        """Whether *moment* is at most *before_s* older than the present trouble."""
        return moment >= self.dark_since - seconds(before_s)

    @cached_property
    def failed_egress(self) -> Egress | None:
        """The latest egress that failed in the present trouble, even if the next one is on its way. None: no egress
        failed, or media of a later one arrive.
        """
        if self.live:
            return None
        for egress in reversed(self.resource_set.egresses):
            if egress.delivering and egress.phase is Phase.PRESENT and self.resource_set.fed:
                return None
            if (egress.fault or egress.refused or (egress.failures and not egress.external_id)) and self.counts(
                egress.changed_at
            ):
                return egress
        return None

    def delivered(self, egress: Egress) -> bool:
        """Whether *egress* was ever connected to the live stream, as far as the stored events reach."""
        return any(
            told.reason == EventReason.EGRESS_CONNECTED and told.time >= egress.intended_at for told in self.facts.story
        )


def start_evidence(case: Case, egress: Egress) -> tuple[Evidence, ...]:
    """The evidence of *egress*, and the last error if it is that of a start of an egress."""
    trouble = case.facts.broadcast.status.last_error
    told: tuple[Evidence, ...] = ()
    if trouble is not None and trouble.operation.starts_egress:
        told = noted(("last_error", failed_call(trouble), trouble.time))
    return (*egress_evidence(egress), *told)


def with_detail(text: str, detail: str) -> str:
    """*text* as a sentence, or with a *detail* behind a colon."""
    return f"{text}: {detail}" if detail else f"{text}."
