"""One connection cannot take a replica from the others, and none lasts for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from datetime import timedelta
from typing import Any, cast

import grpc

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from service.api.transport.server import ApiOptions
from tests.integration.api_stage import Refusal, api

_HEADERS, _DATA, _RESET, _SETTINGS = 1, 0, 3, 4
_RESETS = 60_000


def frame(type_: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([type_, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """HPACK, a literal without indexing."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def rapid_resets() -> bytes:
    """RFC 9113: calls that are opened, sent and reset (CVE-2023-44487)."""
    headers = b"".join(
        header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/broadcast.v1.BroadcastService/GetBroadcast"),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    body = rpc.GetBroadcastRequest(broadcast_id="show-1").SerializeToString()
    data = b"\0" + struct.pack(">I", len(body)) + body
    cancel = struct.pack(">I", 8)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(
        [
            frame(_SETTINGS, 0, 0, b""),
            *(
                frame(_HEADERS, 4, stream, headers) + frame(_DATA, 1, stream, data) + frame(_RESET, 0, stream, cancel)
                for stream in range(1, 2 * _RESETS, 2)
            ),
        ]
    )


def attack(port: int, sent: bytes, until: float) -> None:
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(5)
            connection.sendall(sent)


async def test_calls_that_are_reset_at_once_cancel_nobody_elses(database_url: str) -> None:
    sent = rapid_resets()
    async with api(database_url) as stage:
        await stage.create("show-1")
        attacking = asyncio.ensure_future(asyncio.to_thread(attack, stage.port, sent, time.monotonic() + 3))
        codes: list[grpc.StatusCode] = []
        while not attacking.done():
            try:
                await stage.get("show-1")
            except grpc.aio.AioRpcError as error:
                codes.append(error.code())
            else:
                codes.append(grpc.StatusCode.OK)
            await asyncio.sleep(0.02)
        await attacking
    assert len(codes) > 5
    assert set(codes) == {grpc.StatusCode.OK}


async def test_a_stream_of_an_old_connection_ends_in_words_and_goes_on_over_a_new_one(database_url: str) -> None:
    options = ApiOptions(host="127.0.0.1", connection_age=timedelta(seconds=1))
    async with api(database_url, options=options) as stage:
        watch = stage.stub.WatchBroadcasts(rpc.WatchBroadcastsRequest())
        began = time.monotonic()
        try:
            while await watch.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            refusal = Refusal.of(error)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert refusal.message == "the connection is old: connect anew and go on"
            assert refusal.retry_after is not None
        assert watch.done()
        assert time.monotonic() - began >= 1
        # gRPC has closed the old connection for new calls by then, so this one is not ended at once.
        again = stage.stub.WatchBroadcasts(rpc.WatchBroadcastsRequest())
        assert (await cast("Any", again.read())).HasField("snapshot_complete")
        await stage.create("show-1")
        assert (await cast("Any", again.read())).change.broadcast.id == "show-1"
        again.cancel()


async def test_connections_beyond_the_limit_are_refused(database_url: str) -> None:
    options = ApiOptions(host="127.0.0.1", connections=2)
    alone = [("grpc.use_local_subchannel_pool", 1)]
    async with api(database_url, options=options) as stage, contextlib.AsyncExitStack() as opened:
        await stage.create("show-1")
        outcomes: list[grpc.StatusCode] = []
        for _ in range(3):
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}", options=alone)
            opened.push_async_callback(channel.close)
            try:
                request = rpc.GetBroadcastRequest(broadcast_id="show-1")
                await BroadcastServiceStub(channel).GetBroadcast(request, timeout=5)
                outcomes.append(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                outcomes.append(error.code())
        assert outcomes == [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]
