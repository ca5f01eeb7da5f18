"""The steps of a plan: what the reconciler can be told to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.domain.broadcast import EndReason, Fallback
from service.domain.reasons import Action, Blocked, EventReason, Fault
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
    fault: Fault = Fault.NONE
    """Why it counts as failed. NONE: it did not fail, it is not wanted."""


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
    fault: Fault = Fault.NONE
    """As of `StopEgress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecording:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUpload:
    """Of an asset that Mux could not make, before it is to make another."""

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


WRITTEN_OFF: Final[Mapping[Kind, EventReason]] = {
    Kind.STREAM: EventReason.STREAM_WRITTEN_OFF,
    Kind.EGRESS: EventReason.EGRESS_WRITTEN_OFF,
    Kind.RECORDING: EventReason.RECORDING_WRITTEN_OFF,
    Kind.UPLOAD: EventReason.UPLOAD_WRITTEN_OFF,
}
"""The event of a WriteOff. A room is never written off: it is created again by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndBroadcast:
    reason: EndReason


RoomStep = CreateRoom | DeleteRoom
StreamStep = CreateStream | DisableStream | SettleRecordings | DeleteStream | ResetKey | CutStream
EgressStep = StartEgress | StopEgress | SetLayout | SetDestinations
RecordingStep = StartRecording | StopRecording | UploadRecording | DeleteUpload
Step = RoomStep | StreamStep | EgressStep | RecordingStep | SetFallback | WriteOff | EndBroadcast


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What comes next by itself where nothing happens before."""

    action: Action
    message: str
    until: datetime | None = None
    """None: nothing comes by itself, somebody has to do something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...] = ()
    wait_until: datetime | None = None
    """When to plan again if nothing wakes us before. None with no steps: at rest."""
    done: bool = False
    """Target ENDED and nothing runs any more. It may still wait for recordings."""
    blocked: Blocked = Blocked.NOTHING
    """Why no egress is started although one is wanted."""
    waits: tuple[Wait, ...] = ()
    """What is waited for, where it is more than the next look."""
