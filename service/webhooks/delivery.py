"""The delivery of a webhook, by HTTP or by gRPC: it is verified, read, stored and counted.

A webhook is a hint: if it is lost, late, repeated or reordered, a change is noticed later, and that is all. So once its
signature was verified, it is never refused for its content. An error is answered only if it could not be stored, and
then the provider sends it again (Mux tries for a day; LiveKit takes any 4xx as delivered).
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
"""The largest body, in bytes."""
SIGNATURE = {Provider.LIVEKIT: "authorization", Provider.MUX: "mux-signature"}
"""By provider: the header with the signature, in lower case."""

# Mux waits 5 s for an answer and then sends the webhook again (mux.com/docs, Listen for webhooks).
_STORED_WITHIN_S = 3.0


class Deliveries:
    def __init__(self, inbox: Inbox, *, livekit_secrets: Mapping[str, Secret], mux_secrets: Sequence[Secret]) -> None:
        """*livekit_secrets*: API key to secret. While a secret is rotated, a provider has several. Without a secret,
        every webhook of the provider is refused.
        """
        self._inbox = inbox
        self._livekit_secrets = livekit_secrets
        self._mux_secrets = mux_secrets

    async def deliver(self, provider: Provider, headers: Iterable[tuple[str, str]], body: bytes) -> Delivered:
        """Verify and store one webhook. *headers*: names in any case. *body*: byte for byte, as it was signed.

        Raises WebhookRefused if the signature does not verify; nothing was stored. Raises StoreUnavailable if the
        webhook was not stored within 3 s, or the service cannot tell; the provider should send it again.
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
