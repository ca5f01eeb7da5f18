"""Counts the viewers that this replica sees, and tells the database of them about once a second, in one statement for
all broadcasts. So neither memory nor statements grow with viewers.

The viewers of a slot are in one sketch for each broadcast, which is told as a whole whenever somebody was seen. So a
flush that failed, or whose answer was lost, is made good by the next one. A replica that dies loses what it saw since
its last flush. A broadcast that this replica did not see in the last two slots is told of at once, because somebody may
wait for its start.

Memory is bounded by the broadcasts that are watched: there is a sketch for each that was seen in the open slot. While
the database is away, the sketches of earlier slots are kept too until they are out of the window, and are told of when
it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from service import telemetry
from service.domain.errors import StoreUnavailable
from service.store.audience.sketches import Sketch
from service.store.audience.slots import SLOT, WINDOW, Flushed, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from service.store.audience.slots import AudienceSlots

log = structlog.get_logger(__name__)

EVERY_S: Final = 1.0
"""From the begin of one flush of all broadcasts to the next."""
_AT_ONCE_S: Final = 0.1
"""The same for those that are told of at once: viewers who come together are told of together."""
_DRAIN_S: Final = 3.0


class Collector:
    """Not for several threads: `saw` and the flushes belong to one event loop."""

    def __init__(
        self,
        slots: AudienceSlots,
        *,
        replica: str,
        slot: timedelta = SLOT,
        window: timedelta = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*slot*, *window*: as of *slots*. *clock*: seconds, for lengths of time alone."""
        self._slots = slots
        self._replica = replica
        self._length = slot
        self._window = window
        self._clock = clock
        self._slot: datetime | None = None
        """The begin of the open slot by the database clock. None: no flush was answered yet."""
        self._ends = math.inf
        """When it ends by our clock."""
        self._open: dict[str, Sketch] = {}
        """All viewers of the open slot by broadcast."""
        self._before: Collection[str] = frozenset()
        """Broadcasts that were seen in the slot before."""
        self._untold: set[str] = set()
        """Broadcasts of which somebody was seen since their last flush."""
        self._late: dict[datetime, dict[str, Sketch]] = {}
        """The same of slots that are over."""
        self._urgent: set[str] = set()
        """Broadcasts that are to be told of at once."""
        self._called = asyncio.Event()
        self._over = False

    @property
    def sketches(self) -> int:
        """How many are in memory."""
        return len(self._open) + sum(map(len, self._late.values()))

    def saw(self, broadcast_id: str, viewer_id: str) -> None:
        """A viewer watches, or waits for the start. Costs some microseconds, never waits, never raises."""
        if self._clock() >= self._ends:
            self._turn()
        sketch = self._open.get(broadcast_id)
        if sketch is None:
            sketch = self._open[broadcast_id] = Sketch()
            if broadcast_id not in self._before:
                self._urgent.add(broadcast_id)
                self._called.set()
        sketch.add(viewer_id)
        self._untold.add(broadcast_id)

    async def run(self) -> None:
        """Flush until it is drained or cancelled. No error ends it: the next flush tells what this one could not."""
        due = self._clock()
        while not self._over:
            began = self._clock()
            if began >= due:
                due = began + EVERY_S
                await self._tell()
            else:
                await self._tell(only=self._urgent)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due - self._clock(), 0.0)):
                    await self._called.wait()
                    await asyncio.sleep(max(began + _AT_ONCE_S - self._clock(), 0.0))

    async def drain(self) -> None:
        """Tell the rest, and that this replica counts no more. To be called when no more viewers come."""
        self._over = True
        self._called.set()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self.flush()
                await self._slots.leave(self._replica)
        except (StoreUnavailable, TimeoutError):
            log.warning("audience_not_told", broadcasts=len(self._untold))

    async def flush(self, only: Collection[str] | None = None) -> None:
        """Tell of all broadcasts of which somebody was seen since the last flush, or of *only* those. With nothing to
        tell it says so. Raises StoreUnavailable.
        """
        if self._clock() >= self._ends:
            self._turn()
        open_, slot = self._open, self._slot
        telling = self._untold if only is None else self._untold & set(only)
        late = {} if only is not None else {at: dict(each) for at, each in self._late.items()}
        self._untold = self._untold - telling
        self._urgent -= telling
        if not self._urgent:
            self._called.clear()
        telemetry.AUDIENCE_SKETCHES.set(self.sketches)
        seen = [
            *(_sighting(each, slot, open_[each]) for each in telling),
            *(_sighting(each, at, sketch) for at, of_it in late.items() for each, sketch in of_it.items()),
        ]
        try:
            flushed = await self._slots.flush(self._replica, seen)
        except BaseException:
            self._tell_later(telling, slot, open_)
            raise
        for at, of_it in late.items():
            # What was added meanwhile stays.
            self._late[at] = {each: sketch for each, sketch in self._late.get(at, {}).items() if each not in of_it}
        self._late = {at: of_it for at, of_it in self._late.items() if of_it}
        self._tell_later(flushed.busy & telling, slot, open_)
        self._opened(flushed)

    async def _tell(self, only: Collection[str] | None = None) -> None:
        with _measured() as measured:
            try:
                await self.flush(only)
            except StoreUnavailable:
                measured["outcome"] = "store_unavailable"
            except Exception:
                # A bug of ours must not take the replica down: callers do not depend on this task.
                measured["outcome"] = "failed"
                log.exception("audience_flush_failed")

    def _tell_later(self, broadcast_ids: Collection[str], slot: datetime | None, of_it: dict[str, Sketch]) -> None:
        """They were in the open slot *slot*, which may have ended since."""
        if of_it is self._open:
            self._untold |= set(broadcast_ids)
        elif slot is not None:
            self._late.setdefault(slot, {}).update({each: of_it[each] for each in broadcast_ids})

    def _opened(self, flushed: Flushed) -> None:
        """Follow the slots of the database."""
        now, length = self._clock(), self._length.total_seconds()
        ends = now + flushed.lasts.total_seconds()
        if self._slot is not None and flushed.slot + self._length == self._slot:
            # Our clock runs ahead a little: the open slot of the database ends any moment.
            ends += length
        elif self._slot is not None and flushed.slot < self._slot:
            # The clock of the database was set back: its slots of before are of a time that is still to come.
            self._late.clear()
            self._slot = flushed.slot
        elif self._slot is not None and flushed.slot > self._slot:
            self._turn(flushed.slot)
        else:
            self._slot = flushed.slot
        self._ends = ends

    def _turn(self, to: datetime | None = None) -> None:
        """The open slot is over. *to*: the one that is open now; None: that follows from our clock."""
        if self._slot is None:
            raise AssertionError("a slot without a begin has no end")
        if to is None:
            passed = 1 + int((self._clock() - self._ends) / self._length.total_seconds())
            self._ends += passed * self._length.total_seconds()
            to = self._slot + passed * self._length
        if self._untold:
            self._late.setdefault(self._slot, {}).update({each: self._open[each] for each in self._untold})
        self._late = {at: of_it for at, of_it in self._late.items() if at > to - self._window - self._length}
        adjoining = to == self._slot + self._length
        self._before = frozenset(self._open) if adjoining else frozenset()
        self._open, self._untold, self._urgent, self._slot = {}, set(), set(), to


def _sighting(broadcast_id: str, slot: datetime | None, sketch: Sketch) -> Sighting:
    return Sighting(broadcast_id=broadcast_id, slot=slot, sketch=bytes(sketch), viewers=sketch.viewers)


@contextlib.contextmanager
def _measured() -> Generator[dict[str, str]]:
    attributes = {"outcome": "ok"}
    began = time.monotonic()
    try:
        yield attributes
    finally:
        telemetry.AUDIENCE_FLUSH.record(time.monotonic() - began, attributes)
