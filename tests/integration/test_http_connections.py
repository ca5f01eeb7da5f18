"""Connections that send no request do not keep webhooks out, nor stay for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

import aiohttp
import pytest

from service.webhooks.connections import Connections, listening
from service.webhooks.intake import Intake
from tests.integration.webhook_stage import Hooks, hooks
from tests.webhook_bodies import livekit

HALF = b"POST /webhooks/mux HTTP/1.1\r\nHost: x\r\nX-Half: "
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def half_sent(port: int, number: int) -> AsyncGenerator[list[Stream]]:
    opened: list[Stream] = []
    try:
        for _ in range(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF)
            opened.append((reader, writer))
        yield opened
    finally:
        for _, writer in opened:
            writer.close()


async def ended(stream: Stream) -> bool:
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(stream[0].read(), 5) == b""
    return True


async def test_half_sent_headers_end_after_a_while(database_url: str) -> None:
    async with hooks(database_url, headers_within_s=0.3) as stage, half_sent(stage.port, 5) as opened:
        assert all([await ended(each) for each in opened])


async def test_half_sent_headers_in_any_number_keep_no_webhook_out(database_url: str) -> None:
    async with hooks(database_url, most_connections=16) as stage, half_sent(stage.port, 100) as opened:
        assert await stage.get("/livez") == 200
        assert await stage.send("livekit", livekit("room_started")) == 200
        # The oldest gave way; a peer has half of the connections.
        open_ = [each for each in opened if not each[0].at_eof()]
        assert len(open_) <= 8


async def test_a_connection_whose_request_is_answered_gives_no_way(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Hooks) -> bool:
        held.set()
        await go_on.wait()
        return True

    monkeypatch.setattr(Hooks, "is_ready", slow)
    async with hooks(database_url, most_connections=4) as stage:
        asked = asyncio.create_task(stage.get("/readyz"))
        await held.wait()
        async with half_sent(stage.port, 20):
            go_on.set()
            assert await asked == 200


async def test_a_peer_with_requests_under_way_alone_gets_no_more_than_its_half(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def slow(_: Hooks) -> bool:
        await go_on.wait()
        return True

    monkeypatch.setattr(Hooks, "is_ready", slow)
    async with hooks(database_url, most_connections=4) as stage:
        asked = [asyncio.create_task(stage.get("/readyz")) for _ in range(5)]
        done, _ = await asyncio.wait(asked, timeout=1)
        assert len(done) == 3
        assert all(isinstance(each.exception(), aiohttp.ClientError) for each in done)
        go_on.set()
        assert [await each for each in asked if each not in done] == [200, 200]


async def test_both_families_reach_the_address_that_means_any(database_url: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with hooks(database_url) as stage:
        intake = Intake(
            deliver=stage.deliveries.deliver, ready=stage.is_ready, host="::", port=0, connections=Connections(8)
        )
        port = await intake.start()
        try:
            for host in ("127.0.0.1", "[::1]"):
                async with stage.http.get(f"http://{host}:{port}/livez") as answer:
                    assert answer.status == 200
        finally:
            await intake.stop()


def test_a_port_that_is_taken_is_an_error() -> None:
    with listening("127.0.0.1", 0) as first, pytest.raises(OSError, match=r"in use"):
        listening("127.0.0.1", first.getsockname()[1])
