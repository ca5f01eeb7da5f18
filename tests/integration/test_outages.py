"""Whether the providers answer: what the observer's looks make of it, and what passes are told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from broadcast_sandbox.faults import Fault
from service.domain.ports import EgressSeen, RoomSeen
from service.domain.provider import Provider
from service.domain.resources import EgressStatus, LocalRecording, Phase
from service.domain.secret import Secret
from service.domain.situation import Availability
from service.domain.timing import Timing
from service.providers.budget import Bucket, Budget, Limits, Rank
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.reconciler.act.requests import Providers, room_wanted
from service.reconciler.background.observer import Observer, disagreements
from service.reconciler.background.rounds import RefusedHere
from service.store.budgets import Budgets
from service.store.measurements.outages import Outages
from service.store.owned_ids import OwnedIds, OwnedResource
from tests.integration.store_stage import T0, Store, room, store, stream
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, Stack, running_stack

LEASE = timedelta(seconds=20)
AWAY = ("UNAVAILABLE", "no answer in time")


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        yield opened


async def time_passes(one: Store, seconds: float) -> None:
    columns = ("unreachable_since", "answering_since", "checked_at", "refused_since", "refused_at")
    moved = ", ".join(f"{name} = {name} - make_interval(secs => $1)" for name in columns)
    await one.sql(f"UPDATE provider SET {moved}", seconds)  # noqa: S608


async def availability(one: Store) -> Availability:
    """As a pass is told."""
    claim = await claim_of(one, "first")
    try:
        return (await one.passes.load(claim, LEASE)).availability
    finally:
        await one.passes.release(claim, None)


async def claim_of(one: Store, broadcast_id: str) -> Any:
    await one.sql("UPDATE broadcast SET due_at = now() WHERE id = $1", broadcast_id)
    [claim] = await one.leases.claim(1, limit=1)
    assert claim.broadcast_id == broadcast_id
    return claim


async def due(one: Store) -> set[str]:
    return {row["id"] for row in await one.all("SELECT id FROM broadcast WHERE due_at IS NOT NULL")}


# What a look makes of it.


async def test_an_outage_began_with_its_first_failure(one: Store) -> None:
    await one.started("first")
    outages = Outages(one.database)
    await outages.report(Provider.MUX, AWAY)
    began: datetime = await one.sql("SELECT unreachable_since FROM provider")
    assert (await availability(one)).outages == {}
    await time_passes(one, 10)
    await outages.report(Provider.MUX, ("TIMEOUT", "later"))
    [(name, outage)] = (await availability(one)).outages.items()
    assert (name, outage.since, outage.code, outage.message) == (
        "mux",
        began - timedelta(seconds=10),
        "TIMEOUT",
        "later",
    )


@pytest.mark.parametrize("gap_s", [61, 3600])
async def test_what_nobody_looked_at_begins_anew(one: Store, gap_s: float) -> None:
    """After a night without broadcasts one failed look is no outage of a night."""
    await one.started("first")
    outages = Outages(one.database)
    for _ in range(2):
        await outages.report(Provider.MUX, AWAY)
        await time_passes(one, 10)
    assert (await availability(one)).outages
    await time_passes(one, gap_s)
    assert (await availability(one)).outages == {}
    await outages.report(Provider.MUX, AWAY)
    assert (await availability(one)).outages == {}
    await time_passes(one, 10)
    await outages.report(Provider.MUX, AWAY)
    [outage] = (await availability(one)).outages.values()
    assert await one.database.now() - outage.since < timedelta(seconds=15)


async def test_since_when_a_provider_answers_is_told(one: Store) -> None:
    await one.started("first")
    outages = Outages(one.database)
    assert (await availability(one)).answering_since == {}
    await outages.report(Provider.LIVEKIT, None)
    await time_passes(one, 30)
    await outages.report(Provider.LIVEKIT, None)
    await outages.report(Provider.MUX, AWAY)
    told = (await availability(one)).answering_since
    assert told["mux"] is None
    assert told["livekit"] is not None
    assert timedelta(seconds=29) < await one.database.now() - told["livekit"] < timedelta(seconds=40)
    await outages.report(Provider.LIVEKIT, AWAY)
    assert (await availability(one)).answering_since == {"livekit": None, "mux": None}
    await outages.report(Provider.LIVEKIT, None)
    await time_passes(one, 61)
    await outages.report(Provider.LIVEKIT, None)
    again = (await availability(one)).answering_since["livekit"]
    assert again is not None
    assert await one.database.now() - again < timedelta(seconds=10)


async def test_whom_it_concerns_is_woken_when_it_begins_and_when_it_ends_and_not_between(one: Store) -> None:
    outages = Outages(one.database)
    await one.add("live")
    await one.add("resting", target="ENDED", state="ENDED")
    await one.add("waiting", due_in_s=300, target="ENDED", state="ENDED", lane=0)
    await one.add("created", target="CREATED", state="CREATED")

    async def woken() -> set[str]:
        """And asleep again."""
        rows = await one.all("SELECT id FROM broadcast WHERE due_at <= now()")
        await one.sql("UPDATE broadcast SET due_at = CASE id WHEN 'waiting' THEN now() + interval '300 s' END")
        return {row["id"] for row in rows}

    await outages.report(Provider.MUX, AWAY)
    assert await woken() == set()
    await time_passes(one, 10)
    await outages.report(Provider.MUX, AWAY)
    assert await woken() == {"live", "waiting"}
    for _ in range(3):
        await time_passes(one, 10)
        await outages.report(Provider.MUX, AWAY)
        assert await woken() == set()
    await outages.report(Provider.MUX, None)
    assert await woken() == {"live", "waiting"}
    await outages.report(Provider.MUX, None)
    assert await woken() == set()


async def test_a_record_is_told_with_the_outage_of_its_own_moment(one: Store) -> None:
    await one.started("first")
    claim = await claim_of(one, "first")
    outages = Outages(one.database)
    for _ in range(2):
        await outages.report(Provider.MUX, AWAY)
        await time_passes(one, 10)
    loaded = await one.passes.load(claim, LEASE)
    recorded = await one.passes.record(claim, [room(), stream()])
    assert recorded.availability.outages.keys() == loaded.availability.outages.keys() == {"mux"}
    ingest = next(each for each in recorded.broadcast.status.conditions if each.type == "INGEST_ACTIVE")
    assert (ingest.met, ingest.reason) == (None, "NOT_OBSERVED")
    await outages.report(Provider.MUX, None)
    assert (await one.passes.record(claim)).availability.outages == {}


# What the observer sees, of simulators that are away.


@dataclass
class Watch:
    stack: Stack
    store: Store
    observer: Observer
    providers: Providers
    hasty: Observer
    """Waits a second for an answer."""

    def asks(self, mux: Mux) -> None:
        """This one from now on."""
        one, providers = self.store, replace(self.providers, streams=mux.streams)
        self.observer = Observer(
            one.leases, OwnedIds(one.database), Outages(one.database), providers, every=timedelta(seconds=10)
        )

    async def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in await self.store.all("SELECT * FROM provider")}

    async def outages(self, *, hasty: bool = False) -> set[str]:
        """By two looks, with their time between them."""
        observer = self.hasty if hasty else self.observer
        await observer.look()
        await time_passes(self.store, 10)
        await observer.look()
        return set((await availability(self.store)).outages)


@contextlib.asynccontextmanager
async def watching(database_url: str, *, limits: Limits | None = None) -> AsyncGenerator[Watch]:
    async with (
        running_stack(database_url, webhooks=False) as stack,
        store(database_url) as one,
        contextlib.AsyncExitStack() as cleanup,
    ):
        tag = "bs1:test:"

        def asked(longest_s: float) -> Providers:
            longest = timedelta(seconds=longest_s)
            livekit = LiveKit(
                url=stack.livekit.base_url,
                api_key="sandbox",
                api_secret=Secret(LIVEKIT_SECRET),
                public_url="",
                longest_call=longest,
                room_of=lambda name: room_wanted(name, tag, Timing()),
            )
            cleanup.push_async_callback(livekit.close)
            mux = Mux(
                base_url=stack.environment["MUX_BASE_URL"],
                token_id="token",
                token_secret=Secret(MUX_SECRET),
                ingest_url="mux://{key}",
                longest_call=longest,
            )
            cleanup.push_async_callback(mux.close)
            return Providers(
                rooms=livekit.rooms,
                egresses=livekit.egresses,
                streams=mux.streams,
                uploads=mux.uploads,
                budget=Budget(Budgets(one.database).take, limits or Limits()),
                tag=tag,
                files="rec/test/",
            )

        def observing(providers: Providers) -> Observer:
            return Observer(
                one.leases, OwnedIds(one.database), Outages(one.database), providers, every=timedelta(seconds=10)
            )

        providers = asked(20)
        await one.started("first")
        claim = await claim_of(one, "first")
        await one.passes.record(claim, [room(host_publishing=False, host_since=T0)])
        await one.passes.release(claim, None)
        await one.sql("UPDATE broadcast SET due_at = NULL, lane = 1")
        yield Watch(stack, one, observing(providers), providers, observing(asked(1)))


@pytest.fixture
async def watch(database_url: str) -> AsyncIterator[Watch]:
    async with watching(database_url) as opened:
        yield opened


@pytest.mark.parametrize("how", ["refuse", "error", "hang", "reset"])
async def test_a_provider_that_does_not_answer_is_away_until_it_does(watch: Watch, how: Any) -> None:
    assert await watch.outages() == set()
    hasty = how == "hang"
    await watch.stack.mux.frontend.begin(how)
    assert await watch.outages(hasty=hasty) == {"mux"}
    await watch.stack.mux.frontend.end()
    assert await watch.outages() == set()
    await watch.stack.livekit.frontend.begin(how)
    assert await watch.outages(hasty=hasty) == {"livekit"}


async def test_wrong_credentials_are_an_outage_and_being_told_to_slow_down_is_none(
    watch: Watch, database_url: str
) -> None:
    refused = Mux(
        base_url=watch.stack.environment["MUX_BASE_URL"],
        token_id="token",
        token_secret=Secret("of last year"),
        ingest_url="mux://{key}",
        longest_call=timedelta(seconds=20),
    )
    watch.asks(refused)
    # Until others had the time to do better it is this replica's trouble.
    assert await watch.outages() == set()
    await time_passes(watch.store, 10)
    assert await watch.outages() == {"mux"}
    [outage] = (await availability(watch.store)).outages.values()
    assert outage.refuses_us
    assert await watch.store.database.now() - outage.since >= timedelta(seconds=30)
    with pytest.raises(RefusedHere):
        await watch.observer.round()
    await refused.close()
    async with running_stack(database_url, webhooks=False, mux={"other_rate": 0.001}) as throttled:
        slow = Mux(
            base_url=throttled.environment["MUX_BASE_URL"],
            token_id="token",
            token_secret=Secret(MUX_SECRET),
            ingest_url="mux://{key}",
            longest_call=timedelta(seconds=20),
        )
        watch.asks(slow)
        for _ in range(8):
            assert await watch.outages() == set()
        await slow.close()


async def test_one_replica_that_is_refused_is_no_outage_while_another_is_answered(watch: Watch) -> None:
    outages = Outages(watch.store.database)
    for _ in range(8):
        await outages.refused(Provider.MUX, ("credentials", "no"))
        await time_passes(watch.store, 8)
        assert (await availability(watch.store)).outages == {}
        await outages.report(Provider.MUX, None)
        await time_passes(watch.store, 8)
    assert (await availability(watch.store)).answering_since["mux"] is not None
    # A refusal of an hour ago says nothing of now.
    await outages.refused(Provider.MUX, ("credentials", "no"))
    await time_passes(watch.store, 3600)
    await outages.refused(Provider.MUX, ("credentials", "no"))
    assert (await availability(watch.store)).outages == {}


async def test_nobody_who_did_not_ask_says_that_it_is_away(watch: Watch) -> None:
    await watch.stack.mux.frontend.begin("error")
    assert await watch.outages() == {"mux"}
    before = await watch.rows()
    while await watch.providers.budget.spare(Bucket.STREAMS_OTHER, Rank.HEAL):
        pass
    await watch.observer.look()
    after = await watch.rows()
    assert after["mux"] == before["mux"]
    assert after["livekit"] != before["livekit"], "the other one was asked"


async def test_a_round_says_since_when_what_a_provider_shows_is_compared(watch: Watch) -> None:
    """Of both lists of LiveKit, or of none: half of a comparison is no agreement."""

    async def compared() -> dict[str, datetime | None]:
        return {name: row["compared_at"] for name, row in (await watch.rows()).items()}

    before = await watch.store.database.now()
    await watch.observer.look()
    first = await compared()
    assert all(at is not None and before < at for at in first.values())
    [woken] = await watch.store.all("SELECT dirty_at FROM broadcast WHERE id = 'first'")
    assert first["livekit"] is not None
    assert woken["dirty_at"] > first["livekit"], "its room is not there, so the round says nothing for it"
    watch.stack.livekit.add_fault(Fault(kind="error", operation="ListEgress", status=503, times=1))
    await watch.observer.look()
    second = await compared()
    assert second["livekit"] == first["livekit"]
    assert second["mux"] != first["mux"]


async def test_an_outage_is_watched_to_its_end_although_nothing_runs_any_more(watch: Watch) -> None:
    """What was recorded of what is over waits for it."""
    await watch.store.add("waiting", due_in_s=300, target="ENDED", state="ENDED", lane=0)
    await watch.stack.mux.frontend.begin("error")
    assert await watch.outages() == {"mux"}
    await watch.store.sql("UPDATE broadcast SET target = 'ENDED' WHERE id = 'first'")
    await watch.store.sql("UPDATE broadcast SET due_at = now() + interval '300 s' WHERE id = 'waiting'")
    await watch.observer.look()
    assert (await watch.rows())["mux"]["unreachable_since"] is not None
    await watch.stack.mux.frontend.end()
    await watch.observer.look()
    assert (await watch.rows())["mux"]["unreachable_since"] is None
    [woken] = await watch.store.all("SELECT due_at <= now() AS due FROM broadcast WHERE id = 'waiting'")
    assert woken["due"]
    # Then nobody is asked any more.
    before = await watch.rows()
    await watch.observer.look()
    assert await watch.rows() == before


async def test_a_provider_that_is_away_disagrees_with_nothing(watch: Watch) -> None:
    await watch.stack.livekit.frontend.begin("error")
    assert await watch.observer.look() == set()
    await watch.stack.livekit.frontend.end()
    assert await watch.observer.look() == {"first"}, "its room is not there"


# Which broadcasts disagree.


def known(kind: str, external_id: str, **fields: Any) -> OwnedResource:
    given: dict[str, Any] = {
        "phase": "present",
        "status": "",
        "host_publishing": None,
        "recorded": None,
        "updated_ns": 5,
        **fields,
    }
    return OwnedResource(broadcast_id="b", kind=kind, external_id=external_id, **given)


def listed(id: str, status: EgressStatus = EgressStatus.ACTIVE, **fields: Any) -> EgressSeen:
    given: dict[str, Any] = {"updated_ns": 5, **fields}
    return EgressSeen(id=id, room_name="b", status=status, **given)


ROOM = known("room", "b", host_publishing=True, recorded=True)
ROOM_SEEN = RoomSeen(name="b", sid="RM", publishers=1, recorded=True)
FILE = known("recording", "f", status="ACTIVE")
WRITTEN_OFF = known("recording", "dead", phase="gone", status="ACTIVE")


@pytest.mark.parametrize(
    ("egresses", "differs"),
    [
        ([listed("f", file="rec/test/b/0.mp4")], False),
        ([], True),
        ([listed("f", EgressStatus.ENDING, file="rec/test/b/0.mp4")], True),
        ([listed("f", updated_ns=6, file="rec/test/b/0.mp4")], True),
        # A start that was written off, and came all the same.
        ([listed("f"), listed("late", file="rec/test/b/1.mp4")], True),
        # What others record in our room would wake it every time, and is not ours to stop.
        ([listed("f"), listed("theirs", file="others/b.mp4")], False),
        ([listed("f"), listed("stream")], True),
        # Its worker is gone: it is listed for ever.
        ([listed("f"), listed("dead", file="rec/test/b/2.mp4")], False),
    ],
    ids=["as known", "gone", "ending", "newer", "late", "theirs", "stranger", "written off"],
)
def test_file_egresses_are_compared(egresses: list[EgressSeen], differs: bool) -> None:  # noqa: FBT001
    found = disagreements([ROOM, FILE, WRITTEN_OFF], [ROOM_SEEN], egresses, None, files="rec/test/")
    assert found == ({"b"} if differs else set())
    assert disagreements([ROOM, FILE], [ROOM_SEEN], None, None, files="rec/test/") == set()


def test_a_count_of_publishers_that_stays_wakes_nobody() -> None:
    """LiveKit counts a host who unpublished for as long as he stays: the prober looks at who publishes."""
    silent = known("room", "b", host_publishing=False, recorded=True)
    assert disagreements([silent, FILE], [ROOM_SEEN], [listed("f", file="rec/test/b/0.mp4")], None) == set()
    nobody = RoomSeen(name="b", sid="RM", publishers=0, recorded=True)
    assert disagreements([ROOM], [nobody], None, None) == {"b"}, "nobody ever published"


def test_an_upload_is_nothing_to_compare() -> None:
    assert disagreements([known("upload", "A1")], [], [], []) == set()


async def test_owned_ids_knows_file_egresses_and_their_status(one: Store) -> None:
    await one.started("first")
    claim = await claim_of(one, "first")
    file = LocalRecording(
        ordinal=0,
        phase=Phase.PRESENT,
        external_id="EG_file",
        intended_at=T0,
        changed_at=T0,
        file="rec/test/first/0.mp4",
        status=EgressStatus.ACTIVE,
        updated_ns=7,
    )
    await one.passes.record(claim, [file])
    [row] = await OwnedIds(one.database).of_running()
    assert (row.kind, row.external_id, row.status, row.updated_ns) == ("recording", "EG_file", "ACTIVE", 7)
