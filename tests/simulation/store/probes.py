"""The reads and writes of the prober, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.domain.broadcast import PlaybackPolicy, State, Target
from service.domain.measurements import Probe, Unseen
from service.domain.resources import Phase, Room, Stream
from service.store.measurements.probes import ProbeResults, ProbeTarget
from tests.simulation.store.tables import transactions

if TYPE_CHECKING:
    from service.domain.ports import PlaylistSeen
    from tests.simulation.store.tables import Line, Row, Tables

_PROBED = frozenset({State.READY, State.LIVE, State.INTERRUPTED})


@transactions
class Probes:
    def __init__(self, tables: Tables, line: Line) -> None:
        self._tables = tables
        self._line = line

    async def running(self) -> list[ProbeTarget]:
        await self._line.begin("running")
        return [
            ProbeTarget(
                broadcast_id=broadcast_id,
                state=row.broadcast.state,
                playback_id=row.broadcast.status.playback_id,
                public=row.broadcast.spec.playback_policy is not PlaybackPolicy.SIGNED,
                stalled=_stalled(row),
                out_of_sight=_out_of_sight(row),
                host_publishing=_host_publishing(row),
                seen=replace(
                    self._tables.probes.get(broadcast_id, Probe()),
                    people=None,
                    people_at=None,
                    playlist_at=self._tables.now(),
                ),
                seen_at=self._tables.probes.get(broadcast_id, Probe()).playlist_at,
            )
            for broadcast_id, row in self._tables.rows.items()
            if row.broadcast.target is Target.LIVE and row.broadcast.state in _PROBED
        ]

    async def saw(self, looked: ProbeResults) -> None:
        await self._line.begin("saw")
        tables, now = self._tables, self._tables.now()
        for broadcast_id, people in looked.people.items():
            probe = tables.probes.get(broadcast_id, Probe())
            tables.probes[broadcast_id] = replace(probe, people=people, people_at=now)
        for broadcast_id, (playlist, moved) in looked.playlists.items():
            self._saw(broadcast_id, playlist, moved=moved)
        for broadcast_id, (code, message) in looked.unseen.items():
            probe = tables.probes.get(broadcast_id, Probe())
            since = now if probe.unseen is None else probe.unseen.since
            unseen = Unseen(since=since, at=now, code=code, message=message)
            tables.probes[broadcast_id] = replace(probe, unseen=unseen)
        tables.wake(sorted(looked.wake))
        await self._line.commit("saw")

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


def _host_publishing(row: Row) -> bool | None:
    rooms = [each for each in row.resources.values() if isinstance(each, Room) and each.phase is Phase.PRESENT]
    return max(rooms, key=lambda room: room.ordinal).host_publishing if rooms else None


def _out_of_sight(row: Row) -> bool:
    return any(isinstance(each, Stream) and each.unseen_since is not None for each in row.resources.values())


def _stalled(row: Row) -> bool:
    return any(isinstance(each, Stream) and each.stalled_since is not None for each in row.resources.values())
