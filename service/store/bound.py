"""Whose database this is, and with which keys it was sealed: both are checked before a replica does anything.

A replica of another environment, or with other accounts at the providers, would find none of the resources of the
broadcasts that are stored, and would end them all. One with other keys could read no stream key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from service.domain.errors import StoreUnavailable
from service.store.database import Connection, Database
from service.store.sealing import CannotOpen, Sealer

log = structlog.get_logger(__name__)

REBIND = "python -m service migrate --rebind"
FORGET_KEYS = "python -m service migrate --forget-keys"
_CANARY, _CANARY_ROW = "canary", "sealing_key"
# What a key is needed for: the newest first, because they are the likeliest to be in use.
_SEALED = """
(SELECT 'broadcast/' || id AS row, secrets AS sealed FROM broadcast
 WHERE secrets IS NOT NULL AND state NOT IN ('ENDED', 'FAILED') ORDER BY create_time DESC LIMIT 1000)
UNION ALL
(SELECT r.kind || '/' || r.broadcast_id || '/' || r.ordinal, r.secret FROM resource r JOIN broadcast b
 ON b.id = r.broadcast_id WHERE r.secret IS NOT NULL AND b.state NOT IN ('ENDED', 'FAILED')
 ORDER BY b.create_time DESC LIMIT 1000)
"""


class Refused(Exception):
    """The database is another's, or was sealed with other keys. The message is one line without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a database is."""

    environment: str
    accounts: Mapping[str, Sequence[str]]
    """By provider: names of one account, never secrets. Two accounts are the same if they have a name in common."""

    def differs(self, other: Owner) -> str:
        """In words, what differs from *other*. Empty: nothing does."""
        if self.environment != other.environment:
            return f"environment {other.environment!r}, not {self.environment!r}"
        for provider, names in sorted(self.accounts.items()):
            theirs = other.accounts.get(provider, names)
            if not set(names) & set(theirs):
                return f"the {provider} account {', '.join(theirs)}, not {', '.join(names)}"
        return ""


async def check(database: Database, owner: Owner, keys: Sequence[bytes]) -> None:
    """Refuse a database that is another's, or that none of *keys* opens. The first replica on a new database binds it.

    Raises Refused, StoreUnavailable. Whatever is bound already is only read, so a database that takes no writes is no
    reason to refuse.
    """
    async with database.connection() as connection:
        bound = await _bound(connection)
        if bound is not None and (difference := owner.differs(bound)):
            raise Refused(f"DATABASE_URL: this database is bound to {difference}; to move it for good: {REBIND}")
        fresh = await _check_keys(connection, keys)
    try:
        async with database.transaction() as connection:
            if bound is None:
                await bind(connection, owner)
            if fresh:
                await connection.execute("INSERT INTO sealing_key (canary) VALUES ($1)", _canary(keys))
    except StoreUnavailable as error:
        log.warning("database_not_bound", reason=error.message)


async def bind(connection: Connection, owner: Owner, *, again: bool = False) -> None:
    """Remember *owner*, unless one is remembered already. *again*: instead of that one."""
    if again:
        await connection.execute("DELETE FROM bound")
    await connection.execute(
        "INSERT INTO bound (environment, accounts) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        owner.environment,
        {provider: list(names) for provider, names in owner.accounts.items()},
    )


async def forget_keys(database: Database, keys: Sequence[bytes]) -> int:
    """Forget the keys that are not among *keys*, at the end of a rotation. Answers how many.

    Raises Refused while a broadcast that is not over needs one of them; StoreUnavailable.
    """
    sealer = Sealer(keys)
    async with database.transaction() as connection:
        if stuck := await _unopened(connection, sealer):
            raise Refused(f"BROADCAST_SECRET_KEYS: {stuck} of a broadcast that is not over needs another key")
        rows = await connection.fetch("SELECT ctid::text AS at, canary FROM sealing_key")
        old = [row["at"] for row in rows if not _opens(sealer, row["canary"], _CANARY_ROW)]
        for at in old:
            await connection.execute("DELETE FROM sealing_key WHERE ctid = $1::text::tid", at)
    return len(old)


async def _bound(connection: Connection) -> Owner | None:
    row = await connection.fetchrow("SELECT environment, accounts FROM bound")
    return None if row is None else Owner(environment=row["environment"], accounts=row["accounts"])


async def _check_keys(connection: Connection, keys: Sequence[bytes]) -> bool:
    """Whether the first of *keys* is new here. Raises Refused if something is stored that none of them opens."""
    all_keys, first = Sealer(keys), Sealer(keys[:1])
    rows = await connection.fetch("SELECT canary, first_used FROM sealing_key ORDER BY first_used")
    for row in rows:
        if not _opens(all_keys, row["canary"], _CANARY_ROW):
            raise Refused(
                "BROADCAST_SECRET_KEYS: none of the keys opens what was sealed since "
                f"{row['first_used']:%Y-%m-%d %H:%M} UTC: put that key behind the present ones "
                f"(at the end of a rotation: {FORGET_KEYS})"
            )
    if not rows and (stuck := await _unopened(connection, all_keys)):
        raise Refused(f"BROADCAST_SECRET_KEYS: none of the keys opens {stuck}: put its key behind the present ones")
    return not any(_opens(first, row["canary"], _CANARY_ROW) for row in rows)


async def _unopened(connection: Connection, sealer: Sealer) -> str:
    """One of the rows that *sealer* does not open. Empty: it opens all."""
    rows = await connection.fetch(_SEALED)
    return next((row["row"] for row in rows if not _opens(sealer, row["sealed"], row["row"])), "")


def _canary(keys: Sequence[bytes]) -> bytes:
    return Sealer(keys[:1]).seal(_CANARY, row=_CANARY_ROW)


def _opens(sealer: Sealer, sealed: bytes, row: str) -> bool:
    try:
        sealer.open(sealed, row=row)
    except CannotOpen:
        return False
    return True
