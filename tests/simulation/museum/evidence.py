"""Exhibits: what keeps wrong answers from being believed, and things of others from being touched."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.errors import ProviderError
from service.domain.observing import egresses as observed_egresses
from service.domain.observing import evidence
from service.domain.observing import rooms as observed_rooms
from service.domain.provider import ROOMS
from service.domain.resources import Phase
from service.domain.timing import Timing
from service.reconciler import observe as looking
from service.reconciler.act import rooms as act_rooms
from service.reconciler.act.call import delete
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import record_failure
from tests.simulation import store
from tests.simulation.providers import calls

if TYPE_CHECKING:
    from service.domain.resources import Resource, Room
    from tests.simulation.museum.exhibit import Exhibits


@contextlib.contextmanager
def _everywhere(name: str, new: Callable[..., Any], *modules: ModuleType) -> Generator[None]:
    """Each of *modules* has its own reference to the function *name*."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, name, new))
        yield


def _without_doubt() -> contextlib.AbstractContextManager[Any]:
    """What one list does not show is gone, whatever else is seen."""

    def at_once(*_: object, **__: object) -> bool:
        return True

    return _everywhere("believed_gone", at_once, evidence, observed_rooms)


def _without_contradiction() -> contextlib.AbstractContextManager[Any]:
    """Media that arrive prove nothing about the egress that brings them."""
    believed = evidence.believed_gone

    def alone(resource: Resource, now: datetime, timing: Timing, *, confirmed: bool, contradicted: bool) -> bool:
        del contradicted
        return believed(resource, now, timing, confirmed=confirmed, contradicted=False)

    return _everywhere("believed_gone", alone, evidence, observed_rooms)


def _without_address() -> contextlib.AbstractContextManager[Any]:
    """Every egress in a room of ours is taken for ours, whatever it pushes to."""

    def any_of_them(_seen: object, *_addresses: str) -> bool:
        return True

    return patch.object(observed_egresses, "_pushes_to", any_of_them)


def _without_mark() -> contextlib.AbstractContextManager[Any]:
    """The sweeper takes every live stream for one of this environment."""
    tagged = calls.Streams.list_tagged

    async def everything(self: calls.Streams, prefix: str, *, page: int) -> Any:
        del prefix
        return await tagged(self, "", page=page)

    return patch.object(calls.Streams, "list_tagged", everything)


def _without_ids_of_egresses() -> contextlib.AbstractContextManager[Any]:
    """The sweeper takes every egress in the room of a broadcast that is over for one of ours."""

    async def all_of_them(_self: object, egress_ids: Sequence[str]) -> set[str]:
        return set(egress_ids)

    return patch.object(store.OwnedIds, "started", all_of_them)


def _without_marks_of_rooms() -> contextlib.AbstractContextManager[Any]:
    """A room is ours by its name alone."""

    def never(*_: object) -> bool:
        return False

    return _everywhere("is_foreign", never, act_rooms, looking)


def _without_a_look_at_the_room() -> contextlib.AbstractContextManager[Any]:
    """A room that no list shows is deleted by its name."""

    async def by_its_name(context: PassContext, room: Room) -> None:
        try:
            seen = await context.providers.rooms.get(context.broadcast.id)
        except ProviderError as error:
            await record_failure(context, room, error)
            return
        if seen is not None and act_rooms._is_foreign(context, seen):
            leaving = replace(
                room, phase=Phase.DELETING, changed_at=context.now(), acked=True, failures=0, retry_at=None
            )
            await context.record([leaving], recovered=ROOMS)
            return
        await delete(context, room, context.providers.rooms.delete, "room.delete", ROOMS)

    return patch.object(act_rooms, "_delete", by_its_name)


EXHIBITS: Final[Exhibits] = {
    "no doubt about what a list lacks": _without_doubt,
    "no contradiction by what arrives": _without_contradiction,
    "no look where an egress pushes to": _without_address,
    "no look at the mark": _without_mark,
    "no look whose egress it is": _without_ids_of_egresses,
    "a room is ours by its name": _without_marks_of_rooms,
    "a room deleted that no list shows": _without_a_look_at_the_room,
}
