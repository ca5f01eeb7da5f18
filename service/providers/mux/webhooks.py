"""Reads webhooks of Mux (mux.com/docs, Listen for webhooks). A type is `video.<object>.<event>`."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, cast

from service.domain.ports import Heard, StreamSeen, Unreadable
from service.domain.resources import Recording
from service.domain.secret import NO_SECRET
from service.providers.mux.observed import UNREADABLE, Json, asset_seen, stream_seen
from service.providers.text.strict_json import identifier, parsed

_STREAM, _ASSET, _TARGET = "video.live_stream.", "video.asset.", "video.live_stream.simulcast_target."


def heard(body: bytes) -> Heard:
    """The facts of a webhook, from its raw body, whose signature must have been verified. Raises Unreadable."""
    raw = parsed(body)
    kind, event_id = identifier(raw.get("type")), identifier(raw.get("id"))
    try:
        spoken_of = _about(kind, raw.get("data"))
        environment = cast("Json", raw.get("environment") or {})
        return dataclasses.replace(
            spoken_of,
            event_id=event_id,
            provider_time=_time(raw.get("created_at")),
            environment=_text(environment.get("id")),
        )
    except Unreadable:
        raise
    except UNREADABLE:
        raise Unreadable("not an event of Mux") from None


def _about(kind: str, data: Any) -> Heard:
    nothing = Heard(event_id="", type=kind, provider_time=None)
    if kind.startswith(_TARGET):
        # Its passthrough is the destination's name, no tag.
        return dataclasses.replace(nothing, stream_id=_text(data.get("live_stream_id")))
    if kind.startswith(_STREAM):
        connected = data.get("connected")
        return dataclasses.replace(
            nothing,
            broadcast_hint=_text(data.get("passthrough")),
            stream=_stream(kind, data),
            stream_id=identifier(data.get("id")),
            connected=connected if isinstance(connected, bool) else None,
        )
    # Of its parts there are events too, such as `video.asset.track.ready`; their data is the part.
    if kind.startswith(_ASSET) and "." not in kind.removeprefix(_ASSET):
        return dataclasses.replace(
            nothing,
            broadcast_hint=_text(data.get("passthrough")),
            recording=_recording(kind, data),
            stream_id=_text(data.get("live_stream_id")),
        )
    return nothing


def _stream(kind: str, data: Json) -> StreamSeen | None:
    """None: the event does not carry the stream as it is. A warning has a part of it, and a deleted one is gone."""
    if kind in (f"{_STREAM}warning", f"{_STREAM}deleted") or "status" not in data or "created_at" not in data:
        return None
    return dataclasses.replace(stream_seen(data), key=NO_SECRET)


def _recording(kind: str, data: Json) -> Recording | None:
    if kind in (f"{_ASSET}warning", f"{_ASSET}deleted") or "status" not in data:
        return None
    return asset_seen(data).recording


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    time = datetime.fromisoformat(cast("str", value))
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value if value.isprintable() else ""
