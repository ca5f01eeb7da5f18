"""The webhooks in the inbox, as people and replays look at them. Bodies stay sealed: what is shown is redacted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from service.domain.errors import WebhookNotFound
from service.store.database import Database

if TYPE_CHECKING:
    from service.store.database import Connection

_COLUMNS = (
    "id, provider, event_id, type, broadcast_id, outcome, provider_time, receive_time, apply_time, delivery_count"
)
_NOT_ASKED = "'' AS redacted"


class WebhookOutcome(StrEnum):
    ACCEPTED = "accepted"
    """It is about a broadcast of ours, and woke it."""
    FOREIGN = "foreign"
    """It is about nothing of ours."""
    UNKNOWN_TYPE = "unknown_type"
    """Nothing is done for its type."""
    QUARANTINED = "quarantined"
    """Signed, and cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWebhook:
    id: int
    provider: str
    event_id: str
    type: str
    broadcast_id: str
    outcome: WebhookOutcome
    provider_time: datetime | None
    receive_time: datetime
    apply_time: datetime | None
    delivery_count: int
    redacted: str
    """Empty where it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFilter:
    """Empty: any."""

    provider: str = ""
    broadcast_id: str = ""
    type: str = ""
    outcome: str = ""


class StoredWebhooks:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, filter: WebhookFilter, *, limit: int, before_id: int | None = None, bodies: bool = False
    ) -> list[StoredWebhook]:
        """Newest first, those with an id below *before_id*. *bodies*: with `redacted`."""
        # The outcome is no parameter: a plan for any of them could not use the index of those that are not accepted.
        where = [f"outcome = '{WebhookOutcome(filter.outcome)}'"] if filter.outcome else []
        values: list[Any] = []
        for condition, value in (
            ("provider = {}", filter.provider),
            ("broadcast_id = {}", filter.broadcast_id),
            ("type = {}", filter.type),
            ("id < {}", before_id),
        ):
            if value not in ("", None):
                values.append(value)
                where.append(condition.format(f"${len(values)}"))
        values.append(limit)
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS}, {'redacted' if bodies else _NOT_ASKED} FROM webhook "  # noqa: S608 - bound
                f"WHERE {' AND '.join(where) or 'true'} ORDER BY id DESC LIMIT ${len(values)}",
                *values,
            )
        return [_stored(row) for row in rows]

    async def get(self, webhook_id: int) -> StoredWebhook:
        """Raises WebhookNotFound, StoreUnavailable."""
        async with self._database.connection() as connection:
            return await get_webhook(connection, webhook_id)


async def get_webhook(connection: Connection, webhook_id: int) -> StoredWebhook:
    """`StoredWebhooks.get` as a part of a transaction."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, redacted FROM webhook WHERE id = $1",  # noqa: S608 - a constant
        webhook_id,
    )
    if row is None:
        raise WebhookNotFound(f"there is no webhook {webhook_id}", webhook_id=str(webhook_id))
    return _stored(row)


def _stored(row: Any) -> StoredWebhook:
    return msgspec.convert(dict(row), StoredWebhook)
