"""Exhibits: what keeps a pass from writing and calling where it has no right to, or no longer."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.broadcast import Target
from service.domain.resources import AnyResource, Phase
from service.reconciler.act.context import PassContext
from service.store.leases import Claim
from tests.simulation import store
from tests.simulation.store import passes as stored_passes

if TYPE_CHECKING:
    from tests.simulation.museum.exhibit import Exhibits
    from tests.simulation.store.tables import Row


def _without_fence() -> contextlib.AbstractContextManager[Any]:
    def held(self: store.Tables, claim: Claim) -> Row | None:
        return self.rows.get(claim.broadcast_id)

    return patch.object(store.Tables, "held", held)


def _without_lease_check() -> contextlib.AbstractContextManager[Any]:
    async def intend(self: PassContext, resource: AnyResource, point: str, *, creates: bool = False) -> None:
        planned_for = self.broadcast.target if creates or resource.phase is Phase.INTENDED else None
        await self.passes.intend(self.claim, resource, self.lease, planned_for=planned_for)

    return patch.object(PassContext, "intend", intend)


def _without_stop_check() -> contextlib.AbstractContextManager[Any]:
    checked = store.Passes.intend

    async def unchecked(
        self: store.Passes,
        claim: Claim,
        resource: AnyResource,
        lease: timedelta,
        *,
        planned_for: Target | None = None,
    ) -> None:
        del planned_for
        await checked(self, claim, resource, lease)

    return patch.object(store.Passes, "intend", unchecked)


def _without_hearing_a_stop() -> contextlib.AbstractContextManager[Any]:
    """A call that lasts is waited for to its end, in whatever lease is left."""

    async def to_its_end(_self: PassContext, call: Coroutine[Any, Any, Any]) -> Any:
        return await call

    return patch.object(PassContext, "while_wanted", to_its_end)


def _without_commit() -> contextlib.AbstractContextManager[Any]:
    """The transaction of the intent stays open until what came of the call is recorded."""
    intended = store.Passes.intend

    async def begun(*args: Any, **kwargs: Any) -> None:
        await intended(*args, **kwargs)
        store.under_way.set("intend")

    return patch.object(store.Passes, "intend", begun)


def _without_clamps() -> contextlib.AbstractContextManager[Any]:
    """Times that lie ahead of a clock that was set back stay there."""

    def none(_resources: Sequence[AnyResource], _now: datetime) -> tuple[AnyResource, ...]:
        return ()

    return patch.object(stored_passes, "moved_back", none)


def _without_new_history() -> contextlib.AbstractContextManager[Any]:
    """A standby that lacks the last commits is taken for the primary."""

    def nothing(_self: store.Tables, _earlier: str) -> None: ...

    return patch.object(store.Tables, "begin_history", nothing)


def _without_lifted_fences() -> contextlib.AbstractContextManager[Any]:
    """A claim of before a failover holds until another replica claims the row."""
    begun = store.Tables.begin_history

    def kept(self: store.Tables, earlier: str) -> None:
        fences = {name: row.fence for name, row in self.rows.items()}
        begun(self, earlier)
        for name, fence in fences.items():
            self.rows[name].fence = fence

    return patch.object(store.Tables, "begin_history", kept)


EXHIBITS: Final[Exhibits] = {
    "no fence in the writes": _without_fence,
    "no lease check before a call": _without_lease_check,
    "no stop check at the intent": _without_stop_check,
    "a start that lasts is not cut off, nor its lease renewed": _without_hearing_a_stop,
    "a call inside a transaction": _without_commit,
    "times ahead of the clock left there": _without_clamps,
    "no look after commits were lost": _without_new_history,
    "claims of before a failover hold": _without_lifted_fences,
}
