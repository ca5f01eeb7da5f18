"""The prober: what it looks at, what it keeps, and what it leaves alone. LiveKit and Mux are the simulators."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast_sandbox.faults import Fault
from service.domain.broadcast import PlaybackPolicy, Spec, State
from service.domain.facts import Facts
from service.domain.measurements import Probe
from service.domain.ports import PlaylistSeen, RoomPeople
from service.domain.secret import Secret
from service.providers.budget import Budget, Limit, Limits
from service.providers.hls import Hls
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.reconciler.act.requests import Providers
from service.reconciler.background.prober import Prober, moved_on
from service.store.budgets import Budgets
from service.store.health_facts import HealthFacts
from service.store.measurements.probes import ProbeResults, Probes
from service.store.rows import Rows
from service.store.sealing import Sealer
from tests.e2e.show import Show
from tests.integration.store_stage import KEYS, Store, store
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, Stack, running_stack
from tests.unit.health_facts import PLAYLIST, ann
from tests.waiting import eventually

PLENTY = Limits(livekit=Limit(rate=1000, burst=1000))


@dataclass
class Hasty:
    """A prober that waits for no interval: every broadcast is due."""

    store: Store
    prober: Prober

    async def probe(self) -> int:
        await self.store.sql("UPDATE probe SET look_due_at = '-infinity'")
        return await self.prober.probe()


@dataclass
class Stage:
    stack: Stack
    store: Store
    probes: Probes
    livekit: LiveKit
    mux: Mux
    hls: Hls

    def prober(self, limits: Limits = PLENTY, *, every: float = 10, looks: "Hls | Looks | None" = None) -> "Hasty":
        providers = Providers(
            rooms=self.livekit.rooms,
            egresses=self.livekit.egresses,
            streams=self.mux.streams,
            uploads=self.mux.uploads,
            budget=Budget(Budgets(self.store.database).take, limits),
            tag="bs1:test:",
        )
        return Hasty(
            self.store,
            Prober(
                self.store.leases,
                self.probes,
                providers,
                looks or self.hls,
                playback_base_url=f"{self.stack.mux.base_url}/playback",
                every=timedelta(seconds=every),
            ),
        )

    async def broadcast(self, broadcast_id: str, state: str, playback_id: str = "", spec: Spec | None = None) -> None:
        await self.store.started(broadcast_id, spec)
        await self.store.sql(
            "UPDATE broadcast SET state = $2, status = status || jsonb_build_object('playback_id', $3::text) "
            "WHERE id = $1",
            broadcast_id,
            state,
            playback_id,
        )

    async def facts(self, broadcast_id: str) -> Facts:
        return await HealthFacts(self.store.database, Rows(Sealer(KEYS))).facts(broadcast_id)


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as cleanup:
        stack = await cleanup.enter_async_context(running_stack(database_url, webhooks=False))
        stored = await cleanup.enter_async_context(store(database_url))
        within = timedelta(seconds=20)
        livekit = LiveKit(
            url=stack.livekit.base_url,
            api_key="sandbox",
            api_secret=Secret(LIVEKIT_SECRET),
            longest_call=within,
        )
        cleanup.push_async_callback(livekit.close)
        mux = Mux(base_url=stack.mux.base_url, token_id="token", token_secret=Secret(MUX_SECRET), longest_call=within)
        cleanup.push_async_callback(mux.close)
        hls = Hls(longest_call=within)
        cleanup.push_async_callback(hls.close)
        yield Stage(stack, stored, Probes(stored.database), livekit, mux, hls)


async def test_both_ends_of_a_show_are_seen(stage: Stage) -> None:
    replica = await stage.stack.replica()
    show = await Show.create(stage.stack, await stage.stack.client(replica.target))
    await show.live()
    prober = stage.prober()

    async def seen() -> Facts | None:
        await prober.probe()
        facts = await stage.facts(show.id)
        return facts if facts.probe.people is not None and facts.probe.people.publishers else None

    facts = await eventually(seen)
    assert facts.probe.people is not None
    [publisher] = facts.probe.people.publishers
    assert publisher.identity == "ann"
    assert {track.source for track in publisher.tracks} == {"camera", "microphone"}
    assert facts.probe.playlist is not None
    assert facts.probe.playlist.status == 200

    async def moves() -> bool:
        await prober.probe()
        return (await stage.facts(show.id)).probe.advanced_at is not None

    await eventually(moves)
    moved = (await stage.facts(show.id)).probe
    assert moved.advanced_at == moved.playlist_at
    stage.stack.mux.add_fault(Fault(kind="hls_stall", operation="playback", times=-1))

    async def stands() -> bool:
        await prober.probe()
        stood = (await stage.facts(show.id)).probe
        assert stood.playlist_at is not None
        assert stood.advanced_at is not None
        return stood.playlist_at > stood.advanced_at and stage.stack.mux.faults.hits["hls_stall"] >= 2

    await eventually(stands)
    await show.ended()
    assert await prober.probe() == 0


async def test_only_what_runs_and_may_be_played_is_looked_at(stage: Stage) -> None:
    await stage.broadcast("starting", "STARTING")
    await stage.broadcast("ready", "READY", "PB1")
    await stage.broadcast("live", "LIVE", "PB2")
    await stage.broadcast("interrupted", "INTERRUPTED", "PB3")
    await stage.broadcast("signed", "LIVE", "PB4", Spec(playback_policy=PlaybackPolicy.SIGNED))
    await stage.broadcast("over", "ENDED", "PB5")
    await stage.store.sql("UPDATE broadcast SET target = 'ENDED' WHERE id = 'over'")
    looks = Looks()
    assert await stage.prober(looks=looks).probe() == 6
    assert sorted(url.rsplit("/", 1)[1] for url in looks.urls) == ["PB2.m3u8", "PB3.m3u8"]
    seen = await stage.store.all("SELECT broadcast_id FROM probe WHERE people IS NOT NULL ORDER BY 1")
    assert [row["broadcast_id"] for row in seen] == ["interrupted", "live", "ready", "signed"]


async def test_what_cannot_be_seen_now_stays_as_it_was(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE", "PB1")
    await stage.probes.saw(ProbeResults(people={"live": ann()}))
    await stage.probes.saw(ProbeResults(playlists={"live": (PLAYLIST, True)}))
    before = (await stage.facts("live")).probe
    stage.stack.livekit.add_fault(Fault(kind="error", operation="ListParticipants", status=503, times=-1))
    await stage.stack.mux.frontend.begin("refuse")
    assert await stage.prober().probe() == 0
    away = (await stage.facts("live")).probe
    assert replace(away, unseen=None) == before
    assert away.unseen is not None
    assert away.unseen.message == "cannot connect"
    await stage.stack.mux.frontend.end()
    stage.stack.livekit.faults.clear()
    # Nobody is in a room that is not there. An edge that knows no such playlist shows none, and that is all it says.
    assert await stage.prober().probe() == 1
    after = (await stage.facts("live")).probe
    assert after.people == RoomPeople()
    assert after.unseen is not None
    assert away.unseen is not None
    assert (after.unseen.code, after.unseen.message) == ("404", "the playback edge answers 404")
    assert after.unseen.since == away.unseen.since < after.unseen.at
    seen = (before.playlist, before.playlist_at, before.advanced_at, before.standing_since)
    assert (after.playlist, after.playlist_at, after.advanced_at, after.standing_since) == seen


async def test_who_plays_a_playlist_that_stands_still_is_believed(stage: Stage) -> None:
    """LiveKit and Mux say that all is well through all of it."""
    replica = await stage.stack.replica()
    show = await Show.create(stage.stack, await stage.stack.client(replica.target))
    await show.live()
    prober = stage.prober()

    async def until(state: str) -> Broadcast:
        async def there() -> Broadcast | None:
            await prober.probe()
            return await show.get() if await show.state() == state else None

        return await eventually(there, within=60)

    stage.stack.mux.add_fault(Fault(kind="hls_stall", operation="playback", times=-1))
    stalled = await until("INTERRUPTED")
    assert stalled.status.state_reason == "PLAYLIST_STALLED"
    assert stalled.status.provider_ids.livekit_egress_id
    stage.stack.mux.faults.clear()
    await until("LIVE")
    story = await show.reasons()
    assert story.index("PLAYBACK_STALLED") < story.index("PLAYBACK_RESUMED")


async def test_since_when_a_replica_could_take_it_up(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE")
    assert (await stage.facts("live")).claimable_since is not None
    await stage.store.sql("UPDATE broadcast SET lease_until = now() + interval '5 s', due_at = now()")
    assert (await stage.facts("live")).claimable_since is None
    await stage.store.sql("UPDATE broadcast SET lease_until = NULL, due_at = now() + interval '5 s'")
    assert (await stage.facts("live")).claimable_since is None


async def test_others_who_need_the_budget_go_first(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE")
    # Three tokens are left to those that rank higher.
    assert await stage.prober(Limits(livekit=Limit(rate=0.001, burst=4))).probe() == 1
    assert await stage.prober(Limits(livekit=Limit(rate=0.001, burst=4))).probe() == 0


async def test_a_thousand_are_not_asked_at_once(stage: Stage) -> None:
    await stage.store.sql(
        "INSERT INTO broadcast (id, spec, target, state, status) SELECT 'show-' || n, '{}', 'LIVE', 'LIVE', "
        "jsonb_build_object('playback_id', 'PB' || n) FROM generate_series(1, 60) AS n"
    )
    looks = Looks(latency_s=0.2)
    assert await stage.prober(looks=looks).probe() == 120
    assert len(looks.urls) == 60
    assert 1 < looks.most <= 16


async def test_replicas_share_the_looks(stage: Stage, database_url: str) -> None:
    """Each broadcast is looked at by one of two that look at the same time, and every one is looked at."""
    await stage.store.sql(
        "INSERT INTO broadcast (id, spec, target, state, status) SELECT 'show-' || n, '{}', 'LIVE', 'LIVE', "
        "jsonb_build_object('playback_id', 'PB' || n) FROM generate_series(1, 1000) AS n"
    )
    # All were looked at before, so that no look is repeated at once.
    await stage.probes.enter()
    await stage.store.sql(
        "UPDATE probe SET people_at = now(), playlist_at = now(), look_due_at = '-infinity', "
        "playlist = jsonb_build_object('status', 200, 'media_sequence', 1, 'segments', 1)"
    )
    one, two = Looks(latency_s=0.02), Looks(latency_s=0.02)
    async with store(database_url, owner="two") as other:
        theirs = replace(stage, probes=Probes(other.database)).prober(looks=two, every=300).prober
        await asyncio.gather(stage.prober(looks=one, every=300).prober.probe(), theirs.probe())
    assert one.urls
    assert two.urls
    assert len({*one.urls, *two.urls}) == len(one.urls) + len(two.urls) == 1000


async def test_what_a_replica_that_died_had_claimed_is_made_up_for(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE", "PB1")
    await stage.probes.enter()
    assert await stage.probes.claim(limit=10, every=timedelta(seconds=0.5))
    looks = Looks()
    prober = stage.prober(looks=looks).prober
    await prober.probe()
    assert looks.urls == []

    async def looked() -> bool:
        await prober.probe()
        return bool(looks.urls)

    await eventually(looked)


async def test_a_show_that_becomes_live_is_looked_at_twice_at_once(stage: Stage) -> None:
    """At its start and again after one target duration, so that whether it moves on is known within seconds."""
    await stage.broadcast("live", "READY", "PB1")
    looks = Looks()
    prober = stage.prober(looks=looks).prober
    await prober.probe()
    await stage.store.sql("UPDATE broadcast SET state = 'LIVE'")
    await prober.probe()
    assert len(looks.urls) == 1
    await prober.probe()
    assert len(looks.urls) == 1
    await stage.store.sql("UPDATE probe SET look_due_at = look_due_at - interval '2 s'")
    looks.playlist = replace(PLAYLIST, media_sequence=PLAYLIST.segments + 121)
    await prober.probe()
    assert len(looks.urls) == 2
    assert (await stage.facts("live")).probe.advanced_at is not None
    await stage.store.sql("UPDATE probe SET look_due_at = look_due_at - interval '2 s'")
    await prober.probe()
    assert len(looks.urls) == 2, "then in the interval"


async def test_a_look_that_fails_is_repeated_within_seconds(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE", "PB1")
    stage.stack.livekit.add_fault(Fault(kind="error", operation="ListParticipants", status=503, times=1))
    looks = Looks()
    prober = stage.prober(looks=looks).prober
    looks.playlist = PlaylistSeen(status=500)
    assert await prober.probe() == 0
    assert await prober.probe() == 0
    looks.playlist = PLAYLIST
    await stage.store.sql("UPDATE probe SET look_due_at = look_due_at - interval '2 s'")
    assert await prober.probe() == 2


async def test_a_pass_that_looked_at_the_people_spares_the_prober_a_call(stage: Stage) -> None:
    await stage.broadcast("live", "LIVE", "PB1")
    prober = stage.prober().prober
    await prober.probe()
    await stage.store.sql(
        "INSERT INTO resource (broadcast_id, kind, ordinal, phase, intended_at, changed_at, observed_at) "
        "VALUES ('live', 'room', 0, 'present', now(), now(), now())"
    )
    for age_s, looked in ((10, False), (16, True)):
        await stage.store.sql(
            "UPDATE probe SET look_due_at = '-infinity', people_at = now() - make_interval(secs => $1)", age_s
        )
        before = (await stage.facts("live")).probe.people_at
        await prober.probe()
        assert ((await stage.facts("live")).probe.people_at != before) is looked


class Looks:
    """Playlists that notes who asks; the playlist is always there."""

    def __init__(self, *, latency_s: float = 0) -> None:
        self._latency_s = latency_s
        self.urls: list[str] = []
        self.most = 0
        self.playlist = PLAYLIST
        self._now = 0

    async def look(self, url: str) -> PlaylistSeen:
        self._now += 1
        self.most = max(self.most, self._now)
        self.urls.append(url)
        await asyncio.sleep(self._latency_s)
        self._now -= 1
        return self.playlist


@pytest.mark.parametrize(
    ("before", "seen", "moved"),
    [
        (None, PLAYLIST, None),
        (PLAYLIST, PLAYLIST, False),
        (PLAYLIST, PlaylistSeen(status=200, media_sequence=121, segments=6), True),
        # It grows at the end.
        (PLAYLIST, PlaylistSeen(status=200, media_sequence=120, segments=7), True),
        # An older copy.
        (PLAYLIST, PlaylistSeen(status=200, media_sequence=119, segments=6, last_segment="125.ts"), False),
        (PlaylistSeen(status=412), PLAYLIST, None),
        (PLAYLIST, PlaylistSeen(status=412), False),
        (PlaylistSeen(status=412), PlaylistSeen(status=412), False),
        (None, PlaylistSeen(status=412), None),
    ],
)
def test_a_playlist_moves_on_when_segments_are_added(
    before: PlaylistSeen | None, seen: PlaylistSeen, *, moved: bool | None
) -> None:
    assert moved_on(before, seen) is moved


async def test_the_first_sight_of_a_playlist_is_no_move_and_a_stall_keeps_its_time(stage: Stage) -> None:
    async def saw(playlist: PlaylistSeen, *, advanced: bool | None) -> Probe:
        await stage.probes.saw(ProbeResults(playlists={"live": (playlist, advanced)}))
        return (await stage.facts("live")).probe

    await stage.broadcast("live", "LIVE", "PB1")
    first = await saw(PLAYLIST, advanced=None)
    assert (first.advanced_at, first.standing_since) == (None, first.playlist_at)
    await stage.probes.enter()
    [probed] = await stage.probes.claim(limit=10, every=timedelta(0))
    assert (probed.broadcast_id, probed.state, probed.playback_id) == ("live", State.LIVE, "PB1")
    assert probed.public
    assert not probed.stalled
    assert (probed.seen.playlist, probed.seen.standing_since) == (PLAYLIST, first.playlist_at)
    # One that stands still from the first sight on is seen to do so.
    still = await saw(PLAYLIST, advanced=False)
    assert (still.advanced_at, still.standing_since) == (None, first.playlist_at)
    moved = await saw(PLAYLIST, advanced=True)
    assert moved.advanced_at == moved.standing_since == moved.playlist_at
    stood = await saw(PLAYLIST, advanced=False)
    assert stood.playlist_at is not None
    assert moved.playlist_at is not None
    assert stood.playlist_at > moved.playlist_at
    assert (stood.advanced_at, stood.standing_since) == (moved.playlist_at, moved.playlist_at)
    again = await saw(PLAYLIST, advanced=None)
    assert (again.advanced_at, again.standing_since) == (None, again.playlist_at)
    # Nothing is stored of what does not exist.
    await stage.probes.saw(ProbeResults(people={"never": RoomPeople()}))
    assert await stage.store.sql("SELECT count(*) FROM probe") == 1
