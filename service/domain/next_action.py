"""What the service does next by itself, in words: the plan, told to people. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import State, Target, seconds
from service.domain.facts import Facts
from service.domain.plan import plan
from service.domain.resources import AnyResource, EgressStatus, Phase, StreamStatus
from service.domain.step import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DisableStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDestinations,
    SetFallback,
    SetLayout,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.timing import Timing
from service.domain.view import host_deadline, wants_egress


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAction:
    action: str
    """A stable upper-case word."""
    message: str = ""
    time: datetime | None = None
    """At the latest. None: as soon as something happens."""


# The first of these that a plan has is told: what ends or begins something, before what goes with it.
_SAID: dict[type[Step], str] = {
    EndBroadcast: "the broadcast is ended",
    SetFallback: "viewers are served another way",
    CreateRoom: "the room is made",
    CreateStream: "the live stream is made",
    ResetKey: "the stream key is reset, so that no earlier egress can publish any more",
    CutStream: "whoever may still be connected to the live stream is cut off",
    StartEgress: "an egress is started",
    DisableStream: "the live stream is disabled, so that nobody can publish to it any more",
    StopEgress: "the egress is stopped",
    SetDestinations: "the egress is told where to send to",
    SetLayout: "the egress is told the layout",
    StartRecording: "a recording to our own storage is started",
    StopRecording: "the recording to our own storage is stopped",
    UploadRecording: "what was recorded to our own storage is handed to Mux",
    SettleRecordings: "the recordings are listed",
    WriteOff: "what nobody saw within its time is written off",
    DeleteRoom: "the room is deleted",
    DeleteStream: "the live stream is deleted",
}
_BLOCKED = {
    "START_LIMIT": ("START_EGRESS", "an egress is started again when the limit of starts allows it"),
    "BACK_OFF": ("RETRY", "an egress is started again"),
    "PREVIOUS_ENDING": ("WAIT_FOR_PREVIOUS_EGRESS", "an egress is started when the one before has ended"),
    "CUTTING_OFF": ("RETRY", "an egress is started when whoever may still be connected was cut off"),
    "FENCING": ("RETRY", "an egress is started when it is certain that no earlier one is connected"),
}


def next_action(facts: Facts, timing: Timing) -> NextAction:
    broadcast = facts.broadcast
    if broadcast.target is Target.CREATED:
        return NextAction(action="NONE", message="nothing happens before StartBroadcast")
    decided = plan(broadcast, facts.resources, facts.now, timing, facts.around)
    if broadcast.state.over:
        return _after_the_end(facts, decided)
    turn = broadcast.turn_at
    if turn is not None and turn > facts.now and decided.steps:
        step = _foremost(decided.steps)
        return NextAction(
            action=_word(step), message=f"{_said(step)}, when its turn comes at the provider's rate limit", time=turn
        )
    if decided.steps:
        step = _foremost(decided.steps)
        # A row that is not due is being worked on.
        return NextAction(action=_word(step), message=_said(step), time=broadcast.due_at)
    if broadcast.target is Target.ENDED:
        return NextAction(action="LOOK_AGAIN", message="it is looked at until nothing is left of it", time=_look(facts))
    return _waiting(facts, decided, timing)


def _foremost(steps: tuple[Step, ...]) -> Step:
    order = [*_SAID]
    return min(steps, key=lambda step: order.index(type(step)) if type(step) in _SAID else len(order))


def _word(step: Step) -> str:
    """StartEgress: START_EGRESS."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).upper()


def _said(step: Step) -> str:
    said = _SAID.get(type(step), "")
    match step:
        case EndBroadcast():
            return f"{said}: {step.reason}"
        case StopEgress():
            return f"{said}: {step.why}"
        case _:
            return said or _word(step).lower().replace("_", " ")


