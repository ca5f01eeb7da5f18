"""Messages of the contract to values of the domain, and back. Nothing else knows both."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import event_pb2
from service.domain import broadcast as domain
from service.domain.broadcast import Broadcast, ConditionType, DeliveryPolicy, Spec, State, Target
from service.domain.errors import InvalidField, Violation
from service.domain.ports import HostToken
from service.domain.resources import RecordingStatus
from service.domain.secret import Secret
from service.store.broadcasts import Filter
from service.store.changes import StoryEvent

SPEC_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "title": ("title",),
    "owner_id": ("owner_id",),
    "encoding": ("preset", "custom_encoding"),
    "audio_only": ("audio_only",),
    "layout": ("layout",),
    "latency_mode": ("latency_mode",),
    "reconnect_window": ("reconnect_window_s",),
    "max_duration": ("max_duration_s",),
    "playback_policy": ("playback_policy",),
    "recording_policy": ("recording_policy",),
    "delivery_policy": ("delivery_policy",),
    "destinations": ("destinations",),
    "test": ("test",),
    "fallback_policy": ("fallback_modes", "max_webrtc_viewers"),
}
"""The fields of the contract's spec, and which fields of the domain's each is."""

_STATES = {state: pb.BroadcastState.Value(f"BROADCAST_STATE_{state}") for state in State}
_STATES_READ = {number: state for state, number in _STATES.items()}
_TARGETS = {target: pb.BroadcastState.Value(f"BROADCAST_STATE_{target}") for target in Target}
_CONDITIONS = {type_: pb.ConditionType.Value(f"CONDITION_TYPE_{type_}") for type_ in ConditionType}
_DESTINATION_STATES = {
    state: pb.DestinationState.Value(f"DESTINATION_STATE_{state.name}") for state in domain.DestinationState
}
_PRESETS = {name: pb.EncodingPreset.Value(f"ENCODING_PRESET_{name}") for name in domain.PRESETS}
_PRESETS_READ = {number: name for name, number in _PRESETS.items()} | {
    pb.ENCODING_PRESET_UNSPECIFIED: domain.DEFAULT_PRESET
}
_LATENCIES = {mode: pb.LatencyMode.Value(f"LATENCY_MODE_{mode.name}") for mode in domain.LatencyMode}
_LATENCIES_READ = {number: mode for mode, number in _LATENCIES.items()}
_PLAYBACKS = {policy: pb.PlaybackPolicy.Value(f"PLAYBACK_POLICY_{policy.name}") for policy in domain.PlaybackPolicy}
_PLAYBACKS_READ = {number: policy for policy, number in _PLAYBACKS.items()}
_RECORDINGS = {policy: pb.RecordingPolicy.Value(f"RECORDING_POLICY_{policy.name}") for policy in domain.RecordingPolicy}
_RECORDINGS_READ = {number: policy for policy, number in _RECORDINGS.items()}
_DELIVERIES = {policy: pb.DeliveryPolicy.Value(f"DELIVERY_POLICY_{policy.name}") for policy in DeliveryPolicy}
_DELIVERIES_READ = {number: policy for policy, number in _DELIVERIES.items()}
_CARRIERS = {carrier: pb.DestinationCarrier.Value(f"DESTINATION_CARRIER_{carrier.name}") for carrier in domain.Carrier}
_CARRIERS_READ = {number: carrier for carrier, number in _CARRIERS.items()}

_FALLBACKS = {mode: pb.FallbackMode.Value(f"FALLBACK_MODE_{mode}") for mode in domain.FallbackMode}
_FALLBACKS_READ = {number: mode for mode, number in _FALLBACKS.items()}
_RECORDING_STATES = {status: pb.RecordingState.Value(f"RECORDING_STATE_{status.name}") for status in RecordingStatus}

_DEFAULTS = Spec()
_NANOS = 1_000_000_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_SECONDS = 315_576_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSpec:
    """What a caller sent, with the defaults filled in."""

    spec: Spec
    keys: dict[str, Secret]
    """Stream keys by the destination's name; an empty one was not sent."""


