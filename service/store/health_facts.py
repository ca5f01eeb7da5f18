"""All that health and explanations are made of: what is stored of one broadcast or of many, read in one snapshot.

One transaction reads everything, so resources, events and measurements of an answer belong to the same moment. Nothing
here is decrypted: health needs no stream key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from service.domain.broadcast import FallbackMode
from service.domain.cost.prices import Prices
from service.domain.errors import BroadcastNotFound
from service.domain.facts import Facts, Told
from service.domain.lifecycle import Event
from service.domain.measurements import ReportedStats
from service.domain.ports import RoomPeople
from service.domain.reasons import Actor, EventReason
from service.domain.resources import AnyResource
from service.domain.situation import Availability
from service.domain.words import as_stored
from service.store.database import Database
from service.store.history import HISTORY, settled
from service.store.rows import (
    BROADCAST_COLUMNS,
    DELIVERED,
    OUTAGES,
    RESOURCE_COLUMNS,
    WATCHED,
    Row,
    Rows,
    availability_of,
    costs_of,
    played_of,
    watching_of,
)

if TYPE_CHECKING:
    from service.store.database import Connection

STORY = 200
"""The newest events of a broadcast that an explanation looks at."""

# The columns of the queue tell whether a replica works on the broadcast. Secrets are left out: nothing is decrypted.
_BROADCASTS = f"""
SELECT {BROADCAST_COLUMNS}, coalesce(lease_until, due_at) AS claimable_at, now() AS read_at,
  {WATCHED}, people, people_at, playlist, playlist_at, unseen,
  (SELECT jsonb_object_agg(identity, jsonb_build_object('stats', stats, 'time', report_time)) FROM host_stats h
   WHERE h.broadcast_id = broadcast.id AND report_time > now() - interval '5 min') AS reported,
  (SELECT count(*) FROM viewer v WHERE v.broadcast_id = broadcast.id AND expire_time > now()) AS slots_taken,
  {DELIVERED}
FROM broadcast LEFT JOIN probe ON probe.broadcast_id = broadcast.id
WHERE """  # noqa: S608 - a constant
_RESOURCES = f"""
SELECT broadcast_id, {RESOURCE_COLUMNS.removesuffix(", secret")}, NULL::bytea AS secret FROM resource
WHERE broadcast_id = ANY($1) ORDER BY kind, ordinal
"""  # noqa: S608 - a constant
# xmin is the transaction that wrote a row last. The stamp of a broadcast is made of the xmin of every row that its
# health is made of, so it is the same as long as none of them was written.
_STAMPS = """
SELECT id, format('%s %s %s %s %s %s', broadcast.xmin, probe.xmin,
  (SELECT string_agg(r.xmin::text, ',' ORDER BY kind, ordinal) FROM resource r WHERE r.broadcast_id = broadcast.id),
  (SELECT string_agg(h.xmin::text, ',' ORDER BY identity) FROM host_stats h WHERE h.broadcast_id = broadcast.id),
  (SELECT count(*) FROM viewer v WHERE v.broadcast_id = broadcast.id AND expire_time > now()),
  (SELECT string_agg(xmin::text, ',' ORDER BY name) FROM provider)) AS stamp
