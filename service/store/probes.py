"""What health and explanation are made of: all that is stored of one broadcast or of many, read at one moment; and what
the prober and the hosts' browsers add to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from service.domain.broadcast import FallbackMode, PlaybackPolicy, State
from service.domain.errors import BroadcastNotFound, StateForbids
from service.domain.facts import Facts, HostStats, Probe, ReportedStats, Told
from service.domain.lifecycle import Event
from service.domain.ports import PlaylistSeen, RoomPeople
from service.domain.resources import AnyResource
from service.domain.situation import Surroundings
from service.store.database import Database
from service.store.leases import wake
from service.store.rows import BROADCAST_COLUMNS, OUTAGES, RESOURCE_COLUMNS, Row, Rows, around_of, played_of

if TYPE_CHECKING:
    from service.store.database import Connection

STORY = 200
"""So many events of the story are looked at."""

# Without the queue nothing says whether a replica works on it; without secrets nothing needs to be opened.
_BROADCASTS = f"""
SELECT {BROADCAST_COLUMNS}, coalesce(lease_until, due_at) AS claimable_at, now() AS read_at,
  people, people_at, playlist, playlist_at,
  (SELECT jsonb_object_agg(identity, jsonb_build_object('stats', stats, 'time', report_time)) FROM host_stats h
   WHERE h.broadcast_id = broadcast.id AND report_time > now() - interval '5 min') AS reported,
  (SELECT count(*) FROM viewer v WHERE v.broadcast_id = broadcast.id AND expire_time > now()) AS viewers
FROM broadcast LEFT JOIN probe ON probe.broadcast_id = broadcast.id
WHERE """  # noqa: S608 - a constant
_RESOURCES = f"""
SELECT broadcast_id, {RESOURCE_COLUMNS.removesuffix(", secret")}, NULL::bytea AS secret FROM resource
WHERE broadcast_id = ANY($1) ORDER BY kind, ordinal
"""  # noqa: S608 - a constant
# The transaction that wrote each row last: the same where nothing of all that health is made of was written since.
_STAMPS = """
SELECT id, format('%s %s %s %s %s %s', broadcast.xmin, probe.xmin,
  (SELECT string_agg(r.xmin::text, ',' ORDER BY kind, ordinal) FROM resource r WHERE r.broadcast_id = broadcast.id),
  (SELECT string_agg(h.xmin::text, ',' ORDER BY identity) FROM host_stats h WHERE h.broadcast_id = broadcast.id),
  (SELECT count(*) FROM viewer v WHERE v.broadcast_id = broadcast.id AND expire_time > now()),
  (SELECT string_agg(xmin::text, ',' ORDER BY name) FROM provider)) AS stamp
FROM broadcast LEFT JOIN probe ON probe.broadcast_id = broadcast.id
WHERE id = ANY($1)
"""
_PROVIDERS = f"""
SELECT {OUTAGES}, (SELECT jsonb_object_agg(name, checked_at) FROM provider) AS looked_at
"""  # noqa: S608 - a constant
_STORY = """
SELECT time, reason, message, actor FROM (
  SELECT revision, time, reason, message, actor FROM event WHERE broadcast_id = $1 ORDER BY revision DESC LIMIT $2
) AS newest ORDER BY revision
"""
_RUNNING = """
SELECT id, state, status ->> 'playback_id' AS playback_id, spec ->> 'playback_policy' AS playback_policy,
  playlist, now() AS playlist_at, EXISTS (
    SELECT FROM resource r WHERE r.broadcast_id = id AND kind = 'stream' AND detail ->> 'stalled_since' IS NOT NULL
  ) AS stalled
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
ON CONFLICT (broadcast_id) DO UPDATE SET playlist_at = excluded.playlist_at, playlist = excluded.playlist
  || CASE WHEN $3::boolean THEN jsonb_build_object('advanced_at', now())
     WHEN NOT $3::boolean THEN jsonb_build_object(
       'advanced_at', probe.playlist -> 'advanced_at', 'standing_since', probe.playlist -> 'standing_since')
     ELSE '{}' END
