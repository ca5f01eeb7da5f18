"""Webhooks over real HTTP into a real database: what is stored, whom it wakes, what is answered to everything else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit.protocol.models import Room

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.livekit.webhooks import LiveKitWebhooks
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.postgres.server import EmbeddedPostgres
from broadcast_sandbox.webhooks import WebhookSender
from service.app.shared import answers
from service.domain.provider import WEBHOOK_SENDERS, Provider
from service.store.database import Database
from service.store.migrate import migrate
from service.webhooks import delivery as delivery_module
from service.webhooks import intake as intake_module
from service.webhooks.delivery import LARGEST
from service.webhooks.worth import WORTH
from tests.integration.webhook_stage import NEXT_KEY, NEXT_MUX_SECRET, NEXT_SECRET, Hooks, hooks
from tests.waiting import eventually
from tests.webhook_bodies import (
    ENVIRONMENT,
    EVERY,
    LIVEKIT_KEY,
    LIVEKIT_SECRET,
    MUX_SECRET,
    SECRETS,
    encoded,
    headers,
    livekit,
    livekit_headers,
    mux,
    mux_headers,
)
from tests.webhook_bodies import of as event_of

PROVIDERS = WEBHOOK_SENDERS
TYPES = {Provider.LIVEKIT: "room_started", Provider.MUX: "video.live_stream.active"}


@pytest.fixture
async def stage(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooks]:
    # Two cores that others use as well take long over what is quick; who is about a limit sets it.
    monkeypatch.setattr(delivery_module, "_STORED_WITHIN_S", 30)
    monkeypatch.setattr(intake_module, "_BODY_WITHIN_S", 30)
    async with hooks(database_url) as opened:
        await opened.store.add("first")
        await opened.store.add("second")
        yield opened


async def test_every_type_is_stored_and_wakes_its_broadcast_where_it_is_acted_on(stage: Hooks) -> None:
    await stage.store.sql(
        "INSERT INTO resource (broadcast_id, kind, ordinal, phase, external_id, intended_at, changed_at) "
        "VALUES ('first', 'stream', 0, 'present', 'LS-first', now(), now())"
    )
    for number, (provider, type_) in enumerate(EVERY):
        await stage.store.sql("UPDATE broadcast SET due_at = NULL, dirty_at = NULL")
        assert await stage.send(provider, event_of(provider, type_, event_id=f"EV_{number}")) == 200
        acted = WORTH[provider][type_]
        row = (await stage.rows())[-1]
        assert (row["type"], row["outcome"]) == (type_, "accepted" if acted else "unknown_type")
        assert row["apply_time"] is None
        assert await stage.due() == ({"first"} if acted else set()), type_
        if acted:
            assert row["broadcast_id"] == "first"
            assert (await stage.store.row("first"))["dirty_at"] is not None
    assert len(await stage.rows()) == len(EVERY) > 30
    kept = await stage.dump()
    assert not [secret for secret in SECRETS if secret in kept or secret.encode().hex() in kept]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_none_of_ours_is_stored_and_wakes_nobody(stage: Hooks, provider: Provider) -> None:
    type_ = TYPES[provider]
    foreign = event_of(provider, type_, "nobodys", "EV_1")
    unknown = event_of(provider, type_, "first", "EV_2") | {"event": "new", "type": "video.live_stream.new"}
    assert await stage.send(provider, foreign) == 200
    assert await stage.send(provider, unknown) == 200
    expected = ["foreign", "unknown_type"]
    if provider is Provider.MUX:
        other = event_of(provider, type_, "first", "EV_3") | {"environment": {"name": "Prod", "id": "k30tc5"}}
        marked = json.loads(encoded(event_of(provider, type_, "first", "EV_4")).replace(b"bs1:test:", b"bs1:prod:"))
        assert await stage.send(provider, other) == 200
        assert await stage.send(provider, marked) == 200
        expected += ["foreign", "foreign"]
    assert await stage.outcomes() == expected
    assert await stage.due() == set()
    unknown_row = (await stage.rows())[1]
    assert unknown_row["broadcast_id"] == "first"


HOSTILE = {
    "empty object": b"{}",
    "list": b"[]",
    "null": b"null",
    "no json": b"no json",
    "not utf-8": b"\xff\xfe\x00\x01",
    "nul": b'{"id": "a\\u0000b", "event": "room_started", "type": "video.live_stream.active", "data": {"id": "x"}}',
    "half a character": b'{"id": "\\ud800", "event": "room_started", "type": "video.live_stream.active"}',
    "brackets": b"[" * 20_000,
    "deep": b'{"data":' * 20_000 + b"1" + b"}" * 20_000,
    "name twice": b'{"id": "a", "id": "b", "event": "room_started", "type": "video.live_stream.active"}',
    "nan": b'{"id": "a", "event": "room_started", "type": "video.live_stream.active", "x": NaN}',
    "huge": b'{"id": "a", "event": "room_started", "type": "video.live_stream.active", "x": 1' + b"0" * 9999 + b"}",
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_signed_and_cannot_be_read_is_quarantined(stage: Hooks, provider: Provider) -> None:
    for name, body in HOSTILE.items():
        assert await stage.send(provider, body) == 200, name
        assert await stage.send(provider, body) == 200, name
    rows = await stage.rows()
    assert len(rows) == len(HOSTILE)
    assert {row["outcome"] for row in rows} == {"quarantined"}
    assert {row["delivery_count"] for row in rows} == {2}
    assert await stage.due() == set()
    assert await stage.get("/livez") == 200


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_not_signed_is_refused_and_writes_nothing(stage: Hooks, provider: Provider) -> None:
    good = encoded(event_of(provider, TYPES[provider]))
    name = "Mux-Signature" if provider is Provider.MUX else "Authorization"
    for body in (good, *HOSTILE.values()):
        for value in ("", "Bearer ", "a.b.c", f"t={int(time.time())},v1={'0' * 64}"):
            assert await stage.post(provider, body, {name: value}) == 401
        assert await stage.post(provider, body, {}) == 401
        assert await stage.send(provider, body, secret="another-secret-of-at-least-32-bytes") == 401
        signed = headers(provider, body)
        assert await stage.post(provider, body + b" ", signed) == 401
        assert await stage.post(provider, body[:-1], signed) == 401
    other = {"mux": livekit_headers(good), "livekit": mux_headers(good)}[provider]
    assert await stage.post(provider, good, other) == 401
    assert await stage.rows() == []
    assert await stage.due() == set()


async def test_secrets_that_are_being_rotated(stage: Hooks) -> None:
    assert await stage.send("mux", mux(TYPES[Provider.MUX]), secret=NEXT_MUX_SECRET) == 200
    body = encoded(livekit(TYPES[Provider.LIVEKIT]))
    assert await stage.post("livekit", body, livekit_headers(body, key=NEXT_KEY, secret=NEXT_SECRET)) == 200
    assert await stage.post("livekit", body, livekit_headers(body, key=LIVEKIT_KEY, secret=NEXT_SECRET)) == 401
    token = livekit_headers(body)["Authorization"]
    assert await stage.post("livekit", body, {"authorization": f"Bearer {token}"}) == 200
    assert [row["delivery_count"] for row in await stage.rows()] == [1, 2]


async def test_an_old_signature_is_refused_and_one_of_the_future(stage: Hooks) -> None:
    for at, status in ((-310, 401), (310, 401), (-290, 200), (290, 200)):
        assert await stage.send("mux", mux(TYPES[Provider.MUX]), at=time.time() + at) == status
    assert [row["delivery_count"] for row in await stage.rows()] == [2]


async def test_one_that_is_sent_again_is_stored_once(stage: Hooks) -> None:
    for provider in PROVIDERS:
        assert await stage.send(provider, event_of(provider, TYPES[provider])) == 200
    await stage.store.sql("UPDATE broadcast SET due_at = NULL")
    again = mux(TYPES[Provider.MUX]) | {"attempts": [{"id": "1", "response_status_code": 500}]}
    assert await stage.send("mux", again) == 200
    assert await stage.send("livekit", livekit(TYPES[Provider.LIVEKIT])) == 200
    assert [row["delivery_count"] for row in await stage.rows()] == [2, 2]
    assert await stage.due() == set()


async def raw(stage: Hooks, *parts: bytes) -> int:
    """The status of the answer to bytes as they are, each part of which comes when the one before was seen."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    for part in parts:
        writer.write(part)
        await stage.get("/livez")
    status = (await asyncio.wait_for(reader.readline(), 10)).split()[1]
    writer.close()
    await writer.wait_closed()
    return int(status)


