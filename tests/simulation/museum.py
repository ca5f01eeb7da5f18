"""The bug museum: protections of the service, each of which can be taken away. The simulation must miss every one of
them; one that it does not miss is either not needed or not tested.
"""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from service import telemetry
from service.domain.broadcast import Target
from service.domain.errors import LeaseLost, Outcome, ProviderError, StoreUnavailable
from service.domain.observing import egresses as observed_egresses
from service.domain.observing import evidence
from service.domain.observing import rooms as observed_rooms
from service.domain.observing.learned import Learned
from service.domain.observing.streams import streams_found
from service.domain.planning import fallback
from service.domain.planning import live as plan_live
from service.domain.planning.ending import End
from service.domain.ports import RoomInside
from service.domain.reasons import Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Phase
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.text import redaction
from service.reconciler import observe as looking
from service.reconciler.act import rooms as act_rooms
from service.reconciler.act.actor import Actor
from service.reconciler.act.context import PassContext
from service.reconciler.background.observer import Observer
from service.reconciler.background.sweeper import Sweeper
from service.store.leases import Claim
from tests.simulation import store, world
from tests.simulation.providers import calls, network
from tests.simulation.store import passes as stored_passes

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from service.domain.measurements import Probe
    from service.domain.planning.steps import WriteOff
    from service.domain.resources import Egress, Resource, Stream
    from service.store.broadcasts import Request
    from tests.simulation.store.tables import Row

Exhibit = Callable[[], contextlib.AbstractContextManager[Any]]


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


def _without_fence() -> contextlib.AbstractContextManager[Any]:
    def held(self: store.Tables, claim: Claim) -> Row | None:
        return self.rows.get(claim.broadcast_id)

    return patch.object(store.Tables, "held", held)


def _without_lease_check() -> contextlib.AbstractContextManager[Any]:
    async def intend(self: PassContext, resource: AnyResource, point: str, *, creates: bool = False) -> None:
        planned_for = self.broadcast.target if creates or resource.phase is Phase.INTENDED else None
        await self.passes.intend(self.claim, resource, self.lease, planned_for=planned_for)

    return patch.object(PassContext, "intend", intend)


def _without_disable() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: calls.Streams, stream_id: str) -> None: ...

    return patch.object(calls.Streams, "disable", nothing)


def _without_write_off() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Actor, step: WriteOff) -> None: ...

    return patch.object(Actor, "_write_off", nothing)


def _without_adoption() -> contextlib.AbstractContextManager[Any]:
    def none(stream: Stream, found: object, streams: Sequence[Stream], now: datetime) -> Learned:
        del found
        return streams_found(stream, (), streams, now)

    return patch.object(looking, "streams_found", none)


@contextlib.contextmanager
def _without_look_after_reset() -> Generator[None]:
    """And without the back-off, which leaves the time for a look all the same."""

    def fenced(_self: object, _stream: Stream) -> bool:
        return True

    with patch.object(plan_live.Live, "fenced", fenced), _without_backoff():
        yield


def _without_backoff(limit: int = Timing().starts_limit) -> contextlib.AbstractContextManager[Any]:
    return patch.object(world, "Timing", lambda: Timing(starts_limit=limit, starts_backoff_s=0.0))


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


def _without_sweeper() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Sweeper) -> int:
        return 0

    return patch.object(Sweeper, "sweep", nothing)


def _without_observer() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: Observer) -> set[str]:
        return set()

    return patch.object(Observer, "look", nothing)


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


def _without_ghosts() -> contextlib.AbstractContextManager[Any]:
    def never(*_: object) -> bool:
        return False

    return patch.object(plan_live.Live, "is_ghost", never)


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


def _without_hearing_a_stop() -> contextlib.AbstractContextManager[Any]:
    """A call that lasts is waited for to its end, in whatever lease is left."""

    async def to_its_end(_self: PassContext, call: Coroutine[Any, Any, Any]) -> Any:
        return await call

    return patch.object(PassContext, "while_wanted", to_its_end)


def _without_dedupe() -> contextlib.AbstractContextManager[Any]:
    def new(self: store.Inbox, provider: str, event_id: str) -> bool:
        return True

    return patch.object(store.Inbox, "_is_new", new)


def _without_storing() -> contextlib.AbstractContextManager[Any]:
    stored = store.Inbox.store

    async def answered(*args: Any) -> bool:
        with contextlib.suppress(StoreUnavailable):
            return await stored(*args)
        return True

    return patch.object(store.Inbox, "store", answered)


def _without_marks() -> contextlib.AbstractContextManager[Any]:
    recorded = store.Passes.record

    async def unmarked(*args: Any, **kwargs: Any) -> Any:
        return await recorded(*args, **kwargs | {"heard": ()})

    return patch.object(store.Passes, "record", unmarked)


def _without_redaction() -> contextlib.AbstractContextManager[Any]:
    def as_it_is(text: str) -> str:
        return text

    return patch.object(telemetry, "redact", as_it_is)


def _without_hidden_fields() -> contextlib.AbstractContextManager[Any]:
    def no_secret(_name: str) -> bool:
        return False

    return patch.object(redaction, "_secret", no_secret)


def _without_commit() -> contextlib.AbstractContextManager[Any]:
    """The transaction of the intent stays open until what came of the call is recorded."""
    intended = store.Passes.intend

    async def begun(*args: Any, **kwargs: Any) -> None:
        await intended(*args, **kwargs)
        store.under_way.set("intend")

    return patch.object(store.Passes, "intend", begun)


