"""How many calls a replica answers at once, and how it ends the open ones when it shuts down."""

import asyncio
import contextlib
from collections.abc import Generator

from service.domain.errors import Overloaded, ShuttingDown


class Admission:
    """Counts the calls under way. gRPC's own limit is not used: it counts streams and unary calls alike, and refuses
    with CANCELLED.

    Invariant: `_unary` calls work, `_parked` calls only wait, and a call is in one of the two.
    """

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
        """For the time of a unary call. *share*: of the limit. A call with a share above 1 is still admitted when the
        others are refused. Raises Overloaded, ShuttingDown.
        """
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
        """For the time that an admitted unary call only waits: it does not count towards the limit then. False: as many
        calls wait as may, and this one must not.
        """
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
        """For the time of a stream, in the task that runs it. Raises Overloaded and ShuttingDown. When draining begins,
        ShuttingDown is raised wherever the task waits at that moment.
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
        """Admit nothing more, and end all streams, also those whose readers do not read."""
        self.draining = True
        self._tell_when_empty()
        for task in self._streams:
            self._sent_away.add(task)
            task.cancel()

    async def emptied(self, timeout: float) -> None:  # noqa: ASYNC109 - being late is no error
        """To be awaited after `drain`: until the last unary call is answered, for *timeout* seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout)

    def _tell_when_empty(self) -> None:
        if self.draining and self._unary + self._parked == 0:
            self._empty.set()


def _overloaded(what: str, limit: int) -> Overloaded:
    return Overloaded(f"this replica takes no more than {limit} {what} at once", limit=str(limit))


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("this replica is shutting down")
