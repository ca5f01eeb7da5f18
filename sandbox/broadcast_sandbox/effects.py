"""The append-only log of everything that happened at a simulated provider, whatever its callers were told.

Tests judge by this log, never by the service's own words.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    sequence: int
    time: float
    """Unix seconds, wall clock."""
    provider: str
    """`livekit`, `mux` or `s3`."""
    kind: str
    """Subject and verb: `room.created`, `egress.started`, `stream.disabled`, `ingest.connected`, ..."""
    id: str
    """The provider's id of the subject: room name, egress id, live stream id, object key."""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "time": self.time,
            "provider": self.provider,
            "kind": self.kind,
            "id": self.id,
            "detail": self.detail,
        }


class EffectLog:
    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._effects: list[Effect] = []
        self._listeners: list[Callable[[Effect], None]] = []

    def append(self, kind: str, id: str, **detail: Any) -> Effect:
        effect = Effect(
            sequence=len(self._effects) + 1,
            time=time.time(),
            provider=self._provider,
            kind=kind,
            id=id,
            detail=detail,
        )
        self._effects.append(effect)
        for listener in self._listeners:
            listener(effect)
        return effect

    def after(self, sequence: int) -> Sequence[Effect]:
        return self._effects[max(sequence, 0) :]

    def of(self, kind: str) -> list[Effect]:
        return [effect for effect in self._effects if effect.kind == kind]

    def subscribe(self, listener: Callable[[Effect], None]) -> None:
        self._listeners.append(listener)
