"""Looks at the two ends of the chain of every running broadcast: the people in its room, and the playlist that players
get.

Health is made of it, and the plan acts on a playlist that does not move on. Where the people do not agree with the row
of the room, the broadcast is woken: with every webhook lost, a host who comes or goes is noticed so. A look that fails
changes nothing of what was seen before: that stays, with its time. If the playlist could not be seen, that is kept
beside it.

Every replica looks. The broadcasts whose look is due are claimed a few at a time, those first that wait longest, so the
replicas share the work, and what a replica that died had claimed is due again after one interval. With more broadcasts
than can be looked at in time the interval grows for all of them alike. A look that failed, a first look and one that
may have met an older copy of the playlist are repeated within seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service.domain.broadcast import State, seconds
from service.domain.errors import ProviderError
from service.domain.measurements import PROBED_S, Unseen
from service.domain.observing.playlist import not_seen
from service.domain.ports import TokenUse
from service.providers.budget import Bucket, Rank
from service.reconciler.background.rounds import Rounds
from service.store.measurements.probes import ProbeResults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.domain.ports import PlaybackTokens, Playlists, PlaylistSeen
    from service.reconciler.act.requests import Providers
    from service.store.leases import Leases
    from service.store.measurements.probes import Probes, ProbeTarget

log = structlog.get_logger(__name__)

_TICK = timedelta(seconds=1)
"""From one look for due broadcasts to the next: a broadcast that becomes LIVE is looked at within this time."""
_OTHERS_FIRST = timedelta(seconds=3)
"""How long a replica whose credentials are refused leaves a due look to others."""
_AT_ONCE = 16
"""Looks under way of one batch."""
_WORKERS = 4
"""Batches under way, where one is not enough."""
_PEOPLE_TOGETHER = 24
"""Rooms of a full batch whose people are looked at."""
_MOST_PER_S = 250.0
"""Looks of one replica, each of which costs some 2 ms of its processor. 5,000 broadcasts are looked at every 20 s then,
which is within the time for which a look counts, and the rest of the core is for callers and passes."""
_CLAIMED_TOGETHER = 64
_REPEATED_S = 2.0
"""Seconds from a look that failed to the next, for the first that fail in a row."""
_REPEATED_FOR_S = 6.0
_SEGMENT_S = 1.0
"""The least time between two looks of which the second is to see a new segment."""
_TOKEN_LIVES = timedelta(minutes=10)
"""Of a token for a signed playlist. It is signed anew before each look, or was a moment ago."""
_WITHOUT_TOKEN_S = 0.5
"""Seconds without a question for tokens, after one that was refused."""


class Prober(Rounds):
    name = "prober"
    shared = True

    def __init__(
        self,
        leases: Leases,
        probes: Probes,
        providers: Providers,
        playlists: Playlists,
        *,
        playback_base_url: str,
        every: timedelta,
        tokens: PlaybackTokens | None = None,
    ) -> None:
        """*every*: from one look at a broadcast to the next. *tokens*: to look at signed playlists with; None: those
        are not looked at.
        """
        super().__init__(leases, every=min(every, _TICK))
        self._look_every = every
        self._probes = probes
        self._providers = providers
        self._playlists = playlists
        self._playback_base_url = playback_base_url
        self._signer = tokens
        self._no_token_until = 0.0

    async def round(self) -> None:
        await self.probe()

    async def probe(self) -> int:
        """Look at every broadcast that is due. Answers how many looks were answered. Raises StoreUnavailable."""
        await self._probes.enter()
        targets = await self._claim()
        if len(targets) < _CLAIMED_TOGETHER:
            return await self._some(targets) if targets else 0
        others = [self._work([]) for _ in range(_WORKERS - 1)]
        answered = await asyncio.gather(self._work(targets), *others, return_exceptions=True)
        for each in answered:
            if isinstance(each, BaseException):
                raise each
        return sum(each for each in answered if isinstance(each, int))

    async def _claim(self) -> list[ProbeTarget]:
        overdue = _OTHERS_FIRST if self._providers.refusals.refused else timedelta()
        return await self._probes.claim(limit=_CLAIMED_TOGETHER, every=self._look_every, overdue=overdue)

    async def _work(self, targets: list[ProbeTarget]) -> int:
        """Look at *targets*, and at one batch after the other until none is due."""
        loop, answered = asyncio.get_running_loop(), 0
        while targets or (targets := await self._claim()):
            began, full = loop.time(), len(targets) == _CLAIMED_TOGETHER
            answered += await self._some(targets)
            if not full:
                break
            targets = []
            await asyncio.sleep(max(began + _CLAIMED_TOGETHER * _WORKERS / _MOST_PER_S - loop.time(), 0.0))
        return answered

    async def _some(self, targets: Sequence[ProbeTarget]) -> int:
        places, results = asyncio.Semaphore(_AT_ONCE), ProbeResults()

        async def people(each: ProbeTarget) -> None:
            async with places:
                await self._people(each, results)

        async def all_people() -> None:
            needing = self._of_people(targets)
            await asyncio.gather(*map(people, needing[: await self._tokens(len(needing))]))

        async def playlist(each: ProbeTarget) -> None:
            async with places:
                await self._playlist(each, results)

        # A playlist does not wait for the tokens of the people.
        await asyncio.gather(*map(playlist, targets), all_people())
        await self._probes.saw(results)
        return len(results.people) + len(results.playlists)

    def _of_people(self, targets: Sequence[ProbeTarget]) -> list[ProbeTarget]:
        """Those of *targets* whose people are looked at. Of a full batch, behind which others wait, only a part, those
        first that wait longest: LiveKit takes so many calls a second.
        """
        needing = [each for each in targets if self._needs_people(each)]
        if len(targets) < _CLAIMED_TOGETHER:
            return needing
        never = timedelta.max
        needing.sort(key=lambda each: never if each.people_at is None else each.read_at - each.people_at, reverse=True)
        return needing[:_PEOPLE_TOGETHER]

    def _needs_people(self, target: ProbeTarget) -> bool:
        """Whether the people are to be looked at. Not if a pass just looked who publishes, as long as the tracks that
        health shows do not become too old by it.
        """
        looked, people_at = target.room_seen_at, target.people_at
        passed = looked is not None and target.read_at - looked < self._look_every / 2
        kept = people_at is not None and target.read_at - people_at < seconds(PROBED_S) - 1.5 * self._look_every
        return not (passed and kept)

    async def _tokens(self, wanted: int) -> int:
        """How many of *wanted* calls the budget allows now."""
        now = asyncio.get_running_loop().time()
        if not wanted or now < self._no_token_until:
            return 0
        taken = await self._providers.budget.spare_of(Bucket.ROOMS, Rank.SWEEP, wanted)
        if not taken:
            self._no_token_until = now + _WITHOUT_TOKEN_S
        return taken

    async def _people(self, target: ProbeTarget, results: ProbeResults) -> None:
        try:
            people = await self._providers.rooms.people(target.broadcast_id)
        except ProviderError as error:
            self._providers.refusals.note(error.provider, error.outcome)
            log.info("people_not_seen", broadcast_id=target.broadcast_id, code=error.code)
            if target.people_at is None or target.read_at - target.people_at < self._look_every + seconds(
                _REPEATED_FOR_S
            ):
                results.soon(target.broadcast_id, _REPEATED_S)
            return
        results.people[target.broadcast_id] = people
        if target.host_publishing is not None and bool(people.publishers) is not target.host_publishing:
            results.wake.add(target.broadcast_id)

    async def _playlist(self, target: ProbeTarget, results: ProbeResults) -> None:
        """Playback is no call of Mux's API, and counts against no limit of it."""
        url = self._address(target)
        if url is None or target.state is State.READY:
            return
        try:
            seen = await self._playlists.look(url)
            instead = not_seen(seen)
        except ProviderError as error:
            seen, instead = None, (error.code or error.outcome, error.message)
        if seen is None or instead is not None:
            self._unseen(target, instead or ("", ""), results)
            return
        moved = moved_on(target.seen.playlist, seen)
        results.playlists[target.broadcast_id] = (seen, moved)
        # One look may have met an older copy.
        twice = moved is False and target.seen.playlist_at != target.seen.standing_since
        if moved is None or (moved is False and not twice):
            results.soon(target.broadcast_id, max(seen.target_duration_s, _SEGMENT_S))
        stands = twice and replace(target.seen, playlist=seen, playlist_at=target.read_at).stalled
        changes = stands is not target.stalled and (target.stalled or target.state is State.LIVE)
        if changes or target.out_of_sight:
            results.wake.add(target.broadcast_id)

    def _address(self, target: ProbeTarget) -> str | None:
        """The address of the playlist, with a token of the prober's own if it is signed. None: there is none, or it is
        signed and there is no key.
        """
        if not target.playback_id:
            return None
        url = f"{self._playback_base_url}/{target.playback_id}.m3u8"
        if target.public:
            return url
        if self._signer is None:
            return None
        token = self._signer.sign(target.playback_id, TokenUse.VIDEO, until=target.read_at + _TOKEN_LIVES)
        return f"{url}?token={token.token.reveal()}"

    def _unseen(self, target: ProbeTarget, instead: tuple[str, str], results: ProbeResults) -> None:
        """Keep that a look did not see the playlist, and what came instead."""
        code, message = instead
        log.info("playlist_not_seen", broadcast_id=target.broadcast_id, code=code)
        results.unseen[target.broadcast_id] = instead
        before, now = target.seen.unseen, target.read_at
        unseen = Unseen(since=before.since if before is not None else now, at=now, code=code, message=message)
        if now - unseen.since < seconds(_REPEATED_FOR_S):
            results.soon(target.broadcast_id, _REPEATED_S)
        hidden = replace(target.seen, unseen=unseen).out_of_sight(now) is not None
        if hidden and not target.out_of_sight and target.state is State.LIVE:
            results.wake.add(target.broadcast_id)


def moved_on(before: PlaylistSeen | None, seen: PlaylistSeen) -> bool | None:
    """Whether there are segments that were not there before. An older copy out of some cache has none, and what is no
    playlist either. None: the two cannot be compared, because there was none before, or because all segments are older
    than those before: then it is the playlist of another live stream, or one that began anew.
    """
    last, first = _end(seen), _end(before) if before is not None else None
    if last is None:
        return None if before is None else False
    if first is None or before is None or last <= (before.media_sequence or 0):
        return None
    return last > first


def _end(playlist: PlaylistSeen) -> int | None:
    """Number of the segment that comes next."""
    return None if playlist.media_sequence is None else playlist.media_sequence + playlist.segments
