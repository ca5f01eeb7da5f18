"""Token buckets shared by all replicas, and turns for those who find them empty."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.database import Database

_QUEUES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    granted: bool
    come_back: datetime
    """When to ask again, where it was not granted."""


class Budgets:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(
        self,
        name: str,
        *,
        rate: float,
        burst: float,
        floor: float,
        turn: datetime | None = None,
        queues: bool = True,
    ) -> Reservation:
        """One token of *name*, which refills at *rate* a second up to *burst*, leaving at least *floor* behind: what
        ranks lower cannot use up what a stop will need.

        Who *queues* and finds none is given a turn; turns are one token apart, so a thousand that wait come back one by
        one, and nobody who comes for the first time goes before them. *turn* is the one that was given before.
        """
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO budget (name, tokens, refilled_at, next_turns) "
                "VALUES ($1, $2, clock_timestamp(), array_fill(clock_timestamp(), ARRAY[$3::int])) "
                "ON CONFLICT (name) DO NOTHING",
                name,
                burst,
                _QUEUES,
            )
            row = await connection.fetchrow(
                "SELECT least($2, tokens + extract(epoch FROM clock_timestamp() - refilled_at) * $3) AS tokens, "
                "next_turns, clock_timestamp() AS read_at FROM budget WHERE name = $1 FOR UPDATE",
                name,
                burst,
                rate,
            )
            assert row is not None  # noqa: S101 - inserted above
            now: datetime = row["read_at"]
            called = turn is not None and turn <= now
            queue = min(int(floor), _QUEUES - 1)
            next_turns: list[datetime] = row["next_turns"]
            waiting = any(next_turn > now for next_turn in next_turns[: queue + 1])
            overtakes = queues and floor > 0 and not called and waiting
            granted = row["tokens"] >= 1 + floor and not overtakes
            step = timedelta(seconds=1 / rate)
            come_back = now + step
            if not granted and queues and not called:
                come_back = next_turns[queue] = max(next_turns[queue], now) + step
            await connection.execute(
                "UPDATE budget SET tokens = $2, refilled_at = $3, next_turns = $4 WHERE name = $1",
                name,
                row["tokens"] - granted,
                now,
                next_turns,
            )
        return Reservation(granted=granted, come_back=come_back)
