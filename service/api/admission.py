"""How many calls a replica answers at once, and how it ends the open ones when it shuts down."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Generator

from service.domain.errors import Overloaded, ShuttingDown

_DRAINS = "this replica is shutting down"
_OLD = "the connection is old: connect anew and go on"
_RESERVE = 1.25
_FEW = 0.25
"""Of the limit: a peer with fewer calls may take of the reserve."""


class Admission:
    """Counts the calls under way. gRPC's own limit is not used: it counts streams and unary calls alike, and refuses
    with CANCELLED.

    When the limit is reached, a peer (an address without its port) that has few calls under way may still take some of
    a reserve: whoever fills the replica is refused before those who do not.

    Invariant: `_unary` calls work, `_parked` calls only wait, and a call is in one of the two.
    """

    def __init__(self, *, unary_limit: int, stream_limit: int) -> None:
        self._unary_limit = unary_limit
        self._stream_limit = stream_limit
        self._unary = 0
        self._parked = 0
        self._streams: dict[asyncio.Task[object], None] = {}
        self._sent_away: dict[asyncio.Task[object], str] = {}
        """Why, in words."""
        self._unary_of: Counter[str] = Counter()
        self._streams_of: Counter[str] = Counter()
        self.draining = False
        self._empty = asyncio.Event()

    @contextlib.contextmanager
    def unary(self, *, share: float = 1.0, peer: str = "") -> Generator[None]:
        """For the time of a unary call. *share*: of the limit. A call with a share above 1 is still admitted when the
        others are refused. *peer*: the caller, as gRPC writes it. Raises Overloaded, ShuttingDown.
        """
        if self.draining:
            raise _shutting_down()
        if self._unary >= self._unary_limit * share * _reserve(self._unary_of[_address(peer)], self._unary_limit):
            raise _overloaded("calls", self._unary_limit)
        self._unary += 1
        try:
            with _counted(self._unary_of, peer):
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
    def stream(self, *, peer: str = "", ends_in: float | None = None) -> Generator[None]:
        """For the time of a stream, in the task that runs it. Raises Overloaded and ShuttingDown. When draining begins,
        or after *ends_in* seconds, ShuttingDown is raised wherever the task waits at that moment. *peer*: as above.
        """
        if self.draining:
            raise _shutting_down()
        if len(self._streams) >= self._stream_limit * _reserve(self._streams_of[_address(peer)], self._stream_limit):
            raise _overloaded("streams", self._stream_limit)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: handlers run in tasks
        self._streams[task] = None
        timer = (
            asyncio.get_running_loop().call_later(ends_in, self._send_away, task, _OLD) if ends_in is not None else None
        )
        try:
            with _counted(self._streams_of, peer):
                yield
        except asyncio.CancelledError:
            if task not in self._sent_away or task.uncancel() > 0:
                raise
            raise ShuttingDown(self._sent_away[task]) from None
        finally:
            if timer is not None:
                timer.cancel()
            del self._streams[task]
            self._sent_away.pop(task, None)

    def drain(self) -> None:
        """Admit nothing more, and end all streams, also those whose readers do not read."""
        self.draining = True
        self._tell_when_empty()
        for task in self._streams:
            self._send_away(task, _DRAINS)

    def _send_away(self, task: asyncio.Task[object], why: str) -> None:
        if task not in self._sent_away:
            self._sent_away[task] = why
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
    return ShuttingDown(_DRAINS)


def _address(peer: str) -> str:
    """*peer* without its port: one caller may have any number of connections."""
    return peer.rpartition(":")[0]


def _reserve(under_way: int, limit: int) -> float:
    """By how much the limit is higher for a peer that has *under_way* calls."""
    return _RESERVE if under_way < limit * _FEW else 1.0


@contextlib.contextmanager
def _counted(calls: Counter[str], peer: str) -> Generator[None]:
    address = _address(peer)
    calls[address] += 1
    try:
        yield
    finally:
        calls[address] -= 1
        if not calls[address]:
            del calls[address]
