"""What callers may write for a value of the contract: short names of enums, seconds, timedeltas."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

from broadcast.v1.broadcast_pb2 import BroadcastState
from broadcast.v1.broadcast_service_pb2 import BroadcastFilter

State: TypeAlias = BroadcastState.ValueType | str
"""A BroadcastState, or its name: "LIVE" and "BROADCAST_STATE_LIVE" are the same."""
Seconds: TypeAlias = float | timedelta

_STATE_PREFIX = "BROADCAST_STATE_"


def broadcast_state(state: State) -> BroadcastState.ValueType:
    """The enum value of a state.

    Raises:
        ValueError: there is no such state.
    """
    if not isinstance(state, str):
        return state
    name = state.upper()
    name = name if name.startswith(_STATE_PREFIX) else _STATE_PREFIX + name
    if name not in BroadcastState.keys():  # noqa: SIM118 - not a mapping
        known = ", ".join(each.removeprefix(_STATE_PREFIX) for each in BroadcastState.keys()[1:])
        raise ValueError(f"no such state: {state!r} (one of {known})")
    return BroadcastState.Value(name)


def state_name(state: BroadcastState.ValueType) -> str:
    """Short name of a state, also of one that is newer than this client."""
    value = BroadcastState.DESCRIPTOR.values_by_number.get(state)
    return value.name.removeprefix(_STATE_PREFIX) if value else f"STATE_{state}"


def seconds(value: Seconds) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def duration(value: Seconds) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds(value)))
    return message


def broadcast_filter(
    *,
    ids: Iterable[str] = (),
    states: Iterable[State] = (),
    labels: Mapping[str, str] | None = None,
    owner_id: str = "",
    created_after: datetime | None = None,
) -> BroadcastFilter:
    """Which broadcasts to list or watch. Everything given must hold; nothing given matches all.

    Args:
        ids: one of these.
        states: in one of these.
        labels: with all of these.
        owner_id: of this owner.
        created_after: at or after this time; a naive one is taken for UTC.
    """
    made = BroadcastFilter(
        broadcast_ids=ids,
        states=[broadcast_state(state) for state in states],
        labels=labels or {},
        owner_id=owner_id,
    )
    if created_after is not None:
        made.created_after.FromDatetime(created_after)
    return made
