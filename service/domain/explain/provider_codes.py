"""The codes of causes that tell how a provider answers, by the provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.domain.explain.causes import CauseCode
from service.domain.provider import ROOMS, STREAMS, Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCodes:
    """The codes that tell how one provider answers."""

    unreachable: CauseCode
    credentials: CauseCode
    throttled: CauseCode
    refused: CauseCode


OF_PROVIDER: Final[Mapping[Provider, ProviderCodes]] = {
    ROOMS: ProviderCodes(
        unreachable=CauseCode.ROOMS_UNREACHABLE,
        credentials=CauseCode.ROOMS_CREDENTIALS,
        throttled=CauseCode.ROOMS_THROTTLED,
        refused=CauseCode.ROOMS_REFUSED,
    ),
    STREAMS: ProviderCodes(
        unreachable=CauseCode.STREAMS_UNREACHABLE,
        credentials=CauseCode.STREAMS_CREDENTIALS,
        throttled=CauseCode.STREAMS_THROTTLED,
        refused=CauseCode.STREAMS_REFUSED,
    ),
}
"""In the order in which their rules are asked."""
