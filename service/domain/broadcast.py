"""The words of the business: a broadcast, what is wanted of it, and what exists at the providers for it.

Everything here is a value. Nothing here does I/O, reads a clock or knows a library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from service.domain.cost.money import CostCap, CostLevel
from service.domain.delivery import UNDECIDED, Delivery
from service.domain.playback_handle import PlaybackHandle
from service.domain.provider import Provider
from service.domain.reasons import Blocked, ConditionReason, FallbackReason, Operation
from service.domain.resources import EgressStatus, Recording
from service.domain.secret import NO_SECRET, Secret


class Target(StrEnum):
    """The state that the callers want. It moves forward only, so a late retry of a start cannot undo a stop."""

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
        """Whether nothing runs at a provider. When a broadcast is over, a live stream that takes no encoder may still
        be kept for the last viewers, and recordings may still be awaited.
        """
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
    COST_CAP = "COST_CAP"
    TEST_LIMIT = "TEST_LIMIT"
    START_TIMEOUT = "START_TIMEOUT"
    PROVIDER_REFUSED = "PROVIDER_REFUSED"
    STREAM_LOST = "STREAM_LOST"
    STREAM_DISABLED = "STREAM_DISABLED"
    EGRESS_FAILED = "EGRESS_FAILED"
    STREAMS_UNREACHABLE = "MUX_UNREACHABLE"

    @property
    def failed(self) -> bool:
        """Whether the broadcast could not be what was asked for."""
        return self in (
            EndReason.START_TIMEOUT,
            EndReason.PROVIDER_REFUSED,
            EndReason.STREAM_LOST,
            EndReason.STREAM_DISABLED,
            EndReason.EGRESS_FAILED,
            EndReason.STREAMS_UNREACHABLE,
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


class StaticRendition(StrEnum):
    """A file to download that is made of a recording."""

    HIGHEST = "highest"
    AUDIO_ONLY = "audio_only"


class DeliveryPolicy(StrEnum):
    ON_PUBLISH = "on_publish"
    MANUAL = "manual"
    ON_DEMAND = "on_demand"


class IdlePolicy(StrEnum):
    """What an ON_DEMAND broadcast does with its egress when nobody watches."""

    STOP = "stop"
    """It stops, and the recording goes on in another piece if nobody comes within the reconnect window."""
    KEEP_RECORDING = "keep_recording"
    """It runs on once a recording has begun that is kept: one unbroken recording matters more than the cost."""


class FallbackMode(StrEnum):
    """A way to go on when the egress or the live stream fails."""

    DIRECT_WEBRTC = "DIRECT_WEBRTC"
    """Viewers enter the room."""
    LOCAL_RECORDING = "LOCAL_RECORDING"
    """A file egress records the room to our storage."""


class Carrier(StrEnum):
    """The part of the chain that sends to a destination: the egress, or the live stream itself."""

    EGRESS = "egress"
    STREAM = "mux"


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


LIVE: Final[Mapping[str, bool]] = {"live": True}
"""Metadata of the fields of a spec that may be changed after the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What the caller wants of a broadcast. A field of `LIVE` may be changed after the start, the others are fixed."""

    title: str = field(default="", metadata=LIVE)
    owner_id: str = ""
    preset: str | None = DEFAULT_PRESET
    """A key of PRESETS; None: `custom_encoding` holds."""
    custom_encoding: Encoding | None = None
    audio_only: bool = False
    layout: str = field(default="grid", metadata=LIVE)
    latency_mode: LatencyMode = LatencyMode.REDUCED
    reconnect_window_s: float = 120.0
    max_duration_s: int = 43_200
    playback_policy: PlaybackPolicy = PlaybackPolicy.PUBLIC
    recording_policy: RecordingPolicy = RecordingPolicy.KEEP
    delivery_policy: DeliveryPolicy = field(default=DeliveryPolicy.ON_PUBLISH, metadata=LIVE)
    linger_s: float | None = field(default=None, metadata=LIVE)
    """ON_DEMAND: from the last sign of a viewer to the stop of the egress. None: `Timing.linger_s`."""
    idle_policy: IdlePolicy = field(default=IdlePolicy.STOP, metadata=LIVE)
    destinations: tuple[Destination, ...] = field(default=(), metadata=LIVE)
    """Live for those that an egress carries."""
    test: bool = False
    fallback_modes: tuple[FallbackMode, ...] = field(default=tuple(FallbackMode), metadata=LIVE)
    """The fallbacks that may be entered."""
    max_webrtc_viewers: int = field(default=100, metadata=LIVE)
    cost_cap: CostCap | None = field(default=None, metadata=LIVE)
    """What it may cost. None: there is no limit."""
    scheduled_start_time: datetime | None = None
    """It is to be READY by then without a start by its callers. None: it is started by them alone."""
    static_rendition: StaticRendition | None = None
    """None: no file to download is made of a recording."""
    captions_language: str = ""
    """The language that is spoken. Empty: no captions are generated."""
    slate_url: str = ""
    """The image that viewers see in the reconnect window. Empty: the provider's."""

    @property
    def encoding(self) -> Encoding:
        return self.custom_encoding or PRESETS[self.preset or DEFAULT_PRESET]

    def carried_by(self, carrier: Carrier) -> tuple[Destination, ...]:
        return tuple(destination for destination in self.destinations if destination.carrier is carrier)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTrouble:
    """The last trouble with a provider, without secrets."""

    provider: Provider
    operation: Operation
    code: str
    message: str
    retryable: bool
    time: datetime
    """When it came first, if the same trouble came several times in a row."""
    outcome: str = ""
    """The effect of the failed call, a value of Outcome: throttled, credentials, refused..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFault:
    """A fault of our own that ended the last pass: a bug, or a key that this replica does not have."""

    code: str
    """CANNOT_OPEN, DOES_NOT_SETTLE, or the class of the error."""
    message: str
    """For people, without secrets."""
    since: datetime
    """When the first pass in a row ended with this code, by the database clock."""
    count: int
    """Passes in a row that failed."""


if TYPE_CHECKING:
    ReasonOfCondition = ConditionReason | EgressStatus | Blocked
else:
    # A row is read by the annotations of these classes, and a union of enumerations cannot be read, because a text may
    # be in two of them. A text of the other two is read as a ConditionReason that equals it.
    ReasonOfCondition = ConditionReason


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
    """None: unknown."""
    reason: ReasonOfCondition
    """Compare it with ==, not with `is`: a reason that was read from a row may be of another class."""
    message: str = ""
    transition_time: datetime
    """Since when `met` has its value."""


class DestinationState(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    ACTIVE = "active"
    FAILED = "failed"
    """Its connection failed; it is tried again."""
    STOPPED = "stopped"
    """It failed too often, and is not tried again by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    name: str
    state: DestinationState
    message: str = ""
    failed_at: tuple[datetime, ...] = ()
    """When it was seen to fail, oldest first: the failures of the window that ended with the last."""
    error: str = ""
    """The message of the last failure, without secrets."""
    error_time: datetime | None = None
    """When it was seen. None: it did not fail yet."""
    egress: int = -1
    """Ordinal of the egress whose failed outputs are counted."""
    counted: int = 0
    """How many of them were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """How viewers are served while the normal way fails."""

    modes: tuple[FallbackMode, ...] = ()
    """Empty: the normal way."""
    reason: FallbackReason = FallbackReason.NONE
    since: datetime | None = None
    """When it was entered, or left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The part of a broadcast that the reconciler writes, for callers."""

    state_reason: str = ""
    state_time: datetime | None = None
    """Since when the state is what it is. A reason that changes meanwhile leaves it as it is."""
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
    playback_handle: PlaybackHandle | None = None
    """None: it was not started, or a version without handles wrote the row. `handle_of` answers one all the same."""


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
    cost_level: CostLevel = CostLevel.UNDER
    """How near its cost is to its cap, as an event told it last."""
    delivery: Delivery = UNDECIDED
    """Whether an egress is to run for viewers. It counts only with the policy ON_DEMAND."""
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
    """When the observer or a webhook saw a provider differ from the rows. Resources that were not looked at since are
    looked at again."""
    due_at: datetime | None = None
    """When a pass is due. None: it is at rest, or a pass is under way."""
    retry_from: datetime | None = None
    """When a person last asked for everything to be tried again. Calls that failed before are made without back-off."""
    turn_at: datetime | None = None
    """The moment that a rate limit's budget gave it for its next call."""
    destination_keys: dict[str, Secret] = field(default_factory=dict[str, Secret])
    """Stream keys of the destinations by name. Empty in what was read for a caller."""
    deleted: bool = False
    fault: PassFault | None = None
    """What ends every pass over it. None: the last pass ended well."""

    @property
    def etag(self) -> str:
        return str(self.version)

    def push_url(self, destination: Destination) -> Secret:
        """The address of *destination* with its stream key in it."""
        key = self.destination_keys.get(destination.name, NO_SECRET)
        return Secret(f"{destination.url.rstrip('/')}/{key.reveal()}")


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)
