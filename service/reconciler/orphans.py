"""Finds and removes what carries our mark and has no owner: for the sweeper, and for those who are on call.

What does not carry the mark of this environment is never touched. Owners are looked up after the providers were asked,
so what a create under way makes in between has its intent by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from service import telemetry
from service.domain.errors import ProviderError
from service.domain.orphans import Found, Orphan, Reaped
from service.domain.resources import Kind
from service.failpoints import failpoint
from service.providers.budget import Bucket, Rank

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from datetime import datetime, timedelta

    from service.domain.ports import StreamSeen
    from service.reconciler.asking import Providers
    from service.store.census import Census

log = structlog.get_logger(__name__)

PER_CALL = 20
"""Removals at a time: a mistake of ours must not empty an account."""
_PAGES = 50
_LIVEKIT, _MUX = "livekit", "mux"


class Incomplete(Exception):
    """A provider was not asked, or did not answer."""


class Reaper:
    def __init__(self, census: Census, providers: Providers, *, grace: timedelta) -> None:
        """*grace*: the age below which something may be about to be adopted."""
        self._census = census
        self._providers = providers
        self._grace = grace

    async def find(self) -> Found:
        """Raises StoreUnavailable."""
        failpoint("sweep.before_list")
        before = await self._census.now() - self._grace
        orphans: list[Orphan] = []
        incomplete: list[str] = []
        for provider, look in ((_LIVEKIT, self._egresses), (_LIVEKIT, self._rooms), (_MUX, self._streams)):
            try:
                await look(before, orphans.append)
            except ProviderError as error:
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
        """Answers which of them were removed."""
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

    def _remover(self, kind: Kind) -> tuple[Bucket, Callable[[str], Awaitable[None]]]:
        match kind:
            case Kind.ROOM:
                return Bucket.LIVEKIT, self._providers.rooms.delete
            case Kind.STREAM:
                return Bucket.MUX_OTHER, self._providers.streams.delete
            case _:
                return Bucket.LIVEKIT, self._providers.egresses.stop

    async def _may_ask(self, bucket: Bucket) -> None:
        if not await self._providers.budget.spare(bucket, Rank.SWEEP):
            raise Incomplete

    async def _rooms(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        await self._may_ask(Bucket.LIVEKIT)
        tag = self._providers.tag
        # One without any mark was made by a token that somebody kept: it is ours if its broadcast is, and is over.
        rooms = [room for room in await self._providers.rooms.list() if room.tag in ("", f"{tag}{room.name}")]
        exist, over = await self._census.over([room.name for room in rooms])
        for room in rooms:
            if room.name in over or (room.tag and room.name not in exist):
                add(
                    Orphan(
                        provider=_LIVEKIT,
                        kind=Kind.ROOM,
                        external_id=room.name,
                        broadcast_id=room.name,
                        created_at=room.created_at,
                        removable=_is_before(room.created_at, before),
                    )
                )

    async def _egresses(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        """Active in a room of a broadcast that is over. Whose room we do not know, it is not ours to judge."""
        await self._may_ask(Bucket.LIVEKIT)
        active = await self._providers.egresses.list_active()
        _, over = await self._census.over([egress.room_name for egress in active])
        for egress in active:
            if egress.room_name in over:
                add(
                    Orphan(
                        provider=_LIVEKIT,
                        kind=Kind.EGRESS,
                        external_id=egress.id,
                        broadcast_id=egress.room_name,
                        created_at=egress.started_at,
                        removable=_is_before(egress.started_at, before),
                    )
                )

    async def _streams(self, before: datetime, add: Callable[[Orphan], None]) -> None:
        tagged: dict[str, StreamSeen] = {}
        broken_off: Exception | None = None
        try:
            await self._read_streams(tagged)
        except (ProviderError, Incomplete) as error:
            # What was read is judged all the same.
            broken_off = error
        owned = await self._census.owned_streams(list(tagged))
        searching = await self._census.searching(sorted({self._owner(stream) for stream in tagged.values()}))
        for stream in tagged.values():
            if stream.id not in owned and self._owner(stream) not in searching:
                add(
                    Orphan(
                        provider=_MUX,
                        kind=Kind.STREAM,
                        external_id=stream.id,
                        broadcast_id=self._owner(stream),
                        created_at=stream.created_at,
                        removable=_is_before(stream.created_at, before),
                    )
                )
        if broken_off is not None:
            raise broken_off

    async def _read_streams(self, tagged: dict[str, StreamSeen]) -> None:
        for page in range(1, _PAGES + 1):
            await self._may_ask(Bucket.MUX_OTHER)
            streams, more = await self._providers.streams.list_tagged(self._providers.tag, page=page)
            # One that is made meanwhile moves the last of a page to the next, where it is met again.
            tagged.update((stream.id, stream) for stream in streams)
            if not more:
                return
        raise Incomplete

    def _owner(self, stream: StreamSeen) -> str:
        return stream.tag.removeprefix(self._providers.tag).rpartition(":")[0]


def _is_before(created_at: datetime | None, moment: datetime) -> bool:
    return created_at is not None and created_at <= moment
