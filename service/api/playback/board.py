"""What viewers are shown of broadcasts, read at most once a second for each, for all viewers of this replica together.

Invariant: an answer is at most a second old, and no older than a change that this replica has read from the change log.
So the statements grow with broadcasts, not with viewers.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from service.api.streams.change_log import Tail
from service.domain.errors import BroadcastNotFound, StoreUnavailable
from service.store.shown import Shown, ShownBroadcasts

_KEPT: Final = 10_000
"""Entries, before those that are too old are removed."""
_FRESH: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    shown: Shown | None
    """None: there is no such broadcast."""
    at: float
    """The event loop's clock, in seconds, before it was read."""


class Board:
    def __init__(self, shown: ShownBroadcasts, tail: Tail, *, fresh: timedelta = _FRESH) -> None:
        """*fresh*: for how long an entry is answered without a reading."""
        self._shown = shown
        self._tail = tail
        self._fresh_s = fresh.total_seconds()
        self._entries: dict[str, _Entry] = {}
        self._reading: dict[str, asyncio.Task[dict[str, _Entry]]] = {}
        self._followed = 0
        """Entries that a change up to this revision made void are removed."""

    async def one(self, broadcast_id: str) -> Shown:
        """Raises BroadcastNotFound, StoreUnavailable."""
        self._follow()
        entry = self._entries.get(broadcast_id)
        if entry is not None and entry.at > asyncio.get_running_loop().time() - self._fresh_s:
            shown = entry.shown
        else:
            shown = (await self._read((broadcast_id,)))[broadcast_id].shown
        if shown is None:
            raise BroadcastNotFound(broadcast_id)
        return shown

    async def look(self, broadcast_ids: Collection[str]) -> Mapping[str, Shown | None]:
        """By id; None: there is no such broadcast. At most one statement, and none for what was read a moment ago.

        Raises StoreUnavailable.
        """
        self._follow()
        oldest = asyncio.get_running_loop().time() - self._fresh_s
        found = {id_: each for id_ in broadcast_ids if (each := self._entries.get(id_)) and each.at > oldest}
        missing = [id_ for id_ in broadcast_ids if id_ not in found]
        if missing:
            found |= await self._read(missing)
        return {id_: each.shown for id_, each in found.items()}

    def now(self, shown: Shown) -> datetime:
        """The time by the database clock, from that of a reading of a moment ago."""
        entry = self._entries.get(shown.broadcast.id)
        passed_s = asyncio.get_running_loop().time() - entry.at if entry is not None and entry.shown is shown else 0.0
        return shown.read_at + timedelta(seconds=passed_s)

    def forget(self, broadcast_id: str) -> None:
        """To be called after a write of this replica that changes what is shown."""
        self._entries.pop(broadcast_id, None)
        # A reading that is under way may have begun before the write: the next caller begins another.
        self._reading.pop(broadcast_id, None)

    async def _read(self, missing: Collection[str]) -> dict[str, _Entry]:
        """Those that nobody reads already are one statement."""
        begun = [id_ for id_ in missing if id_ not in self._reading]
        if begun:
            task = asyncio.create_task(self._fetch(begun))
            self._reading |= dict.fromkeys(begun, task)
        tasks = {self._reading[id_] for id_ in missing}
        read: dict[str, _Entry] = {}
        # Shielded: a caller who gives up must not take the answer from the others.
        for each in await asyncio.gather(*map(asyncio.shield, tasks), return_exceptions=True):
            if isinstance(each, StoreUnavailable):
                # Each caller raises an error of its own: a shared one would collect the tracebacks of all.
                unavailable = StoreUnavailable(each.message)
                unavailable.retry_after = each.retry_after
                raise unavailable
            if isinstance(each, BaseException):
                raise each
            read |= each
        return {id_: read[id_] for id_ in missing}

    async def _fetch(self, broadcast_ids: Collection[str]) -> dict[str, _Entry]:
        at = asyncio.get_running_loop().time()
        try:
            found = await self._shown.read(broadcast_ids)
            self._forget_old(at)
            read = {id_: _Entry(shown=found.get(id_), at=at) for id_ in broadcast_ids}
            # Not what a change made void while it was read.
            self._entries |= {id_: each for id_, each in read.items() if id_ in self._reading}
            return read
        finally:
            for id_ in broadcast_ids:
                self._reading.pop(id_, None)

    def _follow(self) -> None:
        head = self._tail.head
        if head == self._followed:
            return
        changed = self._tail.changed_after(self._followed)
        if changed is None:
            self._entries.clear()
            self._reading.clear()
        else:
            for broadcast_id in changed:
                self.forget(broadcast_id)
        self._followed = head

    def _forget_old(self, now: float) -> None:
        if len(self._entries) > _KEPT:
            self._entries = {id_: each for id_, each in self._entries.items() if each.at > now - self._fresh_s}
