"""Exhibits: what finds a thing that broke, or that was left behind."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.observing.learned import Learned
from service.domain.observing.streams import streams_found
from service.domain.planning import live as plan_live
from service.domain.ports import RoomInside
from service.domain.reasons import Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource
from service.reconciler import observe as looking
from service.reconciler.act.actor import Actor
from service.reconciler.background.observer import Observer
from service.reconciler.background.sweeper import Sweeper
from tests.simulation.providers import calls

if TYPE_CHECKING:
    from service.domain.measurements import Probe
    from service.domain.planning.steps import WriteOff
    from service.domain.resources import Stream
    from tests.simulation.museum.exhibit import Exhibits


def _without_write_off() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Actor, step: WriteOff) -> None: ...

    return patch.object(Actor, "_write_off", nothing)


def _without_adoption() -> contextlib.AbstractContextManager[Any]:
    def none(stream: Stream, found: object, streams: Sequence[Stream], now: datetime) -> Learned:
        del found
        return streams_found(stream, (), streams, now)

    return patch.object(looking, "streams_found", none)


def _without_sweeper() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Sweeper) -> int:
        return 0

    return patch.object(Sweeper, "sweep", nothing)


def _without_observer() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Observer) -> set[str]:
        return set()

    return patch.object(Observer, "look", nothing)


def _without_ghosts() -> contextlib.AbstractContextManager[Any]:
    def never(*_: object) -> bool:
        return False

    return patch.object(plan_live.Live, "is_ghost", never)


def _without_roll_call() -> contextlib.AbstractContextManager[Any]:
    inside = calls.Rooms.inside

    async def everybody(self: calls.Rooms, name: str) -> RoomInside:
        listed = frozenset(egress.id for egress in self._livekit.egresses.values() if egress.room.name == name)
        return replace(await inside(self, name), recorders=listed)

    return patch.object(calls.Rooms, "inside", everybody)


def _without_second_stop() -> contextlib.AbstractContextManager[Any]:
    """An egress that answers no stop is written off, and never told again."""

    def never(*_: object) -> list[AnyResource]:
        return []

    return patch.object(ResourceSet, "still_running", never)


@contextlib.contextmanager
def _without_mistrust() -> Generator[None]:
    """The end of an egress that may be wedged is waited for, as that of any other."""
    with patch.object(Fault, "mistrusted", property(lambda _: False)), patch.object(plan_live.Live, "fences", False):
        yield


def _without_watching() -> contextlib.AbstractContextManager[Any]:
    def nothing(_resources: Sequence[AnyResource], _probe: Probe, _now: datetime) -> Learned:
        return Learned()

    return patch.object(looking, "probed", nothing)


EXHIBITS: Final[Exhibits] = {
    "no write-off of what answers no stop": _without_write_off,
    "no adoption": _without_adoption,
    "sweeper off": _without_sweeper,
    "observer off": _without_observer,
    "no look at what plays": _without_watching,
    "no look who of several is in a room": _without_roll_call,
    "no ghost handling": _without_ghosts,
    "no second stop of what answers none": _without_second_stop,
    "the end of what may be wedged is waited for": _without_mistrust,
}
