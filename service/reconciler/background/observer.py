"""Lists what exists at the providers and wakes the broadcasts whose rows say something else. Webhooks only make this
sooner: with every webhook lost a change is found by the next round.

Three lists a round, whatever the number of broadcasts. A round stores no resource: the pass that it wakes looks again.
It also reports whether each provider answers, which is how an outage becomes known.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog

from service import telemetry
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import ROOMS, STREAMS
from service.domain.resources import Kind, Phase, StreamStatus
from service.failpoints import failpoint
from service.providers.budget import Bucket, Rank
from service.reconciler.background.rounds import RefusedHere, Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.domain.ports import EgressSeen, RoomSeen, StreamSeen
    from service.domain.provider import Provider
    from service.reconciler.act.requests import Providers
    from service.store.leases import Leases
    from service.store.measurements.outages import Outages
    from service.store.owned_ids import OwnedIds, OwnedResource

log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_AWAY = (Outcome.NOT_SENT, Outcome.UNAVAILABLE, Outcome.AMBIGUOUS, Outcome.CREDENTIALS)
"""Outcomes of a look that mean that the provider cannot be used now."""


class Observer(Rounds):
    name = "observer"

    def __init__(
        self, leases: Leases, owned_ids: OwnedIds, outages: Outages, providers: Providers, *, every: timedelta
    ) -> None:
        super().__init__(leases, every=every)
        self._owned_ids = owned_ids
        self._outages = outages
        self._providers = providers
        self._away: set[Provider] = set()
        """Providers that did not answer the last look. They are looked at until they do, even while no broadcast runs:
        an upload of a finished one may wait for it.
        """

    async def round(self) -> None:
        await self.look()
        if refused := self._providers.refusals.refused:
            raise RefusedHere(refused[0])

    async def look(self) -> set[str]:
        """One round. Answers the ids of the broadcasts that were woken. Raises StoreUnavailable."""
        began = await self._owned_ids.now()
        known = await self._owned_ids.of_running()
        if not known and not self._away:
            return set()
        rooms, egresses, streams = await asyncio.gather(
            self._ask(Bucket.ROOMS, self._providers.rooms.list),
            self._ask(Bucket.ROOMS, self._providers.egresses.list_active),
            self._ask(Bucket.STREAMS_OTHER, self._providers.streams.list_active),
        )
        await self._report(ROOMS, rooms, egresses)
        await self._report(STREAMS, streams)
        differ = disagreements(known, _seen(rooms), _seen(egresses), _seen(streams), files=self._providers.files)
        if differ:
            telemetry.DISAGREEMENTS.add(len(differ))
            log.info("observer_disagrees", broadcast_ids=sorted(differ)[:20], count=len(differ))
            failpoint("observer.before_wake")
            await self._leases.wake(sorted(differ))
        # After the wake: what agrees with the lists counts as looked at, and what was woken does not.
        shown = [
            provider
            for provider, lists in ((ROOMS, (rooms, egresses)), (STREAMS, (streams,)))
            if all(_seen(each) is not None for each in lists)
        ]
        await self._outages.compared(shown, began)
        return differ

    async def _report(self, provider: Provider, *looks: object) -> None:
        """Report *looks* at a provider: it answers if one of them was answered, and THROTTLED is an answer too. A look
        that is None was not made; with no other nothing is reported. Refused credentials are this replica's trouble
        until the others had the time to do better.
        """
        failures = [look for look in looks if isinstance(look, ProviderError)]
        away = [failure for failure in failures if failure.outcome in _AWAY]
        if any(look is not None and look not in failures for look in looks) or len(away) < len(failures):
            self._away.discard(provider)
            self._providers.refusals.answered(provider)
            await self._outages.report(provider, None)
        elif away:
            self._away.add(provider)
            first = away[0]
            self._providers.refusals.note(provider, first.outcome)
            if first.outcome is Outcome.CREDENTIALS:
                # A revoked key must not look like a network: LiveKit gives it no code of its own.
                await self._outages.refused(provider, (first.outcome, first.message))
            else:
                await self._outages.report(provider, (first.code or first.outcome, first.message))

    async def _ask(self, bucket: Bucket, read: Callable[[], Awaitable[_T]]) -> _T | ProviderError | None:
        """The answer, or the error of the call. None: it was not made, for want of a token."""
        if not await self._providers.budget.spare(bucket, Rank.HEAL):
            return None
        try:
            return await read()
        except ProviderError as error:
            log.warning("observer_is_blind", provider=error.provider, operation=error.operation, code=error.code)
            return error


def _seen(look: _T | ProviderError | None) -> _T | None:
    """A list that was not answered is None: it disagrees with nothing."""
    return None if isinstance(look, ProviderError) else look


def _room_differs(known: OwnedResource, room: RoomSeen) -> bool:
    """Only as far as the list can tell. A count above 0 may be of a host who unpublished long ago, and would disagree
    for ever: the prober looks at who publishes.
    """
    stopped = bool(known.host_publishing) and room.publishers == 0
    return stopped or room.recorded is not known.recorded


def disagreements(  # noqa: C901 - one question a kind
    known: Sequence[OwnedResource],
    rooms: Sequence[RoomSeen] | None,
    egresses: Sequence[EgressSeen] | None,
    streams: Sequence[StreamSeen] | None,
    *,
    files: str = "",
) -> set[str]:
    """Broadcasts of which the providers show something else than is stored. Pure. *files* begins every object key of
    ours: other files are not ours to judge.
    """
    differ: set[str] = set()
    by_name = {room.name: room for room in rooms or ()}
    by_id = {egress.id: egress for egress in egresses or ()}
    active = {stream.id for stream in streams or ()}
    known_egresses = {each.external_id for each in known if each.kind in (Kind.EGRESS, Kind.RECORDING)}
    in_room: defaultdict[str, list[EgressSeen]] = defaultdict(list)
    for egress in egresses or ():
        if not egress.file or (files and egress.file.startswith(files)):
            in_room[egress.room_name].append(egress)
    for each in known:
        if each.phase != Phase.PRESENT:
            # On its way anyhow: its own passes look at it.
            continue
        match each.kind:
            case Kind.ROOM if rooms is not None:
                room = by_name.get(each.broadcast_id)
                if room is None or _room_differs(each, room):
                    differ.add(each.broadcast_id)
                if any(egress.id not in known_egresses for egress in in_room[each.broadcast_id]):
                    differ.add(each.broadcast_id)
            case Kind.EGRESS | Kind.RECORDING if egresses is not None:
                egress = by_id.get(each.external_id)
                if egress is None or egress.status != each.status or egress.updated_ns > each.updated_ns:
                    differ.add(each.broadcast_id)
            case Kind.STREAM if streams is not None:
                if (each.external_id in active) is not (each.status == StreamStatus.ACTIVE):
                    differ.add(each.broadcast_id)
            case _:
                pass
    return differ
