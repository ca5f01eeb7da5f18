"""What a webhook of LiveKit says: protojson of livekit.WebhookEvent, where zero values and what is new are absent
(livekit/protocol webhook).
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf import json_format
from livekit import api

from service.domain.ports import EgressSeen, Heard, Unreadable
from service.domain.resources import EgressStatus
from service.providers.livekit.observed import egress_seen
from service.providers.text.strict_json import identifier, parsed

# What json_format raises for JSON that does not fit the message.
_MISFITS = (
    json_format.Error,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    OSError,
    RecursionError,
)


def heard(body: bytes) -> Heard:
    """The facts of a webhook, from its raw body, whose signature must have been verified. Raises Unreadable."""
    raw = parsed(body)
    try:
        event = json_format.ParseDict(raw, api.WebhookEvent(), ignore_unknown_fields=True)
        egress = _egress(event, raw) if event.HasField("egress_info") else None
        return Heard(
            event_id=identifier(event.id),
            type=identifier(event.event),
            provider_time=datetime.fromtimestamp(event.created_at, UTC) if event.created_at else None,
            broadcast_hint=_printable(event.room.name or event.egress_info.room_name),
            egress=egress,
            room_sid=_printable(event.room.sid or event.egress_info.room_id),
        )
    except Unreadable:
        raise
    except _MISFITS:
        raise Unreadable("not an event of LiveKit") from None


def _egress(event: api.WebhookEvent, raw: dict[str, Any]) -> EgressSeen:
    """A status that is newer than the SDK is dropped on reading, and would look as STARTING does, which is absent."""
    identifier(event.egress_info.egress_id)
    seen = egress_seen(event.egress_info)
    said: Any = raw.get("egressInfo", raw.get("egress_info"))
    status = cast("dict[str, Any]", said).get("status")
    known = event.egress_info.status or status in (None, 0, "EGRESS_STARTING")
    if not known or (event.event == "egress_ended" and not seen.status.terminal):
        return dataclasses.replace(seen, status=EgressStatus.UNKNOWN)
    return seen


def _printable(text: str) -> str:
    return text if text.isprintable() else ""