def _without_roll_call() -> contextlib.AbstractContextManager[Any]:
    inside = calls.Rooms.inside

    async def everybody(self: calls.Rooms, name: str) -> RoomInside:
        listed = frozenset(egress.id for egress in self._livekit.egresses.values() if egress.room.name == name)
        return replace(await inside(self, name), recorders=listed)

    return patch.object(calls.Rooms, "inside", everybody)


def _without_cut() -> contextlib.AbstractContextManager[Any]:
    def never(_self: ResourceSet, _egress: Egress, _stream: Stream) -> bool:
        return False

    return patch.object(ResourceSet, "may_be_connected", never)


def _without_watching() -> contextlib.AbstractContextManager[Any]:
    def nothing(_resources: Sequence[AnyResource], _probe: Probe, _now: datetime) -> Learned:
        return Learned()

    return patch.object(looking, "probed", nothing)


def _without_patience() -> contextlib.AbstractContextManager[Any]:
    """A host who left is given a minute to come back."""
    decided = plan_live.host_deadline

    def early(broadcast: Broadcast, resource_set: ResourceSet, timing: Timing) -> datetime | None:
        return decided(broadcast, resource_set, replace(timing, host_return_s=60.0))

    return patch.object(plan_live, "host_deadline", early)


def _without_uploads() -> contextlib.AbstractContextManager[Any]:
    """Files of fallbacks stay in our storage once the broadcast is over."""

    def nothing(_self: End) -> None: ...

    return patch.object(End, "plan_uploads", nothing)


def _without_proof() -> contextlib.AbstractContextManager[Any]:
    """Viewers are sent back as soon as pictures are there again."""

    def at_once(self: fallback._Decider) -> bool:
        return self.resource_set.playable

    return patch.object(fallback._Decider, "over", at_once)


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


def _without_drain() -> contextlib.AbstractContextManager[Any]:
    """The live stream is disabled before the egress is stopped, whatever is known of it."""

    def never(_self: End) -> bool:
        return False

    return patch.object(End, "egress_drains", never)


def _without_last_viewers() -> contextlib.AbstractContextManager[Any]:
    """The live stream is deleted as soon as nothing runs."""

    def at_once(_self: End, _stream: Stream) -> bool:
        return True

    return patch.object(End, "seen_to_the_end", at_once)


def _without_fence_at_the_end() -> contextlib.AbstractContextManager[Any]:
    """A broadcast is over when its egress and its room are gone, whatever its live stream takes."""

    def without_streams(self: ResourceSet) -> list[AnyResource]:
        return [each for each in self.running if each.phase is not Phase.GONE and each not in self.streams]

    return patch.object(ResourceSet, "left", property(without_streams))


def _without_clamps() -> contextlib.AbstractContextManager[Any]:
    """Times that lie ahead of a clock that was set back stay there."""

    def none(_resources: Sequence[AnyResource], _now: datetime) -> tuple[AnyResource, ...]:
        return ()

    return patch.object(stored_passes, "moved_back", none)


def _without_new_history() -> contextlib.AbstractContextManager[Any]:
    """A standby that lacks the last commits is taken for the primary."""

    def nothing(_self: store.Tables, _earlier: str) -> None: ...

    return patch.object(store.Tables, "begin_history", nothing)


def _without_marks_of_rooms() -> contextlib.AbstractContextManager[Any]:
    """A room is ours by its name alone."""

    def never(*_: object) -> bool:
        return False

    return _everywhere("is_foreign", never, act_rooms, looking)


MUSEUM: dict[str, Exhibit] = {
    "no intent": _without_intent,
    "no key reset": _without_key_reset,
    "no fence in the writes": _without_fence,
    "no lease check before a call": _without_lease_check,
    "no disable at the end": _without_disable,
    "no write-off of what answers no stop": _without_write_off,
    "no adoption": _without_adoption,
    "no look after a reset": _without_look_after_reset,
    "no stop check at the intent": _without_stop_check,
    "sweeper off": _without_sweeper,
    "observer off": _without_observer,
    "request ids not stored": _without_request_ids,
    "spend guard and back-off off": _without_spend_guard,
    "no answer taken for a failure": _without_ambiguity,
    "no cut of who may be connected": _without_cut,
    "no look at what plays": _without_watching,
    "no look who of several is in a room": _without_roll_call,
    "no ghost handling": _without_ghosts,
    "no second stop of what answers none": _without_second_stop,
    "the end of what may be wedged is waited for": _without_mistrust,
    "a start that lasts is not cut off, nor its lease renewed": _without_hearing_a_stop,
    "webhooks not deduplicated": _without_dedupe,
    "webhooks answered and not stored": _without_storing,
    "webhooks not marked with the record": _without_marks,
    "no redaction": _without_redaction,
    "fields of webhooks not hidden": _without_hidden_fields,
    "a call inside a transaction": _without_commit,
    "no patience with a host who left": _without_patience,
    "no uploads after the end": _without_uploads,
    "no proof before viewers are sent back": _without_proof,
    "no doubt about what a list lacks": _without_doubt,
    "no contradiction by what arrives": _without_contradiction,
    "no look where an egress pushes to": _without_address,
    "no look at the mark": _without_mark,
    "no look whose egress it is": _without_ids_of_egresses,
    "the last seconds thrown away": _without_drain,
    "no wait for the last viewers": _without_last_viewers,
    "over before the live stream is disabled": _without_fence_at_the_end,
    "times ahead of the clock left there": _without_clamps,
    "a room is ours by its name": _without_marks_of_rooms,
    "no look after commits were lost": _without_new_history,
}


@contextlib.contextmanager
def without(name: str) -> Generator[None]:
    """The service without this protection."""
    with MUSEUM[name]():
        yield
