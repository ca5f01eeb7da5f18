"""Which providers refuse the credentials of this replica, as its own calls show.

A wrong secret is the trouble of one replica, while an outage is that of all. So a replica that is refused leaves the
work to others: it gives up its duties, and claims only what no other replica took within a moment. Where there is no
other replica it goes on, late, and is refused again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.errors import Outcome

if TYPE_CHECKING:
    from service.domain.provider import Provider

log = structlog.get_logger(__name__)

_COUNTS_S = 60.0
"""Seconds for which a refusal counts: then this replica tries like any other, and is refused again or is not."""


class Refusals:
    """To be used inside a running event loop."""

    def __init__(self) -> None:
        self._at: dict[Provider, float] = {}

    def note(self, provider: Provider, outcome: str) -> None:
        """What a failed call of this replica had as its *outcome*. Any but CREDENTIALS says nothing here."""
        if outcome != Outcome.CREDENTIALS or not provider.credentials:
            return
        if provider not in self.refused:
            log.warning("credentials_refused", provider=provider, settings=provider.credentials)
            telemetry.CREDENTIALS_REFUSED.set(1, {"provider": provider})
        self._at[provider] = asyncio.get_running_loop().time()

    def answered(self, provider: Provider) -> None:
        """*provider* answered a call of this replica."""
        if self._at.pop(provider, None) is not None:
            log.warning("credentials_taken", provider=provider)
            telemetry.CREDENTIALS_REFUSED.set(0, {"provider": provider})

    @property
    def refused(self) -> tuple[Provider, ...]:
        """The providers that refused this replica lately."""
        now = asyncio.get_running_loop().time()
        for provider, at in [*self._at.items()]:
            if now - at > _COUNTS_S:
                del self._at[provider]
                telemetry.CREDENTIALS_REFUSED.set(0, {"provider": provider})
        return tuple(sorted(self._at))
