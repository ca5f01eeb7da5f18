"""Claims due rows and runs a pass for each. Every lane has places of its own, so stops never wait for starts.

A wake only shortens the wait: with every wake lost, the poll finds a due row within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service.domain.errors import StoreUnavailable
from service.providers.refusals import Refusals
from service.store.leases import Lane

if TYPE_CHECKING:
    from service.reconciler.reconciler import Reconciler
    from service.store.leases import Leases

log = structlog.get_logger(__name__)

_PLACES = {Lane.STOP: 16, Lane.START: 24, Lane.OTHER: 16}
"""Passes that may be under way at once, by lane."""
_POLL_S = 1.0
_OTHERS_FIRST = timedelta(seconds=3)
"""How long a replica whose credentials are refused leaves a due row to others, each of which polls every second."""


class Loop:
    def __init__(self, leases: Leases, reconciler: Reconciler, refusals: Refusals | None = None) -> None:
        """*refusals*: of this replica. While there are any, others claim first."""
        self._refusals = refusals or Refusals()
        self._leases = leases
        self._reconciler = reconciler
        self._woken = asyncio.Event()
        self._running: dict[Lane, set[asyncio.Task[bool]]] = {lane: set() for lane in _PLACES}
        self._stopping = False
        self._claiming = asyncio.Lock()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until `drain`. No error ends it: whatever cannot be claimed now is claimed a second later."""
        failed: type[Exception] | None = None
        while not self._stopping:
            self._woken.clear()
            try:
                async with self._claiming:
                    for lane, places in _PLACES.items():
                        await self._fill(lane, places)
                wait = await self._wait()
                failed = None
            except StoreUnavailable:
                wait = _POLL_S
            except Exception as error:
                # A replica that ends would take its callers with it, reads included. One line for a row of the same.
                if type(error) is not failed:
                    log.exception("loop_failed")
                failed, wait = type(error), _POLL_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait)

    async def drain(self, within: timedelta) -> None:
        """Claim nothing more and let passes end. One that outlasts *within* is cut off, which is safe at any line."""
        self._stopping = True
        self._woken.set()
        with contextlib.suppress(TimeoutError):
            # A claim under way still starts its passes; they end like the others.
            await asyncio.wait_for(self._claiming.acquire(), within.total_seconds())
        running = [task for tasks in self._running.values() for task in tasks]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=within.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _fill(self, lane: Lane, places: int) -> None:
        free = places - len(self._running[lane])
        if free <= 0 or self._stopping:
            return
        overdue = _OTHERS_FIRST if self._refusals.refused else timedelta()
        for claim in await self._leases.claim(lane, limit=free, overdue=overdue):
            task = asyncio.create_task(self._reconciler.run(claim), name=f"pass {claim.broadcast_id}")
            self._running[lane].add(task)
            task.add_done_callback(lambda done, lane=lane: self._ended(lane, done))

    def _ended(self, lane: Lane, task: asyncio.Task[bool]) -> None:
        full = len(self._running[lane]) == _PLACES[lane]
        self._running[lane].discard(task)
        if full or (not task.cancelled() and task.result()):
            self._woken.set()

    async def _wait(self) -> float:
        due = await self._leases.next_due()
        if due is None or self._full() or self._refusals.refused:
            return _POLL_S
        return min(max(due.total_seconds(), 0.01), _POLL_S)

    def _full(self) -> bool:
        return any(len(tasks) >= _PLACES[lane] for lane, tasks in self._running.items())
