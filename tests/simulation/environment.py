"""Shared by everything in a simulated world: one clock, one source of chance, the log of what really happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.domain.ports import EgressSeen, Heard, StreamSeen
from service.domain.resources import Recording
from tests.simulation.canaries import Canaries
from tests.simulation.effects import Effects
from tests.simulation.faults import Faults
from tests.simulation.loop import VirtualLoop
from tests.simulation.trace import Trace

T0 = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A webhook, as a provider sends it; what it says is what was true when it was sent."""

    provider: str
    broadcast_id: str
    heard: Heard
    redacted: str = ""
    """Its body as it is stored for people's eyes."""


def _nobody(_: Hint) -> None:
    pass


@dataclass(slots=True)
class Environment:
    loop: VirtualLoop
    rng: random.Random
    trace: Trace
    faults: Faults
    effects: Effects
    canaries: Canaries
    hint: Callable[[Hint], None] = field(default=_nobody)
    set_back: timedelta = timedelta()
    """How far the clock of the database was set back."""

    def now(self) -> datetime:
        """The time of the providers."""
        return T0 + timedelta(seconds=self.loop.time())

    def database_now(self) -> datetime:
        return self.now() - self.set_back

    def after(self, low: float, high: float, then: Callable[[], None]) -> None:
        self.loop.call_later(self.rng.uniform(low, high), then)

    def id(self, prefix: str) -> str:
        return f"{prefix}{self.rng.getrandbits(48):012x}"

    def tell(
        self,
        provider: str,
        type: str,
        broadcast_id: str,
        *,
        egress: EgressSeen | None = None,
        stream: StreamSeen | None = None,
        recording: Recording | None = None,
        stream_id: str = "",
        room_sid: str = "",
        connected: bool | None = None,
    ) -> None:
        now = self.now()
        heard = Heard(
            event_id=self.id("WH_"),
            type=type,
            # LiveKit's have whole seconds.
            provider_time=now.replace(microsecond=0) if provider == "livekit" else now,
            broadcast_hint=broadcast_id,
            egress=egress,
            # A webhook about a deletion describes the thing no more.
            stream=None if type.endswith(".deleted") else stream,
            recording=recording,
            stream_id=stream_id,
            room_sid=room_sid,
            connected=connected,
        )
        self.hint(Hint(provider=provider, broadcast_id=broadcast_id, heard=heard))


def environment(seed: int, *, ends: float, lines: int | None) -> Environment:
    loop = VirtualLoop(ends=ends)
    trace = Trace(loop.time, lines=lines)
    rng = random.Random(seed)
    return Environment(
        loop=loop,
        rng=rng,
        trace=trace,
        faults=Faults(random.Random(rng.getrandbits(64)), trace),
        effects=Effects(loop.time, trace),
        canaries=Canaries(random.Random(rng.getrandbits(64))),
    )
