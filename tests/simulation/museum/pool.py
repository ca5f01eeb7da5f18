"""Exhibits: what keeps a live stream of the warm pool for one broadcast, and for the pool until then."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.planning.common import Planner
from service.domain.pool import Profile
from service.store.leases import Claim
from tests.simulation import store

if TYPE_CHECKING:
    from tests.simulation.museum.exhibit import Exhibits


def _without_shelter_of_the_pool() -> contextlib.AbstractContextManager[Any]:
    """The sweeper knows nothing of the live streams that wait for a broadcast."""

    async def none(self: store.OwnedIds, entry_ids: Sequence[str]) -> set[str]:
        del entry_ids
        return set()

    return patch.object(store.OwnedIds, "pooled", none)


def _without_names_of_the_pool() -> contextlib.AbstractContextManager[Any]:
    """A live stream that was taken from the pool keeps its mark."""
    plan_title = Planner.plan_title

    def only_titles(self: Planner) -> None:
        stream = self.resource_set.stream
        if stream is None or not stream.unnamed:
            plan_title(self)

    return patch.object(Planner, "plan_title", only_titles)


def _without_the_row_of_the_pool_going() -> contextlib.AbstractContextManager[Any]:
    """A broadcast takes a live stream and leaves it in the pool, for the next."""
    take = store.Passes.take_pooled

    async def copied(self: store.Passes, claim: Claim, ordinal: int, profile: Profile) -> bool:
        before = dict(self._tables.pool)
        taken = await take(self, claim, ordinal, profile)
        self._tables.pool.update({name: row for name, row in before.items() if name not in self._tables.pool})
        return taken

    return patch.object(store.Passes, "take_pooled", copied)


EXHIBITS: Final[Exhibits] = {
    "the pool not kept from the sweeper": _without_shelter_of_the_pool,
    "a live stream of the pool not named": _without_names_of_the_pool,
    "a live stream of the pool given to two": _without_the_row_of_the_pool_going,
}
