"""Checks at every call as it is begun: who may make it, from where, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.replica import SWEEPER, TAG
from tests.simulation.store.tables import under_way

if TYPE_CHECKING:
    from service.providers.budget import Limit
    from tests.simulation.checks.violations import Findings
    from tests.simulation.providers.network import Call
    from tests.simulation.replica import Replica, Shared

_POSTS = frozenset({"create_live_stream", "reset_stream_key", "create_asset"})
_OTHERS = frozenset(
    {
        "get_live_stream",
        "list_live_streams",
        "disable_live_stream",
        "enable_live_stream",
        "delete_live_stream",
        "get_asset",
        "list_assets",
        "delete_asset",
    }
)
_INTENDED = frozenset(
    {
        "CreateRoom",
        "StartEgress",
        "StopEgress",
        "DeleteRoom",
        "UpdateStream",
        "create_live_stream",
        "reset_stream_key",
        "delete_live_stream",
    }
)
_BUNCHED = 6
"""Calls whose token was taken by replicas that stood still until now."""


@dataclass(slots=True)
class _Quota:
    rate: float
    burst: float
    tokens: float
    at: float = 0.0

    @classmethod
    def of(cls, limit: Limit) -> _Quota:
        return cls(limit.rate, limit.burst + _BUNCHED, limit.burst + _BUNCHED)

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - 1
        self.at = now
        return self.tokens >= 0


class AtCalls:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._shared = shared
        self._findings = findings
        self._posts, self._others = _Quota.of(shared.limits.mux_post), _Quota.of(shared.limits.mux_other)
        shared.called = self._called

    def _called(self, replica: Replica, call: Call, subject: str) -> None:
        now, violate = self._shared.env.loop.time(), self._findings.violate
        if transaction := under_way.get():
            violate("I-11", f"{replica.name} calls {call.name} {subject} inside the transaction {transaction}")
        if call.writes:
            self._shared.env.trace.add("call", replica.name, call.name, subject)
        if call.name in _INTENDED and replica.doing != SWEEPER:
            row = self._shared.tables.rows.get(self._broadcast_of(subject))
            if row is not None and row.lease_owner != replica.name:
                violate("I-8", f"{replica.name} calls {call.name} {subject}, leased to {row.lease_owner}")
        if call.name in _POSTS and not self._posts.take(now):
            violate("I-14", "more POSTs than Mux takes")
        if call.name in _OTHERS and not self._others.take(now):
            violate("I-14", "more requests than Mux takes")

    def _broadcast_of(self, subject: str) -> str:
        if (stream := self._shared.mux.streams.get(subject)) is not None:
            return stream.broadcast_id
        if (egress := self._shared.livekit.egresses.get(subject)) is not None:
            return egress.room.name
        return subject.removeprefix(TAG).partition(":")[0]
