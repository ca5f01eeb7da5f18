"""Mux webhooks: payload and signature (mux.com/docs, Listen for webhooks; Verify webhook signatures)."""

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from broadcast_sandbox.mux.model import Asset, Json, LiveStream, SimulcastTarget
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.webhooks import Delivery, WebhookSender

WEBHOOK_ID = "sbxwh1"

_STREAM = "video.live_stream."
_TARGET = "video.live_stream.simulcast_target."
_ASSET = "video.asset."
EVENTS = frozenset(
    {
        *(
            _STREAM + name
            for name in (
                "created",
                "updated",
                "deleted",
                "connected",
                "recording",
                "active",
                "disconnected",
                "idle",
                "disabled",
                "enabled",
            )
        ),
        *(_TARGET + name for name in ("created", "deleted", "starting", "broadcasting", "errored", "idle")),
        *(_ASSET + name for name in ("created", "ready", "errored", "deleted", "live_stream_completed")),
    }
)
"""The events that are simulated."""


def signature_header(secret: str, body: bytes, *, at: int) -> str:
    """The value of `Mux-Signature` for a body sent at *at* (unix seconds)."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class MuxEvents:
    def __init__(self, settings: MuxSimulatorSettings, sender: WebhookSender) -> None:
        self._settings = settings
        self._sender = sender

    def emit(self, event: str, *, object_type: str, object_id: str, data: Json, target: str) -> None:
        """*data* is copied at once. *target* is the text that the `match` of webhook faults has to occur in."""
        payload: Json = {
            "type": event,
            "id": str(uuid.uuid4()),
            "created_at": _iso(time.time()),
            "object": {"type": object_type, "id": object_id},
            "environment": {"name": self._settings.environment_name, "id": self._settings.environment_id},
            "data": data,
            "request_id": None,
            "accessor": None,
            "accessor_source": None,
        }
        frozen = json.dumps(payload)

        def build(attempts: Sequence[Delivery]) -> tuple[bytes, dict[str, str]]:
            body = json.dumps(json.loads(frozen) | {"attempts": self._attempts(attempts)}).encode()
            # A new time stamp for each attempt: receivers refuse one that is older than the tolerance of 300 s.
            signature = signature_header(self._settings.webhook_secret, body, at=int(time.time()))
            return body, {"Content-Type": "application/json", "Mux-Signature": signature, "User-Agent": "Mux Webhooks"}

        self._sender.send_built(key=object_id, event=event, event_id=payload["id"], build=build, target=target)

    def emit_stream(self, name: str, stream: LiveStream) -> None:
        self.emit(
            f"{_STREAM}{name}",
            object_type="live",
            object_id=stream.id,
            data=stream.as_webhook_json(ingest_protocol=self._settings.ingest_protocol),
            target=stream.fault_target,
        )

    def emit_target(self, name: str, stream: LiveStream, target: SimulcastTarget) -> None:
        self.emit(
            f"{_TARGET}{name}",
            object_type="simulcast_target",
            object_id=target.id,
            data=target.as_json() | {"live_stream_id": stream.id},
            target=f"{stream.fault_target} {target.id}",
        )

    def emit_asset(self, name: str, asset: Asset) -> None:
        data = asset.as_json() | {"created_at": asset.created_at}
        self.emit(f"{_ASSET}{name}", object_type="asset", object_id=asset.id, data=data, target=asset.fault_target)

    def _attempts(self, attempts: Sequence[Delivery]) -> list[dict[str, Any]]:
        return [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{attempt.event_id}/{attempt.attempt}")),
                "webhook_id": WEBHOOK_ID,
                "address": self._sender.url,
                "created_at": _iso(attempt.time),
                "max_attempts": len(self._settings.webhook_retry_waits_s) + 1,
                "response_status_code": attempt.status,
                "response_headers": {},
                "response_body": attempt.body.decode(errors="replace"),
            }
            for attempt in attempts
        ]


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
