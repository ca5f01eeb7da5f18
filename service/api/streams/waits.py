"""Answering a write only when the reconciler has brought about a state, for callers that ask for that."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import grpc

from service.api.admission import Admission
from service.api.streams.change_log import Tail
from service.domain.broadcast import Broadcast, State
from service.domain.errors import BroadcastNotFound, StoreUnavailable
from service.store.broadcasts import Broadcasts

_DEADLINE_MARGIN_S = 0.5
"""The answer leaves this long before the caller's own deadline, so that it arrives in time."""
_LOOK_AGAIN_S = 1.0


class Waits:
    def __init__(self, broadcasts: Broadcasts, tail: Tail, admission: Admission) -> None:
        self._broadcasts = broadcasts
        self._tail = tail
        self._admission = admission

    @property
    def now(self) -> int:
        """The newest revision known here. To be read before the write whose effect is awaited."""
        return self._tail.head

    async def until(
        self,
        reached: Callable[[State], bool],
        broadcast: Broadcast,
        since: int,
        wait: timedelta,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Broadcast:
        """The broadcast as soon as *reached* is true of its state. The broadcast as it was last read when *wait* or the
        caller's deadline is over first, when too many calls wait, or when this replica shuts down.

        *since*: a revision from before the write. Raises no error, because the write is done.
        """
        loop = asyncio.get_running_loop()
        # The stubs say float, but it is None for a caller without a deadline.
        remaining = cast("float | None", context.time_remaining())
        limit = wait.total_seconds()
        if remaining is not None:
            limit = min(limit, remaining - _DEADLINE_MARGIN_S)
        ends_at = loop.time() + limit
        if limit <= 0 or reached(broadcast.state):
            return broadcast
        with self._admission.parked() as may_wait:
            while may_wait and not self._admission.draining and (left := ends_at - loop.time()) > 0:
                seen = self._tail.advanced.count
                if self._tail.changed(broadcast.id, since):
                    since = self._tail.head
                    try:
                        async with asyncio.timeout(left):
                            broadcast = await self._broadcasts.get(broadcast.id)
                    except BroadcastNotFound:
                        return broadcast
                    except (StoreUnavailable, TimeoutError):
                        pass
                    if reached(broadcast.state):
                        return broadcast
                await self._tail.advanced.wait(min(left, _LOOK_AGAIN_S), since=seen)
        return broadcast
