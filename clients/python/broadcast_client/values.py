"""What callers may write for a value of the contract: short names of enums, seconds, timedeltas."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

from broadcast.v1.broadcast_pb2 import BroadcastState
from broadcast.v1.broadcast_service_pb2 import BroadcastFilter

State: TypeAlias = BroadcastState.ValueType | str
"""A BroadcastState, or its name: "LIVE" and "BROADCAST_STATE_LIVE" are the same."""
Seconds: TypeAlias = float | timedelta


def made_request_id(given: str | None) -> str:
    """*given*, or a new one that makes the retries of one write safe."""
    return str(uuid.uuid4()) if given is None else given


def short_name(enum: EnumDescriptor, number: int) -> str:
    """Name of an enum value without its prefix: "LIVE"; the bare number of one that is newer than this client."""
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(_prefix(enum)) if value else str(number)


def by_short_name(enum: EnumDescriptor) -> dict[str, int]:
    """Every value that may be sent."""
    return {short_name(enum, value.number): value.number for value in enum.values if value.number}


def _prefix(enum: EnumDescriptor) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def broadcast_state(state: State) -> BroadcastState.ValueType:
    """The enum value of a state.

    Raises:
        ValueError: there is no such state.
    """
    if not isinstance(state, str):
        return state
    known = by_short_name(BroadcastState.DESCRIPTOR)
    number = known.get(state.upper().removeprefix(_prefix(BroadcastState.DESCRIPTOR)))
    if number is None:
        raise ValueError(f"no such state: {state!r} (one of {', '.join(known)})")
    return BroadcastState.ValueType(number)


def state_name(state: BroadcastState.ValueType) -> str:
    """Short name of a state: "LIVE"."""
    return short_name(BroadcastState.DESCRIPTOR, state)


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
