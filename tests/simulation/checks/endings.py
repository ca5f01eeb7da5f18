"""I-16: a broadcast that ends although nobody stopped it ends for a cause that is there at the providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from service.domain.broadcast import EndReason, seconds
from service.domain.resources import Room, Stream
from tests.simulation.checks.costs import highest_cost
from tests.simulation.faults import Kind
from tests.simulation.providers.network import LATE_WRITE_S

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from tests.simulation.checks.violations import Findings
    from tests.simulation.replica import Shared

AWAY_S = 30.0
"""A host who is sent away was not in the room for at least so long: looks, faults and the commit take less."""

LATE_S = LATE_WRITE_S[1]
"""A write lands so many seconds after it was asked for at the latest."""


class Endings:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._shared = shared
        self._findings = findings

    def check(self, broadcast: Broadcast) -> None:
        """Called when the target of *broadcast* has become ENDED."""
        reason = broadcast.end_reason
        if reason is None or reason is EndReason.STOPPED:
            return
        self._findings.seen["ended by itself"] += 1
        if not self._has_cause(broadcast, reason):
            self._findings.violate("I-16", f"{broadcast.id} ends with {reason}, for which there is no cause")

    def _has_cause(self, broadcast: Broadcast, reason: EndReason) -> bool:  # noqa: C901, PLR0911 - one answer a reason
        timing, now = self._shared.timing, self._shared.tables.now()
        match reason:
            case EndReason.STOPPED:
                return True
            case EndReason.START_TIMEOUT:
                return broadcast.ready_time is None and self._tried_for_s(broadcast.id) >= timing.start_deadline_s
            case EndReason.PROVIDER_REFUSED:
                return self._shared.env.faults.counts[Kind.REFUSED] > 0 or broadcast.id in self._shared.strangers.names
            case EndReason.STREAM_LOST:
                return self._happened(broadcast.id, "stream.deleted")
            case EndReason.STREAM_DISABLED:
                return self._happened(broadcast.id, "stream.disabled")
            case EndReason.TEST_LIMIT:
                return broadcast.spec.test and self._happened(broadcast.id, "stream.disabled")
            case EndReason.NO_HOST:
                ready = broadcast.ready_time
                waited = ready is not None and now - ready >= seconds(timing.host_wait_s)
                return waited and self._host_away(broadcast.id)
            case EndReason.HOST_LEFT:
                waited = self._seen_away_s(broadcast.id) >= timing.host_return_s
                return broadcast.live_time is not None and waited and self._host_away(broadcast.id)
            case EndReason.MAX_DURATION:
                live = broadcast.live_time
                return live is not None and now - live >= seconds(broadcast.spec.max_duration_s)
            case EndReason.COST_CAP:
                cap = broadcast.spec.cost_cap
                return cap is not None and self._cost(broadcast) >= cap.nanos
            case EndReason.EGRESS_FAILED | EndReason.STREAMS_UNREACHABLE:
                ready = broadcast.ready_time
                return ready is not None and now - ready >= seconds(timing.hopeless_s)
            case _:
                assert_never(reason)

    def _cost(self, broadcast: Broadcast) -> int:
        """Nano-dollars, by what really ran, to the second after the moment at which it is ended."""
        return highest_cost(self._shared, broadcast, self._shared.env.now() + seconds(1))

    def _happened(self, broadcast_id: str, kind: str) -> bool:
        """Whether somebody else did it: no replica of ours.

        A replica of ours may have done it for a stop whose commit was lost in a failover. Callers are told that their
        stop may be lost, and nobody can know any more why the live stream is gone. So what a replica did before the
        failover, or asked for before and had done late, is a cause too.
        """
        lost_at = self._findings.commits_lost_at
        return any(
            effect.kind == kind
            and effect.broadcast_id == broadcast_id
            and (effect.detail not in ("us", "sweeper") or (lost_at is not None and effect.time <= lost_at + LATE_S))
            for effect in self._shared.env.effects.log
        )

    def _host_away(self, broadcast_id: str) -> bool:
        """Whether nobody was in the room at some moment of the last `AWAY_S`."""
        room = self._shared.livekit.rooms.get(broadcast_id)
        if room is None or not room.hosts:
            return True
        joined = [
            effect.time
            for effect in self._shared.env.effects.log
            if effect.kind == "host.joined" and effect.broadcast_id == broadcast_id
        ]
        return joined[-1] >= self._shared.env.loop.time() - AWAY_S

    def _seen_away_s(self, broadcast_id: str) -> float:
        """Seconds since a replica saw that nobody publishes. A host who came back unseen counts as away."""
        rooms = [each for each in self._shared.tables.rows[broadcast_id].sorted_resources() if isinstance(each, Room)]
        since = rooms[-1].host_since or rooms[-1].changed_at
        return (self._shared.tables.now() - since).total_seconds()

    def _tried_for_s(self, broadcast_id: str) -> float:
        """Since the first attempt to create a room or a live stream, the earlier of the two."""
        rows = self._shared.tables.rows[broadcast_id].resources.values()
        tried = [each.intended_at for each in rows if isinstance(each, Room | Stream)]
        return (self._shared.tables.now() - min(tried)).total_seconds() if tried else 0.0
