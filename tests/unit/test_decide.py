"""Whether an egress runs for viewers: the rules one by one, and the properties that hold for any inputs."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.audience.decide import Decision, decide, linger_s
from service.domain.audience.watching import Watching
from service.domain.broadcast import seconds
from service.domain.delivery import Decided, Delivery, DeliveryReason, Inputs, Limits
from tests.simulation.environment import T0

LIMITS = Limits(linger_s=60, window_s=60, min_run_s=120, stale_s=10, hold_s=90, warm_s=45, flap_s=3600, starts=6)
COUNTED = Watching(counted_up_to=T0, counted_since=T0 - seconds(5000))
"""Nobody was ever seen, and no sign is missing."""
IDLE = Decided(since=T0 - seconds(1000))
RUNS = Decided(wanted=True, reason=DeliveryReason.VIEWERS, since=T0 - seconds(1000))
many = settings(max_examples=600, deadline=None, derandomize=True, database=None)


def given_inputs(before: Decided, seen_s: float | None = None, *, now: datetime = T0, **fields: Any) -> Inputs:
    """*seen_s*: how many seconds ago a viewer gave a sign. None: none ever did."""
    watching = COUNTED if seen_s is None else replace(COUNTED, last_seen=now - seconds(seen_s))
    inputs = Inputs(
        now=now,
        before=before,
        watching=replace(watching, counted_up_to=now),
        limits=LIMITS,
        running=before.wanted,
        host=True,
        recording=False,
    )
    return replace(inputs, **fields)


@pytest.mark.parametrize(
    ("inputs", "reason", "until_s"),
    [
        (given_inputs(IDLE), "NO_VIEWER", None),
        (given_inputs(IDLE, 0), "VIEWERS", 60),
        (given_inputs(IDLE, 59), "VIEWERS", 1),
        (given_inputs(IDLE, 60), "NO_VIEWER", None),
        (given_inputs(RUNS, 59), "VIEWERS", 1),
        (given_inputs(RUNS, 60), "NO_VIEWER", None),
        (given_inputs(RUNS, None), "NO_VIEWER", None),
        (given_inputs(RUNS, 60, limits=replace(LIMITS, linger_s=61)), "VIEWERS", 1),
        (given_inputs(RUNS, 59, limits=replace(LIMITS, linger_s=0)), "VIEWERS", 1),
        (given_inputs(replace(RUNS, since=T0 - seconds(119)), 60), "MIN_RUN", 1),
        (given_inputs(replace(RUNS, since=T0 - seconds(120)), 60), "NO_VIEWER", None),
        (given_inputs(RUNS, 60, recording=True), "RECORDING", None),
        (given_inputs(IDLE, recording=True), "NO_VIEWER", None),
        (given_inputs(replace(RUNS, reason=DeliveryReason.FLAPPING), 5000), "FLAPPING", None),
    ],
)
def test_viewers_linger_minimum_run_and_recording(inputs: Inputs, reason: str, until_s: float | None) -> None:
    decision = decide(inputs)
    assert decision.decided.reason == reason
    assert decision.decided.wanted is (reason != "NO_VIEWER")
    assert decision.until == (None if until_s is None else T0 + seconds(until_s))


@pytest.mark.parametrize(
    ("watching", "until_s"),
    [
        (Watching(), 10),
        (Watching(counted_up_to=T0 - seconds(11), counted_since=T0 - seconds(5000)), 10),
        (Watching(counted_up_to=T0, counted_since=T0 - seconds(89)), 1),
    ],
    ids=["never counted", "a replica is silent", "counting began again"],
)
def test_nothing_stops_while_signs_of_viewers_may_be_missing(watching: Watching, until_s: float) -> None:
    decision = decide(given_inputs(RUNS, watching=watching))
    assert (decision.decided.reason, decision.until) == (DeliveryReason.HOLD, T0 + seconds(until_s))
    # It starts nothing either.
    assert not decide(given_inputs(IDLE, watching=watching)).decided.wanted


def test_who_is_started_too_often_within_an_hour_runs_to_the_end() -> None:
    decided, now = IDLE, T0
    for n in range(6):
        decided = decide(given_inputs(decided, 0, now=now)).decided
        assert decided.reason == ("VIEWERS" if n < 5 else "FLAPPING"), n
        now += timedelta(minutes=9)
        decided = decide(given_inputs(decided, 500, now=now)).decided
        now += timedelta(minutes=1)
    assert decided.wanted
    assert decide(given_inputs(decided, 86_000, now=now + timedelta(days=1))).decided == decided


def test_starts_of_more_than_an_hour_ago_and_those_without_a_host_are_not_counted() -> None:
    decided, now = IDLE, T0
    for _ in range(20):
        decided = decide(given_inputs(decided, 0, now=now)).decided
        assert len(decided.starts) <= 5
        decided = decide(given_inputs(decided, 500, now=now + timedelta(minutes=9))).decided
        now += timedelta(minutes=13)
    for n in range(20):
        decided = decide(given_inputs(decided, 0, now=now + timedelta(minutes=4 * n), host=False)).decided
        decided = decide(given_inputs(decided, 99, now=now + timedelta(minutes=4 * n + 3), host=False)).decided
    assert decided.reason == "NO_VIEWER"


@pytest.mark.parametrize(
    ("ahead_s", "reason", "until_s"),
    [(46, "NO_VIEWER", 1), (45, "SCHEDULE", 105), (0, "SCHEDULE", 60), (-59, "SCHEDULE", 1), (-60, "NO_VIEWER", None)],
)
def test_it_is_started_ahead_of_the_schedule(ahead_s: float, reason: str, until_s: float | None) -> None:
    at = T0 + seconds(ahead_s)
    decision = decide(given_inputs(IDLE, scheduled_at=at))
    assert (decision.decided.reason, decision.until) == (reason, until_s if until_s is None else T0 + seconds(until_s))
    if reason == "SCHEDULE":
        again = decide(given_inputs(decision.decided, scheduled_at=at))
        assert again.decided == decision.decided


def test_with_another_policy_before_the_egress_that_runs_is_kept_until_its_viewers_are_counted() -> None:
    decided = decide(given_inputs(Decided(), running=True)).decided
    assert (decided.wanted, decided.since) == (True, T0)
    later = T0 + seconds(LIMITS.min_run_s)
    assert not decide(given_inputs(decided, now=later)).decided.wanted
    assert decide(given_inputs(decided, 10, now=later)).decided.wanted


ages = st.sampled_from([-300.0, 0, 1, 9, 10, 11, 44, 46, 59, 60, 61, 89, 90, 91, 119, 120, 121, 299, 301, 3599, 9000])
moments = ages.map(lambda age: T0 - seconds(age))
idle_before = st.builds(
    Decided,
    since=st.none() | moments,
    starts=st.lists(moments, max_size=7).map(lambda each: tuple(sorted(each))),
)
running_before = st.builds(
    Decided,
    wanted=st.just(True),
    reason=st.sampled_from(
        [DeliveryReason.VIEWERS] * 4 + [e for e in DeliveryReason if e is not DeliveryReason.NO_VIEWER]
    ),
    since=moments,
    starts=st.lists(moments, max_size=7).map(lambda each: tuple(sorted(each))),
)
limits = st.builds(
    Limits,
    linger_s=st.sampled_from([0.0, 30, 60, 300]),
    window_s=st.sampled_from([3.0, 60]),
    min_run_s=st.sampled_from([0.0, 120]),
    stale_s=st.just(10.0),
    hold_s=st.sampled_from([60.0, 90]),
    warm_s=st.just(45.0),
    flap_s=st.just(3600.0),
    starts=st.sampled_from([1, 3, 6]),
)
any_inputs = st.builds(
    Inputs,
    now=st.just(T0),
    before=idle_before | running_before | running_before,
    watching=st.builds(
        Watching,
        last_seen=st.none() | moments,
        counted_up_to=st.just(T0) | st.just(T0) | st.none() | moments,
        counted_since=st.none() | moments | st.just(T0 - seconds(5000)),
    ),
    limits=limits,
    running=st.booleans(),
    host=st.booleans(),
    recording=st.sampled_from([False, False, False, True]),
    scheduled_at=st.none() | st.none() | moments | ages.map(lambda age: T0 + seconds(age)),
)


def counted(inputs: Inputs) -> bool:
    watching, limits = inputs.watching, inputs.limits
    fresh = watching.counted_up_to is not None and T0 - watching.counted_up_to <= seconds(limits.stale_s)
    return fresh and (watching.counted_since is None or watching.counted_since + seconds(limits.hold_s) <= T0)


def test_nothing_is_stopped_while_a_viewer_may_be_there() -> None:
    met: Counter[str] = Counter()

    @many
    @given(any_inputs)
    def holds(inputs: Inputs) -> None:
        if not inputs.before.wanted or inputs.before.since is None:
            return
        decision = decide(inputs)
        seen = inputs.watching.last_seen
        there = seen is not None and seen + seconds(inputs.limits.window_s) > T0
        met["stopped" if not decision.decided.wanted else "runs on"] += 1
        met["somebody is there"] += there
        if there or not counted(inputs):
            assert decision.decided.wanted
        if not decision.decided.wanted:
            assert inputs.before.since + seconds(inputs.limits.min_run_s) <= T0
            assert seen is None or seen + seconds(linger_s(inputs)) <= T0

    holds()
    assert min(met[each] for each in ("stopped", "runs on", "somebody is there")) >= 20, met


def test_without_a_viewer_it_stops_in_time_but_for_flapping_recording_and_doubt() -> None:
    met: Counter[str] = Counter()

    @many
    @given(any_inputs)
    def holds(inputs: Inputs) -> None:
        now, decided, last = T0, inputs.before, None
        for _ in range(20):
            # Nobody comes, and the replicas count.
            watching = replace(inputs.watching, counted_up_to=now)
            last = decide(replace(inputs, now=now, before=decided, watching=watching))
            decided = last.decided
            if last.until is None:
                break
            assert last.until > now
            now = last.until
        assert last is not None
        assert last.until is None, "it never comes to rest"
        met[decided.reason] += 1
        if decided.reason not in ("FLAPPING", "RECORDING"):
            assert not decided.wanted
            waits = (
                300 + linger_s(inputs),
                9000 + linger_s(inputs) + inputs.limits.warm_s if inputs.scheduled_at else 0,
                inputs.limits.min_run_s + 300,
                inputs.limits.hold_s + 300,
            )
            assert now <= T0 + seconds(max(waits) + inputs.limits.min_run_s)

    holds()
    assert min(met[each] for each in ("FLAPPING", "RECORDING", "NO_VIEWER")) >= 10, met


def test_a_later_sign_of_a_viewer_never_turns_a_run_into_a_stop() -> None:
    met: Counter[bool] = Counter()

    @many
    @given(any_inputs, ages)
    def holds(inputs: Inputs, age: float) -> None:
        seen = inputs.watching.last_seen
        later = T0 - seconds(age) if seen is None else max(seen, T0 - seconds(age))
        before, after = decide(inputs), decide(replace(inputs, watching=replace(inputs.watching, last_seen=later)))
        assert after.decided.wanted or not before.decided.wanted
        met[after.decided.wanted is not before.decided.wanted] += 1

    holds()
    assert met[True] >= 20, met


def test_made_again_from_its_own_result_a_decision_changes_nothing() -> None:
    @many
    @given(any_inputs)
    def holds(inputs: Inputs) -> None:
        first = decide(inputs)
        again = decide(replace(inputs, before=first.decided))
        assert again.decided == first.decided

    holds()


def test_a_stored_decision_replays_to_itself() -> None:
    @many
    @given(any_inputs)
    def holds(inputs: Inputs) -> None:
        decision: Decision = decide(inputs)
        stored = msgspec.json.encode(Delivery(decided=decision.decided, inputs=inputs))
        read = msgspec.json.decode(stored, type=Delivery)
        assert read.inputs is not None
        assert decide(read.inputs).decided == read.decided == decision.decided

    holds()
