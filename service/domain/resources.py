"""The resources of a broadcast at the providers: those that exist, may exist, or did exist. Values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from service.domain.reasons import Fault
from service.domain.secret import NO_SECRET, Secret


class Kind(StrEnum):
    ROOM = "room"
    STREAM = "stream"
    EGRESS = "egress"
    RECORDING = "recording"
    UPLOAD = "upload"


class Phase(StrEnum):
    """How far one provider resource is on its way from intended to gone, as far as is known.

    INTENDED is committed before the call that creates it: a row found INTENDED by a later pass may exist or not, which
    is the same as UNKNOWN. GONE is written when its absence was seen, never because a delete was answered.
    """

    INTENDED = "intended"
    UNKNOWN = "unknown"
    PRESENT = "present"
    DELETING = "deleting"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    kind: ClassVar[Kind]

    ordinal: int
    """The n-th of its kind in this broadcast."""
    phase: Phase
    external_id: str = ""
    """The provider's id, once known."""
    intended_at: datetime
    observed_at: datetime | None = None
    """When the provider was last asked about it with success."""
    absent_since: datetime | None = None
    """Since when looks that should show it do not: whether it exists is not known. None: the last look showed it."""
    changed_at: datetime
    """When `phase` last changed."""
    failures: int = 0
    """Calls that failed in a row."""
    retry_at: datetime | None = None
    """The next call about it is not made before this moment. None: there is no back-off."""
    failed_at: datetime | None = None
    """When the call failed that `retry_at` follows from, so that the end of an outage ends the back-off too. None:
    `retry_at` is another wait, which lasts in any case.
    """
    queued_s: float = 0.0
    """Seconds that its create, and those before it, waited for their turn in the service although they were due: for a
    token of the rate limit, for a replica. No provider is to blame for them."""
    acked: bool = False
    """The provider confirmed the delete (phase DELETING)."""
    refused: bool = False
    """The provider refused to create it for what it is; trying again is pointless."""

    @property
    def unresolved(self) -> bool:
        """Whether it exists is not known."""
        return self.phase in (Phase.INTENDED, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room(Resource):
    kind: ClassVar[Kind] = Kind.ROOM

    sid: str = ""
    host_publishing: bool | None = None
    """None: there was no look yet."""
    host_since: datetime | None = None
    """Since when `host_publishing` has its value."""
    recorded: bool | None = None
    """Whether any egress is in it."""
    forgotten_at: datetime | None = None
    """Since when the provider answers a create with this room although its lists, or the answer to a delete, say that
    there is none: the room is there, and the provider's store lost it. None: they do not contradict each other.
    """
    doubted: bool = False
    """The provider answered a delete that there is no such room, and no create was asked yet whether that is so."""
    deserted_at: datetime | None = None
    """Since when the creates that answer with a forgotten room count nobody in it. None: they count somebody."""
    missing: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """Egresses of ours that are not in it, by id, and since when: one that is listed as active is a ghost."""


class OutputState(StrEnum):
    CONNECTING = "connecting"
    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One place that is sent to; `name` is the destination's, or "" for the live stream."""

    name: str
    state: OutputState
    message: str = ""
    started_at: datetime | None = None
    """When it connected first, by the provider's clock. None: it did not, or the provider does not tell it."""
    ended_at: datetime | None = None
    """When it ended, by the provider's clock. None: it goes on, or the provider does not tell it."""


class StreamStatus(StrEnum):
    UNKNOWN = ""
    IDLE = "idle"
    ACTIVE = "active"
    DISABLED = "disabled"


class RecordingStatus(StrEnum):
    PREPARING = "preparing"
    READY = "ready"
    ERRORED = "errored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    asset_id: str
    playback_id: str = ""
    status: RecordingStatus = RecordingStatus.PREPARING
    message: str = ""
    """Why it is ERRORED, without secrets."""
    duration_s: float | None = None
    uploaded: bool = False
    """It was made of a local recording that was handed over. False: it is the recording of the live stream."""

    @property
    def settled(self) -> bool:
        """It is what it will be."""
        return self.status is not RecordingStatus.PREPARING


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Resource):
    kind: ClassVar[Kind] = Kind.STREAM

    status: StreamStatus = StreamStatus.UNKNOWN
    status_since: datetime | None = None
    playback_id: str = ""
    title: str = ""
    """The title it was last given."""
    unnamed: bool = False
    """It was made ahead, for any broadcast, and has neither our mark of this one nor its names yet."""
    title_failures: int = 0
    """Calls in a row that were to give it another title and failed. They are not among `failures`, because they hold up
    nothing else."""
    title_retry_at: datetime | None = None
    """It is not given another title before this moment. None: there is no back-off."""
    active_asset_id: str = ""
    relays: tuple[Output, ...] = ()
    key: Secret = NO_SECRET
    key_epoch: int = 0
    """Counts key resets. An egress of an older epoch holds a dead key: it cannot publish any more."""
    key_reset_at: datetime | None = None
    """When the key before it died. An encoder that was connected with the old key may still be connected."""
    key_stale: bool = False
    """A reset was begun and its answer is not known: `key` may be dead. Reset again before it is used."""
    disabled: bool = False
    """We disabled it for good, at the end of the broadcast: it takes no encoder any more."""
    disabled_at: datetime | None = None
    """When we did, which is when its playlist ended at the latest. None: we did not, or a version did that did not keep
    the time and deleted it at once.
    """
    cutting: bool = False
    """A connected encoder is being cut off: the live stream is disabled and enabled again, and may be found between the
    two calls."""
    cut_epoch: int = 0
    """Encoders that were connected with a key of an older epoch were cut off."""
    fed_at: datetime | None = None
    """When it was last seen active."""
    silent_at: datetime | None = None
    """When it was last seen without media: an encoder connected then had been silent for a reconnect window."""
    stalled_since: datetime | None = None
    """Since when its playlist stands still although host, egress and live stream say that media flows. None: the
    playlist moves on, or it is not known. The prober sees it.
    """
    resumed_at: datetime | None = None
    """When the last stall was seen to be over."""
    unseen_since: datetime | None = None
    """Since when the prober cannot see the playlist. None: it sees it, or it does not look."""
    unseen: str = ""
    """Why, for people: the answer of the playback edge, or that there was none."""
    recordings: tuple[Recording, ...] = ()
    recordings_settled: bool = False
    """The recordings were listed (or deleted, policy DISCARD) after the end."""
    pages_listed: int = 0
    """Pages of the list of recordings that were read, while there are more. 0: no page was read, or all were."""
    discarding: tuple[str, ...] | None = None
    """Ids of the recordings that are still to be deleted (policy DISCARD). None: they were not listed yet."""
    connected: bool | None = None
    """Whether an encoder is connected: only webhooks tell. The status stays active through the reconnect window."""
    connected_at: datetime | None = None
    """When the newest webhook that said so was sent, or taken in if the database's clock is behind the provider's."""
    heard_at: datetime | None = None
    """The provider's time of the newest webhook that was believed."""

    @property
    def retired(self) -> bool:
        """It takes no encoder any more and its recordings are known, so it costs nothing and nobody can publish to it.
        It is kept for viewers who are behind the live edge, and is deleted when they have seen the end.
        """
        return self.disabled and self.recordings_settled

    @property
    def ended_at(self) -> datetime | None:
        """Since when it makes no recording any more. None: it still may."""
        if self.phase is Phase.GONE:
            return self.changed_at
        return (self.disabled_at or self.changed_at) if self.retired else None

    @property
    def only_recordings_matter(self) -> bool:
        """Whether a look is to show what became of its recordings. False: it is to show the live stream itself."""
        kept = self.phase is Phase.PRESENT and self.retired and not self.failures
        return self.phase is Phase.GONE or kept


