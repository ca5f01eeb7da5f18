"""The newest part of the change log, read once for all watches of this process."""

import asyncio
import bisect
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

import structlog

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from service.api.messages.broadcast import broadcast_message
from service.api.messages.tokens import resume_token
from service.api.streams.moved import Moved
from service.domain.errors import ResumeTokenExpired, StoreUnavailable
from service.store.changes import Changes, LoggedChange, LogRewound

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_PAGE = 200
OTHER_HISTORY = "the database was replaced by one that may lack changes: begin again without a token"
_FORMS = 8
"""Messages that an entry keeps. Further filters get theirs made each time."""


class TailEntry:
    """A change, and the messages that tell of it. A message is serialised once for each type and filter."""

    __slots__ = ("_forms", "_history", "_message", "_playback_base_url", "change")

    def __init__(self, change: LoggedChange, history: str, playback_base_url: str) -> None:
        self.change = change
        self._history = history
        self._playback_base_url = playback_base_url
        self._message: pb.Broadcast | None = None
        self._forms: dict[tuple[rpc.ChangeType.ValueType, str], bytes] = {}

    @property
    def revision(self) -> int:
        return self.change.revision

    def serialised(self, type_: rpc.ChangeType.ValueType, digest: str) -> bytes:
        """A WatchBroadcastsResponse."""
        form = self._forms.get((type_, digest))
        if form is not None:
            return form
        if self._message is None:
            self._message = broadcast_message(self.change.broadcast, self._playback_base_url)
        change = rpc.BroadcastChange(type=type_, broadcast=self._message, revision=self.revision)
        form = rpc.WatchBroadcastsResponse(
            change=change, resume_token=resume_token(digest, self.revision, history=self._history)
        ).SerializeToString()
        if len(self._forms) < _FORMS:
            self._forms[type_, digest] = form
        return form


