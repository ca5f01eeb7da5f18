"""WatchPlayback: the handle of every broadcast that matches, then each that changed. A slow watcher skips older ones.

A watch is a cursor into the change log, as WatchBroadcasts is, and the generation of each handle that its watcher was
told. It has no queue: while the watcher is slow the changes stay in the log, and of those that came meanwhile the
newest of each broadcast is told. So a watcher that does not read costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from broadcast.v1 import broadcast_service_pb2 as watch_rpc
from broadcast.v1 import playback_service_pb2 as rpc
from service.api.messages.tokens import Position, filter_hash, read_resume_token, resume_token
from service.api.playback.handles import Handles
from service.api.streams.broadcasts import resumed, transition
from service.api.streams.change_log import Tail
from service.domain.broadcast import Broadcast
from service.domain.reporting.handle import handle_of
from service.domain.reporting.playback import way_of
from service.store.broadcasts import Broadcasts, Filter
from service.store.changes import Changes
from service.store.past_starts import PastStarts

_PAGE: Final = 200
_BETWEEN_S: Final = 0.2
"""The shortest time between two messages: changes that come meanwhile are told together, and none waits in a buffer of
the transport while a newer one is there.
"""


@dataclass(slots=True, kw_only=True)
class _Watch:
    filter: Filter
    told: dict[str, int] = field(default_factory=dict[str, int])
    """The generation of the handle that the watcher was told last, by broadcast."""
    skipped: int = 0

    def news(self, changes: dict[str, Broadcast]) -> list[Broadcast]:
        """Those of *changes* whose handle the watcher does not have. They count as told."""
        found = [each for id_, each in changes.items() if self.told.get(id_) != _generation(each)]
        self.tell(found)
        return found

    def tell(self, broadcasts: Iterable[Broadcast]) -> None:
        self.told |= {each.id: _generation(each) for each in broadcasts}


def _generation(broadcast: Broadcast) -> int:
    return handle_of(broadcast, broadcast.update_time).generation


class PlaybackWatches:
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        changes: Changes,
        tail: Tail,
        handles: Handles,
        past_starts: PastStarts,
        now: Callable[[], Awaitable[datetime]],
        tokens_live: timedelta,
    ) -> None:
        """*now*: the time of the database. *tokens_live*: for how long tokens in a handle are good at least."""
        self._broadcasts = broadcasts
        self._changes = changes
        self._tail = tail
        self._handles = handles
        self._past_starts = past_starts
        self._now = now
        self._tokens_live = tokens_live

    async def follow(self, filter_: Filter, token: str, heartbeat_s: float) -> AsyncIterator[bytes]:
        """Serialised WatchPlaybackResponses, without an end. *token*: empty for a watch from the beginning.

        Raises ResumeTokenInvalid, ResumeTokenExpired, StoreUnavailable.
        """
        digest, watch = filter_hash(filter_), _Watch(filter=filter_)
        resume = read_resume_token(token, digest) if token else None
        if resume is None or resume.last is not None:
            history = await self._tail.history()
            cursor: int | None = None
            last: Position | None = None
            while True:
                found, revision = await self._broadcasts.list(
                    filter_, limit=_PAGE, before=last.key if last is not None else None
                )
                # As of WatchBroadcasts: changes made while the pages are read are followed too.
                cursor = revision if cursor is None else cursor
                complete = len(found) < _PAGE
                watch.tell(found)
                yield await self._message(
                    found,
                    complete=complete,
                    token=resume_token(digest, cursor, history=history) if complete else "",
                )
                if complete:
                    break
                last = Position.of(found[-1].create_time, found[-1].id)
        else:
            history, cursor = await resumed(self._changes, resume), resume.revision
        async for message in self._changes_after(cursor, history, watch, digest, heartbeat_s):
            yield message

    async def _changes_after(
        self, cursor: int, history: str, watch: _Watch, digest: str, heartbeat_s: float
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + heartbeat_s
        while True:
            seen = self._tail.advanced.count
            changed, removed, cursor = await self._since(cursor, history, watch)
            found = watch.news(changed)
            if found or removed or loop.time() >= heartbeat_at:
                yield await self._message(
                    found,
                    removed=removed,
                    skipped=watch.skipped,
                    token=resume_token(digest, cursor, history=history),
                )
                watch.skipped = 0
                heartbeat_at = loop.time() + heartbeat_s
                await asyncio.sleep(_BETWEEN_S)
            else:
                await self._tail.advanced.wait(heartbeat_at - loop.time(), since=seen)

    async def _since(self, cursor: int, history: str, watch: _Watch) -> tuple[dict[str, Broadcast], list[str], int]:
        """The newest of every broadcast that changed after *cursor*, the ids of those that do not match any more, and
        the cursor to go on from.
        """
        changed: dict[str, Broadcast] = {}
        removed: dict[str, None] = {}
        while True:
            entries, up_to = await self._tail.after(cursor, history)
            for entry in entries:
                broadcast = entry.change.broadcast
                type_ = transition(watch.filter, entry.change)
                if type_ == watch_rpc.CHANGE_TYPE_REMOVED:
                    changed.pop(broadcast.id, None)
                    watch.told.pop(broadcast.id, None)
                    removed[broadcast.id] = None
                elif type_ is not None:
                    removed.pop(broadcast.id, None)
                    watch.skipped += self._superseded(changed.get(broadcast.id), broadcast, watch)
                    changed[broadcast.id] = broadcast
            if up_to == cursor:
                return changed, list(removed), cursor
            cursor = up_to

    @staticmethod
    def _superseded(before: Broadcast | None, after: Broadcast, watch: _Watch) -> bool:
        """Whether a handle that the watcher was not told of makes way for another one."""
        if before is None:
            return False
        return _generation(before) not in (watch.told.get(before.id), _generation(after))

    async def _message(
        self,
        broadcasts: Sequence[Broadcast],
        *,
        removed: Sequence[str] = (),
        skipped: int = 0,
        complete: bool = False,
        token: str,
    ) -> bytes:
        message = rpc.WatchPlaybackResponse(
            removed_broadcast_ids=removed, skipped_count=skipped, snapshot_complete=complete, resume_token=token
        )
        if not broadcasts:
            return message.SerializeToString()
        takes, now = await self._past_starts.takes(), await self._now()
        for broadcast in broadcasts:
            way = way_of(broadcast, now, takes)
            message.handles.append(self._handles.state(broadcast, way, now, until=now + self._tokens_live))
            # Each may need three signatures.
            await asyncio.sleep(0)
        return message.SerializeToString()