class EgressStatus(StrEnum):
    UNKNOWN = ""
    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    ENDING = "ENDING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    LIMIT_REACHED = "LIMIT_REACHED"

    @property
    def terminal(self) -> bool:
        return self in END_FAULTS


END_FAULTS: Final[Mapping[EgressStatus, Fault]] = {
    EgressStatus.COMPLETE: Fault.COMPLETE,
    EgressStatus.FAILED: Fault.FAILED,
    EgressStatus.ABORTED: Fault.ABORTED,
    EgressStatus.LIMIT_REACHED: Fault.LIMIT_REACHED,
}
"""The fault of an egress that ended with this status and was not told to stop: all terminal statuses are here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress(Resource):
    kind: ClassVar[Kind] = Kind.EGRESS

    status: EgressStatus = EgressStatus.UNKNOWN
    status_since: datetime | None = None
    started_at: datetime | None = None
    """When it was asked for, by the provider's clock. None: it was not seen yet."""
    ended_at: datetime | None = None
    """When it ended, by the provider's clock. None: it did not, or nobody saw it end."""
    outputs: tuple[Output, ...] = ()
    error: str = ""
    layout: str = ""
    """The layout it was last given."""
    destinations: tuple[str, ...] = ()
    """Names of the destinations it has."""
    pushes: dict[str, Secret] = field(default_factory=dict[str, Secret])
    """Everything it was ever given to push to, name to url with key: removing an output needs its whole url."""
    key_epoch: int = 0
    """`Stream.key_epoch` of the key it was started with."""
    end_seen: bool = False
    """The provider said that it ended. Without this it may still publish, whatever `phase` says."""
    updated_ns: int = 0
    """The provider's own version of what was seen: older reports are ignored."""
    delivering_since: datetime | None = None
    """Since when its connection to the live stream stands; None: it does not."""
    fault: Fault = Fault.NONE
    """Why it counts as failed."""
    returns: int = 0
    """How often it was found in its room after it had been given up."""
    tries_over_at: datetime | None = None
    """Since when LiveKit does not try to start it any more, because it answered so or because we hung up. A list that
    does not show it `list_lag_s` later shows that it was not started. None: how long the tries last is not known."""

    @property
    def delivering(self) -> bool:
        """Its connection to the live stream stands."""
        return self.status is EgressStatus.ACTIVE and any(
            output.name == "" and output.state is OutputState.ACTIVE for output in self.outputs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRecording(Resource):
    """A file egress: the room, recorded to our own storage (fallback LOCAL_RECORDING)."""

    kind: ClassVar[Kind] = Kind.RECORDING

    file: str = ""
    """Object key in the storage."""
    fault: Fault = Fault.NONE
    """Why it counts as failed."""
    returns: int = 0
    """How often it was found in its room after it had been given up."""
    tries_over_at: datetime | None = None
    """Since when LiveKit does not try to start it any more, because it answered so or because we hung up. A list that
    does not show it `list_lag_s` later shows that it was not started. None: how long the tries last is not known."""
    status: EgressStatus = EgressStatus.UNKNOWN
    status_since: datetime | None = None
    started_at: datetime | None = None
    """As of `Egress`."""
    ended_at: datetime | None = None
    error: str = ""
    end_seen: bool = False
    updated_ns: int = 0
    file_bytes: int = 0
    duration_s: float = 0.0

    @property
    def complete(self) -> bool:
        """The file is in the storage."""
        return self.end_seen and self.status in (EgressStatus.COMPLETE, EgressStatus.LIMIT_REACHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Resource):
    """An asset made of a local recording; its ordinal is the local recording's."""

    kind: ClassVar[Kind] = Kind.UPLOAD

    attempt: int = 0
    """Counts the creates. Each has a mark of its own, so an asset that lands late is not taken for the next one."""
    errored: int = 0
    """How many assets could not be made of the file, and were given up for another."""
    recording: Recording | None = None


AnyResource = Room | Stream | Egress | LocalRecording | Upload