def given_spec(message: pb.BroadcastSpec) -> GivenSpec:
    """Of a message that satisfies the contract's rules. Raises InvalidField for what those cannot say."""
    preset, custom = _given_encoding(message.encoding)
    max_duration = duration_of(message.max_duration, "spec.max_duration")
    if message.max_duration.nanos:
        raise InvalidField(Violation(field="spec.max_duration", description="must be whole seconds"))
    window = duration_of(message.reconnect_window, "spec.reconnect_window")
    modes = {_FALLBACKS_READ[number] for number in message.fallback_policy.modes}
    spec = Spec(
        title=message.title,
        owner_id=message.owner_id,
        preset=preset,
        custom_encoding=custom,
        audio_only=message.audio_only,
        layout=message.layout or _DEFAULTS.layout,
        latency_mode=_LATENCIES_READ.get(message.latency_mode, _DEFAULTS.latency_mode),
        reconnect_window_s=window.total_seconds()
        if message.HasField("reconnect_window")
        else _DEFAULTS.reconnect_window_s,
        max_duration_s=int(max_duration.total_seconds())
        if message.HasField("max_duration")
        else _DEFAULTS.max_duration_s,
        playback_policy=_PLAYBACKS_READ.get(message.playback_policy, _DEFAULTS.playback_policy),
        recording_policy=_RECORDINGS_READ.get(message.recording_policy, _DEFAULTS.recording_policy),
        delivery_policy=_DELIVERIES_READ.get(message.delivery_policy, _DEFAULTS.delivery_policy),
        destinations=tuple(
            domain.Destination(
                name=each.name, url=each.url, carrier=_CARRIERS_READ.get(each.carrier, domain.Carrier.EGRESS)
            )
            for each in message.destinations
        ),
        test=message.test,
        fallback_modes=tuple(mode for mode in domain.FallbackMode if mode in modes)
        if message.HasField("fallback_policy")
        else _DEFAULTS.fallback_modes,
        max_webrtc_viewers=message.fallback_policy.max_webrtc_viewers or _DEFAULTS.max_webrtc_viewers,
    )
    return GivenSpec(spec=spec, keys={each.name: Secret(each.stream_key) for each in message.destinations})


def _given_encoding(message: pb.Encoding) -> tuple[str | None, domain.Encoding | None]:
    if message.WhichOneof("encoding") != "custom":
        return _PRESETS_READ.get(message.preset, domain.DEFAULT_PRESET), None
    custom = message.custom
    return None, domain.Encoding(
        width=custom.width,
        height=custom.height,
        frame_rate=custom.frame_rate,
        video_bitrate_bps=custom.video_bitrate_bps,
        audio_bitrate_bps=custom.audio_bitrate_bps,
    )


def given_filter(message: rpc.BroadcastFilter) -> Filter:
    """Raises InvalidField."""
    created_after: datetime | None = None
    if message.HasField("created_after"):
        created_after = _given_time(message.created_after, "filter.created_after")
    return Filter(
        ids=tuple(message.broadcast_ids),
        states=tuple(_STATES_READ[state] for state in message.states),
        labels=tuple(message.labels.items()),
        owner_id=message.owner_id,
        created_after=created_after,
    )


