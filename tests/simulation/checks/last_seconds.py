"""I-21: the last seconds of a healthy show reach recording and viewers, and its live stream is deleted later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.broadcast import Target
from tests.simulation.providers.egresses import PIPELINE_S

if TYPE_CHECKING:
    from tests.simulation.checks.violations import Findings
    from tests.simulation.effects import Effect
    from tests.simulation.providers.egresses import TrueEgress
    from tests.simulation.providers.mux import LiveStream
    from tests.simulation.replica import Shared

HEALTHY_S = 150.0
"""An egress that has been connected for so long without faults is known to be healthy: every look was made since, and
every webhook that was late has come, or is as good as lost."""


class LastSeconds:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._shared = shared
        self._findings = findings
        self.calm_since: float | None = None
        """Since when nothing goes wrong any more. None: faults are still to come."""
        self._disabled_by: dict[str, str] = {}
        shared.env.effects.watchers.append(self._effect)

    def _effect(self, effect: Effect) -> None:
        match effect.kind:
            case "stream.disabled":
                self._disabled_by[effect.id] = effect.detail
                if effect.detail == "us":
                    self._nothing_is_lost(self._shared.mux.streams[effect.id])
            case "stream.deleted" if effect.detail == "us":
                self._viewers_are_done(self._shared.mux.streams[effect.id])
            case _:
                pass

    def _nothing_is_lost(self, stream: LiveStream) -> None:
        """Called before the connected ones are thrown out."""
        if not self._ends(stream.broadcast_id):
            return
        now = self._shared.env.loop.time()
        for egress in self._shared.livekit.egresses.values():
            if egress.stream is not stream or not self._is_healthy(egress):
                continue
            told_at = egress.stopped_at
            if told_at is None or now - told_at < PIPELINE_S:
                self._findings.violate("I-21", f"{stream.id} throws out {egress.id}, which still holds media")

    def _is_healthy(self, egress: TrueEgress) -> bool:
        session, since = egress.session, self.calm_since
        if session is None or since is None or not session.sends or egress.deaf_s or egress.ghost:
            return False
        # A dead worker leaves a record that is active for ever, and nobody can see that nothing of it is connected.
        listed = [e for e in self._shared.livekit.egresses.values() if e.room is egress.room and not e.status.terminal]
        began = max(session.since, since, egress.stream.stood_at if egress.stream is not None else 0.0)
        return [e for e in listed if not e.file] == [egress] and self._shared.env.loop.time() - began >= HEALTHY_S

    def _viewers_are_done(self, stream: LiveStream) -> None:
        if not self._ends(stream.broadcast_id) or stream.ended_at is None or self._disabled_by.get(stream.id) != "us":
            return
        self._findings.seen["end shown to viewers"] += 1
        behind = self._shared.timing.viewers_s(stream.wanted.latency_mode)
        kept = self._shared.env.loop.time() - stream.disabled_at
        if kept < behind:
            self._findings.violate("I-21", f"{stream.id} is deleted {kept:.0f} s after its end: viewers get a 404")

    def _ends(self, broadcast_id: str) -> bool:
        row = self._shared.tables.rows.get(broadcast_id)
        return row is not None and row.broadcast.target is Target.ENDED
