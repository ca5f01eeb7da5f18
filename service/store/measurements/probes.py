"""The probes of running broadcasts: what the prober saw at the two ends of the chain, the people in the room and the
playlist that a player gets. The latest of each is kept.

A probe is a measurement. It wakes a broadcast where a pass should look, and decides nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter

import msgspec

from service.domain.broadcast import PlaybackPolicy, State
from service.domain.measurements import Probe
from service.domain.ports import PlaylistSeen, RoomPeople
from service.store.database import AT_ONCE, Database, changed_rows
from service.store.leases import wake
from service.store.rows import played_of

# A broadcast that just became one of those that are probed, or that changed its state, is due at once: what was seen
# before says little of it. So is one that is due in a future that no claim made: the clock was set back.
_ENTER = """
INSERT INTO probe (broadcast_id, look_due_at)
SELECT b.id, now() FROM broadcast b LEFT JOIN probe p ON p.broadcast_id = b.id
WHERE b.target = 'LIVE' AND b.state IN ('READY', 'LIVE', 'INTERRUPTED') AND (
  p.broadcast_id IS NULL OR (p.looked_state <> b.state AND p.look_due_at > now())
  OR (p.look_due_at > now() + interval '5 min' AND p.look_due_at < 'infinity'))
ON CONFLICT (broadcast_id) DO UPDATE SET look_due_at = now()
"""
# SKIP LOCKED: no replica waits for another, and none looks at what another just claimed.
_CLAIM = """
WITH due AS MATERIALIZED (
  SELECT broadcast_id FROM probe WHERE look_due_at <= now() - $3::interval
  ORDER BY look_due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED),
claimed AS (
  UPDATE probe p SET looked_state = b.state, look_due_at = CASE
    WHEN b.target = 'LIVE' AND b.state IN ('READY', 'LIVE', 'INTERRUPTED') THEN now() + $2::interval ELSE 'infinity' END
  FROM due JOIN broadcast b ON b.id = due.broadcast_id
  WHERE p.broadcast_id = due.broadcast_id
  RETURNING p.broadcast_id, p.people_at, p.playlist, p.playlist_at, p.unseen, p.look_due_at < 'infinity' AS runs)
SELECT id, state, status ->> 'playback_id' AS playback_id, spec ->> 'playback_policy' AS playback_policy,
  claimed.*, now() AS read_at, EXISTS (
    SELECT FROM resource r WHERE r.broadcast_id = id AND kind = 'stream' AND detail ->> 'stalled_since' IS NOT NULL
  ) AS stalled, EXISTS (
    SELECT FROM resource r WHERE r.broadcast_id = id AND kind = 'stream' AND detail ->> 'unseen_since' IS NOT NULL
  ) AS out_of_sight, room.*
FROM claimed JOIN broadcast ON id = claimed.broadcast_id LEFT JOIN LATERAL (
  SELECT (detail ->> 'host_publishing')::boolean AS host_publishing, observed_at AS room_seen_at FROM resource r
  WHERE r.broadcast_id = id AND kind = 'room' AND phase = 'present' ORDER BY ordinal DESC LIMIT 1) AS room ON true
"""
# A probe that comes late must not bring back what is over, nor fail because it was deleted meanwhile.
_SAW_PEOPLE = """
INSERT INTO probe (broadcast_id, people, people_at) SELECT id, $2, now() FROM broadcast WHERE id = $1
ON CONFLICT (broadcast_id) DO UPDATE SET people = excluded.people, people_at = excluded.people_at
"""
# $3: whether it moved on since the look before; NULL: they cannot be compared.
_SAW_PLAYLIST = """
INSERT INTO probe (broadcast_id, playlist, playlist_at)
SELECT id, $2::jsonb || jsonb_build_object('advanced_at', NULL, 'standing_since', now()), now()
FROM broadcast WHERE id = $1
ON CONFLICT (broadcast_id) DO UPDATE SET unseen = NULL, playlist_at = excluded.playlist_at, playlist = excluded.playlist
  || CASE WHEN $3::boolean THEN jsonb_build_object('advanced_at', now())
     WHEN NOT $3::boolean THEN jsonb_build_object(
       'advanced_at', probe.playlist -> 'advanced_at', 'standing_since', probe.playlist -> 'standing_since')
     ELSE '{}' END
"""
# $2: its code and its message. The time of the first in a row stays.
_SAW_NOTHING = """
INSERT INTO probe (broadcast_id, unseen)
SELECT id, $2::jsonb || jsonb_build_object('since', now(), 'at', now()) FROM broadcast WHERE id = $1
ON CONFLICT (broadcast_id) DO UPDATE SET unseen = excluded.unseen
  || jsonb_build_object('since', coalesce(probe.unseen -> 'since', excluded.unseen -> 'since'))
