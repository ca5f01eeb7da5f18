"""Checks of what must come to be once nothing goes wrong any more: published, told as it is, ended, nothing left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import FallbackMode, State, Target
from service.domain.resource_set import ResourceSet, backoff_s, failed, on_air
from service.domain.resources import Egress, EgressStatus, Kind, LocalRecording, Phase
from service.reconciler.act.tags import pool_id
from tests.simulation.checks.at_effects import STARTS, STARTS_WINDOW_S
from tests.simulation.replica import TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.domain.resources import AnyResource
    from tests.simulation.checks.at_commits import AtCommits
    from tests.simulation.checks.violations import Findings
    from tests.simulation.providers.egresses import TrueEgress
    from tests.simulation.replica import Shared
    from tests.simulation.store.tables import Row

STARTS_SLACK_S = 15.0
"""Added to the window of starts, because an intent is older than its commit. Seconds."""
RESTING_PASSES = 80
"""From the end of a broadcast until its recordings are known it may be looked at so often, and no more."""


class Convergence:
    def __init__(self, shared: Shared, findings: Findings, commits: AtCommits) -> None:
        self._shared = shared
        self._findings = findings
        self._commits = commits

    def publishes(self, broadcast_id: str) -> bool:
        """Whether a viewer would see moving pictures."""
        room = self._shared.livekit.rooms.get(broadcast_id)
        if room is None or not room.hosts:
            return False
        return any(
            stream.broadcast_id == broadcast_id and stream.active and stream.has_media and not stream.stalled
            for stream in self._shared.mux.living
        )

    def starts_used_up(self, broadcast_id: str) -> bool:
        """Whether the limit of starts holds up the next one."""
        return self._recent_starts(broadcast_id) >= STARTS

    def next_start_waits_s(self, broadcast_id: str) -> float:
        """For how many seconds the back-off would hold up the next start, if the egress that runs now failed."""
        return backoff_s(self._recent_starts(broadcast_id), self._shared.timing)

    def _recent_starts(self, broadcast_id: str) -> int:
        oldest = self._shared.tables.now() - timedelta(seconds=STARTS_WINDOW_S + STARTS_SLACK_S)
        resources = self._shared.tables.rows[broadcast_id].resources.values()
        # One that runs now is counted as if it failed: it is asked for the next start, if it does.
        ran = [e for e in resources if isinstance(e, Egress) and (failed(e) or e.phase is Phase.PRESENT)]
        return sum(each.intended_at > oldest for each in ran)

    def records_nothing(self, row: Row) -> bool:
        """Whether a file is to be written, and none is although nothing holds it up."""
        broadcast = row.broadcast
        if broadcast.target is not Target.LIVE or FallbackMode.LOCAL_RECORDING not in broadcast.fallback.modes:
            return False
        oldest = self._shared.tables.now() - timedelta(seconds=STARTS_WINDOW_S)
        rows = [each for each in row.resources.values() if isinstance(each, LocalRecording)]
        spent = sum(each.intended_at > oldest for each in rows) >= STARTS
        writing = any(e.runs and e.file and e.room.name == broadcast.id for e in self._shared.livekit.ours)
        return not spent and not writing

    def amiss(self) -> dict[str, str]:
        """I-12 and I-13: broadcasts that are not as they are wanted, or not as is said of them, and in what."""
        found: dict[str, str] = {}
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if broadcast.target is not Target.LIVE:
                continue
            room = self._shared.livekit.rooms.get(broadcast.id)
            host = room is not None and bool(room.hosts)
            off_air = not on_air(broadcast)
            publishes = self.publishes(broadcast.id)
            if off_air and any(e.runs and e.room.name == broadcast.id for e in self._shared.livekit.ours):
                found[broadcast.id] = "it is off air and has an egress"
            elif given_up := self._given_up(row):
                found[broadcast.id] = f"egress {given_up.id} runs, and its row is gone"
            elif self.starts_used_up(broadcast.id):
                continue
            elif host and not off_air and not publishes:
                found[broadcast.id] = f"it is wanted, has a host and is not published: {_told(row)}"
            elif host and self.records_nothing(row):
                found[broadcast.id] = f"it is to be recorded and nothing is: {_told(row)}"
            elif (broadcast.state is State.LIVE) is not publishes:
                found[broadcast.id] = f"it is said to be {broadcast.state}, published: {publishes}: {_told(row)}"
            elif wrong := next((why for each in row.resources.values() if (why := self._wrong(row, each))), ""):
                found[broadcast.id] = wrong
        return found

    def _wrong(self, row: Row, resource: AnyResource) -> str:
        """What is wrong with *resource*, in a sentence. Empty: nothing."""
        if not self._is_there(row.broadcast.id, resource):
            return f"it has {resource.kind} {resource.external_id}, which is not there"
        stream = self._shared.mux.get(resource.external_id) if resource.kind is Kind.STREAM else None
        if stream is not None and resource.phase is Phase.PRESENT and pool_id(TAG, stream.tag):
            return f"its live stream {stream.id} has the mark of the pool still"
        return ""

    def _given_up(self, row: Row) -> TrueEgress | None:
        """An egress that was written off, and runs and costs. None: there is none."""
        gone = {each.external_id for each in row.resources.values() if each.phase is Phase.GONE}
        running = [e for e in self._shared.livekit.egresses.values() if e.runs and e.room.name == row.broadcast.id]
        return next((egress for egress in running if egress.id in gone), None)

    def _is_there(self, broadcast_id: str, resource: AnyResource) -> bool:
        """I-2, the other way round: a row that says PRESENT is of something that exists."""
        if resource.phase is not Phase.PRESENT:
            return True
        match resource.kind:
            case Kind.ROOM:
                return broadcast_id in self._shared.livekit.rooms
            case Kind.STREAM:
                return self._shared.mux.get(resource.external_id) is not None
            case Kind.UPLOAD:
                return resource.external_id in self._shared.mux.assets
            case _:
                egress = self._shared.livekit.egresses.get(resource.external_id)
                return egress is not None and egress.runs

    def check_ended(self, within_s: float) -> None:
        """I-3, while nothing is wrong: whoever was stopped longer than *within_s* ago publishes no more."""
        now = self._shared.env.loop.time()
        for stream in self._shared.mux.living:
            stopped = self._commits.stopped_at.get(stream.broadcast_id)
            if stopped is not None and stream.sessions and now - stopped > within_s:
                self._findings.violate("I-3", f"{stream.broadcast_id} publishes {now - stopped:.0f} s after its end")

    def check_over(self) -> None:
        """I-2 and I-3, when everything was stopped and there was time: all are over, and nothing of them runs. A live
        stream that is kept for the last viewers takes no publisher.
        """
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if broadcast.target is Target.ENDED and not broadcast.state.over:
                self._findings.violate("I-3", f"{broadcast.id} does not come to its end: {_told(row)}")
            if broadcast.state.over and ResourceSet(tuple(row.resources.values())).left:
                self._findings.violate("I-2", f"{broadcast.id} is {broadcast.state} and has something left")
        over = {row.broadcast.id for row in self._shared.tables.rows.values() if row.broadcast.state.over}
        for stream in self._shared.mux.living:
            if stream.broadcast_id in over and stream.used and not stream.disabled:
                self._findings.violate("I-2", f"{stream.broadcast_id} is over, and {stream.id} takes publishers")

    def leftovers(self) -> list[str]:
        """Names of the things at the providers that no row needs."""
        over = {row.broadcast.id for row in self._shared.tables.rows.values() if row.broadcast.target is Target.ENDED}
        left: list[str] = []
        strange = self._shared.strangers.ids
        owned = {
            resource.external_id
            for row in self._shared.tables.rows.values()
            for resource in row.resources.values()
            if resource.phase is not Phase.GONE and resource.kind is not Kind.ROOM
        }
        left += [
            f"live stream {each.id}"
            for each in self._shared.mux.living
            if (each.id not in {*owned, *strange} and pool_id(TAG, each.tag) not in self._shared.tables.pool)
            or each.broadcast_id in over
        ]
        left += [
            f"upload {each.recording.asset_id}"
            for each in self._shared.mux.uploads
            if each.recording.asset_id not in {*owned, *strange}
        ]
        left += [f"room {name}" for name in self._shared.livekit.rooms if name in over - strange]
        left += [
            f"egress {each.id}"
            for each in self._shared.livekit.ours
            if each.runs and (each.room.name in over or each.id not in owned)
        ]
        return left

    def restless(self) -> list[str]:
        """Broadcasts that are over and are still queued: their recordings are awaited."""
        return [row.broadcast.id for row in self._shared.tables.rows.values() if row.broadcast.state.over and row.due]

    def check_rest(self) -> None:
        """I-18, after everything is over: no broadcast waits any more, and every recording is known."""
        for broadcast_id in self.restless():
            self._findings.violate("I-18", f"{broadcast_id} is over and does not come to rest")
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if not broadcast.state.over or broadcast.deleted:
                continue
            for recording in broadcast.status.recordings:
                if not recording.settled:
                    self._findings.violate("I-18", f"nobody knows what became of {recording.asset_id}")
            for what in self._files_lost(row):
                self._findings.violate("I-18", what)

    def _files_lost(self, row: Row) -> Iterator[str]:
        """Files that are in our storage and not at Mux. One whose row was written off makes no recording."""
        recordings = {e.file: e for e in row.resources.values() if isinstance(e, LocalRecording)}
        uploads = {upload.ordinal: upload for upload in ResourceSet(tuple(row.resources.values())).uploads}
        for egress in self._shared.livekit.ours:
            if not egress.file or egress.room.name != row.broadcast.id or egress.status is not EgressStatus.COMPLETE:
                continue
            recording = recordings.get(egress.file)
            if recording is None or not recording.end_seen:
                continue
            self._findings.seen["file recorded"] += 1
            upload = uploads.get(recording.ordinal)
            if upload is None or (upload.recording is None and not upload.refused):
                yield f"{egress.file} was recorded and is not at Mux"


def _told(row: Row) -> str:
    status = row.broadcast.status
    conditions = ", ".join(f"{each.type} {each.reason}" for each in status.conditions)
    kept = [
        f"{each.kind} {each.ordinal} {each.phase} failures {each.failures}"
        for each in row.sorted_resources()
        if each.phase is not Phase.GONE
    ]
    return f"{row.broadcast.state} {status.state_reason} [{conditions}] {kept} due {row.due}"
