"""The steps of a plan: what the reconciler can be told to do."""

from dataclasses import dataclass
from datetime import datetime

from service.domain.broadcast import EndReason, Fallback
from service.domain.resources import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRoom:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRoom:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStream:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableStream:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleRecordings:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteStream:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetKey:
    """The fence: an egress start that lands late, or a worker that nobody sees, holds a dead key afterwards."""

    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutStream:
    """The harder fence: whoever is connected is cut off, by disabling the live stream and enabling it again."""

    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEgress:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEgress:
    ordinal: int
    why: str
    fault: str = ""
    """What it failed of; empty: it did not fail, it is not wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLayout:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDestinations:
    ordinal: int
    add: tuple[str, ...]
    remove: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecording:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRecording:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecording:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFallback:
    """Viewers are to be served another way, or in the normal way again."""

    fallback: Fallback


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOff:
    """What nobody ever saw within its grace does not exist."""

    kind: Kind
    ordinal: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndBroadcast:
    reason: EndReason


RoomStep = CreateRoom | DeleteRoom
StreamStep = CreateStream | DisableStream | SettleRecordings | DeleteStream | ResetKey | CutStream
EgressStep = StartEgress | StopEgress | SetLayout | SetDestinations
RecordingStep = StartRecording | StopRecording | UploadRecording
Step = RoomStep | StreamStep | EgressStep | RecordingStep | SetFallback | WriteOff | EndBroadcast


def target_of(step: Step) -> tuple[Kind, int] | None:  # noqa: PLR0911 - one answer a kind
    """The resource a step acts on; None for the broadcast itself."""
    match step:
        case CreateRoom() | DeleteRoom():
            return Kind.ROOM, step.ordinal
        case CreateStream() | DisableStream() | SettleRecordings() | DeleteStream() | ResetKey() | CutStream():
            return Kind.STREAM, step.ordinal
        case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
            return Kind.EGRESS, step.ordinal
        case StartRecording() | StopRecording():
            return Kind.RECORDING, step.ordinal
        case UploadRecording():
            return Kind.UPLOAD, step.ordinal
        case WriteOff():
            return step.kind, step.ordinal
        case SetFallback() | EndBroadcast():
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...] = ()
    wait_until: datetime | None = None
    """When to plan again if nothing wakes us before. None with no steps: at rest."""
    done: bool = False
    """Target ENDED and nothing runs any more. It may still wait for recordings."""
    blocked: str = ""
    """Why no egress is started although one is wanted: a stable upper-case word."""
