"""WatchHealth: the latest health of each broadcast. A slow watcher skips older ones and is told how many messages.

One reader serves all watches of this process: at most once a second it reads the broadcasts that run and those that
changed, into the board. A health is computed and serialised once, when something that it is made of was written. A
watch is a slot that holds no messages: it is marked as due when there is news for it, and its message is made when the
watch takes it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import health_pb2 as health_pb
from service.api.messages.health import health_message
from service.api.messages.times import time_message
from service.api.streams.change_log import OTHER_HISTORY
from service.domain.broadcast import Broadcast
from service.domain.errors import ResumeTokenExpired, ServiceError, StoreUnavailable
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.health.model import MOVING
from service.domain.timing import Timing
from service.store.broadcasts import Broadcasts, Filter
from service.store.health_facts import HealthFacts, Snapshot

log = structlog.get_logger(__name__)

_SHORTEST_S = 1.0
_QUIET_INTERVALS = 2
"""After so many intervals without news an empty message is due. It comes before the third interval is over."""
_PAGE = 200
"""Healths in a message at most. Each has a few kilobytes."""
_HELD = timedelta(seconds=5)
"""An older health is computed again even if nothing was written: the time that passed changes it too."""
_AT_ONCE = 5
"""Healths that are computed before other tasks get their turn."""


class KnownHealth:
    """The health of one broadcast as it was last read."""

    __slots__ = ("broadcast", "fingerprint", "framed", "stamp", "time")

    def __init__(self, facts: Facts, stamp: str, timing: Timing) -> None:
        self.broadcast: Broadcast = facts.broadcast
        self.stamp = stamp
        self.time: datetime = facts.now
        message = health_message(health_of(facts, timing))
        told = message.SerializeToString()
        self.fingerprint = hash(_news_of(message))
        """Equal for two healths that differ only in when they were observed."""
        self.framed = b"\x0a" + _varint(len(told)) + told
        """As an element of WatchHealthResponse.healths: field 1, length, message."""

    def matches(self, filter_: Filter) -> bool:
        broadcast = self.broadcast
        return not broadcast.deleted and filter_.matches(
            id=broadcast.id,
            state=broadcast.state,
            labels=broadcast.labels,
            owner_id=broadcast.spec.owner_id,
            create_time=broadcast.create_time,
        )


def _news_of(health: health_pb.BroadcastHealth) -> bytes:
    """*health* without the fields that say only when something was observed. Clears them in *health* itself.

    A part that was not observed for too long is UNKNOWN, so that is still news.
    """
    health.ClearField("time")
    for part in health.parts:
        part.ClearField("observed_time")
        for evidence in part.evidence:
            evidence.ClearField("time")
            if evidence.name in MOVING:
                evidence.ClearField("value")
    for publisher in health.publishers:
        publisher.ClearField("stats_time")
    return health.SerializeToString(deterministic=True)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


class Slot:
    """One watch. It holds no messages, only a mark of each health that the watcher was sent last."""

    def __init__(self, filter_: Filter, interval_s: float) -> None:
        self.filter = filter_
        self.interval_s = interval_s
        self.told: dict[str, tuple[int, datetime]] = {}
        """Fingerprint and time of the health that it was sent last, by broadcast."""
        self.skipped = 0
        self.failure: ServiceError | None = None
        self.due = asyncio.Event()
        self.begun = False
        """It was sent everything once."""
        self._next_at = 0.0
        self._quiet_at = 0.0

    def begin(self, now: float) -> None:
        self.begun = True
        self._next_at = now + self.interval_s
        self._quiet_at = now + _QUIET_INTERVALS * self.interval_s

    def offer(self, board: dict[str, KnownHealth], now: float) -> None:
        """Mark the slot as due if it has news. To be called after each reading. *now*: seconds, of the event loop."""
        if not self.begun or now < self._next_at:
            return
        if self.news(board) != ([], []):
            # The watcher has not taken the message of the interval before. The next one has all of its news.
            self.skipped += self.due.is_set()
        elif now < self._quiet_at:
            return
        self.begin(now)
        self.due.set()

    def news(self, board: dict[str, KnownHealth]) -> tuple[list[KnownHealth], list[str]]:
        """The healths that it was not sent yet, and the ids of the broadcasts that do not match any more."""
        changed: list[KnownHealth] = []
        removed: list[str] = []
        for broadcast_id, entry in board.items():
            known = self.told.get(broadcast_id)
            if known is not None and entry.time <= known[1]:
                continue
            if not entry.matches(self.filter):
                if known is not None:
                    removed.append(broadcast_id)
            elif known is None or known[0] != entry.fingerprint:
                changed.append(entry)
        return changed, removed

    def take(self, board: dict[str, KnownHealth]) -> tuple[list[KnownHealth], list[str], int]:
        changed, removed = self.news(board)
        self.tell(changed)
        for broadcast_id in removed:
            del self.told[broadcast_id]
        skipped, self.skipped = self.skipped, 0
        self.due.clear()
        return changed, removed, skipped

    def tell(self, entries: Sequence[KnownHealth]) -> None:
        for entry in entries:
            self.told[entry.broadcast.id] = (entry.fingerprint, entry.time)


class HealthWatches:
    def __init__(self, broadcasts: Broadcasts, facts: HealthFacts, timing: Timing) -> None:
        self._broadcasts = broadcasts
        self._facts = facts
        self._timing = timing
        self.slots: set[Slot] = set()
        self.board: dict[str, KnownHealth] = {}
        self._revision: int | None = None
        """Changes up to this revision are on the board, or were sent. None: there is no watch."""
        self._history = ""
        """The history of the database that `_revision` is of. Empty: nothing was read yet."""
        self._time = datetime.fromtimestamp(0, UTC)
        self._reading: asyncio.Task[None] | None = None

    @property
    def reads(self) -> bool:
        """Whether the reader runs: it does while there is a watch."""
        return self._reading is not None

    async def follow(self, filter_: Filter, interval_s: float) -> AsyncIterator[bytes]:
        """Serialised WatchHealthResponses, without an end. Raises StoreUnavailable, and ResumeTokenExpired when the
        database was replaced by one that may lack changes.
        """
        loop = asyncio.get_running_loop()
        slot = Slot(filter_, interval_s)
        if self._revision is None:
            # Read before the first page, so that the reader finds the changes made while the page is read.
            head, history = await self._facts.head()
            if self._revision is None:
                self._revision, self._history = head, history
        async with self._joined(slot):
            async for page, time, complete in self._pages(filter_):
                slot.tell(page)
                yield _message(page, [], 0, time, complete=complete)
            slot.begin(loop.time())
            while True:
                await slot.due.wait()
                if slot.failure is not None:
                    raise slot.failure
                changed, removed, skipped = slot.take(self.board)
                for n in range(0, max(len(changed), 1), _PAGE):
                    page = changed[n : n + _PAGE]
                    yield _message(page, removed if n == 0 else [], skipped if n == 0 else 0, self._time)

    @contextlib.asynccontextmanager
    async def _joined(self, slot: Slot) -> AsyncGenerator[None]:
        self.slots.add(slot)
        if self._reading is None:
            self._reading = asyncio.create_task(self._run(), name="health-reader")
        try:
            yield
        finally:
            self.slots.discard(slot)
            if not self.slots:
                self._rest()

    def _rest(self) -> None:
        """Stop reading and forget the board: there is no watch any more."""
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self._revision = None
        self.board.clear()

    async def _pages(self, filter_: Filter) -> AsyncGenerator[tuple[list[KnownHealth], datetime, bool]]:
        """Every health that matches, newest broadcast first, with the time of the database at which it was read, and
        whether the page is the last one. At least one page. Pages may be empty.
        """
        last: tuple[datetime, str] | None = None
        while True:
            found, _ = await self._broadcasts.list(filter_, limit=_PAGE, before=last)
            read = await self._facts.read([broadcast.id for broadcast in found])
            entries = await self._entries(read)
            matching = [entry for entry in entries if entry.matches(filter_)]
            complete = len(found) < _PAGE
            if matching or complete:
                yield matching, read.time, complete
            if complete:
                return
            last = found[-1].create_time, found[-1].id

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.read()
            except (StoreUnavailable, ResumeTokenExpired) as error:
                self._fail(error)
            except Exception:
                # A single row that cannot be read must not leave all watches waiting for ever.
                log.exception("health_unreadable")
                self._fail(StoreUnavailable("the health of the broadcasts cannot be read"))
            for slot in self.slots:
                slot.offer(self.board, loop.time())
            spent = loop.time() - began
            # Two readings in the shortest interval are enough, and reading takes at most half of the time.
            often = min((slot.interval_s for slot in self.slots), default=_SHORTEST_S) / 2
            await asyncio.sleep(max(_SHORTEST_S, often, 2 * spent) - spent)

    async def read(self) -> None:
        """Bring the board up to date. Raises StoreUnavailable; ResumeTokenExpired if the database has another history
        than what is on the board.
        """
        slots = list(self.slots)
        everything = any(not slot.filter.ids for slot in slots)
        named = {broadcast_id for slot in slots for broadcast_id in slot.filter.ids}
        moving = {id_ for id_, entry in self.board.items() if not entry.broadcast.state.at_rest}
        read = await self._facts.read(
            sorted(moving | named if everything else named),
            after=self._revision if everything else None,
            running=everything,
            known={id_: entry.stamp for id_, entry in self.board.items() if entry.time > self._time - _HELD},
        )
        earlier, self._history = self._history, read.history
        if earlier not in ("", read.history):
            self.board.clear()
            self._revision = read.revision
            raise ResumeTokenExpired(OTHER_HISTORY)
        for entry in await self._entries(read):
            self.board[entry.broadcast.id] = entry
        if everything or all(slot.filter.ids for slot in self.slots):
            # Not if a watch of everything came meanwhile: it must not miss the changes since.
            self._revision = read.revision
        self._time = read.time
        self._forget(named)

    async def _entries(self, read: Snapshot) -> list[KnownHealth]:
        entries: list[KnownHealth] = []
        for n, each in enumerate(read.facts, 1):
            entries.append(KnownHealth(each, read.stamps[each.broadcast.id], self._timing))
            if n % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return entries

    def _forget(self, named: set[str]) -> None:
        """Remove from the board the broadcasts at rest that every watch knows: they are read again when they change."""
        if not all(slot.begun for slot in self.slots):
            # A first message on its way to a watch may be older than the health that would be forgotten.
            return
        for broadcast_id, entry in [*self.board.items()]:
            if broadcast_id in named or not entry.broadcast.state.at_rest:
                continue
            only = {broadcast_id: entry}
            if all(slot.news(only) == ([], []) for slot in self.slots):
                del self.board[broadcast_id]

    def _fail(self, error: StoreUnavailable | ResumeTokenExpired) -> None:
        for slot in self.slots:
            # Each watch raises an error of its own: a shared one would collect the tracebacks of all.
            slot.failure = type(error)(error.message)
            slot.failure.retry_after = error.retry_after
            slot.due.set()


def _message(
    entries: Sequence[KnownHealth], removed: Sequence[str], skipped: int, time: datetime, *, complete: bool = False
) -> bytes:
    rest = rpc.WatchHealthResponse(
        removed_broadcast_ids=removed, time=time_message(time), skipped_count=skipped, snapshot_complete=complete
    )
    return b"".join([*(entry.framed for entry in entries), rest.SerializeToString()])
