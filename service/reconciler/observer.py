"""Looks at the providers in bulk and wakes the broadcasts they disagree with. With every webhook lost, this is how we
know.

One replica at a time, three lists a round, whatever the number of broadcasts. It stores nothing: the pass it wakes
looks again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog

from service import telemetry
from service.domain.broadcast import Kind, Phase, StreamStatus
from service.domain.errors import ProviderError, StoreUnavailable
from service.failpoints import failpoint
from service.providers.budget import Bucket, Rank

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.domain.ports import EgressSeen, RoomSeen, StreamSeen
    from service.reconciler.asking import Providers
    from service.store.census import Census, Known
    from service.store.leases import Leases

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Observer:
    def __init__(self, leases: Leases, census: Census, providers: Providers, *, every: timedelta) -> None:
        self._leases = leases
        self._census = census
        self._providers = providers
        self._every = every

    async def run(self) -> None:
        while True:
            try:
                if await self._leases.take_duty("observer", self._every * 3):
                    await self.look()
            except StoreUnavailable:
                pass
            except Exception:
                # A fault of ours must not take the replica down: passes and callers have nothing to do with it.
                log.exception("observer_failed")
            await asyncio.sleep(self._every.total_seconds())

    async def look(self) -> set[str]:
        """One round. Answers which broadcasts were woken."""
        known = await self._census.known()
        if not known:
            return set()
        rooms, egresses, streams = await asyncio.gather(
            self._ask(Bucket.LIVEKIT, self._providers.rooms.list),
            self._ask(Bucket.LIVEKIT, self._providers.egresses.list_active),
            self._ask(Bucket.MUX_OTHER, self._providers.streams.list_active),
        )
        differ = disagreements(known, rooms, egresses, streams)
        if differ:
            telemetry.DISAGREEMENTS.add(len(differ))
            log.info("observer_disagrees", broadcast_ids=sorted(differ)[:20], count=len(differ))
            failpoint("observer.before_wake")
            await self._leases.wake(sorted(differ))
        return differ

    async def _ask(self, bucket: Bucket, read: Callable[[], Awaitable[_T]]) -> _T | None:
        """None: not known this time, which disagrees with nothing."""
        if not await self._providers.budget.spare(bucket, Rank.HEAL):
            return None
        try:
            return await read()
        except ProviderError as error:
            log.warning("observer_is_blind", provider=error.provider, operation=error.operation, code=error.code)
            return None


def disagreements(  # noqa: C901 - one question a kind
    known: Sequence[Known],
    rooms: Sequence[RoomSeen] | None,
    egresses: Sequence[EgressSeen] | None,
    streams: Sequence[StreamSeen] | None,
) -> set[str]:
    """Broadcasts of which the providers show something else than is stored. Pure."""
    differ: set[str] = set()
    by_name = {room.name: room for room in rooms or ()}
    by_id = {egress.id: egress for egress in egresses or ()}
    active = {stream.id for stream in streams or ()}
    known_egresses = {each.external_id for each in known if each.kind == Kind.EGRESS}
    in_room: defaultdict[str, list[EgressSeen]] = defaultdict(list)
    for egress in egresses or ():
        in_room[egress.room_name].append(egress)
    for each in known:
        if each.phase != Phase.PRESENT:
            # On its way anyhow: its own passes look at it.
            continue
        match each.kind:
            case Kind.ROOM if rooms is not None:
                room = by_name.get(each.broadcast_id)
                if room is None or (room.publishers > 0) is not bool(each.host_publishing):
                    differ.add(each.broadcast_id)
                if any(egress.id not in known_egresses for egress in in_room[each.broadcast_id]):
                    differ.add(each.broadcast_id)
            case Kind.EGRESS if egresses is not None:
                egress = by_id.get(each.external_id)
                if egress is None or egress.status != each.status or egress.updated_ns > each.updated_ns:
                    differ.add(each.broadcast_id)
            case Kind.STREAM if streams is not None:
                if (each.external_id in active) is not (each.status == StreamStatus.ACTIVE):
                    differ.add(each.broadcast_id)
            case _:
                pass
    return differ
