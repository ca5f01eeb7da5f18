"""The change log: appended in the transaction of the change, read by cursor.

Revision order is commit order: the commit of every transaction takes the counter row `head`, inside the server, and
holds it until it is done. So a reader that has seen revision n has seen everything before it, and a watcher needs no
queue, only a cursor. NOTIFY says only that the head moved; every reader also polls, so a lost notification costs time
and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import structlog

from service.domain.broadcast import Broadcast, State
from service.domain.lifecycle import Event
from service.domain.reasons import Actor, EventReason
from service.domain.words import as_stored
from service.store.database import AT_ONCE, UNAVAILABLE, Database, changed_rows
from service.store.history import HISTORY, History, settled
from service.store.rows import Rows

if TYPE_CHECKING:
    from service.store.database import Connection

log = structlog.get_logger(__name__)

CHANGED = "broadcast_changed"
DUE = "broadcast_due"
_RECONNECT_S, _LONGEST_RECONNECT_S = 0.5, 3.0

# Numbered and moved into the log by the commit, see 0013_log_at_commit.sql.
_APPEND = """
INSERT INTO pending_change (broadcast_id, reasons, messages, actor, previous) VALUES ($1, $2, $3, $4, $5)
"""

_LAST_OF_OLD = """
SELECT max(revision) FROM (SELECT revision, time FROM event WHERE revision > $1 ORDER BY revision LIMIT $2) AS first
WHERE time < now() - $3::interval
"""


_BOUNDS = f"""
SELECT floor, revision, {HISTORY} AS history,
  (SELECT time FROM event WHERE event.revision = head.revision) AS newest,
  (SELECT time FROM event WHERE event.revision = $1) AS at FROM head
"""  # noqa: S608 - constants


class LogRewound(Exception):
    """The change log does not hold the event that a reader saw last: the database lost commits."""

    def __init__(self, history: str) -> None:
        super().__init__(history)
        self.history = history
        """The id of the history whose commits are lost."""


class Bounds(NamedTuple):
    """The ends of the change log, read at one moment."""

    floor: int
    """The newest revision that was removed, and everything before it was."""
    head: int
    """The newest revision."""
    history: str
    """The id of the history: revisions of two histories cannot be compared."""
    time: datetime | None
    """When the newest change was made. None: it was removed, or there is none."""


class Read(NamedTuple):
    changes: list[LoggedChange]
    """Oldest first."""
    up_to: int
    """The answer is complete up to this revision."""
    floor: int
    """As in Bounds. Above the revision that was asked for, changes are missing that were removed."""
    history: str
    """As in Bounds."""
    time: datetime | None
    """When the change `up_to` was made. None: it was removed, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The fields of a broadcast that a filter asks for and that may change, as they were before the change."""

    state: State
    labels: dict[str, str]
    owner_id: str
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    revision: int
    broadcast: Broadcast
    before: Before | None
    """None: the broadcast was created by this change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryEvent:
    revision: int
    broadcast_id: str
    time: datetime
    reason: EventReason
    message: str
    actor: Actor
    state: State


async def append(
    connection: Connection, broadcast_id: str, events: Sequence[Event], *, actor: Actor, before: Broadcast | None
) -> None:
    """Append *events* as one change, at the commit of the transaction: only then they have revisions, and the snapshot
    of the broadcast is as the transaction leaves it.

    *before*: the broadcast before the transaction. None: it did not exist.
    """
    previous: dict[str, Any] | None = None
    if before is not None:
        previous = {
            "state": before.state,
            "labels": before.labels,
            "owner_id": before.spec.owner_id,
            "deleted": before.deleted,
        }
    await connection.execute(
        _APPEND,
        broadcast_id,
        [event.reason for event in events],
        [event.message for event in events],
        actor,
        previous,
    )


