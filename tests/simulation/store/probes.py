"""The reads and writes of the prober, in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import PlaybackPolicy, State, Target
from service.domain.measurements import Probe, Unseen
from service.domain.resources import Phase, Room, Stream
from service.store.measurements.probes import ProbeResults, ProbeTarget
from tests.simulation.store.tables import transactions

if TYPE_CHECKING:
    from service.domain.ports import PlaylistSeen
    from tests.simulation.store.tables import Line, Row, Tables

NEVER = datetime.max.replace(tzinfo=UTC)
_AT_ONCE = timedelta()
_FAR = timedelta(minutes=5)
_PROBED = frozenset({State.READY, State.LIVE, State.INTERRUPTED})


@transactions
class Probes:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def enter(self) -> None:
        await self._line.begin("enter")
        tables, now = self._tables, self._tables.now()
        for broadcast_id, row in tables.rows.items():
            due, state = tables.probe_due.get(broadcast_id, (None, None))
            if not _runs(row):
                continue
            changed = due is not None and state is not row.broadcast.state and due > now
            if due is None or changed or (due - now > _FAR and due != NEVER):
                tables.probe_due[broadcast_id] = (now, state)
        await self._line.commit("enter")

    async def claim(self, *, limit: int, every: timedelta, overdue: timedelta = _AT_ONCE) -> list[ProbeTarget]:
        await self._line.begin("claim_probes")
        tables, now = self._tables, self._tables.now()
        due = sorted((at, broadcast_id) for broadcast_id, (at, _) in tables.probe_due.items() if at <= now - overdue)
        claimed: list[ProbeTarget] = []
        for _, broadcast_id in due[:limit]:
            row = tables.rows[broadcast_id]
            tables.probe_due[broadcast_id] = (now + every if _runs(row) else NEVER, row.broadcast.state)
            if _runs(row):
                claimed.append(self._target(broadcast_id, row))
        await self._line.commit("claim_probes")
        return claimed

    def _target(self, broadcast_id: str, row: Row) -> ProbeTarget:
        probe, room = self._tables.probes.get(broadcast_id, Probe()), _room(row)
        return ProbeTarget(
            broadcast_id=broadcast_id,
            state=row.broadcast.state,
            playback_id=row.broadcast.status.playback_id,
            public=row.broadcast.spec.playback_policy is not PlaybackPolicy.SIGNED,
            stalled=_stalled(row),
            out_of_sight=_out_of_sight(row),
            host_publishing=room.host_publishing if room is not None else None,
            room_seen_at=room.observed_at if room is not None else None,
            seen=replace(probe, people=None, people_at=None),
            people_at=probe.people_at,
            read_at=self._tables.now(),
        )

    async def saw(self, results: ProbeResults) -> None:
        await self._line.begin("saw")
        tables, now = self._tables, self._tables.now()
        for broadcast_id, people in results.people.items():
            probe = tables.probes.get(broadcast_id, Probe())
            tables.probes[broadcast_id] = replace(probe, people=people, people_at=now)
        for broadcast_id, (playlist, moved) in results.playlists.items():
            self._saw(broadcast_id, playlist, moved=moved)
        for broadcast_id, (code, message) in results.unseen.items():
            probe = tables.probes.get(broadcast_id, Probe())
            since = now if probe.unseen is None else probe.unseen.since
            unseen = Unseen(since=since, at=now, code=code, message=message)
            tables.probes[broadcast_id] = replace(probe, unseen=unseen)
        for broadcast_id, after_s in results.again.items():
            due, state = tables.probe_due[broadcast_id]
            tables.probe_due[broadcast_id] = (min(due, now + timedelta(seconds=after_s)), state)
        tables.wake(sorted(results.wake))
        await self._line.commit("saw")

    async def forget(self) -> int:
        """Worlds are short, so nothing is old."""
        await self._line.begin("forget_probes")
        return 0

    def _saw(self, broadcast_id: str, playlist: PlaylistSeen, *, moved: bool | None) -> None:
        tables, now = self._tables, self._tables.now()
        before = tables.probes.get(broadcast_id, Probe())
        stands = moved is False and before.playlist is not None
        tables.probes[broadcast_id] = replace(
            before,
            playlist=playlist,
            playlist_at=now,
            advanced_at=now if moved else before.advanced_at if stands else None,
            standing_since=before.standing_since if stands else now,
            unseen=None,
        )


def _runs(row: Row) -> bool:
    return row.broadcast.target is Target.LIVE and row.broadcast.state in _PROBED


def _room(row: Row) -> Room | None:
    rooms = [each for each in row.resources.values() if isinstance(each, Room) and each.phase is Phase.PRESENT]
    return max(rooms, key=lambda room: room.ordinal, default=None)


def _out_of_sight(row: Row) -> bool:
    return any(isinstance(each, Stream) and each.unseen_since is not None for each in row.resources.values())


def _stalled(row: Row) -> bool:
    return any(isinstance(each, Stream) and each.stalled_since is not None for each in row.resources.values())
