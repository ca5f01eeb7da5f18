"""The words of the business: a broadcast, what is wanted of it, and what exists at the providers for it.

Everything here is a value. Nothing here does I/O, reads a clock or knows a library.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from service.domain.secret import NO_SECRET, Secret


class Target(StrEnum):
    """What the callers want. Moves forward only, so a late retry of a start cannot undo a stop."""

    CREATED = "CREATED"
    LIVE = "LIVE"
    ENDED = "ENDED"


class State(StrEnum):
    CREATED = "CREATED"
    STARTING = "STARTING"
    READY = "READY"
    LIVE = "LIVE"
    INTERRUPTED = "INTERRUPTED"
    STOPPING = "STOPPING"
    ENDED = "ENDED"
    FAILED = "FAILED"

    @property
    def at_rest(self) -> bool:
        """Nothing exists at a provider, nothing is being done."""
        return self in (State.CREATED, State.ENDED, State.FAILED)

    @property
    def over(self) -> bool:
        return self in (State.ENDED, State.FAILED)


class EndReason(StrEnum):
    """Why a broadcast was ended; `status.state_reason` of ENDED and FAILED."""

    STOPPED = "STOPPED"
    NO_HOST = "NO_HOST"
    HOST_LEFT = "HOST_LEFT"
    MAX_DURATION = "MAX_DURATION"
    TEST_LIMIT = "TEST_LIMIT"
    START_TIMEOUT = "START_TIMEOUT"
    PROVIDER_REFUSED = "PROVIDER_REFUSED"
    STREAM_LOST = "STREAM_LOST"
    STREAM_DISABLED = "STREAM_DISABLED"
    EGRESS_FAILED = "EGRESS_FAILED"
    MUX_UNREACHABLE = "MUX_UNREACHABLE"

    @property
    def failed(self) -> bool:
        """Whether the broadcast could not be what was asked for."""
        return self in (
            EndReason.START_TIMEOUT,
            EndReason.PROVIDER_REFUSED,
            EndReason.STREAM_LOST,
            EndReason.STREAM_DISABLED,
            EndReason.EGRESS_FAILED,
            EndReason.MUX_UNREACHABLE,
        )


class LatencyMode(StrEnum):
    LOW = "low"
    REDUCED = "reduced"
    STANDARD = "standard"


class PlaybackPolicy(StrEnum):
    PUBLIC = "public"
    SIGNED = "signed"


class RecordingPolicy(StrEnum):
    KEEP = "keep"
    DISCARD = "discard"


class DeliveryPolicy(StrEnum):
    ON_PUBLISH = "on_publish"
    MANUAL = "manual"


class FallbackMode(StrEnum):
    """A way to go on when the egress or Mux fails."""

    DIRECT_WEBRTC = "DIRECT_WEBRTC"
    """Viewers enter the room."""
    LOCAL_RECORDING = "LOCAL_RECORDING"
    """A file egress records the room to our storage."""


class Carrier(StrEnum):
    """Which provider sends to a destination."""

    EGRESS = "egress"
    MUX = "mux"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """H.264 and AAC; the bit rates are bits per second, LiveKit's kilobits are made in its adapter alone."""

    width: int
    height: int
    frame_rate: int
    video_bitrate_bps: int
    audio_bitrate_bps: int


PRESETS: dict[str, Encoding] = {
    name: Encoding(
        width=width, height=height, frame_rate=fps, video_bitrate_bps=video * 1000, audio_bitrate_bps=audio * 1000
    )
    for name, width, height, fps, video, audio in (
        # 480 lines at 16:9 are 853.3 wide; the encoder takes even numbers only.
        ("480P_30", 854, 480, 30, 1000, 96),
        ("720P_30", 1280, 720, 30, 2500, 128),
        ("720P_60", 1280, 720, 60, 3750, 128),
        ("1080P_30", 1920, 1080, 30, 4500, 192),
        ("1080P_60", 1920, 1080, 60, 6000, 192),
        ("PORTRAIT_720P_30", 720, 1280, 30, 2500, 128),
        ("PORTRAIT_1080P_30", 1080, 1920, 30, 4500, 192),
    )
}
DEFAULT_PRESET = "720P_30"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A further place that gets the picture. Its key is kept apart, see `Broadcast.destination_keys`."""

    name: str
    url: str
    carrier: Carrier = Carrier.EGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    title: str = ""
    owner_id: str = ""
    preset: str | None = DEFAULT_PRESET
    """A key of PRESETS; None: `custom_encoding` holds."""
    custom_encoding: Encoding | None = None
    audio_only: bool = False
    layout: str = "grid"
    latency_mode: LatencyMode = LatencyMode.REDUCED
    reconnect_window_s: float = 120.0
    max_duration_s: int = 43_200
    playback_policy: PlaybackPolicy = PlaybackPolicy.PUBLIC
    recording_policy: RecordingPolicy = RecordingPolicy.KEEP
    delivery_policy: DeliveryPolicy = DeliveryPolicy.ON_PUBLISH
    destinations: tuple[Destination, ...] = ()
    test: bool = False
    fallback_modes: tuple[FallbackMode, ...] = tuple(FallbackMode)
    """Those that may be entered."""
    max_webrtc_viewers: int = 100

    @property
    def encoding(self) -> Encoding:
        return self.custom_encoding or PRESETS[self.preset or DEFAULT_PRESET]

    def carried_by(self, carrier: Carrier) -> tuple[Destination, ...]:
        return tuple(destination for destination in self.destinations if destination.carrier is carrier)


class Kind(StrEnum):
    ROOM = "room"
    STREAM = "stream"
    EGRESS = "egress"
    RECORDING = "recording"
    UPLOAD = "upload"


class Phase(StrEnum):
    """Where one provider resource is, as far as we know.

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
    changed_at: datetime
    """When `phase` last changed."""
    failures: int = 0
    """Calls that failed in a row."""
    retry_at: datetime | None = None
    """Not to be tried before."""
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
    """None: nobody looked yet."""
    host_since: datetime | None = None
    """Since when `host_publishing` has its value."""
    recorded: bool | None = None
    """Whether an egress is in it: one that is listed as active and is not there is a ghost."""
    recorded_since: datetime | None = None
    """Since when `recorded` has its value."""


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
    """It is not Mux's recording of the live stream but an upload of ours."""

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
    active_asset_id: str = ""
    relays: tuple[Output, ...] = ()
    key: Secret = NO_SECRET
    key_epoch: int = 0
    """Counts key resets. An egress of an older epoch holds a dead key: it cannot publish any more."""
    key_reset_at: datetime | None = None
    """When the key before it died. Whoever was connected with that one may still be."""
    key_stale: bool = False
    """A reset was begun and its answer is not known: `key` may be dead. Reset again before it is used."""
    disabled: bool = False
    """We disabled it (the kill switch of the end)."""
    cutting: bool = False
    """We are cutting off who is connected: it is disabled and enabled again, and may be found between the two."""
    cut_epoch: int = 0
    """Whoever was connected with a key of an older epoch was cut off."""
    fed_at: datetime | None = None
    """When it was last seen active."""
    silent_at: datetime | None = None
    """When it was last seen without media: nobody was connected then, or had sent for a reconnect window."""
    recordings: tuple[Recording, ...] = ()
    recordings_settled: bool = False
    """The recordings were listed (or deleted, policy DISCARD) after the end."""
    connected: bool | None = None
    """Whether an encoder is connected: only webhooks tell. The status stays active through the reconnect window."""
    heard_at: datetime | None = None
    """The provider's time of the newest webhook that was believed."""


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
        return self in (EgressStatus.COMPLETE, EgressStatus.FAILED, EgressStatus.ABORTED, EgressStatus.LIMIT_REACHED)