def request(path: str, *lines: bytes, body: bytes = b"{}", length: int | None = None) -> bytes:
    head = [b"POST /webhooks/%s HTTP/1.1" % path.encode(), b"Host: x", b"Connection: close", *lines]
    if length is not None or not any(line.lower().startswith(b"transfer-encoding") for line in lines):
        head.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def signature(provider: Provider, body: bytes) -> bytes:
    name = "Mux-Signature" if provider is Provider.MUX else "Authorization"
    return f"{name}: {headers(provider, body)[name]}".encode()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_two_headers_of_one_kind_are_refused(stage: Hooks, provider: Provider) -> None:
    body = encoded(event_of(provider, TYPES[provider]))
    line = signature(provider, body)
    assert await raw(stage, request(provider, line, line, body=body)) == 401
    assert await raw(stage, request(provider, line, line.partition(b":")[0] + b": x", body=body)) == 401
    assert await stage.rows() == []
    assert await raw(stage, request(provider, line, body=body)) == 200


async def test_headers_that_are_no_text_are_refused_and_no_failure(stage: Hooks) -> None:
    """Bytes of no encoding reach the verifiers as lone surrogates."""
    now = int(time.time())
    nested = base64.urlsafe_b64encode(b"[" * 2500).rstrip(b"=")
    for path, line in (
        ("mux", b"Mux-Signature: t=%d,v1=\xff\xfe" % now),
        ("mux", b"Mux-Signature: \xff"),
        ("livekit", b"Authorization: \xff\xfe.\xff.\xff"),
        ("livekit", b"Authorization: e30." + nested + b".x"),
        ("livekit", b"Authorization: " + nested + b".e30.x"),
    ):
        assert await raw(stage, request(path, line)) == 401
    assert await stage.rows() == []


