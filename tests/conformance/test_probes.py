"""What the prober sees, in Postgres and in memory: it reaches the pass, and wakes it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from service.domain.broadcast import PlaybackPolicy, Spec, State
from service.domain.measurements import Probe
from service.domain.ports import PlaylistSeen
from service.domain.resources import Egress, EgressStatus, Output, OutputState, Phase, Stream, StreamStatus
from service.store.leases import Claim
from service.store.measurements.probes import ProbeResults, ProbeTarget
from tests.conformance.stage import LEASE, Stage
from tests.integration.store_stage import room, stream

PLAYLIST = PlaylistSeen(status=200, media_sequence=7, segments=6, last_segment="12.ts", target_duration_s=2)
NEXT = replace(PLAYLIST, media_sequence=8)


def active(broadcast_id: str) -> Stream:
    return stream(external_id=f"LS-{broadcast_id}", status=StreamStatus.ACTIVE)


async def ready(stage: Stage, broadcast_id: str = "show", spec: Spec | None = None) -> Claim:
    await stage.started(broadcast_id, spec)
    claim = await stage.one.claimed(broadcast_id)
    await stage.one.passes.record(claim, [room(external_id=broadcast_id), active(broadcast_id)])
    return claim


async def looked(stage: Stage, playlist: PlaylistSeen, *, moved: bool | None, wake: bool = False) -> None:
    woken = {"show"} if wake else set[str]()
    await stage.probes.saw(ProbeResults(playlists={"show": (playlist, moved)}, wake=woken))


async def loaded(stage: Stage, claim: Claim) -> Probe:
    return (await stage.one.passes.load(claim, LEASE)).probe


async def only(stage: Stage) -> ProbeTarget:
    [probed] = await claimed(stage)
    return probed


async def claimed(stage: Stage, *, every: float = 0, limit: int = 100) -> list[ProbeTarget]:
    """What is due. With *every* 0 it is due again at once."""
    await stage.probes.enter()
    return await stage.probes.claim(limit=limit, every=timedelta(seconds=every))


async def test_what_is_wanted_live_and_has_begun_is_probed(stage: Stage) -> None:
    await ready(stage)
    await ready(stage, "signed", Spec(playback_policy=PlaybackPolicy.SIGNED))
    await stage.started("starting")
    by_id = {probed.broadcast_id: probed for probed in await claimed(stage)}
    assert {name: (each.state, each.public, each.playback_id) for name, each in by_id.items()} == {
        "show": (State.READY, True, "PB1"),
        "signed": (State.READY, False, "PB1"),
    }


async def test_a_pass_is_given_the_last_look(stage: Stage) -> None:
    claim = await ready(stage)
    assert await loaded(stage, claim) == Probe()
    await looked(stage, PLAYLIST, moved=None)
    first = await loaded(stage, claim)
    assert (first.playlist, first.advanced_at) == (PLAYLIST, None)
    assert first.playlist_at == first.standing_since is not None


async def test_a_playlist_stands_since_its_newest_segment_was_first_seen(stage: Stage) -> None:
    claim = await ready(stage)
    await looked(stage, PLAYLIST, moved=None)
    first = await loaded(stage, claim)
    await looked(stage, PLAYLIST, moved=False)
    stood = await loaded(stage, claim)
    assert stood.standing_since == first.standing_since
    assert stood.playlist_at is not None
    assert first.playlist_at is not None
    assert stood.playlist_at > first.playlist_at
    await looked(stage, NEXT, moved=True)
    moved = await loaded(stage, claim)
    assert moved.standing_since == moved.advanced_at == moved.playlist_at
    # It was refused for a while, and begins anew.
    await looked(stage, PLAYLIST, moved=None)
    again = await loaded(stage, claim)
    assert (again.advanced_at, again.standing_since) == (None, again.playlist_at)


async def test_the_next_round_is_told_what_the_last_saw_and_what_is_known(stage: Stage) -> None:
    claim = await ready(stage)
    await looked(stage, PLAYLIST, moved=None)
    before = await only(stage)
    assert not before.stalled
    assert before.seen.playlist == PLAYLIST
    assert before.seen.standing_since is not None
    assert before.read_at > before.seen.standing_since
    since = before.seen.standing_since
    situation = await stage.one.passes.record(claim, [replace(active("show"), stalled_since=since)])
    assert [each.stalled_since for each in situation.resources if isinstance(each, Stream)] == [since]
    assert (await only(stage)).stalled


async def test_who_is_to_be_woken_is_woken(stage: Stage) -> None:
    claim = await ready(stage)
    await stage.one.passes.release(claim, (await stage.ground.now()) + timedelta(hours=1))
    await looked(stage, PLAYLIST, moved=False)
    assert await stage.two.claimed_ids(2) == []
    await looked(stage, PLAYLIST, moved=False, wake=True)
    assert await stage.two.claimed_ids(2) == ["show"]


async def test_what_was_deleted_meanwhile_is_no_failure(stage: Stage) -> None:
    await stage.probes.saw(ProbeResults(playlists={"nobody": (PLAYLIST, None)}, wake={"nobody"}))
    assert await claimed(stage) == []


async def names(stage: Stage, *, every: float = 10, limit: int = 100) -> list[str]:
    return [each.broadcast_id for each in await claimed(stage, every=every, limit=limit)]


async def test_a_look_is_claimed_by_one_and_due_again_after_the_interval(stage: Stage) -> None:
    for name in ("show", "other", "third"):
        await ready(stage, name)
    first = await names(stage, limit=2)
    rest = await names(stage, limit=2)
    assert sorted([*first, *rest]) == ["other", "show", "third"]
    assert await names(stage) == []
    await stage.ground.time_passes(10)
    # Those first that wait longest.
    assert sorted(await names(stage, limit=2)) == sorted(first)


async def test_a_broadcast_that_changes_its_state_is_due_at_once(stage: Stage) -> None:
    claim = await ready(stage)
    assert await names(stage) == ["show"]
    assert await names(stage) == []
    running = (await stage.one.passes.load(claim, LEASE)).resources
    delivering = Egress(
        ordinal=0,
        phase=Phase.PRESENT,
        external_id="EG",
        intended_at=running[0].intended_at,
        changed_at=running[0].changed_at,
        status=EgressStatus.ACTIVE,
        outputs=(Output(name="", state=OutputState.ACTIVE),),
    )
    publishing = room(external_id="show", host_publishing=True)
    situation = await stage.one.passes.record(claim, [publishing, delivering])
    assert situation.broadcast.state is State.LIVE
    [probed] = await claimed(stage, every=10)
    assert (probed.state, probed.host_publishing) == (State.LIVE, True)
    assert await names(stage) == []


async def test_a_look_can_be_due_sooner_and_never_later(stage: Stage) -> None:
    await ready(stage)
    assert await names(stage) == ["show"]
    results = ProbeResults()
    for after_s in (60, 2, 5):
        results.soon("show", after_s)
    await stage.probes.saw(results)
    assert await names(stage) == []
    await stage.ground.time_passes(2)
    assert await names(stage) == ["show"]


async def test_looks_that_see_nothing_are_kept_beside_the_last_one_that_did(stage: Stage) -> None:
    claim = await ready(stage)
    await looked(stage, PLAYLIST, moved=None)
    seen = await loaded(stage, claim)
    for code in ("500", "404"):
        await stage.probes.saw(ProbeResults(unseen={"show": (code, f"the playback edge answers {code}")}))
    unseen = await loaded(stage, claim)
    assert replace(unseen, unseen=None) == seen
    assert unseen.unseen is not None
    assert unseen.unseen.code == "404"
    assert unseen.unseen.since < unseen.unseen.at
    assert (await only(stage)).seen.unseen == unseen.unseen
    await looked(stage, PLAYLIST, moved=False)
    assert (await loaded(stage, claim)).unseen is None