FROM broadcast LEFT JOIN probe ON probe.broadcast_id = broadcast.id
WHERE id = ANY($1)
"""
# A look without an answer shows nothing, and leaves the last one that was shown everything as it is.
_PROVIDERS = f"""
SELECT {OUTAGES}, (SELECT jsonb_object_agg(name, shown_at) FROM (
  SELECT name, coalesce(compared_at, CASE WHEN unreachable_since IS NULL THEN checked_at END) AS shown_at FROM provider
) AS p WHERE shown_at IS NOT NULL) AS looked_at
"""  # noqa: S608 - a constant
_HEAD = f"SELECT revision, {HISTORY} AS history, now() AS read_at FROM head"  # noqa: S608 - a constant
_STORY = """
SELECT time, reason, message, actor FROM (
  SELECT revision, time, reason, message, actor FROM event WHERE broadcast_id = $1 ORDER BY revision DESC LIMIT $2
) AS newest ORDER BY revision
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Broadcasts read at one moment."""

    facts: tuple[Facts, ...]
    """Of deleted broadcasts too."""
    stamps: Mapping[str, str]
    """By broadcast id: equal stamps mean that nothing was written in between. Passed to the next `read` as *known*."""
    revision: int
    """The newest of the change log at that moment."""
    history: str
    """The id of the history of the database: revisions of two histories cannot be compared."""
    time: datetime
    """That moment, by the database clock."""


class HealthFacts:
    def __init__(
        self,
        database: Database,
        rows: Rows,
        *,
        storage: bool = False,
        signing: bool = False,
        prices: Prices | None = None,
    ) -> None:
        """*storage*, *signing*, *prices*: as of Passes."""
        self._database = database
        self._rows = rows
        self._storage = storage
        self._signing = signing
        self._prices = prices or Prices()

    async def facts(self, broadcast_id: str) -> Facts:
        """The facts of one broadcast, with its newest events. Raises BroadcastNotFound, StoreUnavailable."""
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            found = await self._read(connection, "id = $1 AND NOT deleted", broadcast_id)
            if not found:
                raise BroadcastNotFound(broadcast_id)
            story = await connection.fetch(_STORY, broadcast_id, STORY)
        told = tuple(
            Told(
                event=Event(reason=as_stored(EventReason, row["reason"]), message=row["message"]),
                time=row["time"],
                actor=as_stored(Actor, row["actor"]),
            )
            for row in story
        )
        return replace(found[0], story=told)

    async def head(self) -> tuple[int, str]:
        """The newest revision of the change log, and the id of its history. Raises StoreUnavailable."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_HEAD)
        assert row is not None  # noqa: S101 - for the type checker: the migration made the row
        return row["revision"], settled(row["history"])

    async def read(
        self,
        broadcast_ids: Sequence[str],
        *,
        after: int | None = None,
        running: bool = False,
        known: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """The facts of these broadcasts, without their events.

        *after*: also of those that changed after this revision. *running*: also of all that are wanted live. *known*:
        the stamps of an earlier reading; a broadcast whose stamp is the same is left out of `facts`. Raises
        StoreUnavailable.
        """
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            head = await connection.fetchrow(_HEAD)
            assert head is not None  # noqa: S101 - as above
            revision: int = head["revision"]
            history = settled(head["history"])
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
        return Snapshot(facts=tuple(found), stamps=stamps, revision=revision, history=history, time=head["read_at"])

    async def _read(self, connection: Connection, where: str, value: object) -> list[Facts]:
        """Three reads, however many broadcasts."""
        rows = await connection.fetch(_BROADCASTS + where, value)
        if not rows:
            return []
        held = await connection.fetch(_RESOURCES, [row["id"] for row in rows])
        providers = await connection.fetchrow(_PROVIDERS)
        assert providers is not None  # noqa: S101 - for the type checker: it selects from nothing
        availability = availability_of(providers, storage=self._storage, signing=self._signing)
        looked_at = msgspec.convert(providers["looked_at"] or {}, dict[str, datetime])
        resources: defaultdict[str, list[AnyResource]] = defaultdict(list)
        for row in held:
            resources[row["broadcast_id"]].append(self._rows.resource(row["broadcast_id"], row))
        return [self._facts(row, tuple(resources[row["id"]]), availability, looked_at) for row in rows]

    def _facts(
        self, row: Row, resources: tuple[AnyResource, ...], availability: Availability, looked_at: dict[str, datetime]
    ) -> Facts:
        broadcast = self._rows.broadcast(row)
        due: datetime | None = row["claimable_at"]
        in_the_room = FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes
        return Facts(
            broadcast=broadcast,
            resources=resources,
            now=row["read_at"],
            availability=availability,
            costs=costs_of(row, self._prices),
            looked_at=looked_at,
            probe=replace(
                played_of(row),
                people=None if row["people"] is None else msgspec.convert(row["people"], RoomPeople),
                people_at=row["people_at"],
            ),
            watching=watching_of(row),
            stats=msgspec.convert(row["reported"] or {}, dict[str, ReportedStats]),
            viewers=row["slots_taken"] if in_the_room else None,
            claimable_since=due if due is not None and due <= row["read_at"] else None,
        )
