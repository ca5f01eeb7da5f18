"""Keeps the warm pool: makes what is missing of each profile, and removes what nobody wants any more.

Invariant: the row of an idle live stream is committed before the call that makes it, so one that was made without an
answer is found by its mark; and it is `leaving` before the call that deletes it, so no broadcast takes it then. Creates
are made at the lowest rank, without a turn in the queue: no start waits for the pool.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from service import telemetry
from service.domain.errors import Outcome, ProviderError
from service.domain.pool import PoolEntry, PoolPhase, Profile
from service.domain.ports import StreamWanted
from service.domain.resources import StreamStatus
from service.failpoints import failpoint
from service.providers.budget import Bucket, Rank
from service.reconciler.act.tags import pool_tag
from service.reconciler.background.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.reconciler.act.requests import Providers
    from service.store.leases import Leases
    from service.store.owned_ids import OwnedIds
    from service.store.pool import Pool

log = structlog.get_logger(__name__)

OLDEST: Final = timedelta(hours=24)
"""An idle live stream that nobody took for so long is replaced: its settings are those of an earlier day."""
UNSEEN: Final = timedelta(seconds=60)
"""One idle live stream a round is looked at, if nobody looked for so long: a broadcast must not take one that somebody
else deleted or disabled."""
_REST_S: Final = 60.0
"""After a call that failed: the provider is away, or refuses what is asked for."""


class NoTokenLeft(Exception):
    """The budget has no token to spare. The next round goes on."""


class PoolKeeper(Rounds):
    name = "pool"

    def __init__(
        self,
        leases: Leases,
        pool: Pool,
        owned_ids: OwnedIds,
        providers: Providers,
        wanted: Mapping[Profile, int],
        *,
        every: timedelta,
        grace: timedelta,
    ) -> None:
        """*wanted*: idle live streams by profile. *grace*: a create without an answer that no list shows after this
        time did not happen.
        """
        super().__init__(leases, every=every)
        self._pool = pool
        self._owned_ids = owned_ids
        self._providers = providers
        self._wanted = wanted
        self._grace = grace
        self._rests_until = 0.0
        self._told: set[str] = set()

    async def round(self) -> None:
        entries = await self._pool.entries()
        self._measure(entries)
        if asyncio.get_running_loop().time() < self._rests_until:
            return
        try:
            await self._tidy(entries)
            await self._look(entries)
            await self._fill(entries)
        except NoTokenLeft:
            pass
        except ProviderError as error:
            self._providers.refusals.note(error.provider, error.outcome)
            self._rests_until = asyncio.get_running_loop().time() + _REST_S
            log.warning("pool_rests", operation=error.operation, code=error.code)

    def _measure(self, entries: list[PoolEntry]) -> None:
        idle = Counter(entry.profile for entry in entries if entry.phase is PoolPhase.PRESENT)
        self._told |= {*idle, *(profile.text for profile in self._wanted)}
        for profile in self._told:
            telemetry.POOL_IDLE.set(idle[profile], {"profile": profile})

    async def _tidy(self, entries: list[PoolEntry]) -> None:
        """Remove what is too old, too much or of a profile that is not wanted, and find what has no answer."""
        left = {profile.text: count for profile, count in self._wanted.items()}
        for entry in reversed(entries):
            match entry.phase:
                case PoolPhase.PRESENT if entry.age < OLDEST and left.get(entry.profile, 0) > 0:
                    left[entry.profile] -= 1
                case PoolPhase.PRESENT:
                    if await self._pool.leave(entry.id):
                        await self._remove(entry)
                case PoolPhase.LEAVING:
                    await self._remove(entry)
                case PoolPhase.INTENDED:
                    if entry.age >= self._grace:
                        await self._find(entry)

    async def _remove(self, entry: PoolEntry) -> None:
        if entry.external_id:
            await self._may_call(Bucket.STREAMS_OTHER)
            await self._providers.streams.delete(entry.external_id)
            log.info("pool_stream_removed", profile=entry.profile, external_id=entry.external_id)
        await self._pool.drop(entry.id)

    async def _find(self, entry: PoolEntry) -> None:
        """A create without an answer: what it made is taken into the pool. What comes later still is an orphan."""
        await self._may_call(Bucket.STREAMS_OTHER)
        since = await self._owned_ids.now() - entry.age
        tag = pool_tag(self._providers.tag, entry.id)
        found = await self._providers.streams.find(tag, since=since)
        if found:
            await self._pool.made(entry.id, found[0])
        else:
            await self._pool.drop(entry.id)

    async def _look(self, entries: list[PoolEntry]) -> None:
        idle = [entry for entry in entries if entry.phase is PoolPhase.PRESENT and entry.unseen >= UNSEEN]
        if not idle:
            return
        entry = max(idle, key=lambda each: each.unseen)
        await self._may_call(Bucket.STREAMS_OTHER)
        seen = await self._providers.streams.get(entry.external_id)
        if seen is not None and seen.status is StreamStatus.IDLE:
            await self._pool.looked(entry.id)
        elif await self._pool.leave(entry.id):
            log.warning("pool_stream_lost", profile=entry.profile, external_id=entry.external_id)

    async def _fill(self, entries: list[PoolEntry]) -> None:
        held = Counter(entry.profile for entry in entries if entry.phase is not PoolPhase.LEAVING)
        for profile, count in self._wanted.items():
            for _ in range(count - held[profile.text]):
                await self._make(profile)

    async def _make(self, profile: Profile) -> None:
        await self._may_call(Bucket.STREAMS_POST)
        entry_id = f"{random.getrandbits(64):016x}"
        await self._pool.intend(entry_id, profile)
        failpoint("pool.create.after_intent")
        wanted = StreamWanted(
            tag=pool_tag(self._providers.tag, entry_id),
            title="",
            playback_policy=profile.playback_policy,
            latency_mode=profile.latency_mode,
            reconnect_window_s=profile.reconnect_window_s,
            max_duration_s=profile.max_duration_s,
            test=profile.test,
            audio_only=profile.audio_only,
        )
        try:
            seen = await self._providers.streams.create(wanted)
        except ProviderError as error:
            if error.outcome is not Outcome.AMBIGUOUS:
                await self._pool.drop(entry_id)
            raise
        failpoint("pool.create.after_call")
        await self._pool.made(entry_id, seen)
        log.info("pool_stream_made", profile=profile.text, external_id=seen.id)

    async def _may_call(self, bucket: Bucket) -> None:
        if not await self._providers.budget.spare(bucket, Rank.SWEEP):
            raise NoTokenLeft
