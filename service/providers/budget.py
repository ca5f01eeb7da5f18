"""How many calls the providers take, and who goes first when there are too few for all.

Mux: 1 POST and 5 other requests a second and environment (mux.com/docs, Make API requests); the bucket is shared by all
replicas through Postgres. Each rank leaves some tokens to those above it, so a thousand starts never make a stop wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from service import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime
    from typing import Protocol

    class Reservation(Protocol):
        @property
        def granted(self) -> bool: ...
        @property
        def come_back(self) -> datetime: ...

    class Take(Protocol):
        def __call__(
            self, name: str, *, rate: float, burst: float, floor: float, turn: datetime | None, queues: bool
        ) -> Awaitable[Reservation]: ...


class Bucket(StrEnum):
    MUX_POST = "mux.post"
    MUX_OTHER = "mux.other"
    LIVEKIT = "livekit"


class Rank(IntEnum):
    """The number is how many tokens of a full bucket are left to those above."""

    STOP = 0
    START = 1
    HEAL = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    rate: float
    """Tokens a second."""
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    mux_post: Limit = Limit(rate=1, burst=5)
    mux_other: Limit = Limit(rate=5, burst=10)
    livekit: Limit = Limit(rate=100, burst=200)

    def of(self, bucket: Bucket) -> Limit:
        match bucket:
            case Bucket.MUX_POST:
                return self.mux_post
            case Bucket.MUX_OTHER:
                return self.mux_other
            case Bucket.LIVEKIT:
                return self.livekit


class Budget:
    def __init__(self, take: Take, limits: Limits) -> None:
        self._take = take
        self._limits = limits

    async def take(self, bucket: Bucket, rank: Rank, *, turn: datetime | None = None) -> datetime | None:
        """None: go ahead. Otherwise when to ask again, with that as *turn*."""
        return await self._ask(bucket, rank, turn, queues=True)

    async def spare(self, bucket: Bucket, rank: Rank) -> bool:
        """Whether a token is left for who would rather go without than wait."""
        return await self._ask(bucket, rank, None, queues=False) is None

    async def _ask(self, bucket: Bucket, rank: Rank, turn: datetime | None, *, queues: bool) -> datetime | None:
        limit = self._limits.of(bucket)
        floor = min(rank, limit.burst - 1)
        given = await self._take(bucket, rate=limit.rate, burst=limit.burst, floor=floor, turn=turn, queues=queues)
        if given.granted:
            return None
        telemetry.BUDGET_WAITS.add(1, {"budget": bucket, "rank": rank.name})
        return given.come_back
