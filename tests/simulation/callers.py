"""The callers of the service. Every write has a request id and is sent again, to any replica, until it is answered.
All requests and answers are kept for the checks of the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from service.domain.errors import BroadcastExists, RequestIdReused, ServiceError, StoreUnavailable
from service.store.broadcasts import Request

if TYPE_CHECKING:
    from datetime import datetime

    from service.domain.broadcast import Broadcast, Spec
    from service.domain.lifecycle import Change
    from service.domain.secret import Secret
    from tests.simulation.environment import Environment
    from tests.simulation.replica import Replica

ANSWER_WITHIN_S = 10.0


@dataclass(eq=False, slots=True, kw_only=True)
class Asked:
    """One write of one caller, with all its retries."""

    method: str
    broadcast_id: str
    at: float
    sent: int = 0
    answered_at: float | None = None
    answered_with: str = ""
    """The broadcast in the answer."""
    refused: str = ""
    done: int = 0
    """How often it changed anything, however often it was sent."""


@dataclass(slots=True)
class Callers:
    env: Environment
    replicas: Callable[[], list[Replica]]
    history: list[Asked] = field(default_factory=list[Asked])
    numbers: int = 0

    async def create(self, broadcast_id: str, spec: Spec, keys: dict[str, Secret]) -> bool:
        request = self._request("CreateBroadcast", broadcast_id)
        asked = self._asks(request, broadcast_id)
        return await self._until_answered(
            asked, lambda replica: replica.broadcasts.create(broadcast_id, spec, keys, {}, request)
        )

    async def change(
        self, method: str, broadcast_id: str, decide: Callable[[Broadcast, datetime], Change | None]
    ) -> bool:
        """Whether it was done; False: it was refused."""
        request = self._request(method, broadcast_id)
        asked = self._asks(request, broadcast_id)

        def counted(stored: Broadcast, now: datetime) -> Change | None:
            change = decide(stored, now)
            asked.done += change is not None
            return change

        return await self._until_answered(
            asked, lambda replica: replica.broadcasts.change(broadcast_id, counted, request)
        )

    def _request(self, method: str, broadcast_id: str) -> Request:
        self.numbers += 1
        content = f"{method} {broadcast_id} {self.numbers}"
        return Request(id=f"request-{self.numbers}", method=method, digest=sha256(content.encode()).digest())

    def _asks(self, request: Request, broadcast_id: str) -> Asked:
        asked = Asked(method=request.method, broadcast_id=broadcast_id, at=self.env.loop.time())
        self.history.append(asked)
        return asked

    async def _until_answered(self, asked: Asked, send: Callable[[Replica], Coroutine[Any, Any, Broadcast]]) -> bool:
        env = self.env
        while True:
            replicas = [replica for replica in self.replicas() if replica.alive]
            if not replicas:
                await asyncio.sleep(1)
                continue
            replica = env.rng.choice(replicas)
            asked.sent += 1
            handler = replica.spawn(send(replica), asked.method)
            handler.add_done_callback(_heard)
            # A handler goes on when its caller has given up.
            await asyncio.wait({handler}, timeout=ANSWER_WITHIN_S)
            if handler.done() and not handler.cancelled():
                error = handler.exception()
                if error is None or (isinstance(error, ServiceError) and not isinstance(error, StoreUnavailable)):
                    asked.answered_with = handler.result().id if error is None else asked.broadcast_id
                    return self._answered(asked, error)
                if not isinstance(error, StoreUnavailable):
                    raise error
            await asyncio.sleep(env.rng.uniform(0.2, 2.0))

    def _answered(self, asked: Asked, error: BaseException | None) -> bool:
        asked.answered_at = self.env.loop.time()
        asked.refused = "" if error is None else type(error).__name__
        self.env.trace.add("answered", asked.method, asked.broadcast_id, asked.refused or "OK", asked.sent)
        return error is None

    @property
    def taken_for_another(self) -> list[Asked]:
        """Those that were refused for what they did themselves, or answered with what others did: here no two have the
        same id, or create the same.
        """
        refused = (BroadcastExists.__name__, RequestIdReused.__name__)
        return [
            each
            for each in self.history
            if each.refused in refused or (each.answered_with and each.answered_with != each.broadcast_id)
        ]


def _heard(handler: asyncio.Task[Any]) -> None:
    """Its caller may have gone; asyncio would complain of an error that nobody looked at."""
    if not handler.cancelled():
        handler.exception()