class Changes:
    """Every method raises StoreUnavailable."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self._database = database
        self._rows = rows
        self._history = History(database)

    async def head(self) -> int:
        """The newest revision."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT revision FROM head")

    async def floor(self) -> int:
        """The newest revision that was removed, and everything before it was."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT floor FROM head")

    async def bounds(self) -> Bounds:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_BOUNDS, 0)
        assert row is not None  # noqa: S101 - for the type checker: the migration made the row
        return Bounds(row["floor"], row["revision"], settled(row["history"]), row["newest"])

    async def after(self, revision: int, *, limit: int = 200, seen: datetime | None = None) -> Read:
        """Changes after *revision*.

        *seen*: the time of the change *revision*, as the reader saw it. Raises LogRewound if it is not in the log as it
        was seen. Without *seen* only a log that is shorter is noticed.
        """
        # One snapshot: between the two reads a trim could remove events below the floor that was read.
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(_BOUNDS, revision)
            assert row is not None  # noqa: S101 - as above
            head, floor, history = row["revision"], row["floor"], settled(row["history"])
            if head < revision or (seen is not None and floor < revision and row["at"] != seen):
                raise LogRewound(history)
            found = await connection.fetch(
                "SELECT revision, time, snapshot, previous FROM event "
                "WHERE revision > $1 AND revision <= $2 AND snapshot IS NOT NULL ORDER BY revision LIMIT $3",
                revision,
                head,
                limit,
            )
        changes = [
            LoggedChange(
                revision=row["revision"],
                broadcast=self._rows.broadcast(row["snapshot"]),
                before=None if row["previous"] is None else _before(row["previous"]),
            )
            for row in found
        ]
        if len(changes) == limit:
            return Read(changes, changes[-1].revision, floor, history, found[-1]["time"])
        return Read(changes, head, floor, history, row["newest"])

    async def begin_history(self, earlier: str) -> None:
        """After LogRewound, see `History.begin`. *earlier*: the history that it names."""
        await self._history.begin(earlier, why="the change log is not the one that was read before")

    async def story(self, broadcast_id: str, *, after: int, limit: int) -> list[StoryEvent]:
        """The events of one broadcast after a revision, oldest first; none if there is no such broadcast."""
        async with self._database.connection() as connection:
            found = await connection.fetch(
                "SELECT revision, broadcast_id, time, reason, message, actor, state FROM event "
                "WHERE broadcast_id = $1 AND revision > $2 ORDER BY revision LIMIT $3",
                broadcast_id,
                after,
                limit,
            )
        return [
            StoryEvent(
                revision=row["revision"],
                broadcast_id=row["broadcast_id"],
                time=row["time"],
                reason=as_stored(EventReason, row["reason"]),
                message=row["message"],
                actor=as_stored(Actor, row["actor"]),
                state=State(row["state"]),
            )
            for row in found
        ]

    async def trim(self, *, older_than: timedelta) -> int:
        """Remove events that are older, AT_ONCE at most, and raise the floor to the last of them. Answers how many were
        removed.

        Revisions are in the order of time but for the length of a transaction, so the old ones are the first by key.
        The counter row is locked last, because every writer waits for it.
        """
        async with self._database.transaction() as connection:
            floor = await connection.fetchval("SELECT floor FROM head")
            last = await connection.fetchval(_LAST_OF_OLD, floor, AT_ONCE, older_than)
            if last is None:
                return 0
            removed = await connection.execute("DELETE FROM event WHERE revision > $1 AND revision <= $2", floor, last)
            await connection.execute("UPDATE head SET floor = greatest(floor, $1)", last)
            return changed_rows(removed)


def _before(value: dict[str, Any]) -> Before:
    return Before(
        state=State(value["state"]), labels=value["labels"], owner_id=value["owner_id"], deleted=value["deleted"]
    )


class Listener:
    """LISTEN with reconnect. A notification is a hint: the polls of its receivers find what it misses."""

    def __init__(self, database: Database, handlers: dict[str, Callable[[str], None]]) -> None:
        """*handlers*: by channel; each is called with the payload, and with an empty one after a reconnect."""
        self._database = database
        self._handlers = handlers
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled."""
        pause, failed = _RECONNECT_S, ""
        while True:
            try:
                await self._listen_once()
                pause, failed = _RECONNECT_S, ""
            except (*UNAVAILABLE, asyncpg.PostgresError) as error:
                if self.connected.is_set():
                    pause = _RECONNECT_S
                if type(error).__name__ != failed:
                    log.info("listener_reconnects", error=type(error).__name__)
                failed = type(error).__name__
            self.connected.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RECONNECT_S)

    async def _listen_once(self) -> None:
        connection = await self._database.listen_connection()
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            for channel, handler in self._handlers.items():
                await connection.add_listener(channel, _adapt(handler))
            self.connected.set()
            for handler in self._handlers.values():
                # Notifications sent while there was no connection are lost.
                handler("")
            await lost.wait()
        finally:
            with contextlib.suppress(*UNAVAILABLE):
                await connection.close(timeout=1)


def _adapt(handler: Callable[[str], None]) -> Callable[..., None]:
    def notified(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        handler(str(payload))

    return notified
