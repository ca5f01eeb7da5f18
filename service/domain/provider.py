"""The providers as values: which there are, what each is called, and whose each kind of resource is.

A module outside the adapters, the webhook readers, the settings and the composition names a role (`ROOMS`, `STREAMS`),
never a provider, so that another provider in a role is another adapter and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from service.domain.reasons import ConditionReason, HealthReason
from service.domain.resources import Kind

if TYPE_CHECKING:
    from service.domain.situation import Outage


class Provider(StrEnum):
    """A party that we call. Its text is stored in outages, errors, budgets and the inbox, and shown to callers."""

    _value_: str
    display_name: str
    """Its name in messages for people."""
    credentials: tuple[str, ...]
    """The settings that hold what it knows us by."""

    def __new__(cls, text: str, display_name: str, credentials: tuple[str, ...] = ()) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.display_name = display_name
        member.credentials = credentials
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """See `reasons.Word`."""
        if not isinstance(value, str):
            return None
        undeclared = str.__new__(cls, value)
        undeclared._value_ = undeclared.display_name = value
        undeclared._name_ = "UNDECLARED"
        undeclared.credentials = ()
        return undeclared

    LIVEKIT = "livekit", "LiveKit", ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    MUX = "mux", "Mux", ("MUX_TOKEN_ID", "MUX_TOKEN_SECRET")
    STORAGE = "storage", "our own storage"
    PLAYBACK = "playback", "the playback edge"


ROOMS: Final = Provider.LIVEKIT
"""The provider of rooms, of who is in them, and of the egresses that record them."""
STREAMS: Final = Provider.MUX
"""The provider of live streams, of the recordings made of them, and of playback."""
STORAGE: Final = Provider.STORAGE
"""The S3-compatible storage that local recordings are written to."""
PLAYBACK: Final = Provider.PLAYBACK
"""The edge that serves playlists to players. It is looked at without credentials."""

WEBHOOK_SENDERS: Final = (ROOMS, STREAMS)
"""The providers that send webhooks, in the order in which they are documented."""

OWNER: Final[Mapping[Kind, Provider]] = {
    Kind.ROOM: ROOMS,
    Kind.EGRESS: ROOMS,
    Kind.RECORDING: ROOMS,
    Kind.STREAM: STREAMS,
    Kind.UPLOAD: STREAMS,
}
"""Which provider holds a resource of each kind. A local recording is a file egress, so it is the room provider's."""

UNREACHABLE: Final[Mapping[Provider, ConditionReason]] = {
    ROOMS: ConditionReason.ROOMS_UNREACHABLE,
    STREAMS: ConditionReason.STREAMS_UNREACHABLE,
}
"""Why a condition is unknown while a provider does not answer."""
_REFUSES_US: Final[Mapping[Provider, ConditionReason]] = {
    ROOMS: ConditionReason.ROOMS_CREDENTIALS,
    STREAMS: ConditionReason.STREAMS_CREDENTIALS,
}


def reason_away(provider: Provider, outage: Outage) -> ConditionReason:
    """Why a condition is unknown during *outage*: the provider does not answer, or it answers and refuses us."""
    return (_REFUSES_US if outage.refuses_us else UNREACHABLE)[provider]


def health_reason_away(provider: Provider, outage: Outage) -> HealthReason:
    """The same reason, of a part of the chain."""
    return HealthReason(reason_away(provider, outage).value)
