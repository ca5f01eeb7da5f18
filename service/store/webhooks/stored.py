"""The stored webhooks, as people and replays look at them. Bodies stay sealed: what is shown is redacted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from service.domain.errors import WebhookNotFound
from service.domain.provider import Provider
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
    """Its signature is good, and its body cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWebhook:
    id: int
    provider: Provider
    event_id: str
    type: str
    broadcast_id: str
    outcome: WebhookOutcome
    provider_time: datetime | None
    """When it happened, by the provider's clock. None: it does not say."""
    receive_time: datetime
    """Of the first delivery, by the database clock."""
    apply_time: datetime | None
    """When a pass took it into account, by the database clock. None: no pass has, or none will."""
    delivery_count: int
    redacted: str
    """The body without its secrets. Empty if it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFilter:
    """An empty field matches every webhook."""

    provider: Provider | None = None
    broadcast_id: str = ""
    type: str = ""
    outcome: str = ""


class StoredWebhooks:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, filter: WebhookFilter, *, limit: int, before_id: int | None = None, bodies: bool = False
    ) -> list[StoredWebhook]:
        """Newest first. *before_id*: only those with a lower id. *bodies*: with `redacted`. Raises StoreUnavailable."""
        # The outcome is part of the text and no parameter: only then can the planner use the partial index on outcome.
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
        raise WebhookNotFound(webhook_id)
    return _stored(row)


def _stored(row: Any) -> StoredWebhook:
    return msgspec.convert(dict(row), StoredWebhook)
