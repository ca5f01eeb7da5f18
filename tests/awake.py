"""The provider's time of simulators in this process: it passes while the process runs, and stands still with it."""

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import AsyncGenerator

from broadcast_sandbox.clock import ScaledClock

# Of the provider's time, and what that may be in real seconds.
_STEP_S = 0.4
_SHORTEST_S, _LONGEST_S = 0.002, 0.02
# What the others may do between two steps, in turns of the event loop.
_TURNS = 4


class AwakeClock(ScaledClock):
    """At 200 a process that gets no processor for a second would else find 200 s gone, and with them every window in
    which something was to happen.
    """

    _passed: float

    def __init__(self, scale: float) -> None:
        super().__init__(scale)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._numbers), woken))
        await woken

    async def run(self) -> None:
        before = time.monotonic()
        while True:
            step_s = min(max(_STEP_S / self._scale, _SHORTEST_S), _LONGEST_S)
            await asyncio.sleep(step_s)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            now = time.monotonic()
            # A step that came a little late is made up for; more is not.
            self._passed += min(now - before, 2 * step_s) * self._scale
            before = now
            while self._sleepers and self._sleepers[0][0] <= self._passed:
                woken = heapq.heappop(self._sleepers)[2]
                if not woken.done():
                    woken.set_result(None)


@contextlib.asynccontextmanager
async def awake_clock(scale: float) -> AsyncGenerator[AwakeClock]:
    clock = AwakeClock(scale)
    running = asyncio.create_task(clock.run())
    try:
        yield clock
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
