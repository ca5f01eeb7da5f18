"""Properties of `plan` in any state, and of the questions that belong to it: what to look at, what is told to callers.

What needs a provider that answers, fails and keeps its own truth is checked of the real reconciler in tests/simulation.
"""

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings

from service.domain.broadcast import ConditionType, EndReason, State, Target, seconds
from service.domain.cost.money import CapAction, CostLevel
from service.domain.planning.plan import plan
from service.domain.planning.steps import (
    EndBroadcast,
    Plan,
    SetCostLevel,
    SetDelivery,
    SetFallback,
    StartEgress,
    Step,
    StopEgress,
)
from service.domain.planning.what_to_observe import to_observe
from service.domain.reporting.status import status_of
from service.domain.resources import AnyResource, Kind, Phase, Room, Stream
from service.domain.timing import Timing
from tests.simulation.checks.plan_rules import Planned, broken_rules
from tests.simulation.environment import T0
from tests.unit.plan_strategies import CASES, FALLBACK_CASES, Case, capped, on_demand

TIMING = Timing()
EXAMPLES = 90
"""Of each strategy."""
many = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


_LISTED = {
    ConditionType.ROOM_READY: Kind.ROOM,
    ConditionType.STREAM_READY: Kind.STREAM,
    ConditionType.EGRESS_RUNNING: Kind.EGRESS,
}
"""Conditions that are unknown while a list lacks the resource."""


def planned(case: Case) -> Planned:
    """The plan of *case* at T0, with what it was made of."""
    current = plan(case.broadcast, case.resources, T0, TIMING, case.availability, watching=case.watching)
    return Planned(
        broadcast=case.broadcast,
        resources=case.resources,
        now=T0,
        timing=TIMING,
        availability=case.availability,
        watching=case.watching,
        plan=current,
    )


def test_every_plan_of_every_state_keeps_the_rules() -> None:
    met: Counter[str] = Counter()

    def holds(case: Case) -> None:
        before = repr(case)
        current = planned(case)
        assert not list(broken_rules(current))
        # Pure: what is stored is compared with the resources of a situation later, so they must stay as they are.
        assert planned(case) == current
        assert repr(case) == before
        assert planned(replace(case, resources=case.resources[::-1])).plan == current.plan, "the order decides"
        check_looks(case)
        state = check_status(case, current.plan)
        met.update({state, *(type(step).__name__ for step in current.plan.steps)})

    for cases in CASES:
        many(given(cases)(holds))()
    every_step = {each.__name__ for each in Step.__args__}
    for each in (*every_step, State.LIVE, State.INTERRUPTED):
        assert met[each] >= 0.005 * EXAMPLES * len(CASES), f"{each} in {met[each]} examples: {met}"


def test_a_fallback_is_set_once() -> None:
    met: Counter[str] = Counter()

    def holds(case: Case) -> None:
        for step in planned(case).plan.steps:
            if not isinstance(step, SetFallback):
                continue
            met["entered or widened" if step.fallback.modes else "left"] += 1
            then = replace(case, broadcast=replace(case.broadcast, fallback=step.fallback))
            assert not [step for step in planned(then).plan.steps if isinstance(step, SetFallback)]

    for cases in FALLBACK_CASES:
        many(given(cases)(holds))()
    for decision in ("entered or widened", "left"):
        assert met[decision] >= 0.1 * EXAMPLES * len(FALLBACK_CASES), f"{decision} in {met[decision]} examples"


def test_a_level_of_the_cost_is_told_once() -> None:
    met: Counter[CostLevel] = Counter()

    def holds(case: Case) -> None:
        current = planned(case).plan
        for step in current.steps:
            if isinstance(step, SetCostLevel):
                met[step.level] += 1
                then = replace(case, broadcast=replace(case.broadcast, cost_level=step.level))
                assert not [step for step in planned(then).plan.steps if isinstance(step, SetCostLevel)]
        cap = case.broadcast.spec.cost_cap
        ends = EndBroadcast(reason=EndReason.COST_CAP) in current.steps
        assert not ends or (cap is not None and cap.action is CapAction.STOP)

    settings(many, max_examples=4 * EXAMPLES)(given(capped())(holds))()
    for level in CostLevel:
        assert met[level] >= 0.02 * EXAMPLES, f"{level} in {met[level]} examples"


def test_a_delivery_is_decided_once() -> None:
    """And nothing is started or stopped for viewers before the decision is stored."""
    met: Counter[str] = Counter()

    def holds(case: Case) -> None:
        steps = planned(case).plan.steps
        for step in steps:
            if not isinstance(step, SetDelivery):
                continue
            met[step.delivery.decided.reason] += 1
            assert not [each for each in steps if isinstance(each, StartEgress | StopEgress)]
            then = replace(case, broadcast=replace(case.broadcast, delivery=step.delivery))
            assert not [each for each in planned(then).plan.steps if isinstance(each, SetDelivery)]

    settings(many, max_examples=4 * EXAMPLES)(given(on_demand())(holds))()
    for reason in ("VIEWERS", "NO_VIEWER", "HOLD"):
        assert met[reason] >= 0.05 * EXAMPLES, met


def check_looks(case: Case) -> None:
    """A look answers the question: after it the same thing is not to be looked at again at once."""
    wanted = to_observe(case.broadcast, case.resources, T0, TIMING)
    seen: list[AnyResource] = []
    for row in case.resources:
        if (row.kind, row.ordinal) not in wanted:
            seen.append(row)
            continue
        assert row.phase is not Phase.GONE or isinstance(row, Stream)
        looked_at = replace(row, observed_at=T0)
        if isinstance(looked_at, Room) and looked_at.host_publishing is None:
            looked_at = replace(looked_at, host_publishing=False, host_since=T0)
        seen.append(looked_at)
    assert not to_observe(case.broadcast, seen, T0, TIMING), "looks without an end"


def check_status(case: Case, current: Plan) -> State:
    """LIVE is told where every condition is met, or was met when an outage began."""
    broadcast, resources, availability = case.broadcast, case.resources, case.availability
    state, status = status_of(broadcast, resources, current, T0, availability)
    known = {condition.type: condition.met for condition in status.conditions}
    # Before a start nothing is there to be told of.
    assert len(known) == (0 if broadcast.target is Target.CREATED else 6)
    if state is State.LIVE:
        assert all(met is not False for met in known.values())
        # A list that lacks it, or a store of rooms that forgot it, says nothing while media flow.
        doubted = {each.kind for each in resources if each.absent_since is not None}
        doubted |= {each.kind for each in resources if isinstance(each, Room) and each.forgotten_at is not None}
        rest = [met for type_, met in known.items() if _LISTED.get(type_) not in doubted]
        assert all(rest) or (availability.outages and status.state_reason)
    assert state.over is (current.done and broadcast.target is Target.ENDED)
    again = status_of(replace(broadcast, state=state, status=status), resources, current, T0 + seconds(5), availability)
    assert again == (state, status)
    return state
