"""The reads of a pass: what the plan asks to look at, asked of the providers and stored before planning."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service import telemetry
from service.domain.broadcast import Egress, Kind, Phase, Room, Stream
from service.domain.errors import ProviderError
from service.domain.plan import View
from service.domain.ports import Push
from service.domain.seen import Learned, egresses_seen, room_seen, stream_seen, streams_found
from service.failpoints import failpoint
from service.providers.budget import Bucket
from service.reconciler.asking import names_of, pushes_of, stream_tag

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from service.domain.plan import Timing
    from service.providers.budget import Rank
    from service.reconciler.asking import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes, Situation

Look = tuple[Kind, int]


class Looker:
    def __init__(self, passes: Passes, providers: Providers, timing: Timing) -> None:
        self._passes = passes
        self._providers = providers
        self._timing = timing

    async def look(
        self, claim: Claim, situation: Situation, wanted: AbstractSet[Look], rank: Rank
    ) -> tuple[Situation, frozenset[Look]]:
        """The situation with what was learned, and what could not be looked at now."""
        view = View(situation.resources)
        egresses = frozenset(look for look in wanted if look[0] is Kind.EGRESS)
        groups: list[tuple[frozenset[Look], Room | Stream | None]] = [
            (frozenset({(resource.kind, resource.ordinal)}), resource)
            for resource in (*view.rooms, *view.streams)
            if (resource.kind, resource.ordinal) in wanted
        ]
        if egresses:
            # One list shows them all.
            groups.append((egresses, None))
        results = await asyncio.gather(*(self._one(situation, view, resource, rank) for _, resource in groups))
        missed: set[Look] = set()
        learned: list[Learned] = []
        for (looks, _), result in zip(groups, results, strict=True):
            if result is None:
                missed |= looks
            else:
                learned.append(result)
        failpoint("observe.after_read")
        resources = [resource for each in learned for resource in each.resources]
        if resources:
            for each in learned:
                if each.adopted:
                    telemetry.ADOPTED.add(each.adopted)
            situation = await self._passes.record(
                claim, resources, events=[event for each in learned for event in each.events]
            )
            failpoint("observe.after_record")
        return situation, frozenset(missed)

    async def _one(
        self, situation: Situation, view: View, resource: Room | Stream | None, rank: Rank
    ) -> Learned | None:
        bucket = Bucket.MUX_OTHER if isinstance(resource, Stream) else Bucket.LIVEKIT
        if not await self._providers.budget.spare(bucket, rank):
            return None
        try:
            match resource:
                case Room():
                    seen = await self._providers.rooms.get(situation.broadcast.id)
                    return room_seen(resource, seen, situation.now)
                case Stream():
                    return await self._stream(situation.broadcast.id, resource, view, situation.now)
                case None:
                    return await self._egresses(situation, view)
        except ProviderError:
            # Counted and traced by the adapter. Not knowing is no news for the caller: a step that fails is.
            return None

    async def _stream(self, broadcast_id: str, stream: Stream, view: View, now: datetime) -> Learned:
        streams = self._providers.streams
        if not stream.external_id:
            tag = stream_tag(self._providers.tag, broadcast_id, stream.ordinal)
            return streams_found(stream, await streams.find(tag, since=stream.intended_at), view.streams, now)
        return stream_seen(stream, await streams.get(stream.external_id), now)

    async def _egresses(self, situation: Situation, view: View) -> Learned:
        listed = await self._providers.egresses.list_room(situation.broadcast.id)
        stream = view.stream or (view.streams[-1] if view.streams else None)
        address, epoch, names = "", 0, dict[str, list[str]]()
        egresses: list[Egress] = view.egresses
        if stream is not None and stream.phase is not Phase.GONE:
            push = pushes_of(situation.broadcast, stream, self._providers.streams)[""]
            address = self._providers.egresses.address_of(Push(name="", url=push))
            epoch = stream.key_epoch
        for egress in egresses:
            for shown, given in names_of(situation.broadcast, egress.pushes, self._providers.egresses).items():
                names[shown] = [*dict.fromkeys([*names.get(shown, ()), *given])]
        return egresses_seen(
            egresses,
            listed,
            names=names,
            address=address,
            key_epoch=epoch,
            now=situation.now,
            timing=self._timing,
        )
