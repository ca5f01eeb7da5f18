"""The database of a replica, as its settings say: its pools, whose it is, and the commands for it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.domain.provider import Provider
from service.domain.secret import Secret
from service.store.bound import Owner, bind, forget_keys
from service.store.database import Database
from service.store.history import History

if TYPE_CHECKING:
    from datetime import timedelta

    from service.settings.settings import Settings


async def connect(settings: Settings, *, size: int, **timeouts: timedelta) -> Database:
    """A pool as the settings say. *timeouts*: see `Database.connect`. Raises StoreUnavailable, OSError."""
    listen = settings.database_listen_url
    return await Database.connect(
        settings.database_url.reveal(),
        size=size,
        pooler=settings.database_pooler,
        listen_dsn=listen.reveal() if listen is not None else "",
        **timeouts,
    )


def owner_of(settings: Settings) -> Owner:
    """LiveKit's account is its host with the id of the API key. Mux's is its environment, or the id of the token."""
    mux = [f"token {settings.mux_token_id}"]
    if settings.mux_environment_id:
        mux.append(f"environment {settings.mux_environment_id}")
    host = urlsplit(settings.livekit_url).netloc.lower()
    return Owner(
        environment=settings.environment,
        accounts={Provider.LIVEKIT.value: [f"{host} key {settings.livekit_api_key}"], Provider.MUX.value: mux},
    )


async def bind_database(settings: Settings, *, again: bool) -> None:
    """Bind a migrated database to the accounts of *settings*; with *again* instead of those it is bound to.

    Raises StoreUnavailable.
    """
    database = await connect(settings, size=2)
    try:
        async with database.transaction() as connection:
            await bind(connection, owner_of(settings), again=again)
    finally:
        await database.close()


async def begin_history(database_url: Secret) -> None:
    """Say that the database lost commits, see `History`. Raises StoreUnavailable."""
    # As behind a pooler, which is right without one too: no other setting need be there.
    database = await Database.connect(database_url.reveal(), size=2, pooler=True)
    try:
        await History(database).lost()
    finally:
        await database.close()


async def forget_old_keys(settings: Settings) -> int:
    """Raises Refused, StoreUnavailable."""
    database = await connect(settings, size=2)
    try:
        return await forget_keys(database, settings.secret_keys)
    finally:
        await database.close()
