"""The role that takes webhooks in, over HTTP, and answers an orchestrator's questions on the same port.

It has a pool of its own, so that callers who keep the other pool busy do not make a provider wait for its answer.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from service.app import descriptors
from service.app.owner import connect
from service.store.webhooks.inbox import Inbox
from service.webhooks.connections import Connections
from service.webhooks.delivery import Deliveries
from service.webhooks.intake import Intake
from service.webhooks.reading import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from service.app.shared import Shared
    from service.domain.provider import Provider
    from service.store.webhooks.inbox import Delivered

_POOL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksRole:
    deliver: Callable[[Provider, Iterable[tuple[str, str]], bytes], Awaitable[Delivered]]
    """For webhooks that come another way, such as by gRPC."""
    inbox: Inbox
    """Over the shared pool, for callers."""
    kept: timedelta
    """How long webhooks are kept."""
    start: Callable[[], Awaitable[int]]
    """Listen; the port. Raises OSError if it is taken."""
    drain: Callable[[], None]
    """Readiness off."""

    async def forget(self) -> int:
        """Delete webhooks that came longer ago than they are kept, a bounded number. Answers how many. Raises
        StoreUnavailable.
        """
        return await self.inbox.forget(older_than=self.kept)


@contextlib.asynccontextmanager
async def webhooks_role(shared: Shared) -> AsyncGenerator[WebhooksRole]:
    """It takes webhooks in until it is left: a drain need not stop it. Raises StoreUnavailable, OSError."""
    settings = shared.settings
    # A provider sends again what was not stored: sooner is better than after a long wait for a locked row.
    database = await connect(
        settings,
        size=_POOL,
        statement_timeout=timedelta(seconds=2),
        lock_timeout=timedelta(seconds=0.5),
    )
    try:
        read = Reader(tag=shared.providers.tag, mux_environment=settings.mux_environment_id).read
        deliver = Deliveries(
            Inbox(database, shared.sealer, read),
            livekit_secrets={
                settings.livekit_api_key: settings.livekit_api_secret,
                **dict(settings.livekit_webhook_secrets),
            },
            mux_secrets=settings.mux_webhook_secrets,
        ).deliver
        intake = Intake(
            deliver=deliver,
            ready=shared.database_serves,
            refused=lambda: shared.providers.refusals.refused,
            host=settings.http_host,
            port=settings.http_port,
            connections=Connections(descriptors.for_http()),
        )
        try:
            yield WebhooksRole(
                deliver=deliver,
                inbox=Inbox(shared.database, shared.sealer, read),
                kept=settings.webhooks_kept,
                start=intake.start,
                drain=intake.drain,
            )
        finally:
            await intake.stop()
    finally:
        await database.close()
