"""The probes of running broadcasts: what the prober saw at the two ends of the chain, the people in the room and the
playlist that a player gets. The latest of each is kept.

A probe is a measurement. It wakes a broadcast where a pass should look, and decides nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter

import msgspec

from service.domain.broadcast import PlaybackPolicy, State
from service.domain.measurements import Probe
from service.domain.ports import PlaylistSeen, RoomPeople
from service.store.database import AT_ONCE, Database, deleted
from service.store.leases import wake
from service.store.rows import played_of

_RUNNING = """
SELECT id, state, status ->> 'playback_id' AS playback_id, spec ->> 'playback_policy' AS playback_policy,
  playlist, playlist_at, unseen, now() AS read_at, EXISTS (
    SELECT FROM resource r WHERE r.broadcast_id = id AND kind = 'stream' AND detail ->> 'stalled_since' IS NOT NULL
  ) AS stalled, EXISTS (
    SELECT FROM resource r WHERE r.broadcast_id = id AND kind = 'stream' AND detail ->> 'unseen_since' IS NOT NULL
  ) AS out_of_sight, (
    SELECT (detail ->> 'host_publishing')::boolean FROM resource r
    WHERE r.broadcast_id = id AND kind = 'room' AND phase = 'present' ORDER BY ordinal DESC LIMIT 1
  ) AS host_publishing
FROM broadcast LEFT JOIN probe ON probe.broadcast_id = broadcast.id
WHERE target = 'LIVE' AND state IN ('READY', 'LIVE', 'INTERRUPTED')
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """A running broadcast that is to be probed, and its last probe."""

    broadcast_id: str
    state: State
    playback_id: str
    public: bool
    """Whether anybody may play it without a token, and so the prober too."""
    stalled: bool
    """Whether the live stream is known to have a playlist that stands still."""
    out_of_sight: bool
    """Whether the live stream is known to have a playlist that cannot be seen."""
    host_publishing: bool | None
    """Whether the room is known to have a host who publishes. None: there is no room, or it was not looked at yet."""
    seen: Probe
    """Of the playlist alone. Its `playlist_at` is the time of this reading, not of the last probe."""
    seen_at: datetime | None
    """When the playlist was seen last."""


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


class Probes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def running(self) -> list[ProbeTarget]:
        """All broadcasts that are to be probed. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_RUNNING)
        return [
            ProbeTarget(
                broadcast_id=row["id"],
                state=State(row["state"]),
                playback_id=row["playback_id"] or "",
                public=row["playback_policy"] != PlaybackPolicy.SIGNED,
                stalled=row["stalled"],
                host_publishing=row["host_publishing"],
                out_of_sight=row["out_of_sight"],
                seen=replace(played_of(row), playlist_at=row["read_at"]),
                seen_at=row["playlist_at"],
            )
            for row in rows
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
        return deleted(tag)
