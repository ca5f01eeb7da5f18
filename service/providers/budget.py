"""How many calls a provider takes, and whose calls go first when there are too few tokens for all.

One token is one request. Mux takes 1 POST and 5 other requests a second and environment (mux.com/docs, Make API
requests). The buckets are shared by all replicas through Postgres. Each rank leaves some tokens to the ranks above it,
so a thousand starts never make a stop wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from service import telemetry
from service.domain.provider import ROOMS, STREAMS

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime
    from typing import Protocol

    class Reservation(Protocol):
        @property
        def taken(self) -> int: ...
        @property
        def come_back(self) -> datetime: ...

    class Take(Protocol):
        def __call__(
            self,
            name: str,
            *,
            rate: float,
            burst: float,
            floor: float,
            turn: datetime | None,
            queues: bool,
            wanted: int,
        ) -> Awaitable[Reservation]: ...


class NoToken(Exception):
    """There was no token for a further page of a list, so what the pages before it lack is not known."""


class Bucket(StrEnum):
    """A stock of tokens. Its text is stored and is the label of a metric."""

    ROOMS = f"{ROOMS}"
    """All calls of the provider of rooms and egresses."""
    STREAMS_POST = f"{STREAMS}.post"
    """Creates, of live streams and of assets, and resets of a key."""
    STREAMS_OTHER = f"{STREAMS}.other"
    """All other calls of the provider of live streams."""


class Rank(IntEnum):
    """The number is how many tokens of a full bucket a rank leaves to the ranks above it."""

    STOP = 0
    START = 1
    HEAL = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    rate: float
    """Tokens a second."""
    burst: float
    """Tokens of a full bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    mux_post: Limit = Limit(rate=1, burst=5)
    mux_other: Limit = Limit(rate=5, burst=10)
    livekit: Limit = Limit(rate=100, burst=200)

    def of(self, bucket: Bucket) -> Limit:
        match bucket:
            case Bucket.STREAMS_POST:
                return self.mux_post
            case Bucket.STREAMS_OTHER:
                return self.mux_other
            case Bucket.ROOMS:
                return self.livekit


class Budget:
    def __init__(self, take: Take, limits: Limits) -> None:
        self._take = take
        self._limits = limits

    async def take(self, bucket: Bucket, rank: Rank, *, turn: datetime | None = None) -> datetime | None:
        """Take one token, or a place in the queue for one.

        None: the token was taken, make the call. Otherwise the time, by the database's clock, at which to ask again
        with that time as *turn*; a caller who has a turn is served before callers who come for the first time. Raises
        StoreUnavailable.
        """
        given = await self._ask(bucket, rank, turn, queues=True)
        return None if given.taken else given.come_back

    async def spare(self, bucket: Bucket, rank: Rank) -> bool:
        """Take one token if there is one, without a queue: for calls that are left out rather than put off. Answers
        whether it was taken. Raises StoreUnavailable.
        """
        return await self.spare_of(bucket, rank, 1) == 1

    async def spare_of(self, bucket: Bucket, rank: Rank, wanted: int) -> int:
        """As `spare`, for *wanted* calls at once. Answers how many tokens were taken. Raises StoreUnavailable."""
        return (await self._ask(bucket, rank, None, queues=False, wanted=wanted)).taken

    async def next_page(self, bucket: Bucket, rank: Rank, *, within_s: float = 0.0) -> None:
        """Take the token of a further page of a list. Waits for one for at most *within_s* seconds, so that a long list
        takes longer instead of bursting over the limit. Raises NoToken, StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + within_s
        while not await self.spare(bucket, rank):
            if loop.time() >= ends:
                raise NoToken
            await asyncio.sleep(1 / self._limits.of(bucket).rate)

    async def _ask(
        self, bucket: Bucket, rank: Rank, turn: datetime | None, *, queues: bool, wanted: int = 1
    ) -> Reservation:
        limit = self._limits.of(bucket)
        floor = min(rank, limit.burst - 1)
        given = await self._take(
            bucket, rate=limit.rate, burst=limit.burst, floor=floor, turn=turn, queues=queues, wanted=wanted
        )
        if not given.taken:
            telemetry.BUDGET_WAITS.add(1, {"budget": bucket, "rank": rank.name})
        return given
