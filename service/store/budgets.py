"""Token buckets shared by all replicas, and appointments for those who find them empty."""

from dataclasses import dataclass
from datetime import datetime

from service.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    granted: bool
    come_back: datetime
    """When to ask again, where it was not granted."""


class Budgets:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, *, rate: float, burst: float, floor: float) -> Turn:
        """One token of *name*, which refills at *rate* a second up to *burst*, leaving at least *floor* behind: what
        ranks lower cannot use up what a stop will need.

        Who finds none is given a turn; turns are one token apart, so a thousand that wait come back one by one.
        """
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO budget (name, tokens, refilled_at, next_turn) "
                "VALUES ($1, $2, clock_timestamp(), clock_timestamp()) ON CONFLICT (name) DO NOTHING",
                name,
                burst,
            )
            row = await connection.fetchrow(
                "SELECT least($2, tokens + extract(epoch FROM clock_timestamp() - refilled_at) * $3) AS tokens, "
                "next_turn, clock_timestamp() AS read_at FROM budget WHERE name = $1 FOR UPDATE",
                name,
                burst,
                rate,
            )
            assert row is not None  # noqa: S101 - inserted above
            granted = row["tokens"] >= 1 + floor
            turn = await connection.fetchval(
                "UPDATE budget SET tokens = $2, refilled_at = $3, next_turn = CASE WHEN $4 THEN next_turn "
                "ELSE greatest(next_turn, $3) + make_interval(secs => $5) END WHERE name = $1 RETURNING next_turn",
                name,
                row["tokens"] - granted,
                row["read_at"],
                granted,
                1 / rate,
            )
        return Turn(granted=granted, come_back=turn)