def padded(provider: Provider, size: int) -> bytes:
    event = event_of(provider, TYPES[provider])
    empty = encoded(event | {"padding": ""})
    return encoded(event | {"padding": "x" * (size - len(empty))})


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_too_large_is_refused_however_it_comes(stage: Hooks, provider: Provider) -> None:
    async def pieces(body: bytes) -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    large = padded(provider, LARGEST + 1)
    assert await stage.send(provider, large) == 413
    assert await stage.post(provider, pieces(large), headers(provider, large)) == 413
    # Before a byte of it came.
    assert await raw(stage, request(provider, signature(provider, b""), body=b"", length=1 << 40)) == 413
    assert await stage.rows() == []
    largest = padded(provider, LARGEST)
    assert len(largest) == LARGEST
    assert await stage.send(provider, largest) == 200
    assert await stage.post(provider, pieces(largest), headers(provider, largest)) == 200
    assert [row["delivery_count"] for row in await stage.rows()] == [2]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
async def test_no_encoding_is_accepted(stage: Hooks, encoding: str) -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    for body in (gzip.compress(encoded(mux(TYPES[Provider.MUX]))), bomb):
        sent = mux_headers(body) | {"Content-Encoding": encoding}
        assert await stage.post("mux", body, sent) == 415
    plain = encoded(mux(TYPES[Provider.MUX]))
    assert await stage.post("mux", plain, mux_headers(plain) | {"Content-Encoding": "identity"}) == 200