NOT_STOPPED = "NOT_STOPPED"
"""The fault of an egress that was not wanted any more, and was not seen to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress(Resource):
    kind: ClassVar[Kind] = Kind.EGRESS

    status: EgressStatus = EgressStatus.UNKNOWN
    status_since: datetime | None = None
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
    fault: str = ""
    """Why it counts as failed, a stable upper-case word. Empty: it runs, or was stopped because it was not wanted."""

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
    status: EgressStatus = EgressStatus.UNKNOWN
    status_since: datetime | None = None
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
    """A Mux asset made of a local recording; its ordinal is the local recording's."""

    kind: ClassVar[Kind] = Kind.UPLOAD

    recording: Recording | None = None


AnyResource = Room | Stream | Egress | LocalRecording | Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTrouble:
    """The last trouble with a provider, without secrets."""

    provider: str
    operation: str
    code: str
    message: str
    retryable: bool
    time: datetime
    outcome: str = ""
    """What it meant, a value of Outcome: throttled, credentials, refused..."""


class ConditionType(StrEnum):
    ROOM_READY = "ROOM_READY"
    STREAM_READY = "STREAM_READY"
    HOST_PUBLISHING = "HOST_PUBLISHING"
    EGRESS_RUNNING = "EGRESS_RUNNING"
    INGEST_ACTIVE = "INGEST_ACTIVE"
    PLAYABLE = "PLAYABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    type: ConditionType
    met: bool | None
    reason: str
    message: str = ""
    transition_time: datetime


class DestinationState(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    ACTIVE = "active"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    name: str
    state: DestinationState
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """How viewers are served while the normal way fails."""

    modes: tuple[FallbackMode, ...] = ()
    """Empty: the normal way."""
    reason: str = ""
    since: datetime | None = None
    """When it was entered, or left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the reconciler last wrote of a broadcast, for callers."""

    state_reason: str = ""
    state_time: datetime | None = None
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    playback_id: str = ""
    destinations: tuple[DestinationStatus, ...] = ()
    room_sid: str = ""
    egress_id: str = ""
    stream_id: str = ""
    asset_id: str = ""
    recordings: tuple[Recording, ...] = ()
    last_error: ProviderTrouble | None = None
    next_attempt_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    id: str
    spec: Spec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    generation: int = 1
    version: int = 1
    """Counts changes of spec and labels; the etag."""
    target: Target = Target.CREATED
    on_air: bool = False
    fallback: Fallback = Fallback()
    state: State = State.CREATED
    status: Status = Status()
    end_reason: EndReason | None = None
    create_time: datetime
    update_time: datetime
    start_time: datetime | None = None
    ready_time: datetime | None = None
    live_time: datetime | None = None
    end_time: datetime | None = None
    dirty_at: datetime | None = None
    """Somebody saw the providers disagree with what is stored: look again at what was not looked at since."""
    due_at: datetime | None = None
    """When it is looked at again by itself. None: at rest, or being worked on."""
    turn_at: datetime | None = None
    """The turn that a budget gave it last."""
    destination_keys: dict[str, Secret] = field(default_factory=dict[str, Secret])
    """Stream keys of the destinations by name. Empty in what was read for a caller."""
    deleted: bool = False

    @property
    def etag(self) -> str:
        return str(self.version)

    def push_url(self, destination: Destination) -> Secret:
        """Where to push to for it, with its key."""
        key = self.destination_keys.get(destination.name, NO_SECRET)
        return Secret(f"{destination.url.rstrip('/')}/{key.reveal()}")


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)
