"""Checks at every commit that changes a broadcast: fences, targets, the log, webhooks, fallbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.broadcast import Target
from service.domain.reasons import EventReason, FallbackReason, Fault
from service.domain.resources import Egress, Kind, Phase, Stream, Upload
from service.reconciler.act.tags import upload_tag
from tests.simulation.checks.endings import Endings
from tests.simulation.replica import TAG

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from tests.simulation.checks.violations import Findings
    from tests.simulation.replica import Shared
    from tests.simulation.store.tables import Written

_TARGETS = tuple(Target)


class AtCommits:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._shared = shared
        self._findings = findings
        self._endings = Endings(shared, findings)
        self.stopped_at: dict[str, float] = {}
        """When the target of each became ENDED."""
        self.streams_intended: dict[tuple[str, int], float] = {}
        self.uploads_intended: dict[str, float] = {}
        """By its mark."""
        self.committed: dict[int, Broadcast] = {}
        """Each row as it was with its revision."""
        self._latest: dict[str, Broadcast] = {}
        self._taken_in: set[int] = set()
        self._ghosts: set[tuple[str, int]] = set()
        shared.tables.written = self._written

    def lose_commits(self) -> None:
        """The rows are as they were some seconds ago."""
        tables = self._shared.tables
        over = {name for name, row in tables.rows.items() if row.broadcast.target is Target.ENDED}
        self.stopped_at = {name: at for name, at in self.stopped_at.items() if name in over}
        self._latest = {name: row.broadcast for name, row in tables.rows.items()}
        self.committed = {revision: row for revision, row in self.committed.items() if revision <= tables.head}
        self._taken_in = {webhook.id for webhook in tables.stored if webhook.applied}

    def _written(self, written: Written) -> None:
        before, after, claim = written.before, written.after, written.claim
        violate = self._findings.violate
        if claim is not None and claim.fence != written.row.fence:
            violate("I-8", f"{after.id} is written with fence {claim.fence}, and the row's is {written.row.fence}")
        if written.intended is not None:
            self._intended(written, after)
        for number in written.heard:
            if number in self._taken_in:
                violate("I-9", f"webhook {number} of {after.id} is taken in twice")
            self._taken_in.add(number)
        self._logged(written, after)
        if before is not None and before is not after:
            self._moved(before, after)
            self._fallback_moved(before, after)

    def _moved(self, before: Broadcast, after: Broadcast) -> None:
        violate, env = self._findings.violate, self._shared.env
        if _TARGETS.index(after.target) < _TARGETS.index(before.target):
            violate("I-6", f"target of {after.id}: {before.target} -> {after.target}")
        if after.state.over is not (after.end_time is not None):
            violate("I-6", f"{after.id} is {after.state}, ended {after.end_time}")
        if before.state.over and (after.state is not before.state or after.end_time != before.end_time):
            violate("I-6", f"{after.id} was {before.state} and is {after.state}, ended {after.end_time}")
        if after.target is Target.ENDED and before.target is not Target.ENDED:
            self.stopped_at[after.id] = env.loop.time()
            self._endings.check(after)
        if after.version - before.version not in (0, 1):
            violate("I-7", f"version of {after.id}: {before.version} -> {after.version}")
        if after.state is not before.state:
            env.trace.add("state", after.id, str(after.state), after.status.state_reason)

    def _fallback_moved(self, before: Broadcast, after: Broadcast) -> None:
        """I-17. That a mode is added moves nobody back: it keeps the time of the first."""
        if after.fallback == before.fallback:
            return
        now, seen = self._shared.tables.now(), self._findings.seen
        if not set(after.fallback.modes) <= set(after.spec.fallback_modes):
            self._findings.violate("I-17", f"{after.id} falls back to {after.fallback.modes}, which nobody allowed")
        if not before.fallback.modes:
            seen["fallback entered"] += 1
        elif not after.fallback.modes:
            seen["fallback left"] += 1
            entered = before.fallback.since
            stayed = 0.0 if entered is None else (now - entered).total_seconds()
            if after.fallback.reason is FallbackReason.RETURNED and stayed < self._shared.timing.fallback_return_s:
                self._findings.violate("I-17", f"{after.id} leaves its fallback after {stayed:.0f} s")

    def _logged(self, written: Written, after: Broadcast) -> None:
        """I-7: a change is logged in the commit that makes it."""
        for event in written.events:
            if event.reason.endswith("_ADOPTED"):
                self._findings.seen["adopted"] += 1
            if event.reason is EventReason.UPLOAD_ERRORED:
                self._findings.seen["upload made again"] += 1
        if written.events:
            self.committed[self._shared.tables.head] = after
        elif self._latest.get(after.id) is not after:
            self._findings.violate("I-7", f"{after.id} is changed without an event")
        self._latest[after.id] = after

    def _intended(self, written: Written, broadcast: Broadcast) -> None:
        resource, env = written.intended, self._shared.env
        assert resource is not None
        env.trace.add("intend", broadcast.id, resource.kind, resource.ordinal, resource.phase)
        if isinstance(resource, Egress) and resource.fault is Fault.GHOST:
            self._ghosts.add((broadcast.id, resource.ordinal))
            self._findings.seen["ghost handled"] = len(self._ghosts)
        if resource.phase is not Phase.INTENDED:
            return
        if broadcast.target is Target.ENDED and resource.kind is not Kind.UPLOAD:
            self._findings.violate("I-6", f"a create of {resource.kind} of {broadcast.id} is intended after its end")
        if isinstance(resource, Upload):
            self.uploads_intended[upload_tag(TAG, broadcast.id, resource)] = env.loop.time()
        if isinstance(resource, Stream):
            self.streams_intended[broadcast.id, resource.ordinal] = env.loop.time()
