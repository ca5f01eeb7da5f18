"""The reads and writes of callers, and the change log, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from service.domain.broadcast import Broadcast, Spec
from service.domain.errors import BroadcastExists, BroadcastNotFound, RequestIdReused
from service.domain.lifecycle import Change, Event, scheduled
from service.domain.reasons import Actor, EventReason
from service.domain.secret import Secret
from service.store.broadcasts import Filter, Request
from service.store.changes import Bounds, LoggedChange, LogRewound, Read, StoryEvent
from service.store.leases import lane_of
from tests.simulation.store.tables import Asked, Line, Row, Tables, Written, transactions


@transactions
class Broadcasts:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def create(
        self, broadcast_id: str, spec: Spec, keys: dict[str, Secret], labels: dict[str, str], request: Request
    ) -> Broadcast:
        await self._line.begin("create")
        tables = self._tables
        if (earlier := self._replayed(request)) is not None:
            return self._read(earlier)
        if broadcast_id in tables.rows:
            raise BroadcastExists(broadcast_id)
        now = tables.now()
        broadcast = Broadcast(
            id=broadcast_id, spec=spec, labels=labels, destination_keys=keys, create_time=now, update_time=now
        )
        if spec.scheduled_start_time is not None:
            broadcast = scheduled(broadcast, now)
        row = tables.rows[broadcast_id] = Row(broadcast=broadcast, due_at=broadcast.due_at)
        if spec.scheduled_start_time is not None:
            row.lane = lane_of(broadcast.target, ready=False)
        self._store_request(request, broadcast_id)
        events = (Event(reason=EventReason.CREATED),)
        tables.append(row, events, actor=Actor.CALLER, before=None)
        tables.written(Written(claim=None, row=row, before=None, after=broadcast, events=events))
        await self._line.commit("create")
        return replace(row.read(), destination_keys={})

    async def change(
        self,
        broadcast_id: str,
        decide: Callable[[Broadcast, datetime], Change | None],
        request: Request,
        point: str = "",  # noqa: ARG002 - the failpoints are those of Postgres
        *,
        trace_context: str | None = None,
    ) -> Broadcast:
        await self._line.begin("change")
        if (earlier := self._replayed(request)) is not None:
            return self._read(earlier)
        row = self._tables.rows.get(broadcast_id)
        if row is None or row.broadcast.deleted:
            raise BroadcastNotFound(broadcast_id)
        now = self._tables.now()
        stored = row.read()
        change = decide(stored, now)
        answer = stored
        if change is not None:
            self._write(row, change, stored, trace_context)
            answer = replace(change.broadcast, update_time=now, due_at=now if change.wake else change.broadcast.due_at)
        self._store_request(request, broadcast_id)
        await self._line.commit("change")
        return answer

    def _write(self, row: Row, change: Change, stored: Broadcast, trace_context: str | None) -> None:
        new, now = change.broadcast, self._tables.now()
        written = replace(
            stored,
            spec=new.spec,
            labels=new.labels,
            destination_keys=new.destination_keys,
            generation=new.generation,
            version=new.version,
            target=new.target,
            on_air=new.on_air,
            state=new.state,
            status=new.status,
            end_reason=new.end_reason,
            start_time=new.start_time,
            end_time=new.end_time,
            deleted=new.deleted,
            update_time=now,
        )
        self._tables.check_forward(stored, written)
        row.broadcast = written
        row.trace_context = trace_context or row.trace_context
        if change.wake:
            row.due_at = now
            row.lane = lane_of(new.target, ready=new.ready_time is not None)
            self._tables.notify("broadcast_due")
        elif change.requeue:
            row.due_at = new.due_at
            row.lane = lane_of(new.target, ready=new.ready_time is not None)
        self._tables.append(row, change.events, actor=Actor.CALLER, before=stored)
        self._tables.written(Written(claim=None, row=row, before=stored, after=written, events=tuple(change.events)))

    def _store_request(self, request: Request, broadcast_id: str) -> None:
        if request.id:
            self._tables.requests[request.id] = Asked(
                method=request.method,
                digest=request.digest,
                broadcast_id=broadcast_id,
                create_time=self._tables.now(),
            )

    def _replayed(self, request: Request) -> str | None:
        asked = self._tables.requests.get(request.id) if request.id else None
        if asked is None:
            return None
        if asked.method != request.method or asked.digest != request.digest:
            raise RequestIdReused(request.id, method=request.method)
        self._tables.replays += 1
        return asked.broadcast_id

    def _read(self, broadcast_id: str) -> Broadcast:
        row = self._tables.rows.get(broadcast_id)
        if row is None:
            raise BroadcastNotFound(broadcast_id)
        return replace(row.read(), destination_keys={})

    async def get(self, broadcast_id: str) -> Broadcast:
        await self._line.begin("get")
        broadcast = self._read(broadcast_id)
        if broadcast.deleted:
            raise BroadcastNotFound(broadcast_id)
        return broadcast

    async def list(
        self, filter: Filter, *, limit: int, before: tuple[datetime, str] | None = None
    ) -> tuple[Sequence[Broadcast], int]:
        await self._line.begin("list")
        found = [
            replace(row.read(), destination_keys={})
            for row in self._tables.rows.values()
            if not row.broadcast.deleted
            and (before is None or (row.broadcast.create_time, row.broadcast.id) < before)
            and filter.matches(
                id=row.broadcast.id,
                state=row.broadcast.state,
                labels=row.broadcast.labels,
                owner_id=row.broadcast.spec.owner_id,
                create_time=row.broadcast.create_time,
            )
        ]
        found.sort(key=lambda broadcast: (broadcast.create_time, broadcast.id), reverse=True)
        return found[:limit], self._tables.head

    async def forget_deleted(self, *, older_than: timedelta) -> int:
        await self._line.begin("forget_deleted")
        # No world is as old as the shortest time for which deleted rows are kept.
        assert older_than > timedelta(days=1)
        return 0

    async def forget_requests(self, *, older_than: timedelta) -> int:
        await self._line.begin("forget_requests")
        oldest = self._tables.now() - older_than
        old = [name for name, asked in self._tables.requests.items() if asked.create_time < oldest]
        for request_id in old:
            del self._tables.requests[request_id]
        await self._line.commit("forget_requests")
        return len(old)


@transactions
class Changes:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def head(self) -> int:
        await self._line.begin("head")
        return self._tables.head

    async def floor(self) -> int:
        await self._line.begin("floor")
        return self._tables.floor

    async def bounds(self) -> Bounds:
        await self._line.begin("bounds")
        return Bounds(self._tables.floor, self._tables.head, self._tables.history, self._time(self._tables.head))

    def _time(self, revision: int) -> datetime | None:
        return next((event.time for event in self._tables.events if event.revision == revision), None)

    async def begin_history(self, earlier: str) -> None:
        await self._line.begin("begin_history")
        self._tables.begin_history(earlier)
        await self._line.commit("begin_history")

    async def after(self, revision: int, *, limit: int = 200, seen: datetime | None = None) -> Read:
        await self._line.begin("after")
        tables = self._tables
        if tables.head < revision or (seen is not None and tables.floor < revision and self._time(revision) != seen):
            raise LogRewound(tables.history)
        changes = [
            LoggedChange(revision=event.revision, broadcast=event.snapshot, before=event.previous)
            for event in self._tables.events
            if event.revision > revision and event.snapshot is not None
        ][:limit]
        up_to = changes[-1].revision if len(changes) == limit else tables.head
        return Read(changes, up_to, tables.floor, tables.history, self._time(up_to))

    async def story(self, broadcast_id: str, *, after: int, limit: int) -> list[StoryEvent]:
        await self._line.begin("story")
        return [
            StoryEvent(
                revision=event.revision,
                broadcast_id=event.broadcast_id,
                time=event.time,
                reason=event.reason,
                message=event.message,
                actor=event.actor,
                state=event.state,
            )
            for event in self._tables.events
            if event.broadcast_id == broadcast_id and event.revision > after
        ][:limit]

    async def trim(self, *, older_than: timedelta) -> int:
        await self._line.begin("trim")
        tables, oldest = self._tables, self._tables.now() - older_than
        if not tables.events or tables.events[0].time >= oldest:
            return 0
        kept = [event for event in tables.events if event.time >= oldest]
        trimmed = len(tables.events) - len(kept)
        tables.floor = max(tables.floor, tables.events[trimmed - 1].revision)
        tables.events = kept
        await self._line.commit("trim")
        return trimmed
