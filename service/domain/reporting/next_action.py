"""next_action(): the plan of the service in words for callers: what it does next by itself, and when. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import Target
from service.domain.facts import Facts
from service.domain.planning.steps import (
    AskForRoom,
    BeginScheduled,
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
    SetCostLevel,
    SetDelivery,
    SetDestinations,
    SetFallback,
    SetLayout,
    SetTitle,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAction:
    action: Action
    message: str = ""
    time: datetime | None = None
    """When it is done, at the latest. None: as soon as the event that it waits for happens."""


ACTIONS: Mapping[type[Step], tuple[Action, str]] = {
    EndBroadcast: (Action.END_BROADCAST, "the broadcast is ended"),
    BeginScheduled: (Action.BEGIN_SCHEDULED, "room and live stream are made, ahead of its scheduled start"),
    SetFallback: (Action.SET_FALLBACK, "viewers are served another way"),
    SetCostLevel: (Action.TELL_COST, "it is told how near the cost is to the cost cap"),
    SetDelivery: (Action.SET_DELIVERY, "it is decided whether an egress is to run for viewers"),
    CreateRoom: (Action.CREATE_ROOM, "the room is made"),
    CreateStream: (Action.CREATE_STREAM, "the live stream is made"),
    ResetKey: (Action.RESET_KEY, "the stream key is reset, so that no earlier egress can publish any more"),
    CutStream: (Action.CUT_STREAM, "whoever may still be connected to the live stream is cut off"),
    StartEgress: (Action.START_EGRESS, "an egress is started"),
    DisableStream: (Action.DISABLE_STREAM, "the live stream is disabled, so that nobody can publish to it any more"),
    StopEgress: (Action.STOP_EGRESS, "the egress is stopped"),
    SetDestinations: (Action.SET_DESTINATIONS, "the egress is told where to send to"),
    SetTitle: (Action.SET_TITLE, "the live stream is given its title"),
    SetLayout: (Action.SET_LAYOUT, "the egress is told the layout"),
    StartRecording: (Action.START_RECORDING, "a recording to our own storage is started"),
    StopRecording: (Action.STOP_RECORDING, "the recording to our own storage is stopped"),
    UploadRecording: (
        Action.UPLOAD_RECORDING,
        f"what was recorded to our own storage is handed to {STREAMS.display_name}",
    ),
    DeleteUpload: (
        Action.DELETE_UPLOAD,
        f"what {STREAMS.display_name} could not make of the recording is deleted, before it is handed over again",
    ),
    SettleRecordings: (Action.SETTLE_RECORDINGS, "the recordings are listed, or discarded"),
    WriteOff: (Action.WRITE_OFF, "what nobody saw within its time is written off"),
    DeleteRoom: (Action.DELETE_ROOM, "the room is deleted"),
    AskForRoom: (Action.LOOK_AGAIN, f"{ROOMS.display_name} is asked for the room that it does not list"),
    DeleteStream: (Action.DELETE_STREAM, "the live stream is deleted"),
}
"""The action of each step, and a sentence about it for people. The foremost step of a plan is the one that comes first
here: a step that ends or begins something comes before a step that goes with it.
"""
_AGAIN = "everything is looked at again"


def next_action(facts: Facts, decided: Plan) -> NextAction:
    """What happens next. *decided*: the plan of the service for these facts."""
    broadcast = facts.broadcast
    if broadcast.target is Target.CREATED and not decided.steps and not decided.waits:
        return NextAction(action=Action.NONE, message="nothing happens before StartBroadcast")
    if broadcast.state.over:
        return _after_the_end(facts, decided)
    if decided.steps:
        action, said = _foremost(decided.steps)
        turn = broadcast.turn_at
        if turn is not None and turn > facts.now:
            message = f"{said}, when its turn comes at the provider's rate limit"
            return NextAction(action=action, message=message, time=turn)
        # While a pass works on the broadcast it is not due, and there is no time.
        return NextAction(action=action, message=said, time=broadcast.due_at)
    if decided.waits:
        # A wait without a time is for somebody who has to do something: it is told before all others.
        first = min(decided.waits, key=lambda wait: wait.until or facts.now)
        return NextAction(action=first.action, message=first.message, time=first.until)
    message = "it is looked at until nothing is left of it" if broadcast.target is Target.ENDED else _AGAIN
    return NextAction(action=Action.LOOK_AGAIN, message=message, time=_look(facts))


def _foremost(steps: Sequence[Step]) -> tuple[Action, str]:
    """The action of the foremost step, and the step in words."""
    order = [*ACTIONS]
    step = min(steps, key=lambda step: order.index(type(step)))
    action, said = ACTIONS[type(step)]
    match step:
        case EndBroadcast():
            return action, f"{said}: {step.reason}"
        case StopEgress():
            return action, f"{said}: {step.why}"
        case _:
            return action, said


def _after_the_end(facts: Facts, decided: Plan) -> NextAction:
    if decided.steps:
        action, said = _foremost(decided.steps)
        return NextAction(action=action, message=said)
    if decided.waits:
        first = min(decided.waits, key=lambda wait: wait.until or facts.now)
        return NextAction(action=first.action, message=first.message, time=first.until)
    if decided.wait_until is not None:
        message = "the recording is looked at until it is ready"
        return NextAction(action=Action.LOOK_AGAIN, message=message, time=_look(facts))
    return NextAction(action=Action.NONE, message="it is over")


def _look(facts: Facts) -> datetime | None:
    """When the providers are looked at again, as stored. A plan made now would have another time at every call."""
    return facts.broadcast.due_at or facts.broadcast.status.next_attempt_time
