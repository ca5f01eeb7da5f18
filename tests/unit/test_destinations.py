"""A destination that fails: when it is tried again, when it is given up, and how that ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.domain import lifecycle
from service.domain.broadcast import (
    Broadcast,
    Carrier,
    Destination,
    DestinationState,
    DestinationStatus,
    Spec,
    Target,
)
from service.domain.destinations import next_try, stopped_names, with_failures
from service.domain.planning.plan import plan
from service.domain.planning.steps import SetDestinations
from service.domain.reporting.status import status_of
from service.domain.resource_set import output_changes
from service.domain.resources import Egress, Output, OutputState, Stream, StreamStatus
from service.domain.secret import Secret
from service.domain.situation import Availability
from service.domain.timing import Timing
from tests.unit.test_plan import T0, a_room, a_stream, an_egress, live

TIMING = Timing()
PLACES = (
    Destination(name="bad", url="rtmps://bad.example/app"),
    Destination(name="good", url="rtmps://good.example/app"),
)
KEYS = {"bad": Secret("key-of-the-bad"), "good": Secret("key-of-the-good")}
URLS = {each.name: Secret(f"{each.url}/{KEYS[each.name].reveal()}") for each in PLACES}
STREAM = a_stream(status=StreamStatus.ACTIVE)


def show(**fields: object) -> Broadcast:
    return live(spec=Spec(destinations=PLACES), destination_keys=KEYS, **fields)


def egress(failures: int = 1, *, again: bool = False, **fields: object) -> Egress:
    """*failures*: failed outputs of the bad one. *again*: it is being tried once more."""
    outputs = (
        Output(name="", state=OutputState.ACTIVE),
        *((Output(name="bad", state=OutputState.CONNECTING),) if again else ()),
        *(Output(name="bad", state=OutputState.FAILED, message="refused") for _ in range(failures)),
        Output(name="good", state=OutputState.ACTIVE),
    )
    values: dict[str, object] = {"destinations": ("bad", "good"), "pushes": URLS, "outputs": outputs}
    return an_egress(**{**values, **fields})


def told(broadcast: Broadcast, egress: Egress | None, now: datetime) -> Broadcast:
    """*broadcast* as a pass stores it after it saw *egress*."""
    resources = (a_room(), STREAM, *((egress,) if egress is not None else ()))
    decided = plan(broadcast, resources, now, TIMING, Availability())
    state, status = status_of(broadcast, resources, decided, now, timing=TIMING)
    return replace(broadcast, state=state, status=status)


def bad(broadcast: Broadcast) -> DestinationStatus:
    return next(each for each in broadcast.status.destinations if each.name == "bad")


def steps(broadcast: Broadcast, egress: Egress, now: datetime) -> list[SetDestinations]:
    decided = plan(broadcast, (a_room(), STREAM, egress), now, TIMING, Availability())
    return [step for step in decided.steps if isinstance(step, SetDestinations)]


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def failing(times: int, every_s: float) -> tuple[Broadcast, datetime]:
    """After *times* failures, one each *every_s* seconds, and the time of the last."""
    broadcast, now = show(), T0
    for n in range(1, times + 1):
        now = after((n - 1) * every_s)
        broadcast = told(broadcast, egress(n), now)
    return broadcast, now


def test_one_that_failed_is_tried_again_after_a_pause_that_grows() -> None:
    pauses: list[float] = []
    for n in range(1, 8):
        broadcast, now = failing(n, 50)
        moment = next_try(bad(broadcast), broadcast, TIMING)
        assert moment is not None
        pauses.append((moment - now).total_seconds())
        assert not steps(broadcast, egress(n), moment - timedelta(seconds=1))
        assert steps(broadcast, egress(n), moment) == [SetDestinations(ordinal=0, again=("bad",))]
    assert pauses == [10, 20, 40, 60, 60, 60, 60]


def test_the_plan_waits_for_the_next_try() -> None:
    broadcast, _ = failing(1, 0)
    decided = plan(broadcast, (a_room(), STREAM, egress(1)), after(1), TIMING, Availability())
    assert decided.wait_until is not None
    assert decided.wait_until <= after(10)


def test_one_that_is_being_tried_is_not_tried_twice() -> None:
    broadcast, _ = failing(1, 0)
    broadcast = told(broadcast, egress(1, again=True), after(12))
    assert bad(broadcast).state is DestinationState.CONNECTING
    assert not steps(broadcast, egress(1, again=True), after(3600))


def test_ten_failures_in_ten_minutes_stop_it_and_nothing_is_sent_to_it_any_more() -> None:
    nine, now = failing(9, 60)
    assert bad(nine).state is DestinationState.FAILED
    ten, now = failing(10, 60)
    assert (bad(ten).state, len(bad(ten).failed_at), bad(ten).error) == (DestinationState.STOPPED, 10, "refused")
    assert bad(ten).error_time == now
    assert "stopped after 10 failures" in bad(ten).message
    for later in (0.0, 60.0, 86_400.0):
        assert not steps(ten, egress(10), now + timedelta(seconds=later))
    # It stays so while looks see the same, and over the end of the egress and the start of the next.
    assert bad(told(ten, egress(10), now + timedelta(hours=1))).state is DestinationState.STOPPED
    without = told(ten, None, now + timedelta(hours=1))
    assert bad(without).state is DestinationState.STOPPED
    fresh = egress(0, ordinal=1, destinations=("good",), outputs=(Output(name="", state=OutputState.ACTIVE),))
    assert output_changes(without, fresh) == ((), ())
    assert stopped_names(without) == {"bad"}


def test_ten_failures_in_more_than_ten_minutes_do_not_stop_it() -> None:
    broadcast, _ = failing(30, 70)
    assert bad(broadcast).state is DestinationState.FAILED
    assert len(bad(broadcast).failed_at) < 10


def test_a_bad_one_disturbs_no_other_and_not_the_stream() -> None:
    for n in range(1, 11):
        broadcast, now = failing(n, 50)
        good = next(each for each in broadcast.status.destinations if each.name == "good")
        assert good == DestinationStatus(name="good", state=DestinationState.ACTIVE, egress=0)
        for later in (0, 15, 100):
            decided = plan(
                broadcast, (a_room(), STREAM, egress(n)), now + timedelta(seconds=later), TIMING, Availability()
            )
            assert decided.steps in ((), (SetDestinations(ordinal=0, again=("bad",)),))


def test_failures_count_over_egresses() -> None:
    broadcast, now = failing(6, 20)
    for n in range(1, 5):
        now += timedelta(seconds=20)
        broadcast = told(broadcast, egress(n, ordinal=1), now)
    assert bad(broadcast).state is DestinationState.STOPPED


def test_the_same_look_twice_is_one_failure_and_a_poorer_report_none() -> None:
    broadcast, now = failing(3, 20)
    for again in (egress(3), egress(0), egress(3), egress(1)):
        now += timedelta(seconds=5)
        broadcast = told(broadcast, again, now)
    assert len(bad(broadcast).failed_at) == 3


def test_one_that_works_again_keeps_the_last_error_with_its_time() -> None:
    broadcast, now = failing(2, 30)
    outputs = tuple(
        replace(each, state=OutputState.ACTIVE, message="") if each.name == "bad" and n == 1 else each
        for n, each in enumerate(egress(2).outputs)
    )
    broadcast = told(broadcast, egress(2, outputs=outputs), now + timedelta(seconds=20))
    assert bad(broadcast).state is DestinationState.ACTIVE
    assert (bad(broadcast).error, bad(broadcast).error_time) == ("refused", now)


def test_a_person_who_wants_everything_tried_again_closes_the_breaker() -> None:
    broadcast, now = failing(10, 50)
    woken = replace(broadcast, retry_from=now + timedelta(seconds=5))
    assert stopped_names(woken) == frozenset()
    assert steps(woken, egress(10), now + timedelta(seconds=6)) == [SetDestinations(ordinal=0, again=("bad",))]
    woken = told(woken, egress(10), now + timedelta(seconds=6))
    assert bad(woken).state is DestinationState.FAILED
    # It begins to count anew.
    woken = told(woken, egress(11), now + timedelta(seconds=20))
    assert (bad(woken).state, len(bad(woken).failed_at)) == (DestinationState.FAILED, 1)


def test_removed_and_added_again_it_is_tried_at_once_and_counted_anew() -> None:
    broadcast, now = failing(10, 50)
    removed = lifecycle.remove_destination(broadcast, now, etag="", name="bad").broadcast
    assert [each.name for each in removed.status.destinations] == ["good"]
    added = lifecycle.add_destination(removed, now, etag="", destination=PLACES[0], key=KEYS["bad"]).broadcast
    # No pass was in between: the egress has it still, as one that failed.
    added = told(added, egress(10), now + timedelta(seconds=1))
    assert (bad(added).state, len(bad(added).failed_at)) == (DestinationState.FAILED, 1)
    [again] = steps(added, egress(10), now + timedelta(seconds=11))
    assert again.again == ("bad",)


def test_an_update_that_leaves_a_destination_out_forgets_its_failures() -> None:
    broadcast, now = failing(10, 50)
    spec = replace(broadcast.spec, destinations=PLACES[1:])
    change = lifecycle.update(broadcast, now, etag="", spec=spec, keys={}, labels=None, paths=("destinations",))
    assert change is not None
    assert [each.name for each in change.broadcast.status.destinations] == ["good"]


def test_a_retry_does_not_go_with_other_changes() -> None:
    """A removal that finds nothing is answered 404, and then it is not known what became of an addition."""
    broadcast, now = failing(1, 0)
    wanted = replace(broadcast, spec=replace(broadcast.spec, destinations=PLACES[:1]))
    [change] = steps(wanted, egress(1), now + timedelta(seconds=30))
    assert (change.remove, change.again) == (("good",), ())


def test_one_by_mux_is_told_and_never_stopped() -> None:
    place = Destination(name="relay", url="rtmps://relay.example/app", carrier=Carrier.STREAM)
    broadcast, now = live(spec=Spec(destinations=(place,))), T0

    def stream(state: OutputState) -> Stream:
        return replace(STREAM, relays=(Output(name="relay", state=state, message="no answer"),))

    for n in range(30):
        now = after(n * 5)
        state = OutputState.FAILED if n % 2 else OutputState.ACTIVE
        resources = (a_room(), stream(state), an_egress())
        _, status = status_of(broadcast, resources, None, now, timing=TIMING)
        broadcast = replace(broadcast, status=status)
    [relay] = broadcast.status.destinations
    assert (relay.state, relay.error, relay.error_time) == (DestinationState.FAILED, "no answer", now)
    assert relay.failed_at == ()


@given(
    st.lists(
        st.tuples(st.floats(0.1, 400), st.sampled_from(["fail", "look", "replace", "wake"])), min_size=1, max_size=60
    )
)
def test_never_more_than_ten_failures_in_ten_minutes_are_let_pass(moves: list[tuple[float, str]]) -> None:
    """Whatever comes in between: it is stopped by the tenth failure of a window that no wake has cut off."""
    broadcast, now, ordinal, shown, failed = show(), T0, 0, 0, list[datetime]()
    for pause, move in moves:
        now += timedelta(seconds=pause)
        match move:
            case "fail" if bad_or_none(broadcast) is not DestinationState.STOPPED:
                shown += 1
                failed.append(now)
            case "replace":
                ordinal, shown = ordinal + 1, 0
            case "wake":
                broadcast = replace(broadcast, retry_from=now)
                failed = []
            case _:
                pass
        seen = with_failures(
            DestinationStatus(name="bad", state=DestinationState.FAILED if shown else DestinationState.IDLE),
            broadcast,
            egress(shown, ordinal=ordinal),
            now,
            TIMING,
        )
        broadcast = replace(broadcast, status=replace(broadcast.status, destinations=(seen,)))
        within = [each for each in failed if each > now - timedelta(minutes=10)]
        if len(within) >= 10:
            assert seen.state is DestinationState.STOPPED
        assert len(seen.failed_at) <= 10
        if seen.state is DestinationState.STOPPED:
            assert next_try(seen, broadcast, TIMING) is None


def bad_or_none(broadcast: Broadcast) -> DestinationState | None:
    return next((each.state for each in broadcast.status.destinations if each.name == "bad"), None)


def test_a_broadcast_that_is_to_end_tries_nothing_again() -> None:
    broadcast, now = failing(1, 0)
    assert not steps(replace(broadcast, target=Target.ENDED), egress(1), now + timedelta(hours=1))
