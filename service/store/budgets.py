"""Token buckets shared by all replicas, and reservations for callers that find them empty.

A bucket has one queue for each number of tokens that its callers leave to others (their *floor*). The turns in a queue
are one token apart, so callers that wait come back one by one, and nobody who comes for the first time overtakes them.
Time is the database's. When its clock was set back, no time has passed, and every turn is as far away as it was.

A request is one statement, which locks the bucket for as long as it runs in the server: no round trip of the network
lies between the lock and the commit, so a distant replica holds up nobody.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.store.database import Database

_QUEUES = 4
"""Floors of 0, 1, 2 and of 3 and more."""
_ADD = """
INSERT INTO budget (name, tokens, refilled_at, next_turns)
VALUES ($1, $2, clock_timestamp(), array_fill(clock_timestamp(), ARRAY[$3::int])) ON CONFLICT (name) DO NOTHING
"""
# $1 name, $2 burst, $3 rate, $4 floor, $5 the caller's turn, $6 whether it queues, $7 number of its queue from 1,
# $8 the time of one token, $9 how many tokens it wants. Each step adds columns to the one row of the step before; the
# row that is locked is the newest one, also if the statement waited for it.
_TAKE = """
WITH locked AS MATERIALIZED (
  SELECT name, tokens, refilled_at, next_turns, clock_timestamp() AS read_at FROM budget WHERE name = $1 FOR UPDATE),
refilled AS (
  SELECT name, read_at, coalesce($5::timestamptz <= read_at, false) AS called,
    least($2::float8, greatest(tokens, 0)
      + greatest(extract(epoch FROM read_at - refilled_at)::float8, 0) * $3::float8) AS tokens,
    ARRAY(SELECT turn - greatest(refilled_at - read_at, interval '0')
      FROM unnest(next_turns) WITH ORDINALITY AS each (turn, n) ORDER BY n) AS turns FROM locked),
judged AS (
  SELECT *, coalesce($5::timestamptz > read_at AND $5::timestamptz <= turns[$7::int], false) AS waits,
    CASE WHEN $6::bool AND $4::float8 > 0 AND NOT called
    AND EXISTS (SELECT FROM unnest(turns[1:$7::int]) AS turn WHERE turn > read_at) THEN 0
    ELSE greatest(least(floor(tokens - $4::float8)::int, $9::int), 0) END AS taken FROM refilled),
answered AS (
  SELECT *, taken = 0 AND $6::bool AND NOT called AND NOT waits AS put_off,
    CASE WHEN taken = 0 AND waits THEN $5::timestamptz
      WHEN taken = 0 AND $6::bool AND NOT called THEN greatest(turns[$7::int], read_at) + $8::interval
      ELSE read_at + $8::interval END AS come_back FROM judged)
UPDATE budget SET tokens = answered.tokens - taken, refilled_at = read_at,
  next_turns = CASE WHEN put_off THEN turns[:$7::int - 1] || come_back || turns[$7::int + 1:] ELSE turns END
FROM answered WHERE budget.name = answered.name RETURNING taken, come_back
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The answer to a request for tokens."""

    taken: int
    """How many tokens were taken."""
    come_back: datetime
    """The turn of the caller: when to ask again if no token was taken, by the database clock."""

    @property
    def granted(self) -> bool:
        return self.taken > 0


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
        wanted: int = 1,
    ) -> Reservation:
        """Take *wanted* tokens of the bucket *name*, or as many as there are. Raises StoreUnavailable.

        The bucket refills by *rate* tokens a second up to *burst* tokens. *floor*: so many tokens must remain, for
        callers of a higher rank, such as stops. *queues*: a caller that finds no token gets a place in the queue, and
        `come_back` is its turn; without it `come_back` is only the time of the next token. *turn*: the `come_back` of
        the caller's last request, which lets it pass the queue when that time has come. A caller that asks before its
        turn, because something woke it, keeps it: with a new one at the end it would leave an empty turn behind.
        """
        queue, step = min(int(floor), _QUEUES - 1) + 1, timedelta(seconds=1 / rate)
        values = (name, burst, rate, floor, turn, queues, queue, step, wanted)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_TAKE, *values)
            if row is None:
                await connection.execute(_ADD, name, burst, _QUEUES)
                row = await connection.fetchrow(_TAKE, *values)
        assert row is not None  # noqa: S101 - inserted above, and never deleted
        return Reservation(taken=row["taken"], come_back=row["come_back"])
