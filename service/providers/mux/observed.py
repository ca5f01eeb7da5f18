"""Mux's JSON in the words of the domain: of answers and of webhooks. Mux leaves out unset keys, so only the id is
required. Every function raises one of UNREADABLE for JSON of another shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from service.domain.ports import StreamSeen
from service.domain.resources import Output, OutputState, Recording, RecordingStatus, StreamStatus
from service.domain.secret import Secret
from service.providers.text.readable import readable

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, RecursionError)
"""The errors of reading JSON of another shape. RecursionError: json raises it for very deep nesting."""

Json = dict[str, Any]

_STATUSES = {status.value: status for status in StreamStatus}
_RELAY_STATES = {
    "starting": OutputState.CONNECTING,
    "broadcasting": OutputState.ACTIVE,
    "errored": OutputState.FAILED,
}
_RECORDING_STATUSES = {status.value: status for status in RecordingStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    recording: Recording
    tag: str
    live_stream_id: str
    """Empty: it was not recorded from a live stream."""
    created_at: datetime
    """By Mux's clock, in whole seconds."""


def stream_seen(data: Json) -> StreamSeen:
    return StreamSeen(
        id=_id(data),
        tag=_text(data, "passthrough"),
        status=_STATUSES.get(_text(data, "status"), StreamStatus.UNKNOWN),
        created_at=_created(data),
        key=Secret(_text(data, "stream_key")),
        playback_id=_playback_id(data),
        active_asset_id=_text(data, "active_asset_id"),
        relays=tuple(
            Output(
                name=_text(target, "passthrough"),
                state=_RELAY_STATES.get(_text(target, "status"), OutputState.FINISHED),
                message=_text(target, "error_severity"),
            )
            for target in _objects(data.get("simulcast_targets") or [])
        ),
    )


def streams_seen(data: object) -> list[StreamSeen]:
    return [stream_seen(each) for each in _objects(data)]


def key_seen(data: Json) -> Secret:
    key = stream_seen(data).key
    if not key:
        raise ValueError("no key")
    return key


def asset_seen(data: Json) -> Asset:
    return Asset(
        recording=Recording(
            asset_id=_id(data),
            playback_id=_playback_id(data),
            # A status that this version does not know is looked at again, as one that still changes.
            status=_RECORDING_STATUSES.get(_text(data, "status"), RecordingStatus.PREPARING),
            message=_errors(data.get("errors")),
            duration_s=_duration(data.get("duration")),
        ),
        tag=_text(data, "passthrough"),
        live_stream_id=_text(data, "live_stream_id"),
        created_at=_created(data),
    )


def assets_seen(data: object) -> list[Asset]:
    return [asset_seen(each) for each in _objects(data)]


def _errors(errors: Any) -> str:
    if errors is None:
        return ""
    messages = errors.get("messages") or [_text(errors, "type")]
    return readable("; ".join(str(message) for message in messages))


def _duration(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no duration")
    return float(value)


def _created(data: Json) -> datetime:
    """Unix seconds: a text in answers, a number in webhooks."""
    return datetime.fromtimestamp(int(data.get("created_at") or 0), UTC)


def _playback_id(data: Json) -> str:
    return next((_id(each) for each in _objects(data.get("playback_ids") or [])), "")


def _objects(data: object) -> list[Json]:
    if not isinstance(data, list):
        raise TypeError("not a list")
    return cast("list[Json]", data)


def _text(data: Json, name: str) -> str:
    found = data.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise TypeError(f"{name} is no text")
    return found


def _id(data: Json) -> str:
    found = _text(data, "id")
    if not found:
        raise ValueError("no id")
    return found
