"""Signed webhooks of the simulated LiveKit (livekit/protocol webhook/resource_url_notifier.go)."""

import base64
import datetime
import hashlib
import json
import random
import time
from collections.abc import Callable

from google.protobuf.json_format import MessageToDict
from livekit import api
from livekit.protocol.egress import EgressInfo
from livekit.protocol.models import ParticipantInfo, Room, RoomEndReason, TrackInfo
from livekit.protocol.webhook import WebhookEvent

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.webhooks import WebhookSender

RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""hashicorp/go-retryablehttp: RetryMax 4, backoff doubling from 1 s."""

EVENTS = (
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "track_published",
    "track_unpublished",
    "egress_started",
    "egress_updated",
    "egress_ended",
)
"""The events that are simulated."""

_TOKEN_LIFE = datetime.timedelta(minutes=5)


def retried(status: int) -> bool:
    """Any other status, 4xx too, counts as delivered (go-retryablehttp, baseRetryPolicy)."""
    return status == 429 or (status >= 500 and status != 501)


class LiveKitWebhooks:
    def __init__(
        self,
        *,
        url: str | None,
        api_key: str,
        api_secret: str,
        clock: ScaledClock,
        faults: FaultTable,
        id_factory: Callable[[], str],
    ) -> None:
        self._api_key = api_key
        self._api_secret = api_secret
        self._new_id = id_factory
        # The real sender has no timeout: a receiver that hangs blocks its queue.
        self.sender = WebhookSender(
            url=url, clock=clock, faults=faults, retry_waits_s=RETRY_WAITS_S, timeout_s=None, retry_on=retried
        )

    def room_started(self, room: Room) -> None:
        self._send(room.name, WebhookEvent(event="room_started", room=room))

    def room_finished(self, room: Room, reason: RoomEndReason | None) -> None:
        event = WebhookEvent(event="room_finished", room=room)
        if reason is not None:
            event.room_end_reason = reason
        self._send(room.name, event)

    def participant(self, event: str, room: Room, participant: ParticipantInfo) -> None:
        self._send(room.name, WebhookEvent(event=event, room=room, participant=participant))

    def track(self, event: str, room: Room, participant: ParticipantInfo, track: TrackInfo) -> None:
        """Room and participant are cut down to their ids (livekit/livekit pkg/telemetry/events.go)."""
        self._send(
            room.name,
            WebhookEvent(
                event=event,
                room=Room(sid=room.sid, name=room.name),
                participant=ParticipantInfo(sid=participant.sid, identity=participant.identity),
                track=track,
            ),
        )

    def egress(self, event: str, info: EgressInfo) -> None:
        """Without a room: the server that tells of an egress fills `egressInfo` alone (measured, 1.13.5)."""
        self._send(info.egress_id, WebhookEvent(event=event, egress_info=info), room_name=info.room_name)

    def _send(self, key: str, event: WebhookEvent, room_name: str = "") -> None:
        event.id = self._new_id()
        event.created_at = int(time.time())
        # Go's protojson varies its white space at random: a receiver has to hash the raw bytes.
        separators = random.choice(((",", ":"), (", ", ": ")))
        body = json.dumps(MessageToDict(event), separators=separators).encode()
        self.sender.send(
            key=key,
            event=event.event,
            event_id=event.id,
            body=body,
            headers=self._headers(body),
            target=f"{key} {room_name or event.room.name}",
        )

    def _headers(self, body: bytes) -> Callable[[], dict[str, str]]:
        """The token is minted at the first attempt and kept for the retries."""
        minted: dict[str, str] = {}

        def headers() -> dict[str, str]:
            if not minted:
                digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
                token = api.AccessToken(self._api_key, self._api_secret).with_sha256(digest).with_ttl(_TOKEN_LIFE)
                minted["Authorization"] = token.to_jwt()
                minted["Content-Type"] = "application/webhook+json"
                minted["User-Agent"] = "LiveKit"
            return dict(minted)

        return headers
