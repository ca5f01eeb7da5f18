"""Checks at every effect that a provider has: publishers, starts, what the sweeper removes."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from service.domain.broadcast import Target
from service.domain.resource_set import failed
from service.domain.resources import Egress, Phase
from service.reconciler.act.tags import pool_id
from service.reconciler.background.orphans import PER_CALL
from tests.simulation.providers.network import LATE_S
from tests.simulation.replica import SWEEP_EVERY, SWEEPER, TAG

if TYPE_CHECKING:
    from tests.simulation.checks.at_commits import AtCommits
    from tests.simulation.checks.violations import Findings
    from tests.simulation.effects import Effect
    from tests.simulation.providers.egresses import TrueEgress
    from tests.simulation.providers.mux import LiveStream
    from tests.simulation.replica import Shared

GRACE_S = 28.0
"""A create of a live stream that landed within so many seconds is found by its own pass (`Timing.stream_grace_s`, less
the lag of lists)."""
STARTS, STARTS_WINDOW_S = 5, 600.0
TOUCHES = frozenset(
    {
        "asset.deleted",
        "egress.layout",
        "egress.outputs",
        "egress.stopped",
        "key.reset",
        "room.deleted",
        "stream.deleted",
        "stream.disabled",
        "stream.enabled",
    }
)
"""What one does to a thing at a provider, and does not happen to it by itself."""
OTHERS = ("outside", "timeout")
"""Who did it, where it was no replica."""


class AtEffects:
    def __init__(self, shared: Shared, findings: Findings, commits: AtCommits) -> None:
        self._shared = shared
        self._findings = findings
        self._commits = commits
        self._starts: defaultdict[str, deque[tuple[float, str]]] = defaultdict(deque)
        self._removed: deque[float] = deque()
        shared.env.effects.watchers.append(self._effect)

    def _effect(self, effect: Effect) -> None:
        if effect.id in self._shared.strangers.ids and effect.kind in TOUCHES and effect.detail not in OTHERS:
            self._findings.violate("I-19", f"{effect.kind} of {effect.id}, which is not ours")
            return
        if effect.detail == SWEEPER:
            self._by_sweeper(effect)
            return
        seen = self._findings.seen
        match effect.kind:
            case "egress.started":
                self._one_publisher(effect.broadcast_id)
                self._count_start(effect)
            case "rtmp.connected":
                self._one_publisher(effect.broadcast_id)
                self._not_over(effect)
            case "stream.enabled":
                self._one_publisher(effect.broadcast_id)
                seen["cut off"] += 1
            case "key.reset":
                self._one_publisher(effect.broadcast_id)
                seen["fenced"] += 1
            case "rtmp.refused":
                seen["late effect neutralised"] += 1
            case "stream.deleted" if effect.detail == "us":
                self._disabled_before(effect)
            case "egress.hidden":
                seen["ghost beside another egress"] += 1
            case _:
                pass

    def lose_commits(self) -> None:
        """Starts that no row knows any more are not counted by anybody."""
        self._starts.clear()

    def _by_sweeper(self, effect: Effect) -> None:
        self._removes(effect)
        match effect.kind:
            case "stream.deleted":
                self._swept(effect)
            case "room.deleted":
                self._findings.seen["orphan swept"] += 1
            case "asset.deleted":
                self._upload_swept(effect)
            case _:
                pass

    def _count_start(self, effect: Effect) -> None:
        """A refused start has no effect and costs nothing. One that lands late was asked for up to `LATE_S` before. One
        that was stopped because it was not wanted did not fail.
        """
        starts = self._starts[effect.broadcast_id]
        starts.append((effect.time, effect.id))
        while starts[0][0] <= effect.time - STARTS_WINDOW_S + LATE_S[1]:
            starts.popleft()
        row = self._shared.tables.rows.get(effect.broadcast_id)
        known = [each for each in row.resources.values() if isinstance(each, Egress)] if row is not None else []
        unwanted = {each.external_id for each in known if each.phase is not Phase.PRESENT and not failed(each)}
        counted = sum(egress_id not in unwanted for _, egress_id in starts)
        if counted > STARTS:
            self._findings.violate(
                "I-14", f"{counted} egress starts of {effect.broadcast_id} in {STARTS_WINDOW_S:.0f} s"
            )

    def _one_publisher(self, broadcast_id: str) -> None:
        egresses = [e for e in self._shared.livekit.ours if e.room.name == broadcast_id and e.runs]
        if len(egresses) <= 1:
            return
        for stream in self._shared.mux.living:
            if stream.broadcast_id == broadcast_id:
                able = [egress.id for egress in egresses if can_publish(egress, stream)]
                if len(able) > 1:
                    self._findings.violate("I-1", f"{' and '.join(able)} can publish to {stream.id} of {broadcast_id}")

    def _not_over(self, effect: Effect) -> None:
        row = self._shared.tables.rows.get(effect.broadcast_id)
        if row is not None and row.broadcast.state.over:
            self._findings.violate(
                "I-3", f"{effect.detail} publishes to {effect.id}, and {effect.broadcast_id} is over"
            )

    def _removes(self, effect: Effect) -> None:
        removed = self._removed
        removed.append(effect.time)
        while removed[0] <= effect.time - SWEEP_EVERY.total_seconds():
            removed.popleft()
        if len(removed) > PER_CALL:
            self._findings.violate("I-14", f"{len(removed)} orphans removed within {SWEEP_EVERY.total_seconds():.0f} s")

    def _swept(self, effect: Effect) -> None:
        self._findings.seen["orphan swept"] += 1
        if self._findings.commits_lost:
            return
        stream = self._shared.mux.streams[effect.id]
        if effect.id in {idle.external_id for idle in self._shared.tables.pool.values()}:
            self._findings.violate("I-2", f"{effect.id} waits for a broadcast, and was swept")
        if pool_id(TAG, stream.tag):
            # Its create landed after it was given up, or the rows of the pool are lost.
            return
        ordinal = int(stream.tag.rpartition(":")[2])
        intended = self._commits.streams_intended.get((stream.broadcast_id, ordinal))
        landed = next(e.time for e in self._shared.env.effects.log if e.kind == "stream.created" and e.id == effect.id)
        if intended is not None and self._lied_to(intended):
            # The lists in which its create was looked for did not tell the truth.
            return
        if intended is None or landed - intended <= GRACE_S:
            self._findings.violate(
                "I-2", f"{effect.id} of {stream.broadcast_id} landed in time and was left to the sweeper"
            )

    def _lied_to(self, since: float) -> bool:
        return any(told >= since for told in self._shared.at_mux.lied["list_live_streams"])

    def _upload_swept(self, effect: Effect) -> None:
        self._findings.seen["upload swept"] += 1
        if self._findings.commits_lost:
            return
        made = next(e for e in self._shared.env.effects.log if e.kind == "upload.created" and e.id == effect.id)
        row = self._shared.tables.rows[made.broadcast_id]
        in_time = made.time - self._commits.uploads_intended[made.detail] <= self._shared.timing.upload_grace_s
        if in_time and not row.broadcast.deleted:
            self._findings.violate(
                "I-2", f"{effect.id} of {made.broadcast_id} landed in time and was left to the sweeper"
            )

    def _disabled_before(self, effect: Effect) -> None:
        row = self._shared.tables.rows.get(effect.broadcast_id)
        stream = self._shared.mux.streams[effect.id]
        if row is not None and row.broadcast.target is Target.ENDED and stream.used and not stream.disabled:
            self._findings.violate("I-3", f"{effect.id} was deleted and never disabled, with keys of it about")


def can_publish(egress: TrueEgress, stream: LiveStream) -> bool:
    """Whether media of *egress* may reach *stream*: it runs, and is connected or holds the key that is valid."""
    if not egress.runs or egress.gave_up or stream.disabled or stream.deleted:
        return False
    return egress.stream is stream or egress.key == stream.key
