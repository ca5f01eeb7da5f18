"""A scheduled start: when it is begun, what it waits for, and what callers may change."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.broadcast import Broadcast, EndReason, Spec, State, Status, Target, seconds
from service.domain.errors import FieldImmutable, InvalidField
from service.domain.lifecycle import Change, delete, scheduled, start, stop, update
from service.domain.planning.plan import plan
from service.domain.planning.steps import BeginScheduled, EndBroadcast
from service.domain.reasons import Action, EventReason
from service.domain.reporting.record import tell, with_outcome
from service.domain.resource_set import ResourceSet, host_deadline
from service.domain.resources import Phase, Room, Stream
from service.domain.schedule import LEAD_S, SPREAD_S, ahead_s, provision_at
from service.domain.situation import Situation
from service.domain.timing import Timing
from service.reconciler.act.requests import room_wanted
from service.reconciler.reconciler import derive

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = NOW + timedelta(hours=8)
TIMING = Timing()


def broadcast(id: str = "show", at: datetime | None = HOUR, **changes: Any) -> Broadcast:
    values: dict[str, Any] = {
        "id": id,
        "spec": Spec(scheduled_start_time=at),
        "create_time": NOW,
        "update_time": NOW,
        "status": Status(state_reason="SCHEDULED", state_time=NOW),
    }
    made = Broadcast(**{**values, **changes})
    return replace(made, due_at=provision_at(made))


def moved(stored: Broadcast, at: datetime | None, now: datetime = NOW) -> Change | None:
    spec = Spec(scheduled_start_time=at)
    return update(stored, now, etag="", spec=spec, keys={}, labels=None, paths=["scheduled_start_time"])


def test_it_is_begun_ahead_of_its_time_and_all_of_one_time_are_spread() -> None:
    begins = [provision_at(broadcast(f"show-{n}")) for n in range(600)]
    ahead = [(HOUR - at).total_seconds() for at in begins if at is not None]
    assert len(ahead) == 600
    assert min(ahead) >= LEAD_S
    assert max(ahead) <= LEAD_S + SPREAD_S
    a_minute = Counter(int(each // 60) for each in ahead)
    assert max(a_minute.values()) <= 90, "more in one minute than find their tokens"
    assert provision_at(broadcast()) == provision_at(broadcast()), "every replica has the same"


def test_until_then_it_waits_and_says_so() -> None:
    waits = broadcast()
    decided = plan(waits, (), NOW, TIMING)
    assert (decided.steps, decided.wait_until) == ((), provision_at(waits))
    [wait] = decided.waits
    assert (wait.action, wait.until) == (Action.BEGIN_SCHEDULED, provision_at(waits))
    assert "2026-11-30 20:00:00Z" in wait.message
    assert plan(waits, (), provision_at(waits) or NOW, TIMING).steps == (BeginScheduled(scheduled=HOUR),)


def test_without_a_time_or_deleted_or_stopped_nothing_is_begun() -> None:
    for rests in (broadcast(at=None), broadcast(deleted=True)):
        assert plan(rests, (), HOUR, TIMING).steps == ()
        assert plan(rests, (), HOUR, TIMING).wait_until is None
    change = stop(broadcast(), NOW, "")
    assert change is not None
    assert (change.requeue, change.broadcast.due_at, change.broadcast.state) == (True, None, State.ENDED)
    change = delete(broadcast(), NOW, etag="")
    assert change is not None
    assert (change.requeue, change.broadcast.due_at) == (True, None)


def test_begun_it_is_wanted_live_with_one_event() -> None:
    stored = broadcast()
    now = provision_at(stored) or NOW
    begun = with_outcome(stored, trouble=None, recovered=None, end=None, fallback=None, begun=HOUR)
    told, events = tell(stored, Situation(broadcast=begun, resources=(), now=now), (), derive(TIMING))
    assert (told.target, told.state, told.start_time) == (Target.LIVE, State.STARTING, now)
    assert told.status.state_reason == ""
    assert [event.reason for event in events] == [EventReason.SCHEDULE_BEGUN, EventReason.STATE_STARTING]
    assert events[0].message == "2026-11-30 20:00:00Z"


def test_who_came_first_wins() -> None:
    """A pass has planned the begin, and a caller moved, stopped or started the broadcast before it is recorded."""
    later = moved(broadcast(), HOUR + timedelta(hours=1))
    stopped = stop(broadcast(), NOW, "")
    started = start(broadcast(), NOW)
    assert later is not None
    assert stopped is not None
    assert started is not None
    for change in (later, stopped, started):
        stored = change.broadcast
        begun = with_outcome(stored, trouble=None, recovered=None, end=None, fallback=None, begun=HOUR)
        assert begun.target is stored.target


def test_a_time_that_is_not_in_the_future_is_refused_by_its_field() -> None:
    for at in (NOW, NOW - timedelta(seconds=1), datetime(1970, 1, 1, tzinfo=UTC)):
        for call in (lambda at=at: scheduled(broadcast(at=at), NOW), lambda at=at: moved(broadcast(), at)):
            with pytest.raises(InvalidField) as refused:
                call()
            assert refused.value.violations[0].field == "spec.scheduled_start_time"


def test_it_may_be_moved_and_taken_away_until_it_begins() -> None:
    nearer = moved(broadcast(), NOW + timedelta(seconds=1))
    assert nearer is not None
    assert (nearer.wake, nearer.requeue) == (False, True)
    assert nearer.broadcast.due_at is not None
    assert nearer.broadcast.due_at < NOW, "nearer than its lead: due at once"
    away = moved(broadcast(), None)
    assert away is not None
    assert (away.requeue, away.broadcast.due_at, away.broadcast.status.state_reason) == (True, None, "")
    added = moved(broadcast(at=None, status=Status()), HOUR)
    assert added is not None
    assert added.broadcast.due_at == provision_at(broadcast())
    assert added.broadcast.status.state_reason == "SCHEDULED"
    assert moved(broadcast(), HOUR) is None, "as it was"
    started = start(broadcast(), NOW)
    assert started is not None
    assert started.broadcast.status.state_reason == ""
    with pytest.raises(FieldImmutable):
        moved(started.broadcast, HOUR + timedelta(hours=1))


def test_an_update_of_something_else_leaves_the_queue_alone_even_if_the_time_is_over() -> None:
    change = update(broadcast(), HOUR, etag="", spec=Spec(title="B"), keys={}, labels=None, paths=["title"])
    assert change is not None
    assert (change.wake, change.requeue) == (False, False)


def ready(at: datetime | None) -> tuple[Broadcast, list[Room | Stream]]:
    early = NOW + timedelta(hours=7, minutes=50)
    room = Room(
        ordinal=0,
        phase=Phase.PRESENT,
        external_id="show",
        intended_at=early,
        changed_at=early,
        observed_at=early,
        host_publishing=False,
        host_since=early,
    )
    stream = Stream(ordinal=0, phase=Phase.PRESENT, external_id="LS", intended_at=early, changed_at=early)
    made = broadcast(at=at, target=Target.LIVE, state=State.READY, ready_time=early, start_time=early)
    return replace(made, due_at=None), [room, stream]


def test_the_wait_for_a_host_is_counted_from_the_scheduled_time() -> None:
    late, resources = ready(HOUR)
    assert host_deadline(late, ResourceSet(resources), TIMING) == HOUR + seconds(TIMING.host_wait_s)
    at_once, resources = ready(None)
    assert at_once.ready_time is not None
    assert host_deadline(at_once, ResourceSet(resources), TIMING) == at_once.ready_time + seconds(TIMING.host_wait_s)


@pytest.mark.parametrize(("after_s", "fails"), [(-1.0, False), (TIMING.start_deadline_s + 1, True)])
def test_a_live_stream_that_cannot_be_made_fails_the_start_only_after_the_time(after_s: float, *, fails: bool) -> None:
    """An outage of Mux while it is made ahead must not end a show that nobody waits for yet."""
    early, now = HOUR - seconds(LEAD_S + SPREAD_S), HOUR + seconds(after_s)
    tried = Stream(
        ordinal=0,
        phase=Phase.GONE,
        intended_at=early,
        changed_at=now - seconds(1),
        failures=9,
        retry_at=now + seconds(30),
        failed_at=now - seconds(1),
    )
    starting = replace(broadcast(target=Target.LIVE, state=State.STARTING, start_time=early), due_at=None)
    ends = [step for step in plan(starting, [tried], now, TIMING).steps if isinstance(step, EndBroadcast)]
    assert ends == ([EndBroadcast(reason=EndReason.START_TIMEOUT)] if fails else [])


def test_the_room_stays_open_until_the_wait_for_a_host_is_over() -> None:
    ahead = ahead_s(Spec(scheduled_start_time=HOUR), HOUR - seconds(700))
    assert ahead == 700
    room = room_wanted("show", "bs1:test:", TIMING, ahead_s=ahead)
    assert room.empty_timeout >= seconds(700 + TIMING.host_wait_s)
    assert ahead_s(Spec(scheduled_start_time=HOUR), HOUR + seconds(1)) == ahead_s(Spec(), HOUR) == 0
