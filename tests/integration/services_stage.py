"""The services beside BroadcastService, built as the service builds them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from service.api.services.admin import AdminApi
from service.api.services.playback import PlaybackApi
from service.api.services.webhooks import WebhookApi
from service.domain.audience.rhythm import keep_alive_s
from service.domain.orphans import Found, Reaped
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.livekit.tokens import Tokens
from service.store.audience.counts import AudienceCounts
from service.store.audience.slots import AudienceSlots
from service.store.leases import Leases
from service.store.viewers import Viewers
from service.store.webhooks.inbox import Inbox
from service.store.webhooks.stored import StoredWebhooks
from service.webhooks.delivery import Deliveries
from service.webhooks.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from service.domain.orphans import Orphans
    from tests.integration.api_stage import Behind

KEY, SECRET = "livekit-key", "a-livekit-secret-of-at-least-thirty-two-bytes"
MUX_SECRET = "whsec-of-the-test"
PLAYBACK = "https://stream.mux.com"


class NoOrphans:
    async def find(self) -> Found:
        return Found(orphans=(), incomplete=())

    async def reap(self, external_ids: Collection[str], *, dry_run: bool) -> Reaped:
        del external_ids, dry_run
        return Reaped(removed=(), remaining=(), incomplete=())


def inbox_of(behind: Behind) -> Inbox:
    return Inbox(behind.database, behind.sealer, Reader(tag="bs1:test:").read)


def unseen(_broadcast_id: str, _viewer_id: str) -> None:
    """Nobody counts."""


def playback_api(behind: Behind, saw: Callable[[str, str], None] = unseen) -> PlaybackApi:
    return PlaybackApi(
        broadcasts=behind.broadcasts,
        viewers=Viewers(behind.database),
        tokens=Tokens("wss://livekit.test", KEY, Secret(SECRET)),
        now=behind.database.now,
        playback_base_url=PLAYBACK,
        audience=AudienceCounts(behind.database, AudienceSlots(behind.database)),
        saw=saw,
        keep_alive_s=keep_alive_s(Timing()),
    )


def webhook_api(behind: Behind) -> WebhookApi:
    deliveries = Deliveries(inbox_of(behind), livekit_secrets={KEY: Secret(SECRET)}, mux_secrets=[Secret(MUX_SECRET)])
    return WebhookApi(deliveries.deliver)


def admin_api(behind: Behind, orphans: Orphans) -> AdminApi:
    return AdminApi(
        broadcasts=behind.broadcasts,
        leases=Leases(behind.database, owner="one", ttl=timedelta(seconds=20)),
        inbox=inbox_of(behind),
        webhooks=StoredWebhooks(behind.database),
        orphans=orphans,
        wake=behind.wake,
        playback_base_url=PLAYBACK,
    )