async def test_a_body_that_does_not_come_is_not_waited_for(stage: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_BODY_WITHIN_S", 0.2)
    line = signature(Provider.MUX, b"{}")
    assert await raw(stage, request("mux", line, body=b"{", length=2)) == 408
    chunked = b"Transfer-Encoding: chunked"
    assert await raw(stage, request("mux", line, chunked, body=b"1\r\n{\r\n")) == 408
    assert await stage.rows() == []


async def test_a_body_that_is_no_http_is_refused(stage: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    head = request("mux", signature(Provider.MUX, b"{}"), b"Transfer-Encoding: chunked", body=b"1\r\n{\r\n")
    assert await raw(stage, head + b"zzz\r\n}\r\n") == 400
    assert await raw(stage, head, b"1\r\n}\r\n0\r\n\r\n") == 200
    monkeypatch.setattr(intake_module, "_BODY_WITHIN_S", 1)
    assert await raw(stage, head, b"zzz\r\n}\r\n") in (400, 408)
    assert await stage.outcomes() == ["quarantined"]


async def test_no_more_than_some_are_taken_at_once(stage: Hooks) -> None:
    body = encoded(mux(TYPES[Provider.MUX]))
    head = request("mux", signature(Provider.MUX, body), body=b"", length=len(body))
    waiting = [await asyncio.open_connection("127.0.0.1", stage.port) for _ in range(64)]
    for _, writer in waiting:
        writer.write(head)

    async def full() -> bool:
        return await stage.send("mux", body) == 503

    await eventually(full)
    # Who does not even pretend to be signed is told so, and takes no place.
    assert await stage.post("mux", body, {}) == 401
    assert await stage.get("/livez") == 200
    for _, writer in waiting:
        writer.write(body)
    statuses = [(await asyncio.wait_for(reader.readline(), 10)).split()[1] for reader, _ in waiting]
    assert statuses == [b"200"] * 64
    for _, writer in waiting:
        writer.close()
    assert await stage.send("mux", body) == 200
    [row] = await stage.rows()
    assert row["delivery_count"] >= 65


async def test_those_of_one_broadcast_do_not_hold_up_those_of_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that stands still holds the lock of the broadcast it was about to write."""
    monkeypatch.setattr(delivery_module, "_STORED_WITHIN_S", 5)
    async with hooks(database_url, statement_timeout_s=4) as stage:
        for name in ("first", "second"):
            await stage.store.add(name)
        await _one_is_locked(stage)


async def _one_is_locked(stage: Hooks) -> None:
    async with stage.store.database.transaction() as connection:
        await connection.execute("SELECT 1 FROM broadcast WHERE id = 'first' FOR NO KEY UPDATE")
        stuck = [
            asyncio.create_task(stage.send("livekit", livekit(TYPES[Provider.LIVEKIT], event_id=f"EV_{n}")))
            for n in range(12)
        ]

        async def waiting() -> bool:
            blocked = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return await stage.store.sql(blocked) == 1

        await eventually(waiting)
        assert await stage.send("livekit", livekit(TYPES[Provider.LIVEKIT], "second", "EV_second")) == 200
        assert not any(each.done() for each in stuck), "it was held up for as long as they were"
        # None of them can be stored in time, and each says so.
        assert set(await asyncio.gather(*stuck)) == {503}
    assert [row["broadcast_id"] for row in await stage.rows()] == ["second"]
    for n in range(12):
        assert await stage.send("livekit", livekit(TYPES[Provider.LIVEKIT], event_id=f"EV_{n}")) == 200
    assert len(await stage.rows()) == 13


async def test_the_providers_send_again_what_could_not_be_stored(tmp_path: Path) -> None:
    """Both simulated senders, against a database that goes and comes back."""
    server = EmbeddedPostgres(data_dir=tmp_path / "postgres", durable=True)
    await server.start()
    try:
        url = await server.create_database("inbox")
        await migrate(url)
        async with hooks(url) as stage:
            await stage.store.add("first")
            livekit_sender, mux_sender = senders(stage)
            async with livekit_sender.running(), mux_sender.running():
                await server.stop()
                livekit_sender.emit()
                mux_sender.emit()
                await eventually(lambda: livekit_sender.statuses[:1] == mux_sender.statuses[:1] == [503])
                async with stage.http.post(
                    f"{stage.base}/webhooks/mux", data=b"{}", headers=mux_headers(b"{}")
                ) as answer:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                # What is not signed needs no database.
                assert await stage.post("mux", b"{}", mux_headers(b"{}", secret="another")) == 401
                await server.start()
                await eventually(lambda: livekit_sender.statuses[-1:] == mux_sender.statuses[-1:] == [200])
            rows = await stage.rows()
            assert sorted((row["provider"], row["outcome"], row["delivery_count"]) for row in rows) == [
                ("livekit", "accepted", 1),
                ("mux", "accepted", 1),
            ]
            assert await stage.due() == {"first"}
    finally:
        await server.stop()


class Simulated:
    """A provider's sender, with one event to send."""

    def __init__(self, sender: WebhookSender, emit: Any) -> None:
        self._sender = sender
        self.emit = emit

    @property
    def statuses(self) -> list[int | None]:
        return [delivery.status for delivery in self._sender.deliveries]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        await self._sender.start()
        try:
            yield
        finally:
            await self._sender.close()


def senders(stage: Hooks) -> tuple[Simulated, Simulated]:
    clock = ScaledClock(2)
    of_livekit = LiveKitWebhooks(
        url=f"{stage.base}/webhooks/livekit",
        api_key=LIVEKIT_KEY,
        api_secret=LIVEKIT_SECRET,
        clock=clock,
        faults=FaultTable(),
        id_factory=lambda: "EV_000000000001",
    )
    mux_sender = WebhookSender(
        url=f"{stage.base}/webhooks/mux",
        clock=clock,
        faults=FaultTable(),
        retry_waits_s=(1,) * 20,
        timeout_s=5,
        retry_on=lambda status: status // 100 != 2,
    )
    of_mux = MuxEvents(
        MuxSimulatorSettings(
            token_id="t", token_secret="s", webhook_url=None, webhook_secret=MUX_SECRET, environment_id=ENVIRONMENT
        ),
        mux_sender,
    )
    event = mux(TYPES[Provider.MUX])
    return (
        Simulated(of_livekit.sender, lambda: of_livekit.room_started(Room(sid="RM_1", name="first"))),
        Simulated(
            mux_sender,
            lambda: of_mux.emit(
                event["type"], object_type="live", object_id="LS-first", data=event["data"], target="first"
            ),
        ),
    )


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_posts_are_webhooks(stage: Hooks, method: str) -> None:
    for path in ("/webhooks/mux", "/webhooks/livekit"):
        async with stage.http.request(method, stage.base + path) as answer:
            assert answer.status == 405
    for other in ("other", "mux/", "muxlivekit", "MUX"):
        assert await stage.post(other, b"{}", mux_headers(b"{}")) == 404


async def test_alive_is_not_the_same_as_ready(stage: Hooks) -> None:
    assert (await stage.get("/livez"), await stage.get("/readyz")) == (200, 200)
    stage.ready = False
    assert (await stage.get("/livez"), await stage.get("/readyz")) == (200, 503)


async def test_ready_is_what_the_database_says(database_url: str) -> None:
    database = await Database.connect(database_url)
    assert await answers(database)
    await database.close()
    assert not await answers(database)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def signed_bodies(draw: st.DrawFn) -> tuple[Provider, bytes]:
    """Anything, and real ones of which something is something else."""
    provider = draw(st.sampled_from(PROVIDERS))
    if draw(st.integers(0, 3)) == 0:
        return provider, draw(st.binary() | json_values.map(encoded))
    event = event_of(provider, draw(st.sampled_from(sorted(WORTH[provider]))))
    event["id"] = draw(st.uuids().map(str) | st.uuids().map(str) | st.text(min_size=1, max_size=12))
    inner: list[dict[str, Any]] = [event, *(each for each in event.values() if isinstance(each, dict))]
    for _ in range(draw(st.integers(0, 2))):
        part: dict[str, Any] = draw(st.sampled_from(inner))
        part[draw(st.sampled_from(sorted(part)) | st.text(max_size=5))] = draw(json_values)
    body = encoded(event)
    cut = draw(st.integers(0, 20))
    return provider, body[: -cut * 7] if cut == 1 else body


async def test_nothing_that_is_signed_fails(stage: Hooks) -> None:
    """The whole way, from the socket to the row and back into a pass."""
    loop = asyncio.get_running_loop()
    seen: set[str] = set()

    async def taken(provider: Provider, body: bytes) -> None:
        if not body:
            return
        assert await stage.send(provider, body) == 200
        row = (await stage.store.all("SELECT outcome FROM webhook ORDER BY id DESC LIMIT 1"))[0]
        seen.add(row["outcome"])

    @settings(max_examples=300)
    @given(signed_bodies())
    def fuzz(signed: tuple[Provider, bytes]) -> None:
        asyncio.run_coroutine_threadsafe(taken(*signed), loop).result(30)

    await asyncio.to_thread(fuzz)
    assert seen == {"accepted", "foreign", "unknown_type", "quarantined"}
    # Nothing that was accepted stops a pass.
    await stage.store.sql("UPDATE broadcast SET lane = 1 WHERE id = 'first'")
    claim = await stage.store.claimed("first")
    heard = 0
    while True:
        situation = await stage.store.passes.load(claim, stage.store.leases.ttl)
        if not situation.heard:
            break
        heard += len(situation.heard)
        await stage.store.passes.record(claim, heard=[number for number, _ in situation.heard])
    left = "SELECT count(*) FROM webhook WHERE broadcast_id = 'first' AND outcome = 'accepted'"
    assert heard == await stage.store.sql(left) > 10
