"""The steps of a plan: what the reconciler can be told to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from service.domain.broadcast import EndReason, Fallback
from service.domain.cost.money import CostLevel
from service.domain.delivery import Delivery
from service.domain.reasons import Action, Blocked, EventReason, Fault
from service.domain.resources import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRoom:
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskForRoom:
    """Find out by a create, which answers with the room of the name if there is one, whether a room that the provider's
    store does not know is there.
    """

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
    """The fence: a start that lands late, or a worker that is not listed, holds a dead key afterwards."""

    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutStream:
    """The harder fence: a connected encoder is cut off, by disabling the live stream and enabling it again."""

    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTitle:
    """Give the live stream the title of the spec."""

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
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    """Those that failed, and are added once more. Never beside others: which of several calls failed is not told."""


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
    """Delete an asset that could not be made, before another is made."""

    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFallback:
    """Viewers are to be served another way, or in the normal way again."""

    fallback: Fallback


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDelivery:
    """An egress is to run for viewers from now on, or not; or the reason is another one."""

    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCostLevel:
    """Tell how near the cost is to its cap, once."""

    level: CostLevel
    message: str
    """How much is spent, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOff:
    """Give up a resource that was not seen within its grace: it does not exist."""

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
class BeginScheduled:
    """The broadcast is to be live from now on, because its scheduled time is near."""

    scheduled: datetime
    """The scheduled time that this was planned for: a later one that callers set meanwhile is not near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndBroadcast:
    reason: EndReason


RoomStep = CreateRoom | AskForRoom | DeleteRoom
StreamStep = CreateStream | DisableStream | SettleRecordings | DeleteStream | ResetKey | CutStream | SetTitle
EgressStep = StartEgress | StopEgress | SetLayout | SetDestinations
RecordingStep = StartRecording | StopRecording | UploadRecording | DeleteUpload
BroadcastStep = SetFallback | SetDelivery | SetCostLevel | WriteOff | BeginScheduled | EndBroadcast
Step = RoomStep | StreamStep | EgressStep | RecordingStep | BroadcastStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A wait that ends by itself at a moment, if nothing happens before."""

    action: Action
    message: str
    until: datetime | None = None
    """None: it does not end by itself, somebody has to act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...] = ()
    wait_until: datetime | None = None
    """When to plan again if nothing wakes the broadcast before. None with no steps: at rest."""
    done: bool = False
    """Target ENDED and nothing runs any more. It may still wait for recordings, and to delete a retired live stream."""
    blocked: Blocked = Blocked.NOTHING
    """Why no egress is started although one is wanted."""
    waits: tuple[Wait, ...] = ()
    """The waits that people are told of. A wait for the next look is not among them."""
