"""What a pass writes: all of it in one transaction, told as it is stored, and nothing secret in the clear."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from service.domain.broadcast import (
    Broadcast,
    Destination,
    EndReason,
    Fallback,
    FallbackMode,
    ProviderTrouble,
    Spec,
    State,
    Target,
)
from service.domain.errors import LeaseLost
from service.domain.lifecycle import Change, Event, stop
from service.domain.observing.learned import Learned
from service.domain.observing.webhook_facts import listen
from service.domain.ports import Heard, StreamSeen
from service.domain.provider import Provider
from service.domain.reasons import Actor, EventReason, FallbackReason, Operation
from service.domain.resources import (
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    StreamStatus,
    Upload,
)
from service.domain.secret import NO_SECRET, Secret
from service.domain.situation import Situation
from service.domain.timing import Timing
from service.reconciler.reconciler import derive
from service.store.passes import Passes
from service.store.rows import Rows
from service.store.sealing import CannotOpen, Sealer
from tests.integration.store_stage import KEYS, NOBODYS, T0, Store, egress, room, store, stream

LEASE = timedelta(seconds=20)
SECRETS = ("stream-key-5bd28537", "rtmps://push.example/live/egress-key-4711", "destination-key-0815")
STREAM_KEY, PUSH_URL, DESTINATION_KEY = (Secret(text) for text in SECRETS)
SPEC = Spec(title="First", destinations=(Destination(name="tube", url="rtmps://push.example/live"),))


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        yield opened


async def events(of: Store) -> list[dict[str, Any]]:
    return await of.all("SELECT * FROM event ORDER BY revision")


async def test_what_is_recorded_is_told_in_the_same_transaction(one: Store) -> None:
    await one.started("first", SPEC)
    claim = await one.claimed("first")
    before = len(await events(one))
    said = [Event(reason=EventReason.ROOM_CREATED, message="RM_1"), Event(reason=EventReason.STREAM_CREATED)]
    situation = await one.passes.record(claim, [room(), stream()], events=said, actor=Actor.RECONCILER)
    assert situation.broadcast.state is State.READY
    assert situation.broadcast.ready_time == situation.now
    row = await one.row("first")
    assert (row["state"], row["ready_time"], row["lane"]) == ("READY", situation.now, 2)
    assert row["status"]["stream_id"] == "LS1"
    new = (await events(one))[before:]
    assert [(each["reason"], each["message"], each["actor"]) for each in new] == [
        ("ROOM_CREATED", "RM_1", "reconciler"),
        ("STREAM_CREATED", "", "reconciler"),
        ("STATE_READY", situation.broadcast.status.state_reason, "reconciler"),
    ]
    assert {each["state"] for each in new} == {"READY"}
    revisions = [each["revision"] for each in await events(one)]
    assert revisions == list(range(1, len(revisions) + 1))
    assert await one.sql("SELECT revision FROM head") == revisions[-1]
    loaded = await one.passes.load(claim, LEASE)
    assert (loaded.broadcast, loaded.resources) == (situation.broadcast, situation.resources)


async def test_the_last_event_of_a_transaction_carries_what_was_and_what_is(one: Store) -> None:
    await one.started("first", SPEC, {"tube": DESTINATION_KEY})
    claim = await one.claimed("first")
    await one.passes.record(
        claim,
        [room(), stream()],
        events=[Event(reason=EventReason.ROOM_CREATED), Event(reason=EventReason.STREAM_CREATED)],
    )
    *inner, last = (await events(one))[-3:]
    assert [each["snapshot"] for each in inner] == [each["previous"] for each in inner] == [None, None]
    assert last["previous"] == {"state": "STARTING", "labels": {}, "owner_id": "", "deleted": False}
    hidden = {"secrets", "lease_until", "lease_owner", "fence", "lane", "trace_context", "unverified_since"}
    assert set(last["snapshot"]) == set(await one.row("first")) - hidden
    changes, *_ = await one.changes.after(last["revision"] - 1)
    assert [change.broadcast for change in changes] == [await one.broadcasts.get("first")]


async def test_a_record_that_cannot_be_told_stores_nothing(database_url: str) -> None:
    def fails(situation: Situation) -> Any:
        raise RuntimeError(situation.broadcast.id)

    async with store(database_url, told=fails) as one:
        await one.started("first")
        claim = await one.claimed("first")
        before = await one.everything()
        with pytest.raises(RuntimeError):
            await one.passes.record(
                claim, [room()], events=[Event(reason=EventReason.ROOM_CREATED)], end=EndReason.NO_HOST
            )
        assert await one.everything() == before


async def test_what_changes_nothing_is_not_told_but_stored(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.passes.record(claim, [room()])
    told = await events(one)
    looked = replace(room(), observed_at=T0 + timedelta(hours=1))
    situation = await one.passes.record(claim, [looked])
    assert await events(one) == told
    assert situation.resources == (looked,)
    assert (await one.passes.load(claim, LEASE)).resources == (looked,)


async def test_the_end_is_set_once_and_its_first_reason_stays(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.passes.record(claim, [room()])
    ended = await one.passes.record(claim, events=[Event(reason=EventReason.ENDING)], end=EndReason.NO_HOST)
    assert (ended.broadcast.target, ended.broadcast.state) == (Target.ENDED, State.STOPPING)
    again = await one.passes.record(claim, end=EndReason.MAX_DURATION)
    assert again.broadcast.end_reason is EndReason.NO_HOST
    row = await one.row("first")
    assert (row["target"], row["end_reason"], row["lane"], row["end_time"]) == ("ENDED", "NO_HOST", 0, None)
    over = await one.passes.record(claim, [replace(room(), phase=Phase.GONE)])
    assert (over.broadcast.state, over.broadcast.end_time) == (State.ENDED, over.now)


async def test_a_stop_between_claim_and_record_is_kept(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    seen = await one.passes.load(claim, LEASE)

    def stops(stored: Broadcast, now: Any) -> Change | None:
        return stop(stored, now, "enough")

    await one.broadcasts.change("first", stops, NOBODYS)
    assert seen.broadcast.target is Target.LIVE
    situation = await one.passes.record(claim, [room()], events=[Event(reason=EventReason.ROOM_CREATED)])
    assert situation.broadcast.target is Target.ENDED
    assert situation.broadcast.state is State.STOPPING
    await one.passes.release(claim, None)
    assert (await one.row("first"))["due_at"] is not None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("target = 'LIVE'", "target = 'CREATED'"),
        ("target = 'ENDED'", "target = 'LIVE'"),
        ("target = 'ENDED'", "target = 'CREATED'"),
        ("state = 'ENDED'", "state = 'LIVE'"),
        ("state = 'ENDED'", "state = 'FAILED'"),
        ("state = 'FAILED'", "state = 'STARTING'"),
        ("target = 'LIVE'", "target = 'PAUSED'"),
        ("state = 'LIVE'", "state = 'PLAYING'"),
    ],
)
async def test_the_database_itself_refuses_to_go_back(one: Store, before: str, after: str) -> None:
    await one.broadcasts.create("first", Spec(), {}, {}, NOBODYS)
    await one.sql(f"UPDATE broadcast SET {before}")  # noqa: S608
    stored = await one.everything()
    with pytest.raises(asyncpg.CheckViolationError):
        await one.sql(f"UPDATE broadcast SET {after}")  # noqa: S608
    assert await one.everything() == stored
    await one.sql(f"UPDATE broadcast SET {before}, due_at = now()")  # noqa: S608


async def test_one_thing_of_a_provider_belongs_to_one_row(one: Store) -> None:
    for name in ("first", "second"):
        await one.started(name)
    claims = {claim.broadcast_id: claim for claim in await one.leases.claim(1, limit=2)}
    await one.passes.record(claims["first"], [room(), stream(), egress(external_id="EG_1")])
    before = await one.everything()
    for taken in (stream(), stream(ordinal=5, phase=Phase.GONE), egress(external_id="EG_1")):
        with pytest.raises(asyncpg.UniqueViolationError):
            await one.passes.record(
                claims["second"], [room(), taken], events=[Event(reason=EventReason.STREAM_ADOPTED)]
            )
    assert await one.everything() == before
    # What has no id yet is nobody's, a room is named after its broadcast, and kinds do not share names.
    nameless = [room(), stream(external_id=""), egress(external_id="LS1"), egress(ordinal=1), egress(ordinal=2)]
    await one.passes.record(claims["second"], nameless)


async def test_trouble_is_told_until_its_own_provider_is_well_again(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    trouble = ProviderTrouble(
        provider=Provider.MUX, operation=Operation.CREATE_STREAM, code="502", message="away", retryable=True, time=T0
    )
    situation = await one.passes.record(claim, [room()], trouble=trouble)
    assert situation.broadcast.status.last_error == trouble
    situation = await one.passes.record(claim, recovered=Provider.LIVEKIT)
    assert situation.broadcast.status.last_error == trouble
    situation = await one.passes.record(claim, recovered=Provider.MUX)
    assert situation.broadcast.status.last_error is None
    story = [(each["reason"], each["message"]) for each in await events(one)]
    assert story[-2:] == [
        ("CALL_FAILED", "Mux create_live_stream: 502 away"),
        ("STATUS_CHANGED", "no call fails any more"),
    ]
    assert (await one.row("first"))["status"]["last_error"] is None


async def test_a_call_that_fails_as_before_is_no_news(one: Store) -> None:
    """A minute of retries must not push the beginning out of the story."""
    await one.started("first")
    claim = await one.claimed("first")
    trouble = ProviderTrouble(
        provider=Provider.MUX, operation=Operation.CREATE_STREAM, code="502", message="away", retryable=True, time=T0
    )
    await one.passes.record(claim, [room()], trouble=trouble)
    told = len(await events(one))
    later = replace(trouble, time=T0 + timedelta(seconds=9))
    situation = await one.passes.record(claim, [replace(room(), failures=1)], trouble=later)
    assert situation.broadcast.status.last_error == trouble
    assert len(await events(one)) == told
    await one.passes.record(claim, trouble=replace(later, code="503"))
    assert [each["reason"] for each in await events(one)][told:] == ["CALL_FAILED"]


async def test_an_intent_is_committed_and_covers_its_call(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    intended = replace(stream(), phase=Phase.INTENDED, external_id="")
    await one.passes.intend(claim, intended, timedelta(seconds=60))
    row = await one.row("first")
    assert row["lease_until"] - await one.database.now() > timedelta(seconds=50)
    # A shorter one does not take away what another covers.
    await one.passes.intend(claim, intended, timedelta(seconds=1))
    assert (await one.row("first"))["lease_until"] == row["lease_until"]
    assert (await one.passes.load(claim, LEASE)).resources == (intended,)


FULL = (
    stream(key=STREAM_KEY, key_epoch=3, relays=(Output(name="x", state=OutputState.FAILED, message="m"),)),
    egress(pushes={"": Secret("mux://stream-key-5bd28537"), "tube": PUSH_URL}, destinations=("tube",), acked=True),
    room(host_publishing=True, host_since=T0, retry_at=T0, failures=2),
)


async def recorded(one: Store, name: str = "first") -> Situation:
    await one.started(name, SPEC, {"tube": DESTINATION_KEY})
    claim = await one.claimed(name)
    full = [replace(each, external_id=f"{each.external_id} of {name}") for each in FULL] if name != "first" else FULL
    await one.passes.record(claim, full, events=[Event(reason=EventReason.STATUS_CHANGED)])
    return await one.passes.load(claim, LEASE)


async def test_everything_comes_back_as_it_was_written(one: Store) -> None:
    loaded = await recorded(one)
    assert loaded.resources == tuple(sorted(FULL, key=lambda each: each.kind))
    assert loaded.broadcast.destination_keys == {"tube": DESTINATION_KEY}
    assert loaded.broadcast.spec == SPEC


async def test_no_secret_can_be_read_in_a_dump(one: Store) -> None:
    await recorded(one)
    await one.broadcasts.change("first", _retitled, NOBODYS)
    tables = await one.all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    dump = ""
    for table in tables:
        rows = await one.all(f"SELECT t::text AS row FROM {table['tablename']} AS t")  # noqa: S608
        dump += "\n".join(each["row"] for each in rows)
    # What is there can be found, so what is not found is not there.
    assert "playback_id" in dump
    assert "rtmps://push.example/live" in dump
    for secret in (*SECRETS, "egress-key-4711"):
        for form in (
            secret,
            secret.encode().hex(),
            base64.b64encode(secret.encode()).decode()[:-4],
            json.dumps(secret)[1:-1],
        ):
            assert form not in dump
    # Not even whether two broadcasts have the same key.
    await recorded(one, "second")
    sealed = await one.all("SELECT secret FROM resource WHERE kind = 'stream'")
    assert len({each["secret"] for each in sealed}) == 2


def _retitled(stored: Broadcast, _now: object) -> Change | None:
    changed = replace(stored, spec=replace(stored.spec, title="Second"), version=stored.version + 1)
    return Change(broadcast=changed, events=(Event(reason=EventReason.UPDATED),))


OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


async def test_rows_of_the_old_key_open_beside_a_new_one_and_move_to_it(database_url: str) -> None:
    async with store(database_url, keys=(OLD,)) as before:
        written = await recorded(before)
        await before.lease_ends("first")
    async with store(database_url, keys=(NEW, OLD)) as rotating:
        claim = await rotating.claimed("first", lane=2)
        assert (await rotating.passes.load(claim, LEASE)).resources == written.resources
        await rotating.passes.record(claim, written.resources)
        await rotating.broadcasts.change("first", _retitled, NOBODYS)
    async with store(database_url, keys=(NEW,)) as after:
        loaded = await after.passes.load(claim, LEASE)
        assert loaded.resources == written.resources
        assert loaded.broadcast.destination_keys == {"tube": DESTINATION_KEY}
    async with store(database_url, keys=(OTHER, OLD)) as stranger:
        with pytest.raises(CannotOpen) as caught:
            await stranger.passes.load(claim, LEASE)
        assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize("table", ["resource", "broadcast"])
async def test_a_ciphertext_opens_in_its_own_place_alone(one: Store, table: str) -> None:
    await recorded(one)
    await one.started("second", SPEC, {"tube": Secret("another")})
    claim = await one.claimed("second")
    await one.passes.record(claim, [stream(external_id="LS2", key=Secret("another"))])
    await one.passes.load(claim, LEASE)
    column = "secret" if table == "resource" else "secrets"
    mine, theirs = (
        ("broadcast_id = 'second' AND kind = 'stream'", "broadcast_id = 'first' AND kind = 'stream'")
        if table == "resource"
        else ("id = 'second'", "id = 'first'")
    )
    await one.sql(
        f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE {theirs}) WHERE {mine}"  # noqa: S608
    )
    with pytest.raises(CannotOpen):
        await one.passes.load(claim, LEASE)


def test_a_seal_is_of_its_kind_ordinal_and_broadcast() -> None:
    rows = Rows(Sealer(KEYS))
    sealer = Sealer(KEYS)
    sealed = rows.resource_values("first", stream(key=STREAM_KEY))[-1]
    assert sealer.open(sealed, row="stream/first/0") == SECRETS[0]
    for place in ("stream/first/1", "stream/second/0", "egress/first/0", "broadcast/first"):
        with pytest.raises(CannotOpen):
            sealer.open(sealed, row=place)
    for broken in (b"", sealed[:11], sealed[:20], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(CannotOpen):
            sealer.open(broken, row="stream/first/0")


def test_what_has_no_secret_seals_none() -> None:
    rows = Rows(Sealer(KEYS))
    assert rows.resource_values("first", room())[-1] is None
    assert rows.resource_values("first", stream())[-1] is None
    assert rows.resource_values("first", egress())[-1] is None
    assert rows.seal_keys("first", {}) is None


# What webhooks told.


async def delivered(one: Store, *heard: Heard | dict[str, Any], **columns: str) -> list[int]:
    """As the intake stores them."""
    values = {"broadcast_id": "first", "outcome": "accepted", **columns}
    numbers: list[int] = []
    for n, each in enumerate(heard):
        number = await one.sql(
            "INSERT INTO webhook (provider, event_id, type, broadcast_id, outcome, heard, body) "
            "VALUES ('mux', $1 || (SELECT count(*) FROM webhook), 'video', $2, $3, $4, '') RETURNING id",
            f"{values['broadcast_id']}-{n}-",
            values["broadcast_id"],
            values["outcome"],
            each if isinstance(each, dict) else msgspec.to_builtins(each, enc_hook=lambda _: None),
        )
        numbers.append(number)
    return numbers


def said(event_id: str = "E1", **fields: Any) -> Heard:
    return Heard(event_id=event_id, type="video.live_stream.active", provider_time=T0, stream_id="LS1", **fields)


async def unapplied(one: Store) -> list[int]:
    rows = await one.all("SELECT id FROM webhook WHERE apply_time IS NULL ORDER BY id")
    return [row["id"] for row in rows]


async def test_what_was_heard_is_read_until_it_was_taken_into_account(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    seen = StreamSeen(
        id="LS1", tag="t", status=StreamStatus.ACTIVE, created_at=T0, key=STREAM_KEY, active_asset_id="A1"
    )
    heard = [said("E1", stream=seen, connected=True), said("E2"), said("E3", recording=Recording(asset_id="A1"))]
    numbers = await delivered(one, *heard)
    await delivered(one, said(), broadcast_id="another")
    await delivered(one, said(), outcome="unknown_type")
    first = await one.passes.load(claim, LEASE)
    assert [number for number, _ in first.heard] == numbers
    assert [each for _, each in first.heard] == [
        replace(heard[0], stream=replace(seen, key=NO_SECRET)),
        *heard[1:],
    ]
    await one.passes.record(
        claim, [stream()], events=[Event(reason=EventReason.STREAM_ACTIVE)], heard=numbers[:2], actor=Actor.WEBHOOK
    )
    assert [number for number, _ in (await one.passes.load(claim, LEASE)).heard] == numbers[2:]
    applied = await one.all("SELECT id FROM webhook WHERE apply_time IS NOT NULL ORDER BY id")
    assert [row["id"] for row in applied] == numbers[:2]
    assert ("STREAM_ACTIVE", "webhook") in [(event["reason"], event["actor"]) for event in await events(one)]


async def test_what_changes_nothing_is_taken_into_account_too(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    numbers = await delivered(one, said())
    before = await events(one)
    await one.passes.record(claim, heard=numbers)
    assert await unapplied(one) == []
    assert len(await events(one)) - len(before) <= 1


async def test_a_pass_that_lost_its_lease_leaves_what_it_heard(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    numbers = await delivered(one, said())
    assert (await one.passes.load(claim, LEASE)).heard
    await one.lease_ends("first")
    next_claim = await one.claimed("first")
    before = await one.everything()
    with pytest.raises(LeaseLost):
        await one.passes.record(claim, [stream()], events=[Event(reason=EventReason.STREAM_ACTIVE)], heard=numbers)
    assert await one.everything() == before
    assert await unapplied(one) == numbers
    assert [number for number, _ in (await one.passes.load(next_claim, LEASE)).heard] == numbers


async def test_a_record_that_fails_leaves_what_it_heard(database_url: str) -> None:
    def fails(situation: Situation) -> Any:
        raise RuntimeError(situation.broadcast.id)

    async with store(database_url, told=fails) as one:
        await one.started("first")
        claim = await one.claimed("first")
        numbers = await delivered(one, said())
        with pytest.raises(RuntimeError):
            await one.passes.record(claim, heard=numbers)
        assert await unapplied(one) == numbers


async def test_a_flood_is_taken_in_bit_by_bit_the_oldest_first(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    numbers = await delivered(one, *(said(f"E{n}") for n in range(120)))
    taken: list[int] = []
    while heard := (await one.passes.load(claim, LEASE)).heard:
        assert len(heard) <= 50
        taken += [number for number, _ in heard]
        await one.passes.record(claim, heard=[number for number, _ in heard])
    assert taken == numbers


@pytest.mark.parametrize(
    "strange", [{"what": "is this"}, {"event_id": 5}, {"event_id": "E", "type": "t", "stream": []}]
)
async def test_what_cannot_be_read_keeps_nobody_from_his_pass(one: Store, strange: dict[str, Any]) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    first, second = await delivered(one, strange, said())
    heard = dict((await one.passes.load(claim, LEASE)).heard)
    assert heard == {first: Heard(event_id="", type="", provider_time=None), second: said()}
    assert listen((stream(),), [heard[first]], lambda _: {}, T0, Timing()) == Learned()


# Fallbacks.


async def test_a_fallback_is_stored_and_told(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    entered = Fallback(modes=tuple(FallbackMode), reason=FallbackReason.EGRESS_FAILING, since=T0)
    situation = await one.passes.record(claim, fallback=entered, events=[Event(reason=EventReason.FALLBACK_ENTERED)])
    assert situation.broadcast.fallback == entered
    assert (await one.passes.load(claim, LEASE)).broadcast.fallback == entered
    assert (await one.broadcasts.get("first")).fallback == entered
    changes, *_ = await one.changes.after((await events(one))[-1]["revision"] - 1)
    assert [change.broadcast.fallback for change in changes] == [entered]
    # What is recorded without one leaves it as it is.
    await one.passes.record(claim, [room()], events=[Event(reason=EventReason.ROOM_CREATED)])
    assert (await one.passes.load(claim, LEASE)).broadcast.fallback == entered
    await one.passes.record(claim, fallback=Fallback(), events=[Event(reason=EventReason.FALLBACK_LEFT)])
    assert (await one.passes.load(claim, LEASE)).broadcast.fallback == Fallback()


async def test_a_stop_that_came_between_keeps_the_end(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.passes.record(claim, [room()])

    def stops(stored: Broadcast, now: Any) -> Change | None:
        return stop(stored, now, "enough")

    await one.broadcasts.change("first", stops, NOBODYS)
    entered = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=T0)
    situation = await one.passes.record(claim, fallback=entered, events=[Event(reason=EventReason.FALLBACK_ENTERED)])
    assert (situation.broadcast.target, situation.broadcast.state) == (Target.ENDED, State.STOPPING)


async def test_whether_there_is_a_storage_is_part_of_the_situation(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    assert not (await one.passes.load(claim, LEASE)).availability.storage
    rows = Rows(Sealer(KEYS))
    passes = Passes(one.database, rows, derive=derive(Timing()), storage=True)
    assert (await passes.load(claim, LEASE)).availability.storage
    assert (await passes.record(claim)).availability.storage


LEFT = LocalRecording(
    ordinal=0,
    phase=Phase.GONE,
    external_id="EG_file",
    intended_at=T0,
    changed_at=T0,
    file="rec/first/0.mp4",
    status=EgressStatus.COMPLETE,
    end_seen=True,
    file_bytes=12,
    duration_s=3.5,
)
UPLOADING = Upload(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="A1",
    intended_at=T0,
    changed_at=T0,
    observed_at=T0,
    recording=Recording(asset_id="A1", uploaded=True),
)


async def test_what_is_over_stays_in_the_queue_while_a_recording_is_waited_for(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.passes.record(
        claim, [LEFT, UPLOADING], events=[Event(reason=EventReason.STATUS_CHANGED)], end=EndReason.STOPPED
    )
    loaded = await one.passes.load(claim, LEASE)
    assert loaded.resources == (LEFT, UPLOADING)
    assert loaded.broadcast.state is State.ENDED
    assert loaded.broadcast.status.recordings == (UPLOADING.recording,)
    assert loaded.broadcast.status.next_attempt_time is not None
    await one.passes.release(claim, loaded.broadcast.status.next_attempt_time)
    await one.leases.wake(["first"])
    again = await one.claimed("first", lane=0)
    ready = Recording(asset_id="A1", playback_id="PB", status=RecordingStatus.READY, uploaded=True)
    over = await one.passes.record(
        again, [replace(UPLOADING, recording=ready)], events=[Event(reason=EventReason.RECORDING_READY)]
    )
    assert (over.broadcast.state, over.broadcast.status.next_attempt_time) == (State.ENDED, None)
    assert over.broadcast.end_time == loaded.broadcast.end_time
    await one.passes.release(again, None)
    # At rest, whoever wakes it.
    await one.leases.wake(["first"])
    assert (await one.row("first"))["due_at"] is None