class Tail:
    """Reads the log as it grows and keeps its last *capacity* entries. A watch that is further behind reads the
    database.

    Invariant: the entries kept are every change after `_start` up to `_head`, in the order of revisions, and all of one
    history of the database. A watch of an earlier history is told that its place is lost.
    """

    def __init__(self, changes: Changes, moved: Moved, *, playback_base_url: str, capacity: int = 1000) -> None:
        self._changes = changes
        self._moved = moved
        self._playback_base_url = playback_base_url
        self._entries: deque[TailEntry] = deque()
        self._capacity = capacity
        self._start: int | None = None
        self._head = 0
        self._seen: datetime | None = None
        """When the change `_head` was made: a log that does not hold it is not the one that was read before."""
        self._history = ""
        """Empty: the log was not read yet."""
        self._failure: StoreUnavailable | None = None
        self.advanced = Moved()
        """Notified when there is more to read, and when the log cannot be read."""

    async def run(self) -> None:
        """Read for ever. Ends by cancellation alone: an error is told to the watches, and reading is tried again."""
        while True:
            seen = self._moved.count
            try:
                await self._read()
            except StoreUnavailable as error:
                self._fail(error)
                # Notices of changes may come while the database is away. They are no reason to try more often.
                await asyncio.sleep(_POLL_S / 2)
            except Exception:
                # A single row that cannot be read must not stop the watches of this process for ever.
                log.exception("change_log_unreadable")
                self._fail(StoreUnavailable("the change log cannot be read"))
                await asyncio.sleep(_POLL_S)
            else:
                await self._moved.wait(_POLL_S, since=seen)

    async def _read(self) -> None:
        if self._start is None:
            await self._begin()
        while True:
            try:
                changes, up_to, floor, history, time = await self._changes.after(
                    self._head, limit=_PAGE, seen=self._seen
                )
            except LogRewound as error:
                if error.history == self._history:
                    # Nobody noticed yet: the server is the same.
                    await self._changes.begin_history(error.history)
                await self._begin()
                continue
            if history != self._history:
                await self._begin()
                continue
            recovered, self._failure = self._failure is not None, None
            if floor > self._head:
                # This process did not read for longer than entries are kept.
                self._entries.clear()
                self._start = self._head = floor
                self._seen = None
                continue
            self._entries.extend(TailEntry(change, history, self._playback_base_url) for change in changes)
            advanced, self._head, self._seen = up_to > self._head, up_to, time
            self._forget(floor)
            if advanced or recovered:
                self.advanced.notify()
            if len(changes) < _PAGE:
                return

    async def _begin(self) -> None:
        """Follow the log from its present end. Watches of an earlier history are woken, to be told."""
        _, head, history, time = await self._changes.bounds()
        self._entries.clear()
        self._start, self._head, self._history, self._seen, self._failure = head, head, history, time, None
        self.advanced.notify()

    def _forget(self, floor: int) -> None:
        assert self._start is not None  # noqa: S101 - for the type checker; _read has set it
        while len(self._entries) > self._capacity or (self._entries and self._entries[0].revision <= floor):
            self._start = self._entries.popleft().revision
        self._start = max(self._start, floor)

    def _fail(self, error: StoreUnavailable) -> None:
        self._failure = error
        self.advanced.notify()

    async def history(self) -> str:
        """The id of the history that is followed. To be asked before a read whose revision becomes a cursor: a cursor
        with the id of an earlier history is refused, and never taken for one of the present. Raises StoreUnavailable.
        """
        return self._history or (await self._changes.bounds()).history

    async def after(self, cursor: int, history: str, *, limit: int = 100) -> tuple[Sequence[TailEntry], int]:
        """At most *limit* entries after the revision *cursor* of *history*, oldest first, and the cursor to go on from,
        which is *cursor* when there is nothing new. Raises StoreUnavailable, and ResumeTokenExpired when the log does
        not reach back to *cursor*, or the database has another history by now.
        """
        if self._failure is not None:
            # Each watch raises an error of its own: a shared one would collect the tracebacks of all.
            unavailable = StoreUnavailable(self._failure.message)
            unavailable.retry_after = self._failure.retry_after
            raise unavailable
        if self._start is None or cursor < self._start or history != self._history:
            return await self._from_database(cursor, history, limit=limit)
        first = bisect.bisect_right(self._entries, cursor, key=lambda entry: entry.revision)
        entries = list(islice(self._entries, first, first + limit))
        whole = first + len(entries) == len(self._entries)
        return entries, max(cursor, self._head) if whole else entries[-1].revision

    async def _from_database(self, cursor: int, history: str, *, limit: int) -> tuple[Sequence[TailEntry], int]:
        try:
            changes, up_to, floor, present, _ = await self._changes.after(cursor, limit=limit)
        except LogRewound:
            raise ResumeTokenExpired(OTHER_HISTORY) from None
        if history != present:
            raise ResumeTokenExpired(OTHER_HISTORY)
        if cursor < floor:
            raise ResumeTokenExpired("the change log does not reach back to this token")
        return [TailEntry(change, present, self._playback_base_url) for change in changes], up_to

    def changed(self, broadcast_id: str, since: int) -> bool:
        """Whether the broadcast may have changed after the revision *since*. True as well when the entries do not reach
        back to *since*, or *since* is of an earlier history.
        """
        if self._failure is not None or self._start is None or not self._start <= since <= self._head:
            return True
        newer = reversed(self._entries)
        for entry in newer:
            if entry.revision <= since:
                return False
            if entry.change.broadcast.id == broadcast_id:
                return True
        return False

    def changed_after(self, revision: int) -> set[str] | None:
        """The ids of the broadcasts that changed after *revision*. None: they are not known here, because the entries
        do not reach back so far, or the log cannot be read.
        """
        if self._failure is not None or self._start is None or not self._start <= revision <= self._head:
            return None
        changed: set[str] = set()
        for entry in reversed(self._entries):
            if entry.revision <= revision:
                break
            changed.add(entry.change.broadcast.id)
        return changed

    @property
    def head(self) -> int:
        """The newest revision known here."""
        return self._head
