"""The inbox: every webhook whose signature was verified, stored before it is answered, once for each event id.

A delivery stores the webhook and wakes its broadcast in one transaction. Only a pass takes a webhook into account,
because a pass is the only writer of resources: `Passes.record` marks it as applied in the transaction that stores what
came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

import asyncpg
import structlog

from service.domain.errors import WebhookNotFound
from service.domain.ports import Heard
from service.domain.provider import Provider
from service.failpoints import failpoint
from service.store.database import AT_ONCE, Database
from service.store.leases import NEWS, WAKE, wake
from service.store.rows import heard_column, postgres_text
from service.store.sealing import CannotOpen, Sealer
from service.store.webhooks.stored import StoredWebhook, WebhookOutcome, get_webhook

log = structlog.get_logger(__name__)

# The event of a simulcast target has no mark of ours, and that of a deleted stream or asset may have none. They are
# found by the id of the stream or asset, which is in a row.
_ABOUT = """
SELECT coalesce(
  (SELECT id FROM broadcast WHERE id = $1::text),
  (SELECT broadcast_id FROM resource WHERE kind = 'stream' AND external_id = $2::text AND external_id <> ''),
  (SELECT broadcast_id FROM resource WHERE kind = 'upload' AND external_id = $3::text AND external_id <> ''),
  '')
"""
# One statement, because a busy replica answers later with every round trip.
_STORE = f"""
WITH stored AS (
  INSERT INTO webhook (broadcast_id, provider, event_id, type, outcome, provider_time, heard, redacted, body)
  SELECT about.id, $4::text, $5::text, $6::text,
         CASE WHEN $7::text = 'accepted' AND about.id = '' THEN 'foreign' ELSE $7::text END,
         $8::timestamptz, $9::jsonb, $10::text, $11::bytea
  FROM ({_ABOUT}) AS about (id)
  ON CONFLICT (provider, event_id) DO UPDATE SET delivery_count = webhook.delivery_count + 1
  RETURNING id, broadcast_id, outcome, delivery_count > 1 AS duplicate),
woken AS (
  {WAKE.format(ids="ARRAY(SELECT broadcast_id FROM stored WHERE outcome = 'accepted' AND NOT duplicate)")}
  RETURNING CASE WHEN {NEWS} THEN pg_notify('broadcast_due', '') END)
SELECT id, outcome, duplicate FROM stored
"""  # noqa: S608 - a constant

_LONGEST_TYPE = 128
_LONG = 16 * 1024
"""Bytes. A longer body is read in a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What could be read in the body of a webhook."""

    event_id: str
    """At most 200 characters: it is part of an index. The body's SHA-256 if it has no usable id."""
    type: str
    outcome: WebhookOutcome
    """ACCEPTED becomes FOREIGN when it is stored, if there is no broadcast that it is about."""
    heard: Heard | None
    """None: it could not be read, and the outcome is QUARANTINED."""
    broadcast_id: str = ""
    """The broadcast that the body names. Empty: it names none of ours, but may name a stream or asset of one."""
    redacted: str = ""
    """The body for people, without its secrets."""


