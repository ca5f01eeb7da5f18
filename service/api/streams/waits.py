"""Waiting for a state that the reconciler brings about, for those who asked to be answered then."""

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

# The answer is on its way to the caller before the caller's own deadline.
_DEADLINE_MARGIN_S = 0.5
_LOOK_AGAIN_S = 1.0


class Waits:
    def __init__(self, broadcasts: Broadcasts, tail: Tail, admission: Admission) -> None:
        self._broadcasts = broadcasts
        self._tail = tail
        self._admission = admission

    @property
    def now(self) -> int:
        """To be taken before the write whose effect is awaited."""
        return self._tail.head

    async def until(
        self,
        reached: Callable[[State], bool],
        broadcast: Broadcast,
        since: int,
        wait: timedelta,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Broadcast:
        """The broadcast once its state is *reached*, or as it is when the time is over, the caller's or *wait*, or when
        this replica shuts down. *since* is a revision from before the write. Raises nothing: the write is done.
        """
        loop = asyncio.get_running_loop()
        # None where the caller set no deadline, which the stubs do not say.
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
