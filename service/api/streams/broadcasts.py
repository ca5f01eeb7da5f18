"""WatchBroadcasts: every broadcast that matches, then every change, in the order of commits.

A watch is a cursor into the change log and nothing else. It has no queue that could overflow: a slow reader is awaited,
and the changes that it has not read stay in the log.
"""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1 import broadcast_service_pb2 as rpc
from service.api.messages.broadcast import broadcast_message
from service.api.messages.tokens import Position, Resume, filter_hash, read_resume_token, resume_token
from service.api.streams.change_log import OTHER_HISTORY, Tail
from service.domain.broadcast import Broadcast
from service.domain.errors import ResumeTokenExpired
from service.failpoints import failpoint
from service.store.broadcasts import Broadcasts, Filter
from service.store.changes import Changes, LoggedChange

_SNAPSHOT_PAGE = 200


class BroadcastWatches:
    def __init__(self, broadcasts: Broadcasts, changes: Changes, tail: Tail, *, playback_base_url: str) -> None:
        self._broadcasts = broadcasts
        self._changes = changes
        self._tail = tail
        self._playback_base_url = playback_base_url

    async def follow(self, filter_: Filter, token: str, heartbeat_s: float) -> AsyncIterator[bytes]:
        """Serialised WatchBroadcastsResponses, without an end. *token*: empty for a watch from the beginning.

        Raises ResumeTokenInvalid, ResumeTokenExpired, StoreUnavailable.
        """
        digest = filter_hash(filter_)
        resume = read_resume_token(token, digest) if token else None
        history = await (self._tail.history() if resume is None else resumed(self._changes, resume))
        cursor = resume.revision if resume is not None else None
        if resume is None or resume.last is not None:
            last = resume.last if resume is not None else None
            failpoint("watch.before_snapshot")
            while True:
                found, revision = await self._broadcasts.list(
                    filter_, limit=_SNAPSHOT_PAGE, before=last.key if last is not None else None
                )
                # The changes are followed from the revision of the first page. A broadcast that changes while the
                # pages are read is sent again as a change, so none is missed.
                cursor = revision if cursor is None else cursor
                for broadcast in found:
                    last = Position.of(broadcast.create_time, broadcast.id)
                    yield self._snapshot(broadcast, resume_token(digest, cursor, last, history=history))
                if len(found) < _SNAPSHOT_PAGE:
                    break
            yield rpc.WatchBroadcastsResponse(
                snapshot_complete=rpc.SnapshotComplete(), resume_token=resume_token(digest, cursor, history=history)
            ).SerializeToString()
        assert cursor is not None  # noqa: S101 - for the type checker: the token has one, or the first page
        async for message in self._changes_after(cursor, history, filter_, digest, heartbeat_s):
            yield message

    async def _changes_after(
        self, cursor: int, history: str, filter_: Filter, digest: str, heartbeat_s: float
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + heartbeat_s
        while True:
            seen = self._tail.advanced.count
            entries, up_to = await self._tail.after(cursor, history)
            for entry in entries:
                type_ = transition(filter_, entry.change)
                if type_ is not None:
                    failpoint("watch.mid_delta")
                    yield entry.serialised(type_, digest)
            more, cursor = up_to != cursor, up_to
            now = loop.time()
            if now >= heartbeat_at:
                yield _heartbeat(resume_token(digest, cursor, history=history))
                heartbeat_at = loop.time() + heartbeat_s
            elif not more:
                await self._tail.advanced.wait(heartbeat_at - now, since=seen)

    def _snapshot(self, broadcast: Broadcast, token: str) -> bytes:
        message = broadcast_message(broadcast, self._playback_base_url)
        change = rpc.BroadcastChange(type=rpc.CHANGE_TYPE_SNAPSHOT, broadcast=message)
        return rpc.WatchBroadcastsResponse(change=change, resume_token=token).SerializeToString()


async def resumed(changes: Changes, resume: Resume) -> str:
    """The history of the token of a watch that goes on. Raises ResumeTokenExpired, StoreUnavailable."""
    floor, head, history, _ = await changes.bounds()
    # A token of a version before 0007_history.sql has no history.
    if resume.history not in ("", history) or resume.revision > head:
        raise ResumeTokenExpired(OTHER_HISTORY)
    if resume.revision < floor:
        raise ResumeTokenExpired("the change log does not reach back to this token")
    return history


def transition(filter_: Filter, change: LoggedChange) -> rpc.ChangeType.ValueType | None:
    """The type of a change for a watch with *filter_*. None: the broadcast matches neither before nor after."""
    after, before = change.broadcast, change.before
    is_in = not after.deleted and filter_.matches(
        id=after.id,
        state=after.state,
        labels=after.labels,
        owner_id=after.spec.owner_id,
        create_time=after.create_time,
    )
    was_in = (
        before is not None
        and not before.deleted
        and filter_.matches(
            id=after.id,
            state=before.state,
            labels=before.labels,
            owner_id=before.owner_id,
            create_time=after.create_time,
        )
    )
    if is_in:
        return rpc.CHANGE_TYPE_UPDATED if was_in else rpc.CHANGE_TYPE_ADDED
    return rpc.CHANGE_TYPE_REMOVED if was_in else None


def _heartbeat(token: str) -> bytes:
    server_time = Timestamp()
    server_time.GetCurrentTime()
    return rpc.WatchBroadcastsResponse(
        heartbeat=rpc.Heartbeat(server_time=server_time), resume_token=token
    ).SerializeToString()