"""
_REPORT = """
INSERT INTO host_stats (broadcast_id, identity, stats) SELECT id, $2, $3 FROM broadcast
WHERE id = $1 AND target = 'LIVE' AND NOT deleted
ON CONFLICT (broadcast_id, identity) DO UPDATE SET stats = excluded.stats, report_time = now()
RETURNING xmax = 0
"""
# One for one. It waits for nobody, so that reports at the same time cannot wait for each other.
_CROWD_OUT = """
DELETE FROM host_stats WHERE broadcast_id = $1 AND identity IN (
  SELECT identity FROM host_stats
  WHERE broadcast_id = $1 AND identity <> $2 AND (SELECT count(*) FROM host_stats WHERE broadcast_id = $1) > $3
  ORDER BY report_time LIMIT 1 FOR UPDATE SKIP LOCKED)
"""
REPORTERS = 100
"""Identities of a broadcast whose latest report is kept. Anybody may be about to join under any, so none is refused:
the one that reported longest ago makes room.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A broadcast to be looked at, and how its playlist was when it was looked at last."""

    broadcast_id: str
    state: State
    playback_id: str
    public: bool
    """Whether anybody may play it, we too."""
    stalled: bool
    """Whether it is known that its playlist stands still."""
    seen: Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a round of the prober saw, by broadcast."""

    people: dict[str, RoomPeople] = field(default_factory=dict[str, RoomPeople])
    playlists: dict[str, tuple[PlaylistSeen, bool | None]] = field(
        default_factory=dict[str, tuple[PlaylistSeen, bool | None]]
    )
    """And whether it moved on since the look before. None: they cannot be compared."""
    wake: set[str] = field(default_factory=set[str])
    """Those of which a pass holds something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Broadcasts read at one moment."""

    facts: tuple[Facts, ...]
    """Deleted ones too."""
    stamps: Mapping[str, str]
    """By broadcast: what it was read as, to be shown with the next reading."""
    revision: int
    """Of the change log at that moment."""
    time: datetime