def duration_of(message: Duration, field: str) -> timedelta:
    """Exact to the microsecond. Raises InvalidField for what no Duration may be: the contract's rules let pass nanos
    that are a second or more.
    """
    if (
        not -_NANOS < message.nanos < _NANOS
        or abs(message.seconds) > _MAX_SECONDS
        or message.seconds * message.nanos < 0
    ):
        raise InvalidField(Violation(field=field, description="is no valid duration"))
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _given_time(message: Timestamp, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidField(Violation(field=field, description="is no valid time")) from None


def broadcast_message(broadcast: Broadcast, playback_base_url: str) -> pb.Broadcast:
    return pb.Broadcast(
        id=broadcast.id,
        generation=broadcast.generation,
        etag=broadcast.etag,
        create_time=time_message(broadcast.create_time),
        update_time=time_message(broadcast.update_time),
        labels=broadcast.labels,
        spec=spec_message(broadcast.spec),
        status=_status_message(broadcast, playback_base_url),
    )


def spec_message(spec: Spec) -> pb.BroadcastSpec:
    """Without stream keys: those go one way."""
    return pb.BroadcastSpec(
        title=spec.title,
        owner_id=spec.owner_id,
        encoding=_encoding_message(spec),
        audio_only=spec.audio_only,
        layout=spec.layout,
        latency_mode=_LATENCIES[spec.latency_mode],
        reconnect_window=duration_message(spec.reconnect_window_s),
        max_duration=Duration(seconds=spec.max_duration_s),
        playback_policy=_PLAYBACKS[spec.playback_policy],
        recording_policy=_RECORDINGS[spec.recording_policy],
        delivery_policy=_DELIVERIES[spec.delivery_policy],
        destinations=[
            pb.Destination(name=each.name, url=each.url, carrier=_CARRIERS[each.carrier]) for each in spec.destinations
        ],
        test=spec.test,
        fallback_policy=pb.FallbackPolicy(
            modes=[_FALLBACKS[mode] for mode in spec.fallback_modes], max_webrtc_viewers=spec.max_webrtc_viewers
        ),
    )


def _encoding_message(spec: Spec) -> pb.Encoding:
    custom = spec.custom_encoding
    if custom is None:
        return pb.Encoding(preset=_PRESETS[spec.preset or domain.DEFAULT_PRESET])
    return pb.Encoding(
        custom=pb.CustomEncoding(
            width=custom.width,
            height=custom.height,
            frame_rate=custom.frame_rate,
            video_bitrate_bps=custom.video_bitrate_bps,
            audio_bitrate_bps=custom.audio_bitrate_bps,
        )
    )


def _status_message(broadcast: Broadcast, playback_base_url: str) -> pb.BroadcastStatus:
    status = broadcast.status
    message = pb.BroadcastStatus(
        state=_STATES[broadcast.state],
        state_reason=status.state_reason,
        state_time=time_message(status.state_time or broadcast.create_time),
        target_state=_TARGETS[broadcast.target],
        reconciling=is_reconciling(broadcast),
        observed_generation=status.observed_generation,
        conditions=[_condition_message(condition) for condition in status.conditions],
        on_air=broadcast.on_air,
        destinations=_destination_messages(broadcast),
        next_attempt_time=time_message(broadcast.due_at or status.next_attempt_time),
        start_time=time_message(broadcast.start_time),
        live_time=time_message(broadcast.live_time),
        end_time=time_message(broadcast.end_time),
        recordings=[recording_message(recording) for recording in status.recordings],
    )
    if broadcast.fallback.modes and not broadcast.state.over:
        message.fallback.reason = broadcast.fallback.reason
        message.fallback.modes.extend(_FALLBACKS[mode] for mode in broadcast.fallback.modes)
        message.fallback.since.MergeFrom(time_message(broadcast.fallback.since) or Timestamp())
    if status.playback_id:
        message.playback.playback_id = status.playback_id
        message.playback.policy = _PLAYBACKS[broadcast.spec.playback_policy]
        message.playback.hls_url = f"{playback_base_url}/{status.playback_id}.m3u8"
    if status.room_sid or status.egress_id or status.stream_id or status.asset_id:
        message.provider_ids.livekit_room_sid = status.room_sid
        message.provider_ids.livekit_egress_id = status.egress_id
        message.provider_ids.mux_live_stream_id = status.stream_id
        message.provider_ids.mux_asset_id = status.asset_id
    if (trouble := status.last_error) is not None:
        message.last_error.CopyFrom(
            pb.ProviderError(
                provider=trouble.provider,
                operation=trouble.operation,
                code=trouble.code,
                message=trouble.message,
                retryable=trouble.retryable,
                time=time_message(trouble.time),
            )
        )
    return message


def recording_message(recording: domain.Recording) -> pb.Recording:
    origin = pb.RECORDING_ORIGIN_UPLOAD if recording.uploaded else pb.RECORDING_ORIGIN_LIVE_STREAM
    duration = recording.duration_s
    return pb.Recording(
        mux_asset_id=recording.asset_id,
        playback_id=recording.playback_id,
        state=_RECORDING_STATES[recording.status],
        message=recording.message,
        duration=None if duration is None else duration_message(duration),
        origin=origin,
    )


def is_reconciling(broadcast: Broadcast) -> bool:
    """Whether the service still has something to do. A READY broadcast that waits for its host has not."""
    match broadcast.state:
        case State.CREATED | State.ENDED | State.FAILED:
            return False
        case State.STARTING | State.STOPPING | State.INTERRUPTED:
            return True
        case State.READY | State.LIVE:
            if broadcast.target is not Target.LIVE or broadcast.status.observed_generation != broadcast.generation:
                return True
            wanted = broadcast.spec.delivery_policy is DeliveryPolicy.ON_PUBLISH or broadcast.on_air
            return broadcast.state is State.READY and wanted and _host_publishes(broadcast)


def _host_publishes(broadcast: Broadcast) -> bool:
    return any(each.type is ConditionType.HOST_PUBLISHING and each.met for each in broadcast.status.conditions)


def _condition_message(condition: domain.Condition) -> pb.Condition:
    return pb.Condition(
        type=_CONDITIONS[condition.type],
        met=condition.met,
        reason=condition.reason,
        message=condition.message,
        transition_time=time_message(condition.transition_time),
    )


def _destination_messages(broadcast: Broadcast) -> list[pb.DestinationStatus]:
    known: Mapping[str, domain.DestinationStatus] = {each.name: each for each in broadcast.status.destinations}
    idle = domain.DestinationState.IDLE
    return [
        pb.DestinationStatus(
            name=each.name,
            state=_DESTINATION_STATES[known[each.name].state if each.name in known else idle],
            message=known[each.name].message if each.name in known else "",
        )
        for each in broadcast.spec.destinations
    ]


def event_message(event: StoryEvent) -> event_pb2.BroadcastEvent:
    return event_pb2.BroadcastEvent(
        revision=event.revision,
        broadcast_id=event.broadcast_id,
        time=time_message(event.time),
        reason=event.reason,
        message=event.message,
        actor=event.actor,
        state=_STATES[event.state],
    )


def host_access_message(token: HostToken, *, room_name: str, identity: str) -> rpc.HostAccess:
    return rpc.HostAccess(
        livekit_url=token.livekit_url,
        token=token.token.reveal(),
        expire_time=time_message(token.expire_time),
        room_name=room_name,
        identity=identity,
    )


def time_message(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    # FromDatetime goes by way of the calendar, and there are some thirty in a health.
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def duration_message(seconds: float) -> Duration:
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=micros * 1000)
