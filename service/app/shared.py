"""What the roles of one process share: the database, the providers with their budget, the leases.

Nothing here starts a task. A role takes what it needs of `Shared`, so it can run in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service.app.owner import connect, owner_of
from service.domain.broadcast import seconds
from service.domain.errors import StoreUnavailable
from service.providers.budget import Budget
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.providers.mux.signing import Signer
from service.providers.storage.links import Storage
from service.reconciler.act.requests import Providers, room_wanted
from service.store.bound import check
from service.store.broadcasts import Broadcasts
from service.store.budgets import Budgets
from service.store.changes import Changes
from service.store.database import Database
from service.store.history import History
from service.store.leases import Leases
from service.store.migrate import pending
from service.store.owned_ids import OwnedIds
from service.store.rows import Rows
from service.store.sealing import Sealer
from service.store.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from service.domain.ports import HostTokens, Moderation, PlaybackTokens, ViewerTokens
    from service.settings.settings import Settings

log = structlog.get_logger(__name__)

_DATABASE_ANSWERS_WITHIN_S = 2.0


class SchemaBehind(Exception):
    """The database misses migrations of this version. The message names them and the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    settings: Settings
    database: Database
    sealer: Sealer
    rows: Rows
    broadcasts: Broadcasts
    changes: Changes
    leases: Leases
    owned_ids: OwnedIds
    upkeep: Upkeep
    history: History
    providers: Providers
    host_tokens: HostTokens
    viewer_tokens: ViewerTokens
    moderation: Moderation
    playback_tokens: PlaybackTokens | None
    """None: there is no signing key."""

    @property
    def longest_call(self) -> timedelta:
        return longest_call(self.settings)

    async def database_serves(self) -> bool:
        """Whether the database answers within two seconds, and takes writes."""
        return await answers(self.database)


async def answers(database: Database) -> bool:
    """`Shared.database_serves`, of any pool."""
    try:
        # Not wait_for, which in Python 3.11 loses a cancellation that comes in the moment of the answer.
        async with asyncio.timeout(_DATABASE_ANSWERS_WITHIN_S):
            return await database.writable()
    except (StoreUnavailable, TimeoutError):
        return False
    except Exception:
        log.exception("database_not_looked_at")
        return False


def longest_call(settings: Settings) -> timedelta:
    """A call that outlived its lease would still be under way when another replica takes the broadcast over."""
    return settings.lease * 0.75


@contextlib.asynccontextmanager
async def shared(settings: Settings) -> AsyncGenerator[Shared]:
    """Open it, and close it when every role has ended. Raises StoreUnavailable, OSError, SchemaBehind,
    and Refused for a database that is another's.
    """
    async with contextlib.AsyncExitStack() as opened:
        database = await connect(settings, size=settings.database_pool)
        opened.push_async_callback(database.close)
        async with database.connection() as connection:
            if missing := await pending(connection):
                raise SchemaBehind(f"run `migrate` first: {', '.join(missing)}")
        await check(database, owner_of(settings), settings.secret_keys)
        sealer = Sealer(settings.secret_keys)
        rows = Rows(sealer)
        tag = f"bs1:{settings.environment}:"
        storage = settings.storage
        livekit = LiveKit(
            url=settings.livekit_url,
            api_key=settings.livekit_api_key,
            api_secret=settings.livekit_api_secret,
            public_url=settings.livekit_public_url,
            longest_call=longest_call(settings),
            longest_start=seconds(settings.timing.start_answer_s),
            room_of=lambda name: room_wanted(name, tag, settings.timing),
            storage=storage,
            template_url=settings.egress_template_url,
        )
        opened.push_async_callback(livekit.close)
        mux = Mux(
            base_url=settings.mux_base_url,
            token_id=settings.mux_token_id,
            token_secret=settings.mux_token_secret,
            ingest_url=settings.mux_ingest_url,
            longest_call=longest_call(settings),
        )
        opened.push_async_callback(mux.close)
        providers = Providers(
            rooms=livekit.rooms,
            egresses=livekit.egresses,
            streams=mux.streams,
            uploads=mux.uploads,
            budget=Budget(Budgets(database).take, settings.limits),
            tag=tag,
            pooled=bool(settings.pool),
            storage=Storage(storage) if storage is not None else None,
            files=f"{storage.prefix}/{settings.environment}/" if storage is not None else "",
        )
        yield Shared(
            settings=settings,
            database=database,
            sealer=sealer,
            rows=rows,
            broadcasts=Broadcasts(database, rows),
            changes=Changes(database, rows),
            leases=Leases(database, owner=settings.replica, ttl=settings.lease),
            owned_ids=OwnedIds(database),
            upkeep=Upkeep(database, lease=settings.lease),
            history=History(database),
            providers=providers,
            host_tokens=livekit.tokens,
            viewer_tokens=livekit.tokens,
            moderation=livekit.rooms,
            playback_tokens=Signer(settings.mux_signing_keys) if settings.mux_signing_keys else None,
        )
