"""The reads of a pass: what the plan asks to look at, asked of the providers and stored before planning."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from service import telemetry
from service.domain.errors import ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.egresses import egresses_seen, found_running
from service.domain.observing.evidence import absent
from service.domain.observing.learned import Learned
from service.domain.observing.playlist import probed
from service.domain.observing.recordings import recording_checked, recordings_seen, upload_checked, upload_found
from service.domain.observing.rooms import people_doubted, room_absent, room_remains, room_seen
from service.domain.observing.streams import stream_absent, stream_seen, streams_found
from service.domain.observing.webhook_facts import listen
from service.domain.ports import Push
from service.domain.provider import OWNER
from service.domain.reasons import Actor
from service.domain.resource_set import ResourceSet
from service.domain.resources import Egress, Kind, Phase, Room, Stream, Upload
from service.failpoints import failpoint
from service.providers.budget import Bucket, NoToken
from service.reconciler.act.requests import names_of, pushes_of
from service.reconciler.act.tags import is_foreign, room_tag, stream_tag, upload_tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from service.domain.ports import EgressSeen, RoomSeen
    from service.domain.ports.pages import NextPage
    from service.domain.situation import Situation
    from service.domain.timing import Timing
    from service.providers.budget import Rank
    from service.reconciler.act.requests import Providers
    from service.store.leases import Claim
    from service.store.passes import Passes

Look = tuple[Kind, int]


class Looker:
    def __init__(self, passes: Passes, providers: Providers, timing: Timing) -> None:
        self._passes = passes
        self._providers = providers
        self._timing = timing

    async def look(
        self, claim: Claim, situation: Situation, wanted: AbstractSet[Look], rank: Rank
    ) -> tuple[Situation, frozenset[Look]]:
        """Ask the providers for *wanted* and store the answers.

        Answers the situation as it is stored then, and the looks that were missed: no token was left, or the provider
        did not answer. Raises LeaseLost, StoreUnavailable; a provider's error is a missed look.
        """
        resource_set = ResourceSet(situation.resources)
        egresses = frozenset(look for look in wanted if look[0] in (Kind.EGRESS, Kind.RECORDING))
        groups: list[tuple[frozenset[Look], Room | Stream | Upload | None]] = [
            (frozenset({(resource.kind, resource.ordinal)}), resource)
            for resource in (*resource_set.rooms, *resource_set.streams, *resource_set.uploads)
            if (resource.kind, resource.ordinal) in wanted
        ]
        if egresses:
            # One list shows them all.
            groups.append((egresses, None))
        results = await asyncio.gather(*(self._one(situation, resource_set, resource, rank) for _, resource in groups))
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
            # A resource was found by its mark: the failure of its create is over.
            found = [resource for each in learned if each.adopted for resource in each.resources]
            situation = await self._passes.record(
                claim,
                resources,
                events=[event for each in learned for event in each.events],
                recovered=OWNER[found[0].kind] if found else None,
            )
            failpoint("observe.after_record")
        return situation, frozenset(missed)

    async def listen(self, claim: Claim, situation: Situation) -> Situation:
        """Take in webhooks and the probe since the last pass. Raises LeaseLost, StoreUnavailable."""
        if situation.heard:
            situation = replace(await self._webhooks(claim, situation), probe=situation.probe)
        learned = probed(situation.resources, situation.probe, situation.now)
        if not learned.resources:
            return situation
        return await self._passes.record(claim, learned.resources, events=learned.events, actor=Actor.PROBER)

    async def _webhooks(self, claim: Claim, situation: Situation) -> Situation:
        broadcast, providers = situation.broadcast, self._providers
        learned = listen(
            situation.resources,
            [heard for _, heard in situation.heard],
            lambda egress: names_of(broadcast, egress.pushes, providers.egresses),
            situation.now,
            self._timing,
        )
        failpoint("webhook.before_apply")
        numbers = [number for number, _ in situation.heard]
        situation = await self._passes.record(
            claim, learned.resources, events=learned.events, heard=numbers, actor=Actor.WEBHOOK
        )
        failpoint("webhook.after_apply")
        return situation

    async def _one(  # noqa: PLR0911 - one answer a kind
        self, situation: Situation, resource_set: ResourceSet, resource: Room | Stream | Upload | None, rank: Rank
    ) -> Learned | None:
        bucket = Bucket.STREAMS_OTHER if isinstance(resource, Stream | Upload) else Bucket.ROOMS
        if not await self._providers.budget.spare(bucket, rank):
            return None
        try:
            match resource:
                case Room():
                    return await self._room(situation, resource_set, resource, rank)
                case Upload():
                    return await self._upload(situation.broadcast.id, resource, situation.now, rank)
                case Stream() if resource.only_recordings_matter:
                    return await self._recordings(resource, situation.now, rank)
                case Stream():
                    return await self._stream(situation.broadcast.id, resource, resource_set, situation.now, rank)
                case None:
                    return await self._egresses(situation, resource_set, rank)
        except NoToken:
            return None
        except ProviderError as error:
            self._providers.refusals.note(error.provider, error.outcome)
            # Counted and traced by the adapter. A missed look is not told to callers; a failed step is.
            return None

    async def _room(  # noqa: PLR0911 - one answer a case
        self, situation: Situation, resource_set: ResourceSet, room: Room, rank: Rank
    ) -> Learned | None:
        """One call where somebody is inside, which proves that the room exists. Only an empty room is looked for in the
        list of rooms too.
        """
        name, now = situation.broadcast.id, situation.now
        if room.phase is Phase.DELETING:
            # Who is inside does not matter any more.
            listed, foreign = await self._listed(name, resource_set)
            if listed is not None and not foreign:
                return room_remains(room, now)
            return room_absent(room, now, self._timing, contradicted=resource_set.delivered)
        inside = await self._providers.rooms.inside(name)
        listed = None
        if not inside.anybody:
            if resource_set.delivered:
                # The egress whose media arrive is a participant, so an empty room cannot be.
                return room_absent(room, now, self._timing, contradicted=True)
            if not await self._providers.budget.spare(Bucket.ROOMS, rank):
                return None
        if room.unresolved or not inside.anybody:
            # People inside do not tell whose room it is, where it was not known to be ours before.
            listed, foreign = await self._listed(name, resource_set)
            if foreign or (listed is None and not inside.anybody):
                closed = resource_set.source_closed
                return room_absent(room, now, self._timing, contradicted=False, source_closed=closed)
            if people_doubted(room, inside, listed, now, self._timing):
                return Learned(resources=(absent(room, now),))
        missing = resource_set.missing(inside.recorders, now)
        seen = room_seen(room, inside, now, listed=listed, missing=missing)
        running = found_running(resource_set.still_running(inside.recorders, now, self._timing), now)
        return Learned(resources=(*seen.resources, *running.resources), events=(*seen.events, *running.events))

    async def _listed(self, name: str, resource_set: ResourceSet) -> tuple[RoomSeen | None, bool]:
        """The room of this name as it is listed, and whether it is somebody else's."""
        seen = await self._providers.rooms.get(name)
        tag = room_tag(self._providers.tag, name)
        return seen, seen is not None and is_foreign(seen, tag, resource_set.rooms)

    async def _stream(
        self, broadcast_id: str, stream: Stream, resource_set: ResourceSet, now: datetime, rank: Rank
    ) -> Learned:
        streams, next_page = self._providers.streams, self._next_page(rank)
        if not stream.external_id:
            tag = stream_tag(self._providers.tag, broadcast_id, stream.ordinal)
            return streams_found(
                stream,
                await streams.find(tag, since=stream.intended_at, next_page=next_page),
                resource_set.streams,
                now,
            )
        seen = await streams.get(stream.external_id)
        if seen is not None:
            return stream_seen(stream, seen, now)
        listed = None
        if stream.phase is Phase.PRESENT and await self._providers.budget.spare(Bucket.STREAMS_OTHER, rank):
            tag = stream_tag(self._providers.tag, broadcast_id, stream.ordinal)
            with contextlib.suppress(ProviderError, NoToken):
                found = await streams.find(tag, since=stream.intended_at, next_page=next_page)
                listed = any(each.id == stream.external_id for each in found)
        return stream_absent(stream, now, self._timing, listed=listed, contradicted=resource_set.delivered)

    async def _recordings(self, stream: Stream, now: datetime, rank: Rank) -> Learned:
        """Of a live stream that is over: what became of what Mux recorded of it."""
        recordings, told = list(stream.recordings), list[Event]()
        pending = [n for n, recording in enumerate(recordings) if not recording.settled]
        for asked, n in enumerate(pending):
            # The token that was taken is for one call.
            if asked and not await self._providers.budget.spare(Bucket.STREAMS_OTHER, rank):
                break
            seen = await self._providers.streams.recording(recordings[n].asset_id)
            recordings[n], events = recording_checked(
                recordings[n], seen, since=stream.ended_at or stream.changed_at, now=now, timing=self._timing
            )
            told += events
        return Learned(resources=(replace(stream, recordings=tuple(recordings), observed_at=now),), events=tuple(told))

    def _next_page(self, rank: Rank) -> NextPage:
        return partial(self._providers.budget.next_page, Bucket.STREAMS_OTHER, rank)

    async def _upload(self, broadcast_id: str, upload: Upload, now: datetime, rank: Rank) -> Learned:
        uploads = self._providers.uploads
        if upload.unresolved:
            tag = upload_tag(self._providers.tag, broadcast_id, upload)
            found = await uploads.find(tag, since=upload.intended_at, next_page=self._next_page(rank))
            return upload_found(upload, found, now, self._timing)
        return upload_checked(upload, await uploads.get(upload.external_id), now, self._timing)

    async def _absent(
        self, resource_set: ResourceSet, listed: Sequence[EgressSeen], rank: Rank
    ) -> tuple[list[EgressSeen], frozenset[str]]:
        """The egresses of ours that *listed* lacks, each asked for by its id: what is shown of them, and the ids of
        which there is none. An id that could not be asked for is in neither.
        """
        ids = {seen.id for seen in listed}
        lacking = [
            each.external_id
            for each in resource_set.recorders
            if each.external_id and each.external_id not in ids and each.phase in (Phase.PRESENT, Phase.DELETING)
        ]
        shown: list[EgressSeen] = []
        unknown: set[str] = set()
        for egress_id in lacking:
            if not await self._providers.budget.spare(Bucket.ROOMS, rank):
                break
            try:
                seen = await self._providers.egresses.get(egress_id)
            except ProviderError:
                continue
            if seen is None:
                unknown.add(egress_id)
            else:
                shown.append(seen)
        return shown, frozenset(unknown)

    async def _egresses(self, situation: Situation, resource_set: ResourceSet, rank: Rank) -> Learned:
        listed = await self._providers.egresses.list_room(situation.broadcast.id)
        shown, unknown = await self._absent(resource_set, listed, rank)
        listed = [*listed, *shown]
        stream = resource_set.stream or (resource_set.streams[-1] if resource_set.streams else None)
        address, epoch, names = "", 0, dict[str, list[str]]()
        egresses: list[Egress] = resource_set.egresses
        if stream is not None and stream.phase is not Phase.GONE:
            pushes = pushes_of(situation.broadcast, stream, self._providers.streams)
            address = self._providers.egresses.address_of(Push(name="", url=pushes[""]))
            epoch = stream.key_epoch
            # One that we have no row of was given what every egress of this broadcast is given.
            names = names_of(situation.broadcast, pushes, self._providers.egresses)
        for egress in egresses:
            for shown, given in names_of(situation.broadcast, egress.pushes, self._providers.egresses).items():
                names[shown] = [*dict.fromkeys([*names.get(shown, ()), *given])]
        sent = egresses_seen(
            egresses,
            listed,
            names=names,
            address=address,
            key_epoch=epoch,
            now=situation.now,
            timing=self._timing,
            unknown=unknown,
            feeding=resource_set.feeding if resource_set.fed else None,
        )
        recorded = recordings_seen(
            resource_set.recordings, listed, now=situation.now, timing=self._timing, unknown=unknown
        )
        return Learned(
            resources=(*sent.resources, *recorded.resources),
            events=(*sent.events, *recorded.events),
            adopted=sent.adopted + recorded.adopted,
        )
