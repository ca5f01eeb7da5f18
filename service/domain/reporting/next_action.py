"""What the service does next by itself, in words: the plan, told to people. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import Target
from service.domain.facts import Facts
from service.domain.planning.steps import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DeleteUpload,
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
    DeleteUpload: "what Mux could not make of the recording is deleted, before it is handed over again",
    SettleRecordings: "the recordings are listed, or discarded",
    WriteOff: "what nobody saw within its time is written off",
    DeleteRoom: "the room is deleted",
    DeleteStream: "the live stream is deleted",
}


_AGAIN = "everything is looked at again"


def next_action(facts: Facts, decided: Plan) -> NextAction:
    """*decided*: what the service would do now."""
    broadcast = facts.broadcast
    if broadcast.target is Target.CREATED:
        return NextAction(action="NONE", message="nothing happens before StartBroadcast")
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
    if decided.waits:
        # What somebody has to do is told before what comes by itself, and that before what comes later.
        first = min(decided.waits, key=lambda wait: wait.until or facts.now)
        return NextAction(action=first.action, message=first.message, time=first.until)
    what = "it is looked at until nothing is left of it" if broadcast.target is Target.ENDED else _AGAIN
    return NextAction(action="LOOK_AGAIN", message=what, time=_look(facts))


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


def _look(facts: Facts) -> datetime | None:
    """When it is looked at again. The plan that is made now would tell another time with every asking."""
    return facts.broadcast.due_at or facts.broadcast.status.next_attempt_time
