"""Exhibits: what keeps a thing from being made twice, and a live stream from having two publishers."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.broadcast import Target
from service.domain.errors import LeaseLost, Outcome, ProviderError
from service.domain.planning import live as plan_live
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.store.leases import Claim
from tests.simulation import store, world
from tests.simulation.providers import calls, network

if TYPE_CHECKING:
    from service.domain.resources import Egress, Stream
    from service.store.broadcasts import Request
    from tests.simulation.museum.exhibit import Exhibits


async def _only_checked(
    self: store.Passes,
    claim: Claim,
    resource: AnyResource,
    lease: timedelta,
    *,
    planned_for: Target | None = None,
) -> None:
    del resource, lease, planned_for
    if self._tables.held(claim) is None:
        raise LeaseLost(claim.broadcast_id)


def _without_intent() -> contextlib.AbstractContextManager[Any]:
    return patch.object(store.Passes, "intend", _only_checked)


def _without_key_reset() -> contextlib.AbstractContextManager[Any]:
    async def kept(self: calls.Streams, stream_id: str) -> Secret:
        return Secret(self._mux.streams[stream_id].key)

    return patch.object(calls.Streams, "reset_key", kept)


@contextlib.contextmanager
def _without_look_after_reset() -> Generator[None]:
    """And without the back-off, which leaves the time for a look all the same."""

    def fenced(_self: object, _stream: Stream) -> bool:
        return True

    with patch.object(plan_live.Live, "fenced", fenced), _without_backoff():
        yield


def _without_backoff(limit: int = Timing().starts_limit) -> contextlib.AbstractContextManager[Any]:
    return patch.object(world, "Timing", lambda: Timing(starts_limit=limit, starts_backoff_s=0.0))


def _without_request_ids() -> contextlib.AbstractContextManager[Any]:
    def nothing(self: store.Broadcasts, request: Request, broadcast_id: str) -> None: ...

    return patch.object(store.Broadcasts, "_store_request", nothing)


def _without_spend_guard() -> contextlib.AbstractContextManager[Any]:
    """And without the back-off, with which failing starts alone seldom reach it."""
    return _without_backoff(limit=1000)


def _without_ambiguity() -> contextlib.AbstractContextManager[Any]:
    exact = network.Network._error

    def failed(
        self: network.Network, call: network.Call, outcome: Outcome, retry_after: float | None = None
    ) -> ProviderError:
        return exact(self, call, Outcome.UNAVAILABLE if outcome is Outcome.AMBIGUOUS else outcome, retry_after)

    return patch.object(network.Network, "_error", failed)


def _without_cut() -> contextlib.AbstractContextManager[Any]:
    def never(_self: ResourceSet, _egress: Egress, _stream: Stream) -> bool:
        return False

    return patch.object(ResourceSet, "may_be_connected", never)


EXHIBITS: Final[Exhibits] = {
    "no intent": _without_intent,
    "no key reset": _without_key_reset,
    "no look after a reset": _without_look_after_reset,
    "request ids not stored": _without_request_ids,
    "spend guard and back-off off": _without_spend_guard,
    "no answer taken for a failure": _without_ambiguity,
    "no cut of who may be connected": _without_cut,
}
