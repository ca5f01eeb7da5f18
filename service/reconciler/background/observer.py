"""Lists what exists at the providers and wakes the broadcasts whose rows say something else. Webhooks only make this
sooner: with every webhook lost a change is found by the next round.

Three lists a round, and a token for each request: rooms are asked for by their names, and where the lists are full of
what others have, few egresses and live streams of ours are asked for one by one. A round stores no resource: the pass
that it wakes looks again. It also reports whether each provider answers, which is how an outage becomes known.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from service import telemetry
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import ROOMS, STREAMS
from service.domain.resources import END_FAULTS, Kind, Phase, StreamStatus
from service.failpoints import failpoint
from service.providers.budget import Bucket, NoToken, Rank
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


_NAMES = 500
"""Rooms that are asked for in one call."""
_NOBODYS = "nobody's"
_FEW = 20
_CROWD = 500
"""Egresses in one list, above which a few rooms are asked for one by one."""
_STRETCH_S = 20.0
"""A page waits so long for its token: with very many of them a round takes longer, and Mux's limit holds."""


class Observer(Rounds):
    name = "observer"

    def __init__(
        self, leases: Leases, owned_ids: OwnedIds, outages: Outages, providers: Providers, *, every: timedelta
    ) -> None:
        super().__init__(leases, every=every)
        self._owned_ids = owned_ids
        self._outages = outages
        self._providers = providers
        self._crowded = False
        """Whether the last list of all egresses was a long one."""
        self._pages = 1
        """Pages of the last list of the active live streams."""
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
        names = sorted({each.broadcast_id for each in known if each.kind == Kind.ROOM})
        ids = sorted({each.external_id for each in known if each.kind == Kind.STREAM and each.phase == Phase.PRESENT})
        rooms, egresses, streams = await asyncio.gather(
            self._ask(Bucket.ROOMS, partial(self._rooms, names)),
            self._ask(Bucket.ROOMS, partial(self._egresses, names)),
            self._ask(Bucket.STREAMS_OTHER, partial(self._streams, ids)),
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

    async def _rooms(self, names: Sequence[str]) -> Sequence[RoomSeen]:
        """Our rooms, by their names: those of others may be thousands. With none of ours the question is only whether
        an answer comes.
        """
        found: list[RoomSeen] = []
        for n in range(0, len(names), _NAMES):
            if n:
                await self._providers.budget.next_page(Bucket.ROOMS, Rank.HEAL, within_s=_STRETCH_S)
            found += await self._providers.rooms.list(names[n : n + _NAMES])
        return found if names else await self._providers.rooms.list([_NOBODYS])

    async def _egresses(self, names: Sequence[str]) -> Sequence[EgressSeen]:
        """The egresses in our rooms. One list has those of all rooms; where most of them are of others and our rooms
        are few, each of ours is asked for.
        """
        egresses = self._providers.egresses
        if not self._crowded or not 0 < len(names) <= _FEW:
            listed = await egresses.list_active()
            self._crowded = len(listed) > _CROWD
            return listed
        found: list[EgressSeen] = []
        for n, name in enumerate(names):
            if n:
                await self._providers.budget.next_page(Bucket.ROOMS, Rank.HEAL, within_s=_STRETCH_S)
            found += [each for each in await egresses.list_room(name) if each.status not in END_FAULTS]
        return found

    async def _streams(self, ids: Sequence[str]) -> Sequence[StreamSeen]:
        """Our live streams that get media, and perhaps others. Each page of the list is a request, and so is each live
        stream that is asked for by its id: what takes fewer is done.
        """
        streams, pages = self._providers.streams, 1

        async def next_page() -> None:
            nonlocal pages
            pages += 1
            await self._providers.budget.next_page(Bucket.STREAMS_OTHER, Rank.HEAL, within_s=_STRETCH_S)

        if not 0 < len(ids) < self._pages:
            listed = await streams.list_active(next_page=next_page)
            self._pages = pages
            return listed
        found: list[StreamSeen] = []
        for n, id_ in enumerate(ids):
            if n:
                await next_page()
            seen = await streams.get(id_)
            if seen is not None and seen.status is StreamStatus.ACTIVE:
                found.append(seen)
        return found

    async def _ask(self, bucket: Bucket, read: Callable[[], Awaitable[_T]]) -> _T | ProviderError | None:
        """The answer, or the error of the call. None: it was not made, for want of a token."""
        if not await self._providers.budget.spare(bucket, Rank.HEAL):
            return None
        try:
            return await read()
        except NoToken:
            return None
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
