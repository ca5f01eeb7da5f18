"""The content of a webhook."""

from dataclasses import dataclass
from datetime import datetime

from service.domain.ports.egresses import EgressSeen
from service.domain.ports.streams import StreamSeen
from service.domain.resources import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The content of one webhook. A field that it does not have is empty or None."""

    event_id: str
    """The same for every delivery of one event."""
    type: str
    provider_time: datetime | None
    """When it happened, by the provider's clock. LiveKit's has whole seconds: order egresses by `updated_ns`."""
    environment: str = ""
    """Mux's id of the environment."""
    broadcast_hint: str = ""
    """LiveKit: the room's name. Mux: the tag."""
    egress: EgressSeen | None = None
    stream: StreamSeen | None = None
    """Without its key. Only where the event carries the whole stream."""
    recording: Recording | None = None
    room_sid: str = ""
    stream_id: str = ""
    connected: bool | None = None
    """Whether an encoder is connected to the live stream. No answer of the API tells it. None: the webhook does not
    tell it."""


class Unreadable(ValueError):
    """A webhook that is not what the provider sends."""
