"""What happens to a webhook, whether it came by HTTP or by gRPC: it is verified, read, stored and counted.

A webhook is a hint: one that is lost, late, repeated or reordered costs time at worst. So once its signature was
verified, its content is no reason to refuse it. An error is answered only if it could not be stored, and the provider
sends it again (Mux tries for a day; LiveKit takes any 4xx as delivered).
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.errors import StoreUnavailable, WebhookRefused
from service.domain.provider import Provider
from service.failpoints import failpoint
from service.webhooks.verify import Refusal, from_livekit, from_mux, only

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.domain.secret import Secret
    from service.store.webhooks.inbox import Delivered, Inbox

log = structlog.get_logger(__name__)

LARGEST = 256 * 1024
"""Bytes of a body."""
SIGNATURE = {Provider.LIVEKIT: "authorization", Provider.MUX: "mux-signature"}
"""By provider: the header with the signature, in lower case."""

# Mux waits 5 s for an answer and then sends the webhook again (mux.com/docs, Listen for webhooks).
_STORED_WITHIN_S = 3.0


class Deliveries:
    def __init__(self, inbox: Inbox, *, livekit_secrets: Mapping[str, Secret], mux_secrets: Sequence[Secret]) -> None:
        """*livekit_secrets*: API key to secret. While a secret is rotated there are several of each. A provider without
        a secret has every webhook refused.
        """
        self._inbox = inbox
        self._livekit_secrets = livekit_secrets
        self._mux_secrets = mux_secrets

    async def deliver(self, provider: Provider, headers: Iterable[tuple[str, str]], body: bytes) -> Delivered:
        """*headers*: names in any case. *body*: byte for byte, as it was signed.

        Raises WebhookRefused: the signature does not verify, and nothing was stored. Raises StoreUnavailable: it is not
        known to be stored within 3 s, and should be sent again.
        """
        began = time.perf_counter()
        outcome = "failed"
        try:
            failpoint("webhook.before_verify")
            if refusal := self._verify(provider, headers, body):
                outcome = "refused"
                log.warning("webhook_refused", provider=provider, why=refusal, bytes=len(body))
                telemetry.WEBHOOKS_REFUSED.add(1, {"provider": provider, "reason": refusal})
                raise WebhookRefused("the signature does not verify", provider=provider)
            try:
                async with asyncio.timeout(_STORED_WITHIN_S):
                    delivered = await self._inbox.store(provider, body)
            except TimeoutError:
                raise _not_stored("the webhook was not stored in time") from None
            except StoreUnavailable:
                outcome = "not_stored"
                raise
            outcome = "duplicate" if delivered.duplicate else str(delivered.outcome)
            log.debug("webhook", provider=provider, webhook_id=delivered.webhook_id, outcome=outcome)
            return delivered
        finally:
            attributes = {"provider": provider, "outcome": outcome}
            telemetry.WEBHOOKS.add(1, attributes)
            telemetry.WEBHOOK_DURATION.record(time.perf_counter() - began, attributes)

    def _verify(self, provider: Provider, headers: Iterable[tuple[str, str]], body: bytes) -> Refusal | None:
        header = only(headers, SIGNATURE[provider])
        if isinstance(header, Refusal):
            return header
        if len(body) > LARGEST:
            return Refusal.MALFORMED
        if provider is Provider.MUX:
            return from_mux(header, body, self._mux_secrets, now=time.time())
        return from_livekit(header, body, self._livekit_secrets)


def _not_stored(message: str) -> StoreUnavailable:
    unavailable = StoreUnavailable(message)
    unavailable.retry_after = timedelta(seconds=1)
    return unavailable
