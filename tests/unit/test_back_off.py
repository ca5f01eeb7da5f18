"""The end of a back-off before its time: an outage that is over, and a person who asks for another try."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.domain.broadcast import Broadcast, ProviderTrouble, Target, seconds
from service.domain.errors import Outcome
from service.domain.explain.causes import CauseCode
from service.domain.explain.explain import explain
from service.domain.facts import Facts
from service.domain.planning.plan import plan
from service.domain.planning.steps import CreateRoom, CreateStream, Plan, SetDestinations, StartEgress, StopEgress
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Fault, Operation
from service.domain.reporting.status import status_of
from service.domain.resources import AnyResource, Phase, Room, Stream
from service.domain.situation import Availability, Outage
from tests.simulation.environment import T0
from tests.unit.test_plan import TIMING, a_room, a_stream, an_egress, live

FAILED: dict[str, Any] = {"failures": 4, "retry_at": T0 + seconds(30), "failed_at": T0 - seconds(5)}
ROOM = Room(ordinal=0, phase=Phase.INTENDED, intended_at=T0 - seconds(20), changed_at=T0 - seconds(20), **FAILED)
STREAM = Stream(ordinal=0, phase=Phase.GONE, intended_at=T0 - seconds(20), changed_at=T0 - seconds(20), **FAILED)
NOBODY = a_room(host_publishing=False)


def answering(provider: str, since: datetime) -> Availability:
    return Availability(answering_since={provider: since})


def planned(
    *resources: AnyResource, availability: Availability | None = None, broadcast: Broadcast | None = None
) -> Plan:
    return plan(broadcast or live(ready_time=None), resources, T0, TIMING, availability)


def test_the_end_of_an_outage_ends_the_back_off_of_what_failed_in_it() -> None:
    assert not planned(ROOM, a_stream()).steps
    over = answering(ROOMS, T0 - seconds(1))
    assert planned(ROOM, a_stream(), availability=over).steps == (CreateRoom(ordinal=0),)
    assert planned(NOBODY, STREAM, availability=answering(STREAMS, T0)).steps == (CreateStream(ordinal=1),)


def test_what_failed_since_the_outage_backs_off_as_ever() -> None:
    before = answering(ROOMS, T0 - seconds(6))
    assert not planned(ROOM, a_stream(), availability=before).steps


def test_the_outage_of_one_provider_is_not_that_of_the_other() -> None:
    assert not planned(ROOM, a_stream(), availability=answering(STREAMS, T0)).steps


def test_while_the_provider_is_away_the_back_off_holds() -> None:
    away = Availability(
        outages={ROOMS: Outage(since=T0 - seconds(60))}, answering_since={ROOMS: None, STREAMS: T0 - seconds(900)}
    )
    assert not planned(ROOM, a_stream(), availability=away).steps


def test_a_person_who_wakes_it_ends_every_back_off() -> None:
    woken = live(ready_time=None, retry_from=T0)
    assert set(planned(ROOM, STREAM, broadcast=woken).steps) == {CreateRoom(ordinal=0), CreateStream(ordinal=1)}
    earlier = live(ready_time=None, retry_from=T0 - seconds(6))
    assert not planned(ROOM, STREAM, broadcast=earlier).steps
    ahead = live(ready_time=None, retry_from=T0 + seconds(60))
    assert not planned(ROOM, STREAM, broadcast=ahead).steps, "a clock that was set back must not end every back-off"


def test_starts_that_failed_in_the_outage_are_made_again_at_once() -> None:
    failed = [
        an_egress(
            ordinal=n,
            phase=Phase.GONE,
            end_seen=True,
            fault=Fault.FAILED,
            intended_at=T0 - seconds(60),
            changed_at=T0 - seconds(4),
        )
        for n in range(2)
    ]
    refused = replace(failed[-1], ordinal=2, external_id="", fault=Fault.UNAVAILABLE, **FAILED)
    resources = (a_room(), a_stream(), *failed, refused)
    assert not planned(*resources, broadcast=live()).steps
    over = planned(*resources, broadcast=live(), availability=answering(ROOMS, T0)).steps
    assert over == (StartEgress(ordinal=3),)
    assert planned(*resources, broadcast=live(retry_from=T0)).steps == over


def test_a_stop_that_failed_in_the_outage_is_made_again_at_once() -> None:
    leaving = an_egress(phase=Phase.DELETING, changed_at=T0 - seconds(9), **FAILED)
    stopped = live(target=Target.ENDED)
    gone = a_room(phase=Phase.GONE)
    over = planned(gone, leaving, broadcast=stopped, availability=answering(ROOMS, T0))
    assert any(isinstance(step, StopEgress) for step in over.steps)


def test_a_change_of_outputs_that_may_land_late_is_waited_for_all_the_same() -> None:
    """A destination that was added twice would get everything twice."""
    egress = an_egress(destinations=("other",), pushes={"other": live().push_url}, **FAILED)  # pyright: ignore[reportArgumentType]
    steps = planned(a_room(), a_stream(), egress, broadcast=live(retry_from=T0)).steps
    assert not any(isinstance(step, SetDestinations) for step in steps)


@pytest.mark.parametrize(
    ("since_s", "failed_s", "again"), [(-1, -5, True), (-6, -5, False), (None, -5, False), (-3, -2, False)]
)
def test_an_outage_that_is_over_is_told_as_over(since_s: float | None, failed_s: float, again: bool) -> None:  # noqa: FBT001
    """The time of an error is that of the first of several, so a call that failed lately counts too."""
    trouble = ProviderTrouble(
        provider=ROOMS,
        operation=Operation.CREATE_ROOM,
        code="503",
        message="no answer",
        retryable=True,
        time=T0 - seconds(5),
        outcome=Outcome.UNAVAILABLE,
    )
    room = replace(ROOM, failed_at=T0 + seconds(failed_s))
    broadcast = live(ready_time=None)
    state, status = status_of(broadcast, (room, a_stream()), None, T0)
    facts = Facts(
        broadcast=replace(broadcast, state=state, status=replace(status, last_error=trouble)),
        resources=(room, a_stream()),
        now=T0,
        availability=Availability(answering_since={ROOMS: None if since_s is None else T0 + seconds(since_s)}),
    )
    [cause] = [each for each in explain(facts, TIMING).causes if each.code is CauseCode.ROOMS_UNREACHABLE]
    assert ("answers again since" in cause.message) is again
    assert ("does not answer as it should" in cause.message) is not again


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.CREDENTIALS])
def test_what_waits_for_its_turn_in_the_service_is_told_as_that(outcome: Outcome) -> None:
    """A provider that refuses our credentials is to blame all the same."""
    trouble = ProviderTrouble(
        provider=STREAMS,
        operation=Operation.CREATE_STREAM,
        code="401" if outcome is Outcome.CREDENTIALS else "503",
        message="no",
        retryable=True,
        time=T0 - seconds(90),
        outcome=outcome,
    )
    due = replace(STREAM, retry_at=T0 - seconds(60), failed_at=T0 - seconds(90))
    broadcast = live(ready_time=None, turn_at=T0 + seconds(40))
    state, status = status_of(broadcast, (NOBODY, due), None, T0)
    facts = Facts(
        broadcast=replace(broadcast, state=state, status=replace(status, last_error=trouble)),
        resources=(NOBODY, due),
        now=T0,
    )
    causes = explain(facts, TIMING).causes
    ours = causes[0].code is CauseCode.WAITING_FOR_BUDGET
    assert ours is (outcome is Outcome.UNAVAILABLE)
    assert not ours or "It waits in the service" in causes[0].message
