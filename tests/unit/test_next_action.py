"""What is told of the future is what the plan waits for: the same rules, the same times."""

from dataclasses import replace
from datetime import datetime
from typing import Any, get_args

import pytest

from service.domain.broadcast import EndReason, Fallback, FallbackMode, Target, seconds
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.planning.plan import plan
from service.domain.planning.steps import ResetKey, Step, StopEgress
from service.domain.reasons import FallbackReason, Fault
from service.domain.reporting.next_action import ACTIONS
from service.domain.resources import Output, OutputState, Phase, StreamStatus
from service.domain.situation import Availability
from tests.unit.health_facts import (
    EGRESS,
    IDLE,
    ROOM,
    STREAM,
    TIMING,
    WAS_LIVE,
    ago,
    away,
    gone,
    known,
    live,
)

FELL = replace(STREAM, status=StreamStatus.IDLE, status_since=ago(6), observed_at=ago(1))
CONNECTING = replace(
    EGRESS,
    status_since=ago(10),
    intended_at=ago(15),
    delivering_since=None,
    outputs=(Output(name="", state=OutputState.CONNECTING),),
)
WEBRTC = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=ago(300))


def lately(ordinal: int, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "ordinal": ordinal,
        "external_id": f"EG_{ordinal}",
        "end_seen": True,
        "fault": Fault.FAILED,
        "intended_at": ago(100 - ordinal),
        **changes,
    }
    return gone(EGRESS, **given)


REFUSED = {"external_id": "", "fault": Fault.THROTTLED, "retry_at": ago(50), "intended_at": ago(200)}


@pytest.mark.parametrize(
    ("facts", "action", "time"),
    [
        # Those that were refused cost nothing, and count neither here nor there.
        pytest.param(
            known(
                ROOM,
                IDLE,
                *(lately(n, **REFUSED) for n in range(3)),
                *(lately(n) for n in range(3, 8)),
                fallback=WEBRTC,
            ),
            "START_EGRESS",
            ago(97) + seconds(600),
            id="the limit of starts",
        ),
        pytest.param(
            known(ROOM, FELL, EGRESS, **WAS_LIVE), "WAIT_FOR_MEDIA", ago(6) + seconds(10), id="fed, and idle now"
        ),
        pytest.param(
            known(replace(ROOM, missing={"EG_1": ago(5)}), STREAM, EGRESS, **WAS_LIVE),
            "STOP_GHOST",
            ago(5) + seconds(15),
            id="a ghost",
        ),
        pytest.param(known(ROOM, IDLE, CONNECTING), "WAIT_FOR_CONNECTION", ago(10) + seconds(40), id="connecting"),
        pytest.param(
            live(availability=away("mux", age_s=30)), "SET_FALLBACK", ago(30) + seconds(120), id="Mux is away"
        ),
        pytest.param(
            known(
                ROOM,
                STREAM,
                replace(EGRESS, delivering_since=ago(50)),
                **WAS_LIVE,
                fallback=WEBRTC,
                availability=Availability(answering_since={"mux": ago(500), "livekit": ago(500)}),
            ),
            "SET_FALLBACK",
            ago(50) + seconds(120),
            id="the return",
        ),
        pytest.param(
            known(
                gone(ROOM),
                gone(STREAM, recordings_settled=True),
                replace(EGRESS, phase=Phase.DELETING, acked=True, changed_at=ago(5)),
                target=Target.ENDED,
                end_reason=EndReason.STOPPED,
                **WAS_LIVE,
            ),
            "WAIT_FOR_END",
            ago(5) + seconds(45),
            id="it is taken down",
        ),
    ],
)
def test_what_comes_next(facts: Facts, action: str, time: datetime) -> None:
    told = health_of(facts, TIMING).next_action
    assert (told.action, told.time) == (action, time), told
    assert told.message


def test_what_was_told_is_what_is_done_then() -> None:
    facts = known(ROOM, FELL, EGRESS, **WAS_LIVE)
    then = health_of(facts, TIMING).next_action.time
    assert then is not None

    def looked(at: datetime) -> tuple[Any, ...]:
        return ROOM, replace(FELL, observed_at=at), replace(EGRESS, observed_at=at)

    just_before = then - seconds(1)
    assert plan(facts.broadcast, looked(just_before), just_before, TIMING).steps == ()
    step, fence = plan(facts.broadcast, looked(then), then, TIMING).steps
    assert isinstance(step, StopEgress)
    assert isinstance(fence, ResetKey)
    assert step.fault == "INGEST_LOST"


def test_every_step_has_an_action() -> None:
    assert {*ACTIONS} == {*get_args(Step)}
    assert len({action for action, _ in ACTIONS.values()}) == len(ACTIONS)
