"""Answers that are wrong. One source lies for a while about everything it is asked, the others tell the truth.

In life a proxy answers an empty list, a cache stands still, a store lost a part of what it knew, or another cluster or
project answers behind the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from service.domain.ports import EgressSeen, RoomInside, RoomPeople, RoomSeen, StreamSeen
from tests.simulation.faults import Kind

if TYPE_CHECKING:
    import random

    from tests.simulation.providers.network import Call

LIES = (Kind.LIST_EMPTY, Kind.LIST_STALE, Kind.LIST_SHORT, Kind.LIST_FOREIGN)
LISTS = {
    "livekit": ("ListEgress", "ListParticipants", "ListRooms"),
    "mux": ("list_live_streams",),
}
"""The lists of each provider that a lie may be about."""


class NoAnswer(Exception):
    """The adapter takes the answer for none: a question about one id has one thing or "not found" as its answer."""


@dataclass(slots=True, kw_only=True)
class Lie:
    kind: Kind
    names: frozenset[str]
    """The calls that it is about."""
    until: float
    rng: random.Random
    strange: Callable[[str], bool] = lambda _name: False
    """Whether the name of a room or the mark of a live stream is somebody else's."""
    _frozen: dict[tuple[str, str, type], Any] = field(default_factory=dict["tuple[str, str, type]", Any])

    def about(self, call: Call, now: float) -> bool:
        return not call.writes and call.name in self.names and now < self.until

    def told(self, call: Call, subject: str, answer: Any) -> Any:
        """What the caller gets in place of *answer*. Raises NoAnswer."""
        if self.kind is Kind.LIST_STALE:
            # As it was at the first question since the cache stands still.
            kind: type = type(answer)  # pyright: ignore[reportUnknownVariableType] - of any answer
            return self._frozen.setdefault((call.name, subject, kind), answer)
        return self._less(answer)

    def _less(self, answer: Any) -> Any:
        match answer:
            case list():
                return [each for each in cast("list[Any]", answer) if self._kept(each)]
            case tuple():
                page, more = cast("tuple[list[Any], bool]", answer)
                return self._less(page), more
            case RoomInside() | RoomPeople():
                return self._fewer(answer) if self.kind is Kind.LIST_SHORT else type(answer)()
            case EgressSeen() if self.kind is not Kind.LIST_FOREIGN and not self._chance():
                raise NoAnswer
            case EgressSeen() | RoomSeen() if self.kind is Kind.LIST_SHORT:
                return answer
            case _:
                return None

    def _fewer(self, answer: RoomInside | RoomPeople) -> RoomInside | RoomPeople:
        """Without some of the people. A list of participants that lacks the egress is what a dead worker looks like,
        and nothing tells the two apart until the reconnect window of the live stream is over.
        """
        if isinstance(answer, RoomPeople):
            return replace(answer, publishers=tuple(each for each in answer.publishers if self._chance()))
        kept = tuple(each for each in answer.people.publishers if self._chance())
        return replace(answer, people=replace(answer.people, publishers=kept), anybody=bool(kept or answer.recorders))

    def _kept(self, each: object) -> bool:
        if self.kind is Kind.LIST_FOREIGN:
            match each:
                case RoomSeen():
                    return self.strange(each.name)
                case EgressSeen():
                    return self.strange(each.room_name)
                case StreamSeen():
                    return self.strange(each.tag)
                case _:
                    return False
        return self._chance()

    def _chance(self) -> bool:
        return self.kind is Kind.LIST_SHORT and self.rng.random() < 0.5
