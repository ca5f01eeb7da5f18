"""Callers of the service: each brings broadcasts up and down through the client, and repeats what was not answered with
the same request id, at whatever replica.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from broadcast.v1.broadcast_pb2 import RECORDING_POLICY_DISCARD, Broadcast, BroadcastSpec
from broadcast_client import (
    BroadcastClient,
    BroadcastError,
    CallCancelled,
    DeadlineExceeded,
    Overloaded,
    Unavailable,
    state_name,
)
from tests.chaos.history import History, Kind, Operation, Triage

if TYPE_CHECKING:
    from random import Random

    from tests.stack import Stack

NOT_NOW = (Unavailable, DeadlineExceeded, CallCancelled, Overloaded)
_CALL_S = 4.0
_PATIENCE_S = 60.0
"""Longer than any outage here: who gives up before wants to."""

Call = Callable[[BroadcastClient], Awaitable[Broadcast]]


class Caller:
    def __init__(
        self,
        name: str,
        clients: Sequence[BroadcastClient],
        stack: Stack,
        history: History,
        *,
        random: Random,
        over: asyncio.Event,
    ) -> None:
        """*clients*: one a replica, each of which tries once. *over*: begin nothing more."""
        self._name = name
        self._clients = clients
        self._stack = stack
        self._history = history
        self._random = random
        self._over = over
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        while not self._over.is_set():
            await self._life()

    async def _life(self) -> None:
        created = await self.create(broadcast_id=self._chosen_id(), hurried=self._random.random() < 0.1)
        if created is None:
            return
        if created.broadcast_id and self._random.random() < 0.2:
            await self._take(created.broadcast_id)
        await self._update(created.broadcast_id, self._random.randint(5, 15))
        await self._start(created.broadcast_id)
        await self._update(created.broadcast_id, self._random.randint(3, 10))
        if self._random.random() < 0.7 and await self._reaches(created.broadcast_id, "READY"):
            await self._stack.host_joins(created.broadcast_id)
            if self._random.random() < 0.7:
                await self._reaches(created.broadcast_id, "LIVE")
        await self._update(created.broadcast_id, self._random.randint(5, 15))
        await self.stop(created.broadcast_id, hurried=self._random.random() < 0.1)

    def _chosen_id(self) -> str:
        return f"show-{self._name}-{next(self._numbers)}" if self._random.random() < 0.5 else ""

    def _request_id(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    async def create(self, *, broadcast_id: str = "", hurried: bool = False) -> Operation | None:
        """None: nobody answered."""
        operation = self._history.begin(Kind.CREATE, self._request_id())
        spec = BroadcastSpec(recording_policy=RECORDING_POLICY_DISCARD, title=operation.request_id)

        def call(client: BroadcastClient) -> Awaitable[Broadcast]:
            return client.create(
                spec,
                broadcast_id=broadcast_id,
                labels={"request": operation.request_id},
                request_id=operation.request_id,
                timeout=_CALL_S,
            )

        await self._carry_out(operation, call, hurried=hurried)
        return operation if operation.triage is Triage.OK else None

    async def wrote(self, client: BroadcastClient) -> bool:
        """One try of a write, at this replica."""
        operation = self._history.begin(Kind.CREATE, self._request_id())
        operation.attempts, operation.last_attempt = 1, time.time()
        labels = {"request": operation.request_id}
        try:
            broadcast = await client.create(
                title=operation.request_id, labels=labels, request_id=operation.request_id, timeout=_CALL_S
            )
        except NOT_NOW:
            return False
        finally:
            operation.ended = time.time()
        operation.triage, operation.broadcast_id = Triage.OK, broadcast.id
        operation.answers.add(broadcast.id)
        return True

    async def _take(self, broadcast_id: str) -> None:
        """An id that is taken."""
        operation = self._history.begin(Kind.CREATE, self._request_id())
        operation.refusable = True
        labels = {"request": operation.request_id}
        await self._carry_out(
            operation,
            lambda client: client.create(
                broadcast_id=broadcast_id,
                title="somebody else's",
                labels=labels,
                request_id=operation.request_id,
                timeout=_CALL_S,
            ),
        )

    async def _update(self, broadcast_id: str, times: int) -> None:
        for _ in range(times):
            request_id = self._request_id()
            operation = self._history.begin(Kind.UPDATE, request_id, broadcast_id=broadcast_id, title=request_id)
            etag = ""
            if self._random.random() < 0.05:
                operation.refusable, etag = True, "of-long-ago"
            await self._carry_out(
                operation,
                lambda client, title=request_id, etag=etag: client.update(
                    broadcast_id,
                    spec=BroadcastSpec(title=title),
                    mask=["spec.title"],
                    etag=etag,
                    request_id=title,
                    timeout=_CALL_S,
                ),
                hurried=self._random.random() < 0.2,
            )

    async def _start(self, broadcast_id: str) -> None:
        request_id = self._request_id()
        operation = self._history.begin(Kind.START, request_id, broadcast_id=broadcast_id)

        async def call(client: BroadcastClient) -> Broadcast:
            return (await client.start(broadcast_id, request_id=request_id, timeout=_CALL_S)).broadcast

        await self._carry_out(operation, call)

    async def stop(self, broadcast_id: str, *, hurried: bool = False) -> None:
        request_id = self._request_id()
        operation = self._history.begin(Kind.STOP, request_id, broadcast_id=broadcast_id)
        await self._carry_out(
            operation,
            lambda client: client.stop(broadcast_id, request_id=request_id, timeout=_CALL_S),
            hurried=hurried,
        )

    async def _carry_out(self, operation: Operation, call: Call, *, hurried: bool = False) -> None:
        """*hurried*: who gives up with the first answer that does not come."""
        if not hurried and self._random.random() < 0.1:
            # A careless one: twice at the same time.
            await asyncio.gather(self._repeat(operation, call, hurried=False), self._repeat(operation, call))
        else:
            await self._repeat(operation, call, hurried=hurried)
        operation.ended = time.time()

    async def _repeat(self, operation: Operation, call: Call, *, hurried: bool = False) -> None:
        ends = time.monotonic() + _PATIENCE_S
        while True:
            operation.attempts += 1
            operation.last_attempt = time.time()
            try:
                broadcast = await call(self._random.choice(self._clients))
            except NOT_NOW as error:
                operation.error = str(error)
                if hurried:
                    return
                if time.monotonic() >= ends:
                    raise AssertionError(f"nobody answers: {operation}") from error
                await asyncio.sleep(self._random.uniform(0.02, 0.3))
            except BroadcastError as error:
                operation.triage, operation.error = Triage.FAIL, str(error)
                return
            else:
                operation.triage = Triage.OK
                operation.broadcast_id = broadcast.id
                operation.answers.add(broadcast.id)
                return

    async def _reaches(self, broadcast_id: str, *states: str, within: float = 8.0) -> bool:
        """Asked for, again and again; False: not in time."""
        ends = time.monotonic() + within
        while time.monotonic() < ends and not self._over.is_set():
            try:
                broadcast = await self._random.choice(self._clients).get(broadcast_id, timeout=_CALL_S)
            except NOT_NOW:
                pass
            else:
                if state_name(broadcast.status.state) in states:
                    return True
            await asyncio.sleep(0.1)
        return False
