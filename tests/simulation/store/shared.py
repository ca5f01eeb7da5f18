"""The tables that belong to no broadcast, in memory: budgets, owned ids, outages, the inbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from service.domain.broadcast import Target
from service.domain.ports import Heard
from service.domain.resources import Egress, Kind, LocalRecording, Phase, Resource, Room, Stream
from service.store.budgets import Reservation
from service.store.owned_ids import OwnedResource
from tests.simulation.store.tables import Bucket, Line, Looked, Row, Tables, Webhook, transactions

_QUEUES = 4
_REFUSED_FOR = timedelta(seconds=25)
_KNOWN_FOR = timedelta(seconds=60)
"""A look that is older says nothing about the time since."""


@transactions
class Budgets:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def take(
        self,
        name: str,
        *,
        rate: float,
        burst: float,
        floor: float,
        turn: datetime | None = None,
        queues: bool = True,
        wanted: int = 1,
    ) -> Reservation:
        await self._line.begin("take")
        now = self._tables.now()
        bucket = self._tables.buckets.get(name)
        if bucket is None:
            bucket = self._tables.buckets[name] = Bucket(tokens=burst, refilled_at=now, next_turns=[now] * _QUEUES)
        # After a step back of the clock no time has passed, and every turn is as far away as it was.
        ahead = max(bucket.refilled_at - now, timedelta())
        passed_s = max((now - bucket.refilled_at).total_seconds(), 0.0)
        tokens = min(burst, max(bucket.tokens, 0.0) + passed_s * rate)
        bucket.next_turns = [next_turn - ahead for next_turn in bucket.next_turns]
        called = turn is not None and turn <= now
        queue = min(int(floor), _QUEUES - 1)
        waiting = any(next_turn > now for next_turn in bucket.next_turns[: queue + 1])
        overtakes = queues and floor > 0 and not called and waiting
        taken = 0 if overtakes else max(min(int(tokens - floor), wanted), 0)
        step = timedelta(seconds=1 / rate)
        come_back = now + step
        if not taken and turn is not None and now < turn <= bucket.next_turns[queue]:
            come_back = turn
        elif not taken and queues and not called:
            come_back = bucket.next_turns[queue] = max(bucket.next_turns[queue], now) + step
        bucket.tokens, bucket.refilled_at = tokens - taken, now
        await self._line.commit("take")
        return Reservation(taken=taken, come_back=come_back)


@transactions
class OwnedIds:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def now(self) -> datetime:
        await self._line.begin("now")
        return self._tables.now()

    async def of_running(self) -> list[OwnedResource]:
        await self._line.begin("of_running")
        return [
            _known(broadcast_id, resource)
            for broadcast_id, row in self._tables.rows.items()
            if row.broadcast.target is Target.LIVE
            for resource in row.sorted_resources()
            if resource.phase is not Phase.GONE or (isinstance(resource, Egress | LocalRecording) and resource.fault)
        ]

    async def over(self, broadcast_ids: Sequence[str]) -> tuple[set[str], set[str]]:
        await self._line.begin("over")
        rows = {name: row for name in broadcast_ids if (row := self._tables.rows.get(name)) is not None}
        return set(rows), {name for name, row in rows.items() if _over(row)}

    async def owned(self, kind: Kind, external_ids: Sequence[str]) -> set[str]:
        await self._line.begin("owned")
        asked, owned = set(external_ids) - {""}, set[str]()
        for row in self._tables.rows.values():
            of_deleted = row.broadcast.deleted and kind is not Kind.STREAM
            kept = (Phase.PRESENT,) if of_deleted else tuple(each for each in Phase if each is not Phase.GONE)
            for resource in row.resources.values():
                if resource.kind is kind and resource.phase in kept:
                    owned.add(resource.external_id)
        return asked & owned

    async def pooled(self, entry_ids: Sequence[str]) -> set[str]:
        await self._line.begin("pooled")
        return set(entry_ids) & set(self._tables.pool)

    async def started(self, egress_ids: Sequence[str]) -> set[str]:
        await self._line.begin("started")
        kept = {each.external_id for row in self._tables.rows.values() for each in row.resources.values()}
        return set(egress_ids) & kept - {""}

    async def searching(self, kind: Kind, broadcast_ids: Sequence[str]) -> set[str]:
        await self._line.begin("searching")
        return {
            name
            for name in broadcast_ids
            if (row := self._tables.rows.get(name)) is not None
            and not row.broadcast.deleted
            and (
                row.unverified_since is not None
                or any(each.kind is kind and each.unresolved for each in row.resources.values())
            )
        }

    async def uploaded_since(self, moment: datetime) -> bool:
        await self._line.begin("uploaded_since")
        return any(
            each.kind is Kind.UPLOAD and each.intended_at >= moment
            for row in self._tables.rows.values()
            for each in row.resources.values()
        )


@transactions
class Outages:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def compared(self, providers: Sequence[str], began: datetime) -> None:
        await self._line.begin("compared")
        for provider in providers:
            if (looked := self._tables.looked.get(provider)) is not None:
                looked.compared_at = began
        await self._line.commit("compared")

    async def refused(self, provider: str, failure: tuple[str, str]) -> None:
        await self._line.begin("refused")
        tables, now = self._tables, self._tables.now()
        since, at = tables.refused.get(provider, (now, now))
        if at <= now - _KNOWN_FOR:
            since = now
        tables.refused[provider] = (since, now)
        if now - since >= _REFUSED_FOR:
            self._report(provider, failure, refused_since=since)
        await self._line.commit("refused")

    async def report(self, provider: str, failure: tuple[str, str] | None) -> None:
        await self._line.begin("report")
        if failure is None:
            self._tables.refused.pop(provider, None)
        self._report(provider, failure)
        await self._line.commit("report")

    def _report(self, provider: str, failure: tuple[str, str] | None, *, refused_since: datetime | None = None) -> None:
        tables, now = self._tables, self._tables.now()
        before = tables.outages().keys()
        code, message = failure or ("", "")
        earlier = before_it = tables.looked.get(provider)
        if earlier is not None and earlier.checked_at <= now - _KNOWN_FOR:
            earlier = None
        away, here = (earlier.unreachable_since, earlier.answering_since) if earlier is not None else (None, None)
        tables.looked[provider] = Looked(
            unreachable_since=None if failure is None else min(away or refused_since or now, now),
            answering_since=None if failure is not None else min(here or now, now),
            checked_at=now,
            code=code,
            message=message,
            compared_at=before_it.compared_at if before_it is not None else None,
        )
        if tables.outages().keys() != before:
            for row in tables.rows.values():
                if row.broadcast.target is Target.LIVE or (
                    row.broadcast.target is Target.ENDED and row.due is not None
                ):
                    row.due_at = now if row.due_at is None else min(row.due_at, now)
            tables.notify("broadcast_due")


@transactions
class Inbox:
    """Stores the facts of a webhook once, for the next pass. The real inbox reads them from a signed body."""

    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def store(self, provider: str, heard: Heard, broadcast_id: str, redacted: str = "") -> bool:
        """Whether it was the first of its kind."""
        await self._line.begin("inbox")
        tables = self._tables
        first = self._is_new(provider, heard.event_id)
        if first:
            tables.delivered[provider, heard.event_id] += 1
            webhook = Webhook(
                id=len(tables.stored) + 1,
                provider=provider,
                event_id=heard.event_id,
                broadcast_id=broadcast_id if broadcast_id in tables.rows else "",
                heard=heard,
                redacted=redacted,
                stored_at=tables.now(),
            )
            tables.webhooks.append(webhook)
            tables.stored.append(webhook)
            tables.wake([broadcast_id])
        else:
            tables.repeated += 1
        await self._line.commit("inbox")
        return first

    def _is_new(self, provider: str, event_id: str) -> bool:
        """False where the unique key of the table would refuse the row."""
        return (provider, event_id) not in self._tables.delivered

    async def forget(self) -> None:
        self._tables.webhooks = [
            webhook for webhook in self._tables.webhooks if webhook.broadcast_id and not webhook.applied
        ]


def _known(broadcast_id: str, resource: Resource) -> OwnedResource:
    return OwnedResource(
        broadcast_id=broadcast_id,
        kind=resource.kind,
        phase=resource.phase,
        external_id=resource.external_id,
        status=resource.status if isinstance(resource, Stream | Egress | LocalRecording) else "",
        host_publishing=resource.host_publishing if isinstance(resource, Room) else None,
        recorded=resource.recorded if isinstance(resource, Room) else None,
        updated_ns=resource.updated_ns if isinstance(resource, Egress | LocalRecording) else 0,
    )


def _over(row: Row) -> bool:
    return row.broadcast.state.over or (row.broadcast.state.at_rest and row.broadcast.deleted)
