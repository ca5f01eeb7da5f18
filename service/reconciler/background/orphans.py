"""Finds and removes orphans, for the sweeper and for AdminService: resources at the providers that carry the mark of
this environment and belong to no broadcast.

A resource without our mark is never touched. Owners are read after the providers were asked, so a resource that a
create makes in between has its intent in the database by then.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog

from service import telemetry
from service.domain.errors import ProviderError
from service.domain.orphans import Found, Orphan, Reaped
from service.domain.provider import ROOMS, STREAMS
from service.domain.resources import Kind
from service.failpoints import failpoint
from service.providers.budget import Bucket, NoToken, Rank
from service.reconciler.act.tags import is_upload_tag, pool_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from datetime import datetime

    from service.domain.ports import StreamSeen, UploadSeen
    from service.domain.provider import Provider
    from service.reconciler.act.requests import Providers
    from service.store.owned_ids import OwnedIds

log = structlog.get_logger(__name__)

PER_CALL = 20
"""Removals in one call or round: a mistake of ours must not empty an account."""
UPLOAD_GRACE = timedelta(minutes=15)
"""On top of the common one: an upload is looked for during ten minutes before it is given up
(`Timing.upload_grace_s`)."""
_UPLOADS_BACK = timedelta(days=1)
"""How far the assets of the environment are read: every broadcast leaves one, so there may be very many."""
_PAGES = 50

_Seen = TypeVar("_Seen", "StreamSeen", "UploadSeen")


class Incomplete(Exception):
    """A provider was not asked, or did not answer."""


class Reaper:
    def __init__(
        self,
        owned_ids: OwnedIds,
        providers: Providers,
        *,
        grace: timedelta,
        upload_grace: timedelta = UPLOAD_GRACE,
        patience_s: float = 0.0,
    ) -> None:
        """*grace*: a younger resource is not removed, because a create under way may be about to own it.
        *upload_grace*: the same for uploads, on top of it. *patience_s*: seconds for which each list, and each page of
        one, waits for a token before it counts as not seen.
        """
        self._patience_s = patience_s
        self._owned_ids = owned_ids
        self._providers = providers
        self._grace = grace
        self._upload_grace = upload_grace

    async def find(self, *, uploads: bool = True) -> Found:
        """*uploads*: whether they are looked for, which takes a request for each hundred assets of a day. Raises
        StoreUnavailable.
        """
        failpoint("sweep.before_list")
        before = await self._owned_ids.now() - self._grace
        orphans: list[Orphan] = []
        incomplete: list[Provider] = []
        looks = [(ROOMS, self._egresses), (ROOMS, self._rooms), (STREAMS, self._streams)]
        if uploads:
            looks.append((STREAMS, self._uploads))
        for provider, look in looks:
            try:
                await look(before, orphans.append)
            except ProviderError as error:
                self._providers.refusals.note(error.provider, error.outcome)
                log.warning("orphans_unseen", provider=provider, operation=error.operation, code=error.code)
                incomplete.append(provider)
            except Incomplete:
                incomplete.append(provider)
        return Found(orphans=tuple(orphans), incomplete=tuple(dict.fromkeys(incomplete)))

    async def reap(self, external_ids: Collection[str], *, dry_run: bool) -> Reaped:
        """Raises StoreUnavailable."""
        found = await self.find()
        asked = [orphan for orphan in found.orphans if not external_ids or orphan.external_id in external_ids]
        due = [orphan for orphan in asked if orphan.removable][:PER_CALL]
        removed = due if dry_run else await self.remove(due)
        remaining = tuple(orphan for orphan in asked if orphan not in removed)
        return Reaped(removed=tuple(removed), remaining=remaining, incomplete=found.incomplete)

    async def remove(self, due: Collection[Orphan]) -> list[Orphan]:
        """Remove them, and answer those that were removed. One that its provider refuses, or that finds no token,
        stays. Raises StoreUnavailable.
        """
        removed: list[Orphan] = []
        for orphan in due:
            bucket, remove = self._remover(orphan.kind)
            if not await self._providers.budget.spare(bucket, Rank.SWEEP):
                # Of the other provider's budget there may be some.
                continue
            failpoint("sweep.before_remove")
            try:
                await remove(orphan.external_id)
            except ProviderError as error:
                # Such as an egress whose worker is gone, which answers no stop: the others must not wait behind it.
                log.warning("orphan_stays", kind=orphan.kind, external_id=orphan.external_id, code=error.code)
                continue
            failpoint("sweep.after_remove")
            removed.append(orphan)
            telemetry.ORPHANS_SWEPT.add(1, {"kind": orphan.kind})
            log.warning(
                "orphan_swept", kind=orphan.kind, external_id=orphan.external_id, broadcast_id=orphan.broadcast_id
            )
        return removed

    def _remover(self, kind: Kind) -> tuple[Bucket, Callable[[str], Awaitable[bool | None]]]:
        match kind:
            case Kind.ROOM:
                return Bucket.ROOMS, self._providers.rooms.delete
            case Kind.STREAM:
                return Bucket.STREAMS_OTHER, self._providers.streams.delete
            case Kind.UPLOAD:
                return Bucket.STREAMS_OTHER, self._providers.streams.delete_recording
            case _:
                return Bucket.ROOMS, self._providers.egresses.stop

    async def _may_ask(self, bucket: Bucket) -> None:
        try:
            await self._providers.budget.next_page(bucket, Rank.SWEEP, within_s=self._patience_s)
        except NoToken:
            raise Incomplete from None

    async def _rooms(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        await self._may_ask(Bucket.ROOMS)
        tag = self._providers.tag
        # One without any mark was made by a token that somebody kept: it is ours if its broadcast is, and is over.
        rooms = [room for room in await self._providers.rooms.list() if room.tag in ("", f"{tag}{room.name}")]
        exist, over = await self._owned_ids.over([room.name for room in rooms])
        for room in rooms:
            if room.name in over or (room.tag and room.name not in exist):
                add(
                    Orphan(
                        provider=ROOMS,
                        kind=Kind.ROOM,
                        external_id=room.name,
                        broadcast_id=room.name,
                        created_at=room.created_at,
                        removable=_is_before(room.created_at, before),
                    )
                )

    async def _egresses(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        """Egresses of ours that are active in the room of a broadcast that is over: those that a row knows, and those
        that write files of ours. Any other one is another application's, and ends with the room at the latest.
        """
        await self._may_ask(Bucket.ROOMS)
        active = await self._providers.egresses.list_active()
        _, over = await self._owned_ids.over([egress.room_name for egress in active])
        started = await self._owned_ids.started([egress.id for egress in active if egress.room_name in over])
        files = self._providers.files
        for egress in active:
            ours = egress.id in started or bool(files and egress.file.startswith(files))
            if egress.room_name in over and ours:
                add(
                    Orphan(
                        provider=ROOMS,
                        kind=Kind.EGRESS,
                        external_id=egress.id,
                        broadcast_id=egress.room_name,
                        created_at=egress.started_at,
                        removable=_is_before(egress.started_at, before),
                    )
                )

    async def _streams(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        streams = self._providers.streams
        tagged, broken_off = await self._read(lambda page: streams.list_tagged(self._providers.tag, page=page))
        await self._judge(Kind.STREAM, tagged, before, add)
        if broken_off is not None:
            raise broken_off

    async def _uploads(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        since = before - _UPLOADS_BACK
        if not await self._owned_ids.uploaded_since(since):
            return
        uploads = self._providers.uploads
        listed, broken_off = await self._read(
            lambda page: uploads.list_tagged(self._providers.tag, since=since, page=page)
        )
        tagged = [upload for upload in listed if is_upload_tag(upload.tag)]
        await self._judge(Kind.UPLOAD, tagged, before - self._upload_grace, add)
        if broken_off is not None:
            raise broken_off

    async def _judge(
        self, kind: Kind, tagged: Collection[_Seen], before: datetime, add: Callable[[Orphan], None]
    ) -> None:
        # Before the owners are read: one that a broadcast takes in between has an owner by then.
        idle = await self._owned_ids.pooled([pool_id(self._providers.tag, seen.tag) for seen in tagged])
        owned = await self._owned_ids.owned(kind, [seen.id for seen in tagged])
        searching = await self._owned_ids.searching(kind, sorted({self._owner(seen) for seen in tagged}))
        for seen in tagged:
            pooled = pool_id(self._providers.tag, seen.tag) in idle
            if seen.id not in owned and not pooled and self._owner(seen) not in searching:
                add(
                    Orphan(
                        provider=STREAMS,
                        kind=kind,
                        external_id=seen.id,
                        broadcast_id=self._owner(seen),
                        created_at=seen.created_at,
                        removable=_is_before(seen.created_at, before),
                    )
                )

    async def _read(
        self, page_of: Callable[[int], Awaitable[tuple[Sequence[_Seen], bool]]]
    ) -> tuple[list[_Seen], Exception | None]:
        """The resources of all pages, and the error that ended the reading early. None: all pages were read. The pages
        that were read are judged in either case.
        """
        tagged: dict[str, _Seen] = {}
        try:
            for page in range(1, _PAGES + 1):
                await self._may_ask(Bucket.STREAMS_OTHER)
                found, more = await page_of(page)
                # One that is made meanwhile moves the last of a page to the next, where it is met again.
                tagged.update((seen.id, seen) for seen in found)
                if not more:
                    return list(tagged.values()), None
        except (ProviderError, Incomplete) as error:
            return list(tagged.values()), error
        return list(tagged.values()), Incomplete()

    def _owner(self, seen: StreamSeen | UploadSeen) -> str:
        return seen.tag.removeprefix(self._providers.tag).rpartition(":")[0]


def _is_before(created_at: datetime | None, moment: datetime) -> bool:
    return created_at is not None and created_at <= moment