"""


_DUE = "UPDATE probe SET look_due_at = least(look_due_at, now() + make_interval(secs => $2)) WHERE broadcast_id = $1"


_AT_ONCE = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """A running broadcast that was claimed to be probed, and its last probe."""

    broadcast_id: str
    state: State
    playback_id: str
    public: bool
    """Whether it can be played without a token."""
    stalled: bool
    """Whether the live stream is known to have a playlist that stands still."""
    out_of_sight: bool
    """Whether the live stream is known to have a playlist that cannot be seen."""
    host_publishing: bool | None
    """Whether the room is known to have a host who publishes. None: there is no room, or it was not looked at yet."""
    room_seen_at: datetime | None
    """When a pass last looked who is in the room. None: there is no room, or it was not looked at yet."""
    seen: Probe
    """Of the playlist alone."""
    people_at: datetime | None
    """When the people were probed last."""
    read_at: datetime
    """The time of this reading, by the database's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResults:
    """What one round of the prober saw, by broadcast id."""

    people: dict[str, RoomPeople] = field(default_factory=dict[str, RoomPeople])
    playlists: dict[str, tuple[PlaylistSeen, bool | None]] = field(
        default_factory=dict[str, tuple[PlaylistSeen, bool | None]]
    )
    """The playlist, and whether it moved on since the probe before. None: the two cannot be compared."""
    unseen: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Looks that did not see the playlist: the code and the message of what came instead."""
    wake: set[str] = field(default_factory=set[str])
    """Broadcasts whose resources say something else than the probe: a pass should look."""
    again: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds to the next look, where it is due before the interval is over."""

    def soon(self, broadcast_id: str, after_s: float) -> None:
        """Let the next look be due after *after_s* seconds, or earlier where that was asked for before."""
        self.again[broadcast_id] = min(after_s, self.again.get(broadcast_id, after_s))


class Probes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def enter(self) -> None:
        """Make due what began to run or changed its state since its last look. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            await connection.execute(_ENTER)

    async def claim(self, *, limit: int, every: timedelta, overdue: timedelta = _AT_ONCE) -> list[ProbeTarget]:
        """At most *limit* broadcasts whose look is due, those first that wait longest. Their next look is due after
        *every*, whether this one is made or not. *overdue*: only those that are due for so long, which other replicas
        could have claimed. Fewer than *limit*: no other is due, or others hold them.

        Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_CLAIM, limit, every, overdue)
        return [
            ProbeTarget(
                broadcast_id=row["id"],
                state=State(row["state"]),
                playback_id=row["playback_id"] or "",
                public=row["playback_policy"] != PlaybackPolicy.SIGNED,
                stalled=row["stalled"],
                out_of_sight=row["out_of_sight"],
                host_publishing=row["host_publishing"],
                room_seen_at=row["room_seen_at"],
                seen=played_of(row),
                people_at=row["people_at"],
                read_at=row["read_at"],
            )
            for row in rows
            if row["runs"]
        ]

    async def saw(self, results: ProbeResults) -> None:
        """Keep them, and wake what they say to wake, in one transaction. Raises StoreUnavailable."""
        people = [(broadcast_id, msgspec.to_builtins(each)) for broadcast_id, each in results.people.items()]
        playlists = [
            (broadcast_id, msgspec.to_builtins(seen), advanced)
            for broadcast_id, (seen, advanced) in results.playlists.items()
        ]
        unseen = [
            (broadcast_id, {"code": code, "message": message})
            for broadcast_id, (code, message) in results.unseen.items()
        ]
        async with self._database.transaction() as connection:
            # In one order: whoever does the same at the same time waits, and not for each other.
            await connection.executemany(_SAW_PEOPLE, sorted(people, key=itemgetter(0)))
            await connection.executemany(_SAW_PLAYLIST, sorted(playlists, key=itemgetter(0)))
            await connection.executemany(_SAW_NOTHING, sorted(unseen, key=itemgetter(0)))
            await connection.executemany(_DUE, sorted(results.again.items()))
            if results.wake:
                await wake(connection, sorted(results.wake))

    async def forget(self) -> int:
        """Delete the probes of broadcasts that ended more than a day ago, AT_ONCE at most. Answers how many were
        deleted. Raises StoreUnavailable.
        """
        async with self._database.connection() as connection:
            tag = await connection.execute(
                "DELETE FROM probe WHERE broadcast_id IN (SELECT broadcast_id FROM probe JOIN broadcast "
                "ON id = broadcast_id WHERE state IN ('ENDED', 'FAILED') AND end_time < now() - interval '1 day' "
                "LIMIT $1)",
                AT_ONCE,
            )
        return changed_rows(tag)
