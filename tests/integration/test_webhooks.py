"""Webhooks over real HTTP: what wakes whom, and what is answered to everything else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from livekit import api

from service.app import answers
from service.domain.errors import StoreUnavailable
from service.domain.secret import Secret
from service.store.database import Database
from service.webhooks.intake import Intake
from tests.integration.store_stage import store

KEY, SECRET = "devkey", "a-secret-of-at-least-thirty-two-bytes"
MUX_SECRETS = ("mux-webhook-secret", "the-next-mux-webhook-secret")
TAG = "bs1:test:"


@dataclass(slots=True)
class Hooks:
    """An intake, and what it was made to do."""

    base: str
    http: aiohttp.ClientSession
    woken: list[str] = field(default_factory=list[str])
    fails: Exception | None = None
    and_then: Callable[[Sequence[str]], Awaitable[None]] | None = None
    ready: bool = True

    async def wake(self, broadcast_ids: Sequence[str]) -> None:
        if self.fails is not None:
            raise self.fails
        self.woken.extend(broadcast_ids)
        if self.and_then is not None:
            await self.and_then(broadcast_ids)

    async def is_ready(self) -> bool:
        return self.ready

    async def get(self, path: str) -> int:
        async with self.http.get(self.base + path) as answer:
            return answer.status

    async def post(self, path: str, body: bytes, **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.base + path, data=body, headers=sent) as answer:
            await answer.read()
            return answer.status

    async def mux(self, body: bytes, secret: str = MUX_SECRETS[0]) -> int:
        now = int(time.time())
        signature = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
        return await self.post("/webhooks/mux", body, Mux_Signature=f"t={now},v1={signature}")

    async def livekit(self, body: bytes, prefix: str = "", secret: str = SECRET) -> int:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        token = api.AccessToken(KEY, secret).with_sha256(digest).with_ttl(timedelta(minutes=5)).to_jwt()
        return await self.post(
            "/webhooks/livekit", body, Authorization=prefix + token, Content_Type="application/webhook+json"
        )


@contextlib.asynccontextmanager
async def hooks() -> AsyncGenerator[Hooks]:
    async with aiohttp.ClientSession() as http:
        stage = Hooks("", http)
        intake = Intake(
            wake=stage.wake,
            ready=stage.is_ready,
            livekit_secrets={KEY: Secret(SECRET)},
            mux_secrets=[Secret(secret) for secret in MUX_SECRETS],
            tag=TAG,
            host="127.0.0.1",
            port=0,
        )
        stage.base = f"http://127.0.0.1:{await intake.start()}"
        try:
            yield stage
        finally:
            await intake.stop()


def mux_event(passthrough: object = f"{TAG}first:0", **data: Any) -> bytes:
    data = {"id": "LS1", "passthrough": passthrough, **data}
    return json.dumps({"type": "video.live_stream.active", "data": data}).encode()


def livekit_event(**event: Any) -> bytes:
    return json.dumps({"event": "room_started", **event}).encode()


async def test_an_event_wakes_its_broadcast_and_no_other() -> None:
    async with hooks() as stage:
        assert await stage.mux(mux_event()) == 200
        assert stage.woken == ["first"]
        assert await stage.mux(mux_event(f"{TAG}second:3"), MUX_SECRETS[1]) == 200
        assert await stage.livekit(livekit_event(room={"name": "third"})) == 200
        assert await stage.livekit(livekit_event(egressInfo={"roomName": "fourth"}), prefix="Bearer ") == 200
        assert stage.woken == ["first", "second", "third", "fourth"]
        # The same again is another hint.
        assert await stage.mux(mux_event()) == 200
        assert stage.woken[4:] == ["first"]


@pytest.mark.parametrize(
    "body",
    [
        mux_event("bs1:prod:first:0"),
        mux_event("somebody else's"),
        mux_event(None),
        mux_event({"deep": []}),
        b"{}",
        b"[]",
        b"null",
        b"",
        b"no json",
        b"\xff\xfe",
        b'{"data": {"passthrough": "bs1:test:a\\u0000b:0"}}',
        b"[" * 20_000,
        b'{"data":' * 20_000 + b"1" + b"}" * 20_000,
    ],
    ids=lambda body: repr(body)[:30],
)
async def test_what_is_signed_and_not_ours_is_accepted_and_wakes_nobody(body: bytes) -> None:
    async with hooks() as stage:
        assert await stage.mux(body) == 200
        if b"passthrough" not in body:
            assert await stage.livekit(body) == 200
        assert stage.woken == []
        assert await stage.get("/livez") == 200


async def test_what_is_not_signed_is_refused_and_wakes_nobody() -> None:
    body, now = mux_event(), int(time.time())
    async with hooks() as stage:
        assert await stage.post("/webhooks/mux", body) == 401
        assert await stage.post("/webhooks/mux", body, Mux_Signature=f"t={now},v1={'0' * 64}") == 401
        assert await stage.mux(body, "another") == 401
        for header in ("", "Bearer ", "Basic abc", "a.b.c"):
            assert await stage.post("/webhooks/livekit", body, Authorization=header) == 401
        assert await stage.post("/webhooks/livekit", body) == 401
        assert await stage.livekit(body, secret="another-secret-of-at-least-thirty-two-bytes") == 401
        assert stage.woken == []


async def test_headers_that_are_no_text_are_refused_and_no_failure() -> None:
    """Bytes of no encoding reach the verifiers as lone surrogates."""
    async with hooks() as stage:
        host, port = stage.base.removeprefix("http://").split(":")
        now = int(time.time())
        for path, header in (
            ("mux", b"Mux-Signature: t=%d,v1=\xff\xfe" % now),
            ("mux", b"Mux-Signature: \xff"),
            ("livekit", b"Authorization: \xff\xfe.\xff.\xff"),
        ):
            assert await _raw(host, int(port), path, header) == 401
        nested = base64.urlsafe_b64encode(b"[" * 2500).rstrip(b"=")
        for forged in (b"e30." + nested + b".x", nested + b".e30.x"):
            assert await _raw(host, int(port), "livekit", b"Authorization: " + forged) == 401
        assert stage.woken == []


async def _raw(host: str, port: int, path: str, header: bytes) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"POST /webhooks/%s HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        % (path.encode(), header)
    )
    status = (await asyncio.wait_for(reader.readline(), 5)).split()[1]
    writer.close()
    await writer.wait_closed()
    return int(status)


async def test_what_is_too_large_is_refused_before_it_is_verified() -> None:
    large = b'{"data": {"passthrough": "bs1:test:first:0"}, "x": "' + b"x" * 256 * 1024 + b'"}'
    async with hooks() as stage:
        assert await stage.mux(large) == 413
        assert await stage.livekit(large) == 413
        assert stage.woken == []
        assert await stage.mux(mux_event(padding="x" * 200_000)) == 200
        assert stage.woken == ["first"]


async def test_a_hint_that_could_not_be_stored_is_asked_for_again() -> None:
    async with hooks() as stage:
        stage.fails = StoreUnavailable("the database does not answer")
        assert await stage.mux(mux_event()) == 503
        assert await stage.livekit(livekit_event(room={"name": "first"})) == 503
        # What wakes nobody needs no database.
        assert await stage.mux(mux_event("bs1:prod:first:0")) == 200
        assert await stage.mux(mux_event(), "another") == 401
        stage.fails = None
        assert await stage.mux(mux_event()) == 200
        assert stage.woken == ["first"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_posts_are_webhooks(method: str) -> None:
    async with hooks() as stage:
        for path in ("/webhooks/mux", "/webhooks/livekit"):
            async with stage.http.request(method, stage.base + path) as answer:
                assert answer.status == 405
        assert await stage.post("/webhooks/other", b"{}") == 404


async def test_alive_is_not_the_same_as_ready() -> None:
    async with hooks() as stage:
        assert (await stage.get("/livez"), await stage.get("/readyz")) == (200, 200)
        stage.ready = False
        assert (await stage.get("/livez"), await stage.get("/readyz")) == (200, 503)


async def test_ready_is_what_the_database_says(database_url: str) -> None:
    database = await Database.connect(database_url)
    assert await answers(database)
    await database.close()
    assert not await answers(database)


async def test_a_webhook_makes_its_row_due(database_url: str) -> None:
    async with store(database_url) as one, hooks() as stage:
        await one.add("first")
        await one.add("second")
        await one.add("over", target="ENDED", state="ENDED")
        stage.and_then = one.leases.wake
        assert await stage.mux(mux_event()) == 200
        for passthrough in (f"{TAG}over:0", f"{TAG}nobody:0", f"{TAG}{'x' * 5000}:0", f"{TAG}'; DROP TABLE budget:0"):
            assert await stage.mux(mux_event(passthrough)) == 200
        rows = await one.all("SELECT id, due_at IS NOT NULL AS due FROM broadcast ORDER BY id")
        assert {row["id"]: row["due"] for row in rows} == {"first": True, "over": False, "second": False}
