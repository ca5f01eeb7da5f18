"""One broadcast as its callers see it: GetBroadcast, GetBroadcastHealth, ExplainBroadcast and JoinBroadcast.

All four are made of the same stored row by the functions that the service itself answers with.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import health_pb2 as health_pb
from broadcast.v1 import playback_service_pb2 as playback_pb
from broadcast_client.values import short_name
from service.api.messages.broadcast import broadcast_message
from service.api.messages.health import explanation_message, health_message
from service.api.playback.handles import Handles
from service.api.playback.sessions import Sessions
from service.api.services.playback import PlaybackApi
from service.domain.explain.explain import explain
from service.domain.facts import Facts
from service.domain.health.health_of import health_of
from service.domain.reporting.playback import USUAL, StartTakes
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.livekit.tokens import Tokens
from service.store.shown import Shown

EDGE = "https://stream.example"
_SESSIONS = Sessions([b"k" * 32], environment="test", life=timedelta(hours=2))
_TOKENS = Tokens("wss://livekit.example", "key", Secret("a-secret-of-at-least-thirty-two-bytes!!"))


@dataclass(frozen=True, slots=True)
class Views:
    get: pb.Broadcast
    health: health_pb.BroadcastHealth
    explanation: health_pb.Explanation
    join: playback_pb.JoinBroadcastResponse

    @property
    def state(self) -> str:
        return short_name(pb.BroadcastState.DESCRIPTOR, self.get.status.state)

    @property
    def overall(self) -> str:
        return short_name(health_pb.HealthState.DESCRIPTOR, self.health.overall)

    def condition(self, type_: str) -> pb.Condition | None:
        """None: the broadcast was never started, so it has no conditions."""
        wanted = pb.ConditionType.Value(f"CONDITION_TYPE_{type_}")
        return next((each for each in self.get.status.conditions if each.type == wanted), None)

    def met(self, type_: str) -> bool | None:
        """None: unknown."""
        found = self.condition(type_)
        return found.met if found is not None and found.HasField("met") else None

    def part(self, name: str) -> health_pb.PartHealth:
        wanted = health_pb.ChainPart.Value(f"CHAIN_PART_{name}")
        return next(each for each in self.health.parts if each.part == wanted)

    def part_state(self, part: health_pb.PartHealth) -> str:
        return short_name(health_pb.HealthState.DESCRIPTOR, part.state)

    @property
    def causes(self) -> list[str]:
        return [cause.code for cause in self.explanation.causes]

    @property
    def way(self) -> str:
        """How a viewer watches: hls, webrtc, starting, recording or ended."""
        return self.join.WhichOneof("handle") or ""


def views_of(facts: Facts, timing: Timing) -> Views:
    return Views(
        get=broadcast_message(facts.broadcast, EDGE),
        health=health_message(health_of(facts, timing)),
        explanation=explanation_message(explain(facts, timing)),
        join=_joined(facts),
    )


def _joined(facts: Facts) -> playback_pb.JoinBroadcastResponse:
    class Stored:
        """All that is asked on the way, as it is stored; there is a place in the room."""

        async def one(self, broadcast_id: str) -> Shown:
            assert broadcast_id == facts.broadcast.id
            return Shown(broadcast=facts.broadcast, revoked=frozenset(), read_at=facts.now)

        def now(self, shown: Shown) -> datetime:
            return shown.read_at

        async def enter(self, *_: object, lease: timedelta, **__: object) -> datetime:
            return facts.now + lease

        async def takes(self) -> StartTakes:
            return USUAL

        def saw(self, *_: str) -> None:
            pass

    stored = cast("Any", Stored())
    api = PlaybackApi(
        board=stored,
        viewers=stored,
        tokens=_TOKENS,
        sessions=_SESSIONS,
        handles=Handles(None, EDGE),
        watches=stored,
        audience=stored,
        saw=stored.saw,
        rooms=stored,
        spare=stored,
        past_starts=stored,
        keep_alive_s=20.0,
    )
    request = playback_pb.JoinBroadcastRequest(broadcast_id=facts.broadcast.id, viewer_id="v")
    call = api.JoinBroadcast(request, cast("Any", None))
    try:
        # Nothing in it waits, so no event loop is needed, and it can be asked within a running one.
        call.send(None)
    except StopIteration as answered:
        return answered.value
    raise AssertionError("it waits")
