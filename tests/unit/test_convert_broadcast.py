"""Every field of a broadcast is told to callers, or is listed here as one that is not."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, cast, get_type_hints

from service.api.messages.broadcast import broadcast_message
from service.domain.audience.watching import Watching
from service.domain.broadcast import (
    Broadcast,
    Condition,
    ConditionType,
    DeliveryPolicy,
    Destination,
    DestinationState,
    DestinationStatus,
    Fallback,
    FallbackMode,
    PassFault,
    ProviderTrouble,
    Spec,
    State,
    Status,
    Target,
)
from service.domain.delivery import Decided, Delivery, DeliveryReason, Inputs, Limits
from service.domain.playback_handle import HandleKind, PlaybackHandle
from service.domain.provider import Provider
from service.domain.reasons import ConditionReason, Operation
from service.domain.resources import Recording, RecordingStatus

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

FULL: Final = Broadcast(
    id="show",
    spec=Spec(destinations=(Destination(name="one", url="rtmp://a.b/c"),), delivery_policy=DeliveryPolicy.ON_DEMAND),
    labels={"a": "b"},
    target=Target.LIVE,
    on_air=True,
    fallback=Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), since=NOW),
    delivery=Delivery(
        decided=Decided(wanted=True, reason=DeliveryReason.VIEWERS, since=NOW, starts=(NOW,)),
        inputs=Inputs(
            now=NOW,
            before=Decided(starts=(NOW,)),
            watching=Watching(last_seen=NOW, counted_up_to=NOW, counted_since=NOW),
            limits=Limits(
                linger_s=90, window_s=60, min_run_s=120, stale_s=10, hold_s=90, warm_s=45, flap_s=3600, starts=6
            ),
            running=False,
            host=True,
            recording=False,
        ),
    ),
    state=State.LIVE,
    status=Status(
        state_time=NOW,
        conditions=(
            Condition(type=ConditionType.PLAYABLE, met=True, reason=ConditionReason.PLAYING, transition_time=NOW),
        ),
        playback_id="play",
        destinations=(
            DestinationStatus(
                name="one", state=DestinationState.FAILED, message="refused", failed_at=(NOW,), error="refused"
            ),
        ),
        room_sid="RM_1",
        recordings=(Recording(asset_id="asset", status=RecordingStatus.READY, duration_s=1.0),),
        last_error=ProviderTrouble(
            provider=Provider.MUX,
            operation=Operation.GET_ASSET,
            code="429",
            message="slow down",
            retryable=True,
            time=NOW,
        ),
        next_attempt_time=NOW,
        playback_handle=PlaybackHandle(kind=HandleKind.HLS, playback_ids=("play",), generation=2, since=NOW),
    ),
    create_time=NOW,
    update_time=NOW,
)
NOT_TOLD: Final = {
    # Which of them ended it is told by the reason of the state.
    "end_reason",
    "ready_time",
    "dirty_at",
    "turn_at",
    "retry_from",
    "destination_keys",
    # An event tells it.
    "cost_level",
    # A deleted broadcast is not told at all.
    "deleted",
    "status.last_error.outcome",
    # What the breaker of a destination counts.
    "status.destinations.failed_at",
    "status.destinations.egress",
    "status.destinations.counted",
    # The event of the decision names those that it depends on. They are kept so that it can be made again.
    *(f"delivery.inputs.{name}" for name in ("running", "host", "recording", "scheduled_at", "watching.counted_since")),
    *(f"delivery.inputs.before.{name}" for name in ("wanted", "reason", "since", "starts")),
    *(
        f"delivery.inputs.limits.{name}"
        for name in ("window_s", "min_run_s", "stale_s", "hold_s", "warm_s", "flap_s", "starts")
    ),
}


def changed(value: Any, hint: Any) -> Any:
    """Another value of the same type."""
    other: Any
    match value:
        case bool():
            other = not value
        case Enum():
            other = next(each for each in type(value) if each is not value)
        case str():
            other = f"{value}x"
        case int() | float():
            other = value + 1
        case datetime():
            other = value + timedelta(hours=1)
        case dict():
            other = {**cast("dict[str, Any]", value), "more": "x"}
        case _:
            assert value is None, value
            kind = next(each for each in hint.__args__ if each is not type(None))
            if kind is PassFault:
                other = PassFault(code="CANNOT_OPEN", message="no key opens it", since=NOW, count=2)
            else:
                other = NOW + timedelta(hours=2) if kind is datetime else next(iter(kind))
    return other


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """*value* with one field changed, for each of its fields and of what they hold, with the path of the field."""
    hints = get_type_hints(cast("Any", type(value)))
    for field in dataclasses.fields(value):
        if field.type is Spec:
            # test_convert_spec.py
            continue
        held = getattr(value, field.name)
        if isinstance(held, tuple):
            # Each holds one here.
            [inner] = cast("tuple[Any, ...]", held)
            others = list(variants(inner)) if dataclasses.is_dataclass(inner) else [("", changed(inner, None))]
            found = [(path, (other,)) for path, other in others]
        elif dataclasses.is_dataclass(held):
            found = list(variants(held))
        else:
            found = [("", changed(held, hints[field.name]))]
        for path, other in found:
            yield f"{field.name}.{path}".rstrip("."), dataclasses.replace(value, **{field.name: other})


def test_every_field_is_told_or_known_not_to_be() -> None:
    told = broadcast_message(FULL, "https://play.test")
    silent = {path for path, other in variants(FULL) if broadcast_message(other, "https://play.test") == told}
    assert silent == NOT_TOLD
