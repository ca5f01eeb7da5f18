"""An event loop on virtual time: where nothing is ready, it is later. No threads, no sockets, no waiting.

`time()` is the only clock of a simulated world, and what is ready runs in the order in which it became so, hence the
same seed makes the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
Spawned = Callable[["asyncio.Task[Any]"], None]


class Deadlock(Exception):
    """Something is awaited that can never happen."""


class TooLong(Exception):
    """The world did not come to its end in the virtual time it was given."""


class _Selector:
    """Takes the loop to its next timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock(f"at {self._loop.time():.3f} s nothing is ready and no timer runs")
        if timeout > 0:
            self._loop.advance()
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self, *, ends: float) -> None:
        """*ends*: TooLong is raised at that time."""
        super().__init__()
        self._now = 0.0
        self.ends = ends
        self._selector = _Selector(self)
        self.spawned: Spawned | None = None
        """Told of every task, in the context of the one that made it."""
        self.set_task_factory(cast("Any", self._make))

    def time(self) -> float:
        return self._now

    def advance(self) -> None:
        # The moment itself and no sum of spans: no rounding.
        self._now = cast("Any", self)._scheduled[0].when()
        if self._now > self.ends:
            raise TooLong(f"it goes on after {self.ends:.0f} s")

    def _make(
        self, loop: VirtualLoop, coroutine: Coroutine[Any, Any, _T], *, context: Context | None = None
    ) -> asyncio.Task[_T]:
        task = asyncio.Task(coroutine, loop=loop, context=context)
        if self.spawned is not None:
            self.spawned(task)
        return task

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        raise AssertionError("something of another thread came into a simulated world")


def run(main: Coroutine[Any, Any, _T], loop: VirtualLoop) -> _T:
    """Run *main* to its end, and take down what it left behind."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