def _after_the_end(facts: Facts, decided: Plan) -> NextAction:
    if decided.steps:
        step = _foremost(decided.steps)
        return NextAction(action=_word(step), message=_said(step))
    if decided.wait_until is not None:
        message = "the recording is looked at until it is ready"
        return NextAction(action="LOOK_AGAIN", message=message, time=_look(facts))
    return NextAction(action="NONE", message="it is over")


def _waiting(facts: Facts, decided: Plan, timing: Timing) -> NextAction:  # noqa: PLR0911 - one a thing to wait for
    broadcast, view = facts.broadcast, facts.view
    if decided.blocked in _BLOCKED:
        action, message = _BLOCKED[decided.blocked]
        return NextAction(action=action, message=message, time=_unblocked(facts, decided.blocked, timing))
    if (held := _held_up(facts)) is not None:
        return NextAction(action="RETRY", message=f"the {held.kind} is tried again", time=held.retry_at)
    missing = [resource for resource in (view.room, view.stream, view.egress) if resource and resource.unresolved]
    if missing:
        message = f"the {missing[0].kind}, whose creation nobody answered, is looked for"
        return NextAction(action="LOOK_AGAIN", message=message, time=_look(facts))
    egress, stream = view.egress, view.stream
    if egress is not None and wants_egress(broadcast, view) and egress.status is not EgressStatus.ACTIVE:
        deadline = egress.intended_at + seconds(timing.egress_start_s)
        return NextAction(action="WAIT_FOR_EGRESS", message="or it is stopped and replaced then", time=deadline)
    if egress is not None and stream is not None and stream.status is not StreamStatus.ACTIVE:
        since = egress.status_since or egress.changed_at
        deadline = max(since, stream.status_since or since) + seconds(timing.ingest_start_s)
        return NextAction(action="WAIT_FOR_MEDIA", message="or the egress is replaced then", time=deadline)
    if (deadline := host_deadline(broadcast, view, timing)) is not None:
        return NextAction(action="WAIT_FOR_HOST", message="or the broadcast is ended then", time=deadline)
    if broadcast.state is State.LIVE and broadcast.live_time is not None:
        limit = broadcast.live_time + seconds(broadcast.spec.max_duration_s)
        return NextAction(action="END_BROADCAST", message="when its maximum duration is over", time=limit)
    if broadcast.state is State.READY and not wants_egress(broadcast, view):
        return NextAction(action="WAIT_FOR_ON_AIR", message="an egress is started when SetOnAir is called")
    return NextAction(action="LOOK_AGAIN", message="everything is looked at again", time=_look(facts))


def _unblocked(facts: Facts, blocked: str, timing: Timing) -> datetime | None:
    egresses = facts.view.egresses
    if blocked == "START_LIMIT":
        began = facts.now - seconds(timing.starts_window_s)
        recent = [egress.intended_at for egress in egresses if egress.intended_at > began]
        return recent[-timing.starts_limit] + seconds(timing.starts_window_s)
    if blocked == "BACK_OFF":
        over = [egress.retry_at for egress in egresses if egress.end_seen or not egress.external_id]
        return over[-1]
    if blocked == "PREVIOUS_ENDING":
        leaving = [egress.changed_at for egress in egresses if egress.phase is Phase.DELETING]
        return max(leaving) + seconds(timing.egress_stop_s)
    return _look(facts)


def _look(facts: Facts) -> datetime | None:
    """When it is looked at again. The plan that is made now would tell another time with every asking."""
    return facts.broadcast.due_at or facts.broadcast.status.next_attempt_time


def _held_up(facts: Facts) -> AnyResource | None:
    """What failed and is not to be tried before its time."""
    waiting = [
        resource
        for resource in facts.resources
        if resource.failures and resource.retry_at is not None and resource.retry_at > facts.now
        if resource.phase is not Phase.GONE or resource is (facts.view.streams or [None])[-1]
    ]
    return min(waiting, key=lambda resource: resource.retry_at or facts.now, default=None)
