"""Webhooks as the providers send them, one of every type, about one broadcast; and their signatures.

LiveKit's are protojson of livekit.WebhookEvent, of which zero values are absent; Mux's as in muxinc/examples.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any

from livekit import api

from service.webhooks.worth import WORTH

Json = dict[str, Any]

LIVEKIT_KEY, LIVEKIT_SECRET = "devkey", "a-secret-of-at-least-thirty-two-bytes"
MUX_SECRET = "mux-webhook-secret"
TAG = "bs1:test:"
ENVIRONMENT = "j29sb4"

STREAM_KEY = "d8e3a1f0-stream-key-that-must-not-be-seen"
PASSPHRASE = "c0ffee-passphrase-that-must-not-be-seen"
TARGET_KEY = "beef01-target-key-that-must-not-be-seen"
REQUEST_KEY = "fade02-requested-key-that-must-not-be-seen"
STORAGE_KEY = "dead03-storage-key-that-must-not-be-seen"
SECRETS = (STREAM_KEY, PASSPHRASE, TARGET_KEY, REQUEST_KEY, STORAGE_KEY)

_NS = 1764000000_000000000


def livekit(type_: str, broadcast_id: str = "first", event_id: str = "EV_room00000001") -> Json:
    room: Json = {"sid": "RM_abcdefghijkl", "name": broadcast_id}
    event: Json = {"event": type_, "room": room, "id": event_id, "createdAt": "1764000000"}
    match type_.partition("_")[0]:
        case "room":
            event["room"] = room | {"emptyTimeout": 300, "departureTimeout": 300, "creationTime": "1763999000"}
        case "participant":
            event["participant"] = copy.deepcopy(_PARTICIPANT)
        case "track":
            event["participant"] = {"sid": "PA_1", "identity": "ann"}
            event["track"] = {"sid": "TR_VC1", "type": "VIDEO", "source": "CAMERA", "width": 1280, "height": 720}
        case "egress":
            event["egressInfo"] = _egress(type_, broadcast_id)
        case "ingress":
            event = {"event": type_, "id": event_id, "createdAt": "1764000000", "ingressInfo": {"ingressId": "IN_1"}}
        case _:
            event = {"event": type_, "id": event_id, "createdAt": "1764000000", "job": {"id": "AJ_1", "room": room}}
    return event


_PARTICIPANT: Json = {
    "sid": "PA_1",
    "identity": "ann",
    "state": "ACTIVE",
    "joinedAt": "1764000000",
    "name": "Ann",
    "metadata": '{"avatar": "https://example.com/ann.png"}',
    "permission": {"canSubscribe": True, "canPublish": True, "canPublishData": True},
    "isPublisher": True,
}


def _egress(type_: str, broadcast_id: str) -> Json:
    statuses: dict[str, Json] = {
        "egress_started": {},
        "egress_updated": {"status": "EGRESS_ACTIVE"},
        "egress_ended": {"status": "EGRESS_FAILED", "endedAt": str(_NS + 9), "error": "stream: connection refused"},
    }
    said = statuses[type_]
    return {
        "egressId": "EG_abcdefghijkl",
        "roomId": "RM_abcdefghijkl",
        "roomName": broadcast_id,
        "startedAt": str(_NS),
        "updatedAt": str(_NS + 9),
        "roomComposite": {
            "roomName": broadcast_id,
            "streamOutputs": [{"protocol": "RTMP", "urls": [f"rtmps://global-live.mux.com:443/app/{REQUEST_KEY}"]}],
            "fileOutputs": [{"filepath": "x.mp4", "s3": {"accessKey": "AKIA", "secret": STORAGE_KEY}}],
        },
        "streamResults": [{"url": "rtmps://global-live.mux.com:443/app/{d8e...een}", "startedAt": str(_NS + 5)}],
        **said,
    }


def mux(type_: str, broadcast_id: str = "first", event_id: str = "5a3c2a2e-6f0b-4a51-9d0e-30f4ab4d2a11") -> Json:
    passthrough = f"{TAG}{broadcast_id}:0"
    live: Json = {
        "id": f"LS-{broadcast_id}",
        "status": "active",
        "stream_key": STREAM_KEY,
        "srt_passphrase": PASSPHRASE,
        "playback_ids": [{"id": "PB1", "policy": "public"}],
        "active_asset_id": "AS1",
        "recent_asset_ids": ["AS1"],
        "latency_mode": "reduced",
        "reconnect_window": 120,
        "connected": True,
        "recording": True,
        "max_continuous_duration": 43200,
        "passthrough": passthrough,
        "new_asset_settings": {"playback_policies": ["public"], "passthrough": passthrough},
        "simulcast_targets": [_target(broadcast_id)],
        "created_at": 1711134037,
    }
    asset: Json = {
        "id": "AS1",
        "status": "ready",
        "duration": 61.5,
        "playback_ids": [{"id": "PB2", "policy": "public"}],
        "live_stream_id": live["id"],
        "passthrough": passthrough,
        "created_at": 1711134038,
        "tracks": [{"type": "video", "max_width": 1280, "id": "TR1"}],
    }
    object_: Json = {"type": "live", "id": live["id"]}
    data: Json = live
    if ".simulcast_target." in type_:
        data, object_ = _target(broadcast_id), {"type": "simulcast_target", "id": "ST1"}
    elif type_ == "video.live_stream.warning":
        what = {"type": "custom_slate_unavailable", "message": "it cannot be downloaded"}
        data = {name: live[name] for name in ("id", "status", "stream_key", "passthrough")} | {"warning": what}
    elif type_.startswith("video.asset."):
        data, object_ = asset, {"type": "asset", "id": "AS1"}
        if type_ == "video.asset.errored":
            data = asset | {"status": "errored", "errors": {"type": "invalid_input", "messages": ["no video in it"]}}
    elif type_.startswith("video.delivery."):
        data, object_ = {"id": "delivery", "data": []}, {"type": "delivery", "id": "delivery"}
    return {
        "type": type_,
        "id": event_id,
        "created_at": "2026-11-22T19:00:37.613000Z",
        "object": object_,
        "environment": {"name": "Test", "id": ENVIRONMENT},
        "data": data,
        "attempts": [],
        "request_id": None,
        "accessor": None,
        "accessor_source": None,
    }


def _target(broadcast_id: str) -> Json:
    return {
        "id": "ST1",
        "live_stream_id": f"LS-{broadcast_id}",
        "status": "broadcasting",
        "passthrough": "other",
        "url": "rtmp://live.example.com/app",
        "stream_key": TARGET_KEY,
    }


def of(provider: str, type_: str, broadcast_id: str = "first", event_id: str = "") -> Json:
    make = livekit if provider == "livekit" else mux
    return make(type_, broadcast_id, event_id) if event_id else make(type_, broadcast_id)


EVERY = tuple((provider, type_) for provider, types in WORTH.items() for type_ in types)


def encoded(event: object) -> bytes:
    return json.dumps(event).encode()


def headers(provider: str, body: bytes, *, secret: str = "", at: float | None = None) -> dict[str, str]:
    """As the provider signs it now."""
    return livekit_headers(body, secret=secret) if provider == "livekit" else mux_headers(body, secret=secret, at=at)


def livekit_headers(body: bytes, *, key: str = LIVEKIT_KEY, secret: str = "") -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    token = api.AccessToken(key, secret or LIVEKIT_SECRET).with_sha256(digest).with_ttl(timedelta(minutes=5))
    return {"Authorization": token.to_jwt(), "Content-Type": "application/webhook+json", "User-Agent": "LiveKit"}


def mux_headers(body: bytes, *, secret: str = "", at: float | None = None) -> dict[str, str]:
    now = int(time.time() if at is None else at)
    signature = hmac.new((secret or MUX_SECRET).encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Mux-Signature": f"t={now},v1={signature}", "Content-Type": "application/json"}
