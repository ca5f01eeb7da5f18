"""The services beside BroadcastService, built as the service builds them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from service.api.playback.board import Board
from service.api.playback.handles import Handles
from service.api.playback.sessions import Sessions
from service.api.services.admin import AdminApi
from service.api.services.playback import PlaybackApi
from service.api.services.webhooks import WebhookApi
from service.api.streams.playback import PlaybackWatches
from service.domain.audience.rhythm import keep_alive_s
from service.domain.errors import ProviderError
from service.domain.orphans import Found, Reaped
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.livekit.tokens import Tokens
from service.providers.mux.signing import Signer, SigningKey
from service.store.audience.counts import AudienceCounts
from service.store.audience.slots import AudienceSlots
from service.store.database import Database
from service.store.leases import Leases
from service.store.past_starts import PastStarts
from service.store.rows import Rows as Rows_
from service.store.shown import Shown, ShownBroadcasts
from service.store.viewers import Viewers
from service.store.webhooks.inbox import Inbox
from service.store.webhooks.stored import StoredWebhooks
from service.webhooks.delivery import Deliveries
from service.webhooks.reading import Reader
from tests.signing import signing_key_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

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


def playback_api(behind: Behind, saw: Callable[[str, str], None] | None = None) -> PlaybackApi:
    return Watching(behind, saw=saw).api


class Seen:
    """Who was counted as watching."""

    def __init__(self) -> None:
        self.viewers: list[tuple[str, str]] = []

    def saw(self, broadcast_id: str, viewer_id: str) -> None:
        self.viewers.append((broadcast_id, viewer_id))


class Rooms:
    """Who was put out of which room."""

    def __init__(self) -> None:
        self.put_out: list[tuple[str, str]] = []
        self.fails: ProviderError | None = None
        self.limited = False

    async def spare(self) -> bool:
        return not self.limited

    async def remove(self, name: str, identity: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.put_out.append((name, identity))


class Watching:
    """PlaybackService, and what it reached. What it shows is read anew for every call."""

    def __init__(
        self,
        behind: Behind,
        *,
        signing: bool = False,
        environment: str = "test",
        keys: Sequence[bytes] = (b"k" * 32,),
        fresh: timedelta = timedelta(),
        saw: Callable[[str, str], None] | None = None,
    ) -> None:
        self.audience = Seen()
        self.rooms = Rooms()
        self.life = timedelta(hours=2)
        self.sessions = Sessions(keys, environment=environment, life=self.life)
        signer = Signer([SigningKey.of("k1", signing_key_pem())]) if signing else None
        handles = Handles(signer, PLAYBACK)
        self.shown = CountedReads(behind.database, behind.rows)
        self.past_starts = PastStarts(behind.database)
        self.api = PlaybackApi(
            board=Board(self.shown, behind.tail, fresh=fresh),
            viewers=Viewers(behind.database),
            tokens=Tokens("wss://livekit.test", KEY, Secret(SECRET)),
            sessions=self.sessions,
            handles=handles,
            watches=PlaybackWatches(
                broadcasts=behind.broadcasts,
                changes=behind.changes,
                tail=behind.tail,
                handles=handles,
                past_starts=self.past_starts,
                now=behind.database.now,
                tokens_live=self.life,
            ),
            audience=AudienceCounts(behind.database, AudienceSlots(behind.database)),
            saw=saw or self.audience.saw,
            rooms=self.rooms,
            spare=self.rooms.spare,
            past_starts=self.past_starts,
            keep_alive_s=keep_alive_s(Timing()),
        )


class CountedReads(ShownBroadcasts):
    def __init__(self, database: Database, rows: Rows_) -> None:
        super().__init__(database, rows)
        self.reads: list[list[str]] = []

    async def read(self, broadcast_ids: Collection[str]) -> Mapping[str, Shown]:
        self.reads.append(sorted(broadcast_ids))
        return await super().read(broadcast_ids)


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
