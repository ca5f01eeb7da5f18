"""Webhook delivery of the simulated providers: one queue a key, retries, and the faults of webhooks."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import FaultTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt, successful or not."""

    event: str
    event_id: str
    attempt: int
    """1 for the first attempt of a copy."""
    status: int | None
    """HTTP status; None when there was none (refused, reset, timeout)."""
    time: float
    """Unix seconds, when the attempt ended."""
    body: bytes = b""
    """The receiver's answer, cut to 1000 bytes."""

    @property
    def accepted(self) -> bool:
        return self.status is not None and self.status // 100 == 2


Build = Callable[[Sequence[Delivery]], tuple[bytes, dict[str, str]]]
"""Body and headers of the next attempt, given the attempts so far."""


@dataclass(slots=True, kw_only=True)
class _Item:
    key: str
    event: str
    event_id: str
    target: str
    build: Build
    attempts: list[Delivery] = field(default_factory=list[Delivery])


class WebhookSender:
    """Delivers one after the other for one key, and in parallel for different keys.

    `retry_waits_s` are the waits before the second, third, ... attempt in the provider's time; `timeout_s` is in real
    seconds, because the receiver runs in real time. With `hold_line` a failing delivery delays the later ones of its
    key (LiveKit's queued notifier). Without it the retries and a `webhook_delay` run beside them (Mux gives no
    guarantee of order).
    """

    def __init__(
        self,
        *,
        url: str | None,
        clock: ScaledClock,
        faults: FaultTable,
        retry_waits_s: Sequence[float],
        timeout_s: float | None,
        retry_on: Callable[[int], bool],
        hold_line: bool = True,
    ) -> None:
        self.url = url
        self.enabled = True
        """While False nothing is sent and nothing is kept for later."""
        self.deliveries: list[Delivery] = []
        self.dropped: list[tuple[str, str]] = []
        """(event name, event id) taken by `webhook_drop`."""
        self._clock = clock
        self._faults = faults
        self._retry_waits_s = tuple(retry_waits_s)
        self._timeout_s = timeout_s
        self._retry_on = retry_on
        self._hold_line = hold_line
        self._queues: dict[str, deque[_Item]] = {}
        self._held: dict[str, list[_Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_s))
        for key in self._queues:
            self._spawn(self._work(key))

    async def close(self) -> None:
        """Undelivered webhooks are lost."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def send(
        self,
        *,
        key: str,
        event: str,
        event_id: str,
        body: bytes,
        headers: Callable[[], dict[str, str]],
        target: str | None = None,
    ) -> None:
        """Never blocks. *target* is the text that a fault's `match` has to occur in; the key unless given."""

        def build(_: Sequence[Delivery]) -> tuple[bytes, dict[str, str]]:
            return body, headers()

        self.send_built(key=key, event=event, event_id=event_id, build=build, target=target)

    def send_built(self, *, key: str, event: str, event_id: str, build: Build, target: str | None = None) -> None:
        """As `send`, for a body that lists the attempts before it."""
        if self.url is None or not self.enabled or self._closed:
            return
        item = _Item(key=key, event=event, event_id=event_id, target=key if target is None else target, build=build)
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(item)
            return
        self._queues[key] = deque([item])
        if self._session is not None:
            self._spawn(self._work(key))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: str) -> None:
        queue = self._queues[key]
        while queue:
            await self._handle(queue[0])
            queue.popleft()
        del self._queues[key]

    async def _handle(self, item: _Item) -> None:
        if self._faults.take(item.event, item.target, "webhook_drop"):
            self.dropped.append((item.event, item.event_id))
            return
        if self._faults.take(item.event, item.target, "webhook_reorder"):
            self._held.setdefault(item.key, []).append(item)
            return
        duplicate = self._faults.take(item.event, item.target, "webhook_duplicate")
        delay = self._faults.take(item.event, item.target, "webhook_delay")
        if delay is not None and not self._hold_line:
            self._spawn(self._deliver_late(item, delay.delay_s))
        else:
            if delay is not None:
                await self._clock.sleep(delay.delay_s)
            await self._deliver(item)
        if duplicate is not None:
            await self._deliver(
                _Item(key=item.key, event=item.event, event_id=item.event_id, target=item.target, build=item.build)
            )
        for held in self._held.pop(item.key, []):
            await self._deliver(held)

    async def _deliver_late(self, item: _Item, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        await self._deliver(item)

    async def _deliver(self, item: _Item) -> None:
        if await self._attempt(item) or not self._retry_waits_s:
            return
        if self._hold_line:
            await self._retry(item)
        else:
            self._spawn(self._retry(item))

    async def _retry(self, item: _Item) -> None:
        for wait in self._retry_waits_s:
            await self._clock.sleep(wait)
            if await self._attempt(item):
                return

    async def _attempt(self, item: _Item) -> bool:
        """True if the item needs no further attempt: it was accepted, or refused in a way that is not retried."""
        if self._session is None or self.url is None:
            return True
        body, headers = item.build(tuple(item.attempts))
        status: int | None = None
        answer = b""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(self.url, data=body, headers=headers, allow_redirects=False) as response:
                answer = (await response.read())[:1000]
                status = response.status
        delivery = Delivery(
            event=item.event,
            event_id=item.event_id,
            attempt=len(item.attempts) + 1,
            status=status,
            time=time.time(),
            body=answer,
        )
        item.attempts.append(delivery)
        self.deliveries.append(delivery)
        return status is not None and not self._retry_on(status)