class Probes:
    def __init__(self, database: Database, rows: Rows, *, storage: bool = False) -> None:
        """*storage*: whether there is one for local recordings."""
        self._database = database
        self._rows = rows
        self._storage = storage

    async def facts(self, broadcast_id: str) -> Facts:
        """All of one, with its story. Raises BroadcastNotFound, StoreUnavailable."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            found = await self._read(connection, "id = $1 AND NOT deleted", broadcast_id)
            if not found:
                raise BroadcastNotFound(broadcast_id)
            story = await connection.fetch(_STORY, broadcast_id, STORY)
        told = tuple(
            Told(event=Event(reason=row["reason"], message=row["message"]), time=row["time"], actor=row["actor"])
            for row in story
        )
        return replace(found[0], story=told)

    async def head(self) -> int:
        """The newest revision of the change log."""
        async with self._database.connection() as connection:
            return await connection.fetchval("SELECT revision FROM head")

    async def read(
        self,
        broadcast_ids: Sequence[str],
        *,
        after: int | None = None,
        running: bool = False,
        known: Mapping[str, str] | None = None,
    ) -> Read:
        """These, without their stories; those that changed *after* a revision; and all that are wanted live, if asked
        for. Of those with a stamp in *known* only what was written since. Raises StoreUnavailable.
        """
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = await connection.fetchrow("SELECT revision, now() AS read_at FROM head")
            assert head is not None  # noqa: S101 - for the type checker: the migration made the row
            revision: int = head["revision"]
            wanted = set(broadcast_ids)
            if after is not None and revision > after:
                changed = await connection.fetch("SELECT DISTINCT broadcast_id FROM event WHERE revision > $1", after)
                wanted |= {row["broadcast_id"] for row in changed}
            if running:
                live = await connection.fetch("SELECT id FROM broadcast WHERE target = 'LIVE'")
                wanted |= {row["id"] for row in live}
            stamps = {row["id"]: row["stamp"] for row in await connection.fetch(_STAMPS, sorted(wanted))}
            fresh = sorted(id_ for id_, stamp in stamps.items() if (known or {}).get(id_) != stamp)
            found = await self._read(connection, "id = ANY($1)", fresh) if fresh else []
        return Read(facts=tuple(found), stamps=stamps, revision=revision, time=head["read_at"])

    async def running(self) -> list[Probed]:
        """What is to be probed."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_RUNNING)
        return [
            Probed(
                broadcast_id=row["id"],
                state=State(row["state"]),
                playback_id=row["playback_id"] or "",
                public=row["playback_policy"] != PlaybackPolicy.SIGNED,
                stalled=row["stalled"],
                seen=played_of(row),
            )
            for row in rows
        ]

    async def saw(self, looked: Looked) -> None:
        people = [(broadcast_id, msgspec.to_builtins(each)) for broadcast_id, each in looked.people.items()]
        playlists = [
            (broadcast_id, msgspec.to_builtins(seen), advanced)
            for broadcast_id, (seen, advanced) in looked.playlists.items()
        ]
        async with self._database.transaction() as connection:
            # In one order: whoever does the same at the same time waits, and not for each other.
            await connection.executemany(_SAW_PEOPLE, sorted(people, key=itemgetter(0)))
            await connection.executemany(_SAW_PLAYLIST, sorted(playlists, key=itemgetter(0)))
            if looked.wake:
                await wake(connection, sorted(looked.wake))

    async def report(self, broadcast_id: str, identity: str, stats: HostStats) -> None:
        """Of a broadcast that is wanted live. Raises BroadcastNotFound, StateForbids, StoreUnavailable."""
        async with self._database.connection() as connection:
            new = await connection.fetchval(_REPORT, broadcast_id, identity, msgspec.to_builtins(stats))
            if new:
                await connection.execute(_CROWD_OUT, broadcast_id, identity, REPORTERS)
            if new is not None:
                return
            row = await connection.fetchrow(
                "SELECT state, target FROM broadcast WHERE id = $1 AND NOT deleted", broadcast_id
            )
        if row is None:
            raise BroadcastNotFound(broadcast_id)
        why = "it was not started" if row["target"] == "CREATED" else "it was stopped"
        raise StateForbids(why, broadcast_id=broadcast_id, state=row["state"])

    async def forget(self) -> None:
        """What nobody asks for any more."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM host_stats WHERE report_time < now() - interval '1 day'")
            await connection.execute(
                "DELETE FROM probe USING broadcast WHERE id = broadcast_id AND state IN ('ENDED', 'FAILED') "
                "AND end_time < now() - interval '1 day'"
            )

    async def _read(self, connection: Connection, where: str, value: object) -> list[Facts]:
        """Three reads, however many broadcasts."""
        rows = await connection.fetch(_BROADCASTS + where, value)
        if not rows:
            return []
        held = await connection.fetch(_RESOURCES, [row["id"] for row in rows])
        providers = await connection.fetchrow(_PROVIDERS)
        assert providers is not None  # noqa: S101 - for the type checker: it selects from nothing
        around = around_of(providers, storage=self._storage)
        looked_at = msgspec.convert(providers["looked_at"] or {}, dict[str, datetime])
        resources: defaultdict[str, list[AnyResource]] = defaultdict(list)
        for row in held:
            resources[row["broadcast_id"]].append(self._rows.resource(row["broadcast_id"], row))
        return [self._facts(row, tuple(resources[row["id"]]), around, looked_at) for row in rows]

    def _facts(
        self, row: Row, resources: tuple[AnyResource, ...], around: Surroundings, looked_at: dict[str, datetime]
    ) -> Facts:
        broadcast = self._rows.broadcast(row)
        due: datetime | None = row["claimable_at"]
        in_the_room = FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes
        return Facts(
            broadcast=broadcast,
            resources=resources,
            now=row["read_at"],
            around=around,
            looked_at=looked_at,
            probe=replace(
                played_of(row),
                people=None if row["people"] is None else msgspec.convert(row["people"], RoomPeople),
                people_at=row["people_at"],
            ),
            stats=msgspec.convert(row["reported"] or {}, dict[str, ReportedStats]),
            viewers=row["viewers"] if in_the_room else None,
            claimable_since=due if due is not None and due <= row["read_at"] else None,
        )
