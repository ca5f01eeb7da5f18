"""What a pass writes: all of it in one transaction, told as it is stored, and nothing secret in the clear."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from service.domain.broadcast import (
    Broadcast,
    Destination,
    EndReason,
    Output,
    OutputState,
    Phase,
    ProviderTrouble,
    Spec,
    State,
    Target,
)
from service.domain.lifecycle import Change, Event, stop
from service.domain.secret import Secret
from service.store.passes import Situation
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
    said = [Event(reason="ROOM_CREATED", message="RM_1"), Event(reason="STREAM_CREATED")]
    situation = await one.passes.record(claim, [room(), stream()], events=said, actor="reconciler")
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
    await one.passes.record(claim, [room(), stream()], events=[Event(reason="A"), Event(reason="B")])
    *inner, last = (await events(one))[-3:]
    assert [each["snapshot"] for each in inner] == [each["previous"] for each in inner] == [None, None]
    assert last["previous"] == {"state": "STARTING", "labels": {}, "owner_id": "", "deleted": False}
    hidden = {"secrets", "lease_until", "lease_owner", "fence", "lane", "trace_context"}
    assert set(last["snapshot"]) == set(await one.row("first")) - hidden
    changes, _, _ = await one.changes.after(last["revision"] - 1)
    assert [change.broadcast for change in changes] == [await one.broadcasts.get("first")]


async def test_a_record_that_cannot_be_told_stores_nothing(database_url: str) -> None:
    def fails(situation: Situation) -> Any:
        raise RuntimeError(situation.broadcast.id)

    async with store(database_url, told=fails) as one:
        await one.started("first")
        claim = await one.claimed("first")
        before = await one.everything()
        with pytest.raises(RuntimeError):
            await one.passes.record(claim, [room()], events=[Event(reason="A")], end=EndReason.NO_HOST)
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
    ended = await one.passes.record(claim, events=[Event(reason="ENDING")], end=EndReason.NO_HOST)
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
    situation = await one.passes.record(claim, [room()], events=[Event(reason="ROOM_CREATED")])
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
            await one.passes.record(claims["second"], [room(), taken], events=[Event(reason="ADOPTED")])
    assert await one.everything() == before
    # What has no id yet is nobody's, a room is named after its broadcast, and kinds do not share names.
    nameless = [room(), stream(external_id=""), egress(external_id="LS1"), egress(ordinal=1), egress(ordinal=2)]
    await one.passes.record(claims["second"], nameless)


async def test_trouble_is_told_until_its_own_provider_is_well_again(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    trouble = ProviderTrouble(provider="mux", operation="create", code="502", message="away", retryable=True, time=T0)
    situation = await one.passes.record(claim, [room()], trouble=trouble)
    assert situation.broadcast.status.last_error == trouble
    situation = await one.passes.record(claim, recovered="livekit")
    assert situation.broadcast.status.last_error == trouble
    situation = await one.passes.record(claim, recovered="mux")
    assert situation.broadcast.status.last_error is None
    told = [each["message"] for each in await events(one) if each["reason"] == "STATUS_CHANGED"]
    assert len(told) == 2
    assert "mux: away" in told[0]
    assert (await one.row("first"))["status"]["last_error"] is None


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
    await one.passes.record(claim, full, events=[Event(reason="SEEN")])
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
    return Change(broadcast=changed, events=(Event(reason="UPDATED"),))


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
    assert sealer.open(sealed, place="stream/first/0") == SECRETS[0]
    for place in ("stream/first/1", "stream/second/0", "egress/first/0", "broadcast/first"):
        with pytest.raises(CannotOpen):
            sealer.open(sealed, place=place)
    for broken in (b"", sealed[:11], sealed[:20], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(CannotOpen):
            sealer.open(broken, place="stream/first/0")


def test_what_has_no_secret_seals_none() -> None:
    rows = Rows(Sealer(KEYS))
    assert rows.resource_values("first", room())[-1] is None
    assert rows.resource_values("first", stream())[-1] is None
    assert rows.resource_values("first", egress())[-1] is None
    assert rows.seal_keys("first", {}) is None
