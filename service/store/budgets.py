"""Token buckets shared by all replicas, and reservations for callers that find them empty.

A bucket has one queue for each number of tokens that its callers leave to others (their *floor*). The turns in a queue
are one token apart, so callers that wait come back one by one, and nobody who comes for the first time overtakes them.
Time is the database's. When its clock was set back, no time has passed, and every turn is as far away as it was.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.database import Database

_QUEUES = 4
"""Floors of 0, 1, 2 and of 3 and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The answer to a request for a token."""

    granted: bool
    come_back: datetime
    """The turn of the caller: when to ask again if no token was granted, by the database clock."""


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
        """Take one token of the bucket *name*. Raises StoreUnavailable.

        The bucket refills by *rate* tokens a second up to *burst* tokens. *floor*: so many tokens must remain, for
        callers of a higher rank, such as stops. *queues*: a caller that finds no token gets a place in the queue, and
        `come_back` is its turn; without it `come_back` is only the time of the next token. *turn*: the `come_back` of
        the caller's last request, which lets it pass the queue when that time has come.
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
                "SELECT least($2, greatest(tokens, 0) "
                "+ greatest(extract(epoch FROM clock_timestamp() - refilled_at), 0) * $3) AS tokens, "
                "next_turns, refilled_at, clock_timestamp() AS read_at FROM budget WHERE name = $1 FOR UPDATE",
                name,
                burst,
                rate,
            )
            assert row is not None  # noqa: S101 - inserted above
            now: datetime = row["read_at"]
            called = turn is not None and turn <= now
            queue = min(int(floor), _QUEUES - 1)
            ahead: timedelta = max(row["refilled_at"] - now, timedelta())
            next_turns: list[datetime] = [next_turn - ahead for next_turn in row["next_turns"]]
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
