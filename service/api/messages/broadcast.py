"""A broadcast, its events, its filter and the access of its host, between the contract and the domain."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import event_pb2
from service.api.messages.enums import (
    CONDITION_TYPES,
    DESTINATION_STATES,
    FALLBACK_MODES,
    HANDLE_KINDS,
    PLAYBACK_POLICIES,
    RECORDING_STATES,
    STATES,
    TARGETS,
)
from service.api.messages.spec import spec_message
from service.api.messages.times import duration_message, given_time, time_message
from service.domain import broadcast as domain
from service.domain.audience.decide import linger_s
from service.domain.broadcast import Broadcast, ConditionType, DeliveryPolicy, State, Target
from service.domain.ports import HostToken
from service.domain.resource_set import on_air
from service.domain.resources import RecordingStatus
from service.store.broadcasts import Filter
from service.store.changes import StoryEvent


def given_filter(message: rpc.BroadcastFilter) -> Filter:
    """Raises InvalidField."""
    created_after: datetime | None = None
    if message.HasField("created_after"):
        created_after = given_time(message.created_after, "filter.created_after")
    return Filter(
        ids=tuple(message.broadcast_ids),
        states=tuple(STATES.member[state] for state in message.states),
        labels=tuple(message.labels.items()),
        owner_id=message.owner_id,
        created_after=created_after,
    )


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


def _status_message(broadcast: Broadcast, playback_base_url: str) -> pb.BroadcastStatus:
    status = broadcast.status
    message = pb.BroadcastStatus(
        state=STATES.number[broadcast.state],
        state_reason=status.state_reason,
        state_time=time_message(status.state_time or broadcast.create_time),
        target_state=TARGETS.number[broadcast.target],
        reconciling=is_reconciling(broadcast),
        observed_generation=status.observed_generation,
        conditions=[_condition_message(condition) for condition in status.conditions],
        on_air=broadcast.on_air,
        destinations=_destination_messages(broadcast),
        next_attempt_time=time_message(broadcast.due_at or status.next_attempt_time),
        start_time=time_message(broadcast.start_time),
        live_time=time_message(broadcast.live_time),
        end_time=time_message(broadcast.end_time),
        recordings=[recording_message(recording, playback_base_url) for recording in status.recordings],
    )
    if broadcast.fallback.modes and not broadcast.state.over:
        message.fallback.reason = broadcast.fallback.reason
        message.fallback.modes.extend(FALLBACK_MODES.number[mode] for mode in broadcast.fallback.modes)
        message.fallback.since.MergeFrom(time_message(broadcast.fallback.since) or Timestamp())
    if (delivery := delivery_message(broadcast)) is not None:
        message.delivery.CopyFrom(delivery)
    if status.playback_id:
        message.playback.CopyFrom(playback_message(broadcast, playback_base_url))
    if (handle := status.playback_handle) is not None:
        message.playback_handle.kind = HANDLE_KINDS.number[handle.kind]
        message.playback_handle.generation = handle.generation
        message.playback_handle.since.MergeFrom(time_message(handle.since) or Timestamp())
        message.playback_handle.playback_ids.extend(handle.playback_ids)
    if status.room_sid or status.egress_id or status.stream_id or status.asset_id:
        message.provider_ids.livekit_room_sid = status.room_sid
        message.provider_ids.livekit_egress_id = status.egress_id
        message.provider_ids.mux_live_stream_id = status.stream_id
        message.provider_ids.mux_asset_id = status.asset_id
    if (fault := broadcast.fault) is not None:
        message.last_error.CopyFrom(
            pb.ProviderError(
                provider="service",
                operation="pass",
                code=fault.code,
                message=fault.message,
                retryable=True,
                time=time_message(fault.since),
            )
        )
    elif (trouble := status.last_error) is not None:
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


def delivery_message(broadcast: Broadcast) -> pb.Delivery | None:
    """None: the delivery policy is not ON_DEMAND, nothing was decided yet, or the broadcast is over."""
    delivery, inputs = broadcast.delivery, broadcast.delivery.inputs
    if broadcast.spec.delivery_policy is not DeliveryPolicy.ON_DEMAND or inputs is None or broadcast.state.over:
        return None
    return pb.Delivery(
        wanted=delivery.wanted,
        reason=delivery.decided.reason,
        since=time_message(delivery.decided.since),
        decide_time=time_message(inputs.now),
        last_viewer_time=time_message(inputs.watching.last_seen),
        counted_time=time_message(inputs.watching.counted_up_to),
        linger=duration_message(linger_s(inputs)),
        start_times=[message for each in delivery.decided.starts if (message := time_message(each)) is not None],
    )


def playback_message(broadcast: Broadcast, playback_base_url: str, token: str = "") -> pb.Playback:
    """Of the live stream. *token*: goes into the address. Empty: none does."""
    playback_id = broadcast.status.playback_id
    return pb.Playback(
        playback_id=playback_id,
        policy=PLAYBACK_POLICIES.number[broadcast.spec.playback_policy],
        hls_url=_hls_url(playback_base_url, playback_id, token),
    )


def recording_message(recording: domain.Recording, playback_base_url: str, token: str = "") -> pb.Recording:
    """*token*: as of `playback_message`."""
    origin = pb.RECORDING_ORIGIN_UPLOAD if recording.uploaded else pb.RECORDING_ORIGIN_LIVE_STREAM
    duration = recording.duration_s
    playable = recording.playback_id and recording.status is RecordingStatus.READY
    return pb.Recording(
        mux_asset_id=recording.asset_id,
        playback_id=recording.playback_id,
        state=RECORDING_STATES.number[recording.status],
        message=recording.message,
        duration=None if duration is None else duration_message(duration),
        origin=origin,
        hls_url=_hls_url(playback_base_url, recording.playback_id, token) if playable else "",
    )


def _hls_url(playback_base_url: str, playback_id: str, token: str = "") -> str:
    return f"{playback_base_url}/{playback_id}.m3u8" + (f"?token={token}" if token else "")


def is_reconciling(broadcast: Broadcast) -> bool:
    """Whether the service still works towards the target. It does not on a READY broadcast that waits for its host."""
    match broadcast.state:
        case State.CREATED | State.ENDED | State.FAILED:
            return False
        case State.STARTING | State.STOPPING | State.INTERRUPTED:
            return True
        case State.READY | State.LIVE:
            if broadcast.target is not Target.LIVE or broadcast.status.observed_generation != broadcast.generation:
                return True
            return broadcast.state is State.READY and on_air(broadcast) and _host_publishes(broadcast)


def _host_publishes(broadcast: Broadcast) -> bool:
    return any(each.type is ConditionType.HOST_PUBLISHING and each.met for each in broadcast.status.conditions)


def _condition_message(condition: domain.Condition) -> pb.Condition:
    return pb.Condition(
        type=CONDITION_TYPES.number[condition.type],
        met=condition.met,
        reason=condition.reason,
        message=condition.message,
        transition_time=time_message(condition.transition_time),
    )


def _destination_messages(broadcast: Broadcast) -> list[pb.DestinationStatus]:
    known: Mapping[str, domain.DestinationStatus] = {each.name: each for each in broadcast.status.destinations}
    idle = domain.DestinationState.IDLE
    told = (
        known.get(each.name) or domain.DestinationStatus(name=each.name, state=idle)
        for each in broadcast.spec.destinations
    )
    return [
        pb.DestinationStatus(
            name=each.name,
            state=DESTINATION_STATES.number[each.state],
            message=each.message,
            last_error=each.error,
            last_error_time=time_message(each.error_time),
            failure_count=len(each.failed_at),
        )
        for each in told
    ]


def event_message(event: StoryEvent) -> event_pb2.BroadcastEvent:
    return event_pb2.BroadcastEvent(
        revision=event.revision,
        broadcast_id=event.broadcast_id,
        time=time_message(event.time),
        reason=event.reason,
        message=event.message,
        actor=event.actor,
        state=STATES.number[event.state],
    )


def host_access_message(token: HostToken, *, room_name: str, identity: str) -> rpc.HostAccess:
    return rpc.HostAccess(
        livekit_url=token.url,
        token=token.token.reveal(),
        expire_time=time_message(token.expire_time),
        room_name=room_name,
        identity=identity,
    )