ReadBody = Callable[[Provider, bytes], Reading]
"""From the provider's name and the raw body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    webhook_id: int
    outcome: WebhookOutcome
    """As it is stored: of a duplicate, that of its first delivery."""
    duplicate: bool
    """An event with this id had been stored before."""


class Inbox:
    def __init__(self, database: Database, sealer: Sealer, read: ReadBody) -> None:
        """*database*: for deliveries a pool of their own, because a busy pool would delay the answer. *read* must not
        raise: a webhook whose signature was verified is stored whatever is in it.
        """
        self._database = database
        self._sealer = sealer
        self._read = read
        self._locks = WeakValueDictionary[str, asyncio.Lock]()

    async def store(self, provider: Provider, body: bytes) -> Delivered:
        """Store a webhook whose signature was verified, and wake the broadcast that it is about.

        *provider*: its name in the table (`livekit`, `mux`). *body*: byte for byte; it is stored encrypted. A webhook
        with an event id that is stored already only counts one delivery more. Raises StoreUnavailable: nothing was
        stored, and the provider should send it again.
        """
        if len(body) > _LONG:
            # Reading may take a second, and the event loop would stand still meanwhile.
            reading = await asyncio.to_thread(self._read, provider, body)
        else:
            reading = self._read(provider, body)
        event_id = postgres_text(reading.event_id)
        # Two deliveries about one broadcast wait for each other anyway. Here they wait without a connection.
        lock = self._locks.setdefault(next(filter(None, _about(reading)), event_id), asyncio.Lock())
        sealed = self._sealer.seal(body.decode("latin-1"), row=_identity(provider, event_id))
        failpoint("webhook.before_commit")
        async with lock, self._database.connection() as connection:
            row = await connection.fetchrow(_STORE, *_about(reading), provider, event_id, *_columns(reading), sealed)
        failpoint("webhook.after_commit")
        assert row is not None  # noqa: S101 - every branch of the statement returns a row
        return Delivered(webhook_id=row["id"], outcome=WebhookOutcome(row["outcome"]), duplicate=row["duplicate"])

    async def replay(self, webhook_id: int) -> StoredWebhook:
        """Read the stored body again and let the next pass take the webhook into account once more.

        This version may understand what an earlier one did not. If the body cannot be decrypted any more, what was read
        at the delivery is applied again. Raises WebhookNotFound, StoreUnavailable.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT provider, event_id, body, broadcast_id, outcome FROM webhook WHERE id = $1", webhook_id
            )
        if row is None:
            raise WebhookNotFound(webhook_id)
        reading = self._read_again(webhook_id, row)
        async with self._database.transaction() as connection:
            about, outcome = row["broadcast_id"], WebhookOutcome(row["outcome"])
            if reading is not None:
                about, outcome = await connection.fetchval(_ABOUT, *_about(reading)), reading.outcome
            if outcome is WebhookOutcome.ACCEPTED and not about:
                outcome = WebhookOutcome.FOREIGN
            if outcome is WebhookOutcome.ACCEPTED:
                # Locked in the order of a pass, the broadcast before its webhooks, or the two could deadlock.
                await wake(connection, [about])
            if reading is None:
                await connection.execute("UPDATE webhook SET apply_time = NULL WHERE id = $1", webhook_id)
            else:
                type_, _, *others = _columns(reading)
                await connection.execute(
                    "UPDATE webhook SET apply_time = NULL, broadcast_id = $2, type = $3, outcome = $4, "
                    "provider_time = $5, heard = $6, redacted = $7 WHERE id = $1",
                    webhook_id,
                    about,
                    type_,
                    outcome,
                    *others,
                )
            return await get_webhook(connection, webhook_id)

    def _read_again(self, webhook_id: int, row: asyncpg.Record) -> Reading | None:
        try:
            body = self._sealer.open(row["body"], row=_identity(Provider(row["provider"]), row["event_id"]))
        except CannotOpen:
            log.warning("webhook_body_sealed_for_ever", webhook_id=webhook_id)
            return None
        return self._read(Provider(row["provider"]), body.encode("latin-1"))

    async def forget(self, *, older_than: timedelta) -> int:
        """Delete webhooks received more than *older_than* ago, AT_ONCE at most. Answers how many were deleted.

        Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            return len(
                await connection.fetch(
                    "WITH old AS (SELECT id FROM webhook WHERE receive_time < now() - $1::interval "
                    "ORDER BY receive_time LIMIT $2) "
                    "DELETE FROM webhook USING old WHERE webhook.id = old.id RETURNING 1",
                    older_than,
                    AT_ONCE,
                )
            )


def _about(reading: Reading) -> tuple[str, str, str]:
    heard = reading.heard
    asset = heard.recording.asset_id if heard is not None and heard.recording is not None else ""
    return (
        postgres_text(reading.broadcast_id),
        postgres_text(heard.stream_id if heard is not None else ""),
        postgres_text(asset),
    )


def _columns(reading: Reading) -> tuple[Any, ...]:
    """Type, outcome, provider_time, heard, redacted."""
    return (
        postgres_text(reading.type, _LONGEST_TYPE),
        reading.outcome,
        reading.heard.provider_time if reading.heard is not None else None,
        heard_column(reading.heard),
        postgres_text(reading.redacted),
    )


def _identity(provider: Provider, event_id: str) -> str:
    return f"webhook/{provider}/{event_id}"
