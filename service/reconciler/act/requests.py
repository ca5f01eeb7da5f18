"""The requests of a pass: the providers it may ask, what it asks them for, and the budget that each step draws on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.domain.broadcast import Broadcast, Carrier, seconds
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
from service.domain.ports import Push, RoomWanted
from service.domain.resources import Stream
from service.domain.secret import Secret
from service.providers.budget import Bucket, Budget
from service.providers.refusals import Refusals
from service.reconciler.act.tags import room_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.domain.ports import Egresses, Rooms, Storage, Streams, Uploads
    from service.domain.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    rooms: Rooms
    egresses: Egresses
    streams: Streams
    uploads: Uploads
    budget: Budget
    tag: str
    """Begins every mark of ours at a provider; names the environment: `bs1:prod:`."""
    storage: Storage | None = None
    """For local recordings."""
    files: str = ""
    """Begins every object key in it."""
    pooled: bool = False
    """Whether live streams are made ahead."""
    refusals: Refusals = field(default_factory=Refusals)


def pushes_of(broadcast: Broadcast, stream: Stream, streams: Streams) -> dict[str, Secret]:
    """The addresses that an egress of *broadcast* pushes to, by the name of the destination. "" is the live stream."""
    pushes = {"": streams.push_url(stream.key)}
    for destination in broadcast.spec.carried_by(Carrier.EGRESS):
        pushes[destination.name] = broadcast.push_url(destination)
    return pushes


def names_of(broadcast: Broadcast, pushes: Mapping[str, Secret], egresses: Egresses) -> dict[str, list[str]]:
    """The names of the destinations by the redacted address that the provider shows, wanted ones first."""
    wanted = {destination.name for destination in broadcast.spec.destinations}
    names: dict[str, list[str]] = {}
    for name in sorted(pushes, key=lambda name: (name not in wanted, name)):
        names.setdefault(egresses.address_of(Push(name=name, url=pushes[name])), []).append(name)
    return names


def room_wanted(broadcast_id: str, tag: str, timing: Timing, *, ahead_s: float = 0.0) -> RoomWanted:
    """The room must outlive our own patience, or it would close under a host who comes late. *ahead_s*: seconds until
    the wait for a host begins.
    """
    return RoomWanted(
        name=broadcast_id,
        tag=room_tag(tag, broadcast_id),
        empty_timeout=seconds(timing.host_wait_s + ahead_s + 60),
        departure_timeout=seconds(timing.host_return_s + 60),
    )


def bucket_of(step: Step) -> Bucket | None:
    match step:
        case CreateStream() | ResetKey() | UploadRecording():
            return Bucket.STREAMS_POST
        case CutStream() | DisableStream() | DeleteStream() | SettleRecordings() | DeleteUpload() | SetTitle():
            return Bucket.STREAMS_OTHER
        case CreateRoom() | AskForRoom() | DeleteRoom():
            return Bucket.ROOMS
        case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
            return Bucket.ROOMS
        case StartRecording() | StopRecording():
            return Bucket.ROOMS
        case WriteOff() | SetFallback() | SetDelivery() | SetCostLevel() | BeginScheduled() | EndBroadcast():
            return None
