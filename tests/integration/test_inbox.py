"""The inbox by itself: what is stored of a webhook, whom it wakes, and what may be done with it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from service.domain.errors import WebhookNotFound
from service.domain.ports import EgressSeen, Heard
from service.domain.provider import Provider
from service.domain.resources import EgressStatus
from service.store.sealing import CannotOpen, Sealer
from service.store.webhooks.inbox import Delivered, Inbox, Reading
from service.store.webhooks.stored import StoredWebhooks, WebhookFilter, WebhookOutcome
from service.webhooks.reading import Reader
from service.webhooks.worth import WORTH
from tests.integration.store_stage import KEYS, Store, store
from tests.integration.test_query_plans import Listening, plans
from tests.webhook_bodies import EVERY, SECRETS, STREAM_KEY, TAG, encoded, livekit, mux, of

ACCEPTED, FOREIGN = WebhookOutcome.ACCEPTED, WebhookOutcome.FOREIGN
UNKNOWN, QUARANTINED = WebhookOutcome.UNKNOWN_TYPE, WebhookOutcome.QUARANTINED
ANY = WebhookFilter()
ROOM = encoded(livekit("room_started"))
ACTIVE = encoded(mux("video.live_stream.active"))


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as opened:
        await opened.add("first", lane=1)
        yield opened


@pytest.fixture
def inbox(one: Store) -> Inbox:
    return Inbox(one.database, Sealer(KEYS), Reader(tag=TAG).read)


async def webhooks(one: Store) -> list[dict[str, Any]]:
    return await one.all("SELECT * FROM webhook ORDER BY id")


async def due(one: Store) -> set[str]:
    return {row["id"] for row in await one.all("SELECT id FROM broadcast WHERE due_at IS NOT NULL")}


async def resource(one: Store, kind: str, external_id: str, broadcast_id: str = "first") -> None:
    await one.sql(
        "INSERT INTO resource (broadcast_id, kind, ordinal, phase, external_id, intended_at, changed_at) "
        "VALUES ($1, $2, 0, 'present', $3, now(), now())",
        broadcast_id,
        kind,
        external_id,
    )


def _put(told: asyncio.Queue[str], _connection: object, _pid: object, _channel: object, payload: object) -> None:
    told.put_nowait(str(payload))


async def test_the_first_delivery_is_stored_and_wakes(one: Store, inbox: Inbox, database_url: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database_url)
    await listener.add_listener("broadcast_due", partial(_put, told))
    before = await one.database.now()
    delivered = await inbox.store(Provider.MUX, ACTIVE)
    await asyncio.wait_for(told.get(), 30)
    await listener.close()
    [row] = await webhooks(one)
    assert delivered == Delivered(webhook_id=row["id"], outcome=ACCEPTED, duplicate=False)
    assert (row["provider"], row["type"], row["broadcast_id"]) == ("mux", "video.live_stream.active", "first")
    assert row["event_id"] == "5a3c2a2e-6f0b-4a51-9d0e-30f4ab4d2a11"
    assert row["provider_time"] == datetime(2026, 11, 22, 19, 0, 37, 613000, UTC)
    assert (row["apply_time"], row["delivery_count"]) == (None, 1)
    assert row["receive_time"] >= before
    broadcast = await one.row("first")
    assert broadcast["due_at"] == broadcast["dirty_at"] == row["receive_time"]
    opened = Sealer(KEYS).open(row["body"], row=f"webhook/mux/{row['event_id']}")
    assert opened.encode("latin-1") == ACTIVE


async def test_replicas_are_told_of_what_they_can_claim_and_did_not_know(
    one: Store, inbox: Inbox, database_url: str
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database_url)
    await listener.add_listener("broadcast_due", partial(_put, told))

    async def notified(event_id: str) -> int:
        await inbox.store(Provider.MUX, encoded(mux("video.live_stream.active", event_id=event_id)))
        await one.leases.wake(["first"])
        # Notifications come in the order of their commits.
        await one.sql("SELECT pg_notify('broadcast_due', 'last')")
        count = 0
        while await asyncio.wait_for(told.get(), 30) != "last":
            count += 1
        return count

    assert await notified("E1") == 1
    assert await notified("E2") == 0
    claim = await one.claimed("first")
    assert await notified("E3") == 0
    await one.passes.release(claim, await one.database.now() + timedelta(hours=1))
    # It was woken during the pass, so it is due, and the replica that gave it back knows.
    assert await notified("E4") == 0
    await one.sql("UPDATE broadcast SET due_at = now() + interval '1 hour'")
    assert await notified("E5") == 1
    await listener.close()


async def test_a_further_delivery_is_counted_and_wakes_nobody(one: Store, inbox: Inbox) -> None:
    first = await inbox.store(Provider.MUX, ACTIVE)
    await one.sql("UPDATE broadcast SET due_at = NULL")
    again = await inbox.store(Provider.MUX, encoded(mux("video.live_stream.active") | {"attempts": [{"id": "1"}]}))
    assert again == replace(first, duplicate=True)
    # The same id of another provider is another event.
    other = await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", "nobodys", mux("x")["id"])))
    assert not other.duplicate
    assert [row["delivery_count"] for row in await webhooks(one)] == [2, 1]
    assert await due(one) == set()


async def test_of_many_at_once_one_is_the_first(one: Store, inbox: Inbox, database_url: str) -> None:
    async with store(database_url) as other:
        second = Inbox(other.database, Sealer(KEYS), Reader(tag=TAG).read)
        answers = await asyncio.gather(*((inbox, second)[n % 2].store(Provider.MUX, ACTIVE) for n in range(40)))
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 39
    [row] = await webhooks(one)
    assert row["delivery_count"] == 40


@pytest.mark.parametrize(
    ("columns", "queued", "woken"),
    [
        ({"target": "LIVE", "state": "LIVE"}, False, True),
        ({"target": "ENDED", "state": "STOPPING"}, False, True),
        ({"target": "ENDED", "state": "ENDED"}, False, False),
        ({"target": "ENDED", "state": "FAILED"}, False, False),
        # Its recordings are being waited for.
        ({"target": "ENDED", "state": "ENDED"}, True, True),
        ({"target": "ENDED", "state": "FAILED"}, True, True),
        ({"target": "CREATED", "state": "CREATED"}, False, False),
    ],
)
async def test_whom_it_wakes(
    one: Store,
    inbox: Inbox,
    columns: dict[str, str],
    *,
    queued: bool,
    woken: bool,
) -> None:
    await one.add("other", due_in_s=3600 if queued else None, lane=2, **columns)
    delivered = await inbox.store(Provider.LIVEKIT, encoded(livekit("room_finished", "other")))
    assert delivered.outcome is ACCEPTED
    row = await one.row("other")
    assert (row["dirty_at"] is not None) == woken
    assert (row["due_at"] is not None and row["due_at"] <= await one.database.now()) == woken
    # The observer's wake is the same.
    await one.sql("UPDATE broadcast SET dirty_at = NULL WHERE id = 'other'")
    await one.leases.wake(["other"])
    assert ((await one.row("other"))["dirty_at"] is not None) == woken


async def test_what_is_over_and_under_a_lease_is_woken_too(one: Store, inbox: Inbox) -> None:
    await one.add("over", due_in_s=-1, lane=0, target="ENDED", state="ENDED")
    await one.claimed("over", lane=0)
    await inbox.store(Provider.LIVEKIT, encoded(livekit("room_finished", "over")))
    row = await one.row("over")
    assert row["due_at"] is not None


async def test_a_pass_under_way_keeps_its_lease_and_comes_back(one: Store, inbox: Inbox) -> None:
    await one.leases.wake(["first"])
    claim = await one.claimed("first")
    before = await one.row("first")
    await inbox.store(Provider.MUX, ACTIVE)
    row = await one.row("first")
    assert (row["lease_until"], row["lease_owner"], row["fence"]) == (
        before["lease_until"],
        before["lease_owner"],
        before["fence"],
    )
    await one.passes.release(claim, None)
    assert await due(one) == {"first"}


async def test_a_pass_hears_what_was_stored_in_its_order_until_it_has_recorded_it(one: Store, inbox: Inbox) -> None:
    read = Reader(tag=TAG).read
    await resource(one, "stream", "LS-first")
    sent = [(provider, encoded(of(provider, type_, event_id=f"E{n}"))) for n, (provider, type_) in enumerate(EVERY)]
    for provider, body in sent:
        await inbox.store(provider, body)
    expected = [read(provider, body) for provider, body in sent]
    accepted = [reading.heard for reading in expected if reading.outcome is ACCEPTED]
    await one.sql("UPDATE broadcast SET due_at = now()")
    claim = await one.claimed("first")
    situation = await one.passes.load(claim, one.leases.ttl)
    assert [heard for _, heard in situation.heard] == accepted
    assert len(accepted) == sum(sum(types.values()) for types in WORTH.values())
    await one.passes.record(claim, heard=[number for number, _ in situation.heard])
    assert (await one.passes.load(claim, one.leases.ttl)).heard == ()
    [last, *_] = await StoredWebhooks(one.database).list(ANY, limit=1)
    assert last.apply_time is None
    assert (await StoredWebhooks(one.database).get(situation.heard[0][0])).apply_time is not None


async def test_whom_one_without_a_mark_of_ours_is_about(one: Store, inbox: Inbox) -> None:
    target = "video.live_stream.simulcast_target.errored"
    assert (await inbox.store(Provider.MUX, encoded(mux(target, event_id="E1")))).outcome is FOREIGN
    await resource(one, "stream", "LS-first")
    await resource(one, "upload", "AS-upload")
    assert (await inbox.store(Provider.MUX, encoded(mux(target, event_id="E2")))).outcome is ACCEPTED
    ready = mux("video.asset.ready", event_id="E3")
    ready["data"] = {"id": "AS-upload", "status": "ready", "passthrough": "", "created_at": 1}
    assert (await inbox.store(Provider.MUX, encoded(ready))).outcome is ACCEPTED
    ready["id"], ready["data"]["id"] = "E4", "AS-of-somebody"
    assert (await inbox.store(Provider.MUX, encoded(ready))).outcome is FOREIGN
    # No id at all is not the id of what has none yet.
    await one.add("second")
    await resource(one, "upload", "", "second")
    await one.sql("UPDATE resource SET kind = 'stream' WHERE broadcast_id = 'second'")
    nothing = mux(target, event_id="E5")
    nothing["data"]["live_stream_id"] = ""
    assert (await inbox.store(Provider.MUX, encoded(nothing))).outcome is FOREIGN
    assert [row["broadcast_id"] for row in await webhooks(one)] == ["", "first", "first", "", ""]


async def test_a_foreign_mark_does_not_hide_a_stream_of_ours(one: Store, inbox: Inbox) -> None:
    await resource(one, "stream", "LS-first")
    event = mux("video.live_stream.disabled")
    event["data"]["passthrough"] = "somebody changed it"
    assert (await inbox.store(Provider.MUX, encoded(event))).outcome is ACCEPTED


def returns(reading: Reading) -> Callable[[str, bytes], Reading]:
    return lambda _provider, _body: reading


BAD_TEXTS = ["a\0b", "\ud800", "a\udcffb", "\0" * 300, "x" * 300_000, "'; DROP TABLE webhook; --", "\u202e\x07"]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: repr(text[:10]))
async def test_no_text_is_refused_by_the_database(one: Store, text: str) -> None:
    """Adapters should refuse such; a text they let through must not be sent again for a day."""
    egress = EgressSeen(id=text, room_name=text, status=EgressStatus.ACTIVE, error=text)
    heard = Heard(event_id="e", type=text, provider_time=None, egress=egress, room_sid=text, stream_id=text)
    event_id = text[:200]
    reading = Reading(event_id=event_id, type=text, outcome=ACCEPTED, heard=heard, broadcast_id=text, redacted=text)
    inbox = Inbox(one.database, Sealer(KEYS), returns(reading))
    assert (await inbox.store(Provider.LIVEKIT, b"{}")).outcome is FOREIGN
    inbox = Inbox(one.database, Sealer(KEYS), returns(replace(reading, event_id="other", broadcast_id="first")))
    assert (await inbox.store(Provider.LIVEKIT, b"{}")).outcome is ACCEPTED
    await one.sql("UPDATE broadcast SET due_at = now()")
    situation = await one.passes.load(await one.claimed("first"), one.leases.ttl)
    assert len(situation.heard) == 1
    [stored, _] = await StoredWebhooks(one.database).list(ANY, limit=9)
    assert len(stored.type) <= 128
    assert (await inbox.replay(stored.id)).outcome is ACCEPTED


async def test_bodies_come_back_byte_for_byte_and_open_in_their_place_alone(one: Store, inbox: Inbox) -> None:
    bodies = [b"", b"\xff\x00\xfe", bytes(range(256)), "é\u2028".encode()]
    for body in bodies:
        await inbox.store(Provider.MUX, body)
    rows = await webhooks(one)
    sealer = Sealer(KEYS)
    places = [f"webhook/{row['provider']}/{row['event_id']}" for row in rows]
    assert [
        sealer.open(row["body"], row=place).encode("latin-1") for row, place in zip(rows, places, strict=True)
    ] == bodies
    with pytest.raises(CannotOpen):
        sealer.open(rows[0]["body"], row=places[1])


async def test_no_column_shows_a_secret(one: Store, inbox: Inbox) -> None:
    for provider, type_ in EVERY:
        await inbox.store(provider, encoded(of(provider, type_, event_id=type_)))
    await inbox.store(Provider.MUX, b'{"stream_key": "' + STREAM_KEY.encode() + b'"')
    dump = str(await one.all("SELECT to_jsonb(webhook) AS row, encode(body, 'escape') AS escaped FROM webhook"))
    for secret in SECRETS:
        assert secret not in dump
        assert secret.encode().hex() not in dump


async def test_the_inbox_is_listed_newest_first_by_pages_and_by_what_is_asked(one: Store, inbox: Inbox) -> None:
    await one.add("second")
    for n in range(6):
        await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", ("first", "second")[n % 2], f"EV_{n}")))
    await inbox.store(Provider.MUX, ACTIVE)
    await inbox.store(Provider.MUX, encoded(mux("video.live_stream.new", event_id="E1")))
    await inbox.store(Provider.MUX, b"no json")

    async def ids(filter: WebhookFilter = ANY, *, limit: int = 50, before_id: int | None = None) -> list[int]:
        return [
            webhook.id for webhook in await StoredWebhooks(one.database).list(filter, limit=limit, before_id=before_id)
        ]

    every = await ids()
    assert every == sorted(every, reverse=True)
    assert len(every) == 9
    assert await ids(limit=4) == every[:4]
    assert await ids(limit=4, before_id=every[3]) == every[4:8]
    assert await ids(limit=4, before_id=every[7]) == every[8:]
    assert await ids(WebhookFilter(provider=Provider.MUX)) == every[:3]
    assert await ids(WebhookFilter(broadcast_id="second")) == every[3:9:2]
    assert await ids(WebhookFilter(type="room_started"), limit=2, before_id=every[4]) == every[5:7]
    assert await ids(WebhookFilter(outcome="quarantined")) == every[:1]
    assert await ids(WebhookFilter(provider=Provider.MUX, outcome="unknown_type", broadcast_id="first")) == every[1:2]
    assert await ids(WebhookFilter(provider=Provider.LIVEKIT, outcome="quarantined")) == []
    assert {webhook.redacted for webhook in await StoredWebhooks(one.database).list(ANY, limit=9)} == {""}
    bodies = [webhook.redacted for webhook in await StoredWebhooks(one.database).list(ANY, limit=9, bodies=True)]
    assert all(bodies)
    assert bodies[2] == (await StoredWebhooks(one.database).get(every[2])).redacted


async def test_what_is_not_there_is_not_found(inbox: Inbox, one: Store) -> None:
    for asked in (StoredWebhooks(one.database).get(1), inbox.replay(1)):
        with pytest.raises(WebhookNotFound) as failure:
            await asked
        assert failure.value.metadata == {"webhook_id": "1"}


async def test_a_replay_is_taken_into_account_once_more(one: Store, inbox: Inbox) -> None:
    delivered = await inbox.store(Provider.MUX, ACTIVE)
    claim = await one.claimed("first")
    await one.passes.load(claim, one.leases.ttl)
    await one.passes.record(claim, heard=[delivered.webhook_id])
    await one.passes.release(claim, None)
    before = await StoredWebhooks(one.database).get(delivered.webhook_id)
    assert before.apply_time is not None
    await one.sql("UPDATE broadcast SET due_at = NULL")
    replayed = await inbox.replay(delivered.webhook_id)
    assert replayed == replace(before, apply_time=None)
    assert await due(one) == {"first"}
    situation = await one.passes.load(await one.claimed("first"), one.leases.ttl)
    assert [number for number, _ in situation.heard] == [delivered.webhook_id]


async def test_a_replay_reads_anew_what_was_not_understood(one: Store) -> None:
    older = Inbox(one.database, Sealer(KEYS), returns(Reading(event_id="e", type="", outcome=QUARANTINED, heard=None)))
    newer = Inbox(one.database, Sealer(KEYS), Reader(tag=TAG).read)
    webhook_id = (await older.store(Provider.MUX, ACTIVE)).webhook_id
    assert await due(one) == set()
    replayed = await newer.replay(webhook_id)
    assert (replayed.outcome, replayed.type, replayed.broadcast_id) == (ACCEPTED, "video.live_stream.active", "first")
    assert replayed.event_id == "e"
    assert replayed.provider_time is not None
    assert "***" in replayed.redacted
    assert await due(one) == {"first"}
    situation = await one.passes.load(await one.claimed("first"), one.leases.ttl)
    assert [heard.stream_id for _, heard in situation.heard] == ["LS-first"]
    # And the other way: what this version does not understand has no effect.
    assert (await older.replay(webhook_id)).outcome is QUARANTINED
    assert (await newer.replay(webhook_id)).outcome is ACCEPTED


async def test_a_replay_of_what_was_foreign_and_still_is(one: Store, inbox: Inbox) -> None:
    foreign = await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", "later")))
    assert (await inbox.replay(foreign.webhook_id)).outcome is FOREIGN
    await one.add("later")
    assert (await inbox.replay(foreign.webhook_id)).outcome is ACCEPTED
    assert await due(one) == {"later"}


async def test_a_body_that_no_key_opens_is_replayed_as_it_was_read(one: Store, inbox: Inbox) -> None:
    delivered = await inbox.store(Provider.MUX, ACTIVE)
    await one.sql("UPDATE webhook SET apply_time = now()")
    await one.sql("UPDATE broadcast SET due_at = NULL")
    rotated = Inbox(one.database, Sealer([b"n" * 32]), Reader(tag=TAG).read)
    replayed = await rotated.replay(delivered.webhook_id)
    assert (replayed.outcome, replayed.apply_time, replayed.broadcast_id) == (ACCEPTED, None, "first")
    assert await due(one) == {"first"}
    both = Inbox(
        one.database, Sealer([b"n" * 32, *KEYS]), returns(Reading(event_id="", type="x", outcome=UNKNOWN, heard=None))
    )
    assert (await both.replay(delivered.webhook_id)).outcome is UNKNOWN


async def test_replays_passes_and_deliveries_do_not_lock_each_other_out(one: Store, inbox: Inbox) -> None:
    ids = [
        (await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", event_id=f"E{n}")))).webhook_id
        for n in range(8)
    ]
    await one.sql("UPDATE broadcast SET due_at = now()")
    claim = await one.claimed("first")

    async def passes() -> None:
        for _ in range(20):
            situation = await one.passes.load(claim, one.leases.ttl)
            await one.passes.record(claim, heard=[number for number, _ in reversed(situation.heard)])

    async def replays(shift: int) -> None:
        for n in range(20):
            await inbox.replay(ids[(n * 3 + shift) % 8])

    async def deliveries() -> None:
        for n in range(20):
            await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", event_id=f"E{n % 12}")))

    await asyncio.wait_for(asyncio.gather(passes(), replays(0), replays(5), deliveries(), deliveries()), 30)


async def test_the_old_is_forgotten(one: Store, inbox: Inbox) -> None:
    for n in range(4):
        await inbox.store(Provider.LIVEKIT, encoded(livekit("room_started", event_id=f"E{n}")))
    await one.sql("UPDATE webhook SET receive_time = now() - interval '8 days' WHERE event_id IN ('E1', 'E2')")
    assert await inbox.forget(older_than=timedelta(days=7)) == 2
    assert [row["event_id"] for row in await webhooks(one)] == ["E0", "E3"]
    assert await inbox.forget(older_than=timedelta(days=7)) == 0


_FILL = (
    (
        "INSERT INTO broadcast (id, spec, target, state) "
        "SELECT 'b' || n, '{}', 'LIVE', 'LIVE' FROM generate_series(1, 10000) AS n"
    ),
    (
        "INSERT INTO resource (broadcast_id, kind, ordinal, phase, external_id, intended_at, changed_at) "
        "SELECT 'b' || n, k, 0, 'present', 'X' || n, now(), now() "
        "FROM generate_series(1, 10000) AS n, unnest(ARRAY['room', 'stream', 'egress', 'upload']) AS k"
    ),
    (
        "INSERT INTO webhook (provider, event_id, type, broadcast_id, outcome, body, receive_time) "
        "SELECT 'mux', 'e' || n, CASE WHEN n % 10000 = 7 THEN 'rare' ELSE 'x' || n % 20 END, 'b' || n % 1000, "
        "CASE WHEN n % 5000 = 9 THEN 'foreign' ELSE 'accepted' END, '', now() - make_interval(mins => n) "
        "FROM generate_series(1, 30000) AS n"
    ),
    "ANALYZE",
)


async def test_nothing_is_read_from_end_to_end(database_url: str) -> None:
    """In large tables, what a delivery, a page and the clean-up read is found by index."""
    async with store(database_url, database=Listening) as one:
        assert isinstance(one.database, Listening)
        inbox = Inbox(one.database, Sealer(KEYS), Reader(tag=TAG).read)
        for statement in _FILL:
            await one.sql(statement)
        one.database.asked = []
        await inbox.store(Provider.MUX, encoded(mux("video.live_stream.simulcast_target.idle", "b7")))
        await StoredWebhooks(one.database).list(WebhookFilter(broadcast_id="b7"), limit=50)
        found = [
            await StoredWebhooks(one.database).list(given, limit=50)
            for given in (
                WebhookFilter(type="rare"),
                WebhookFilter(type="nothing"),
                WebhookFilter(outcome="foreign"),
                WebhookFilter(outcome="quarantined"),
                WebhookFilter(provider=Provider.LIVEKIT, outcome="foreign"),
                WebhookFilter(type="rare", outcome="accepted"),
            )
        ]
        # One that is foreign was delivered just now.
        assert [len(each) for each in found] == [3, 0, 6 + 1, 0, 0, 3]
        # Where they are many, by id and to no end.
        assert len(await StoredWebhooks(one.database).list(WebhookFilter(type="x1"), limit=50)) == 50
        assert len(await StoredWebhooks(one.database).list(WebhookFilter(outcome="accepted"), limit=50)) == 50
        [newest] = await StoredWebhooks(one.database).list(ANY, limit=1, before_id=500)
        await inbox.replay(newest.id)
        deleting = len(one.database.asked)
        assert await inbox.forget(older_than=timedelta(minutes=29_990)) > 0
        asked = one.database.asked
        assert len(asked) >= 8
        used: set[str] = set()
        for n, each in enumerate(asked):
            for plan in await plans(one, each):
                used |= {str(node.get("Index Name")) for node in plan}
                # Whom a clean-up of thousands deletes may well be found by reading on.
                read_whole = [node for node in plan if node["Node Type"] == "Seq Scan" and n < deleting]
                assert not read_whole, (each.query, read_whole)
        assert used >= {
            "broadcast_pkey",
            "resource_external",
            "webhook_pkey",
            "webhook_about",
            "webhook_age",
            "webhook_apart",
            "webhook_type",
        }
