"""How many calls a replica takes at once, and how it sends the open ones away at its end."""

import asyncio
import contextlib
from collections.abc import Generator

from service.domain.errors import Overloaded, ShuttingDown


class Admission:
    """Counts what is under way. gRPC's own limit counts streams and unary calls alike, and says CANCELLED."""

    def __init__(self, *, unary_limit: int, stream_limit: int) -> None:
        self._unary_limit = unary_limit
        self._stream_limit = stream_limit
        self._unary = 0
        self._parked = 0
        self._streams: dict[asyncio.Task[object], None] = {}
        self._sent_away: set[asyncio.Task[object]] = set()
        self.draining = False
        self._empty = asyncio.Event()

    @contextlib.contextmanager
    def unary(self, *, share: float = 1.0) -> Generator[None]:
        """Raises Overloaded, ShuttingDown. *share* of the limit: more than 1 gets through when others are shed."""
        if self.draining:
            raise _shutting_down()
        if self._unary >= self._unary_limit * share:
            raise _overloaded("calls", self._unary_limit)
        self._unary += 1
        try:
            yield
        finally:
            self._unary -= 1
            self._tell_when_empty()

    @contextlib.contextmanager
    def parked(self) -> Generator[bool]:
        """A unary call that only waits takes no place from those that work. False: too many wait already."""
        if self._parked >= self._stream_limit:
            yield False
            return
        self._unary -= 1
        self._parked += 1
        try:
            yield True
        finally:
            self._parked -= 1
            self._unary += 1

    @contextlib.contextmanager
    def stream(self) -> Generator[None]:
        """For the time of a stream, in the task that runs it. Raises Overloaded and ShuttingDown, the latter from
        wherever the task waits when draining begins.
        """
        if self.draining:
            raise _shutting_down()
        if len(self._streams) >= self._stream_limit:
            raise _overloaded("streams", self._stream_limit)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: handlers run in tasks
        self._streams[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._sent_away or task.uncancel() > 0:
                raise
            raise _shutting_down() from None
        finally:
            del self._streams[task]
            self._sent_away.discard(task)

    def drain(self) -> None:
        """Takes nothing more, and ends all streams, even of those who do not read what is sent to them."""
        self.draining = True
        self._tell_when_empty()
        for task in self._streams:
            self._sent_away.add(task)
            task.cancel()

    async def emptied(self, timeout: float) -> None:  # noqa: ASYNC109 - being late is no error
        """After `drain`: until the last unary call is answered, at the longest *timeout* seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout)

    def _tell_when_empty(self) -> None:
        if self.draining and self._unary + self._parked == 0:
            self._empty.set()


def _overloaded(what: str, limit: int) -> Overloaded:
    return Overloaded(f"this replica takes no more than {limit} {what} at once", limit=str(limit))


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("this replica is shutting down")
