"""The ground truth that invariants are checked against: every effect at the providers, in order, never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    time: float
    kind: str
    id: str
    broadcast_id: str = ""
    detail: str = ""


@dataclass(slots=True)
class Effects:
    clock: Callable[[], float]
    trace: Trace
    log: list[Effect] = field(default_factory=list[Effect])
    watchers: list[Callable[[Effect], None]] = field(default_factory=list[Callable[[Effect], None]])

    def add(self, kind: str, id: str, broadcast_id: str = "", detail: str = "") -> None:
        effect = Effect(time=self.clock(), kind=kind, id=id, broadcast_id=broadcast_id, detail=detail)
        self.log.append(effect)
        self.trace.add(kind, id, broadcast_id, detail)
        for watch in self.watchers:
            watch(effect)
