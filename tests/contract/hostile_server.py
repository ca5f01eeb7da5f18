"""A server that answers every request in the worst of ways, the way being the first part of its path.

A process of its own, so that the work of being hostile is not measured as a stall of the event loop under test:
`with hostile_server() as url` gives the address, to which `/gzip_bomb` and the like are added.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import socket
import socketserver
import subprocess
import sys
import time
from collections.abc import Generator, Iterator

MEGABYTE = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: "
JSON, PROTOBUF, PLAYLIST = b"application/json", b"application/protobuf", b"application/vnd.apple.mpegurl"
BYTE_EVERY_S = 0.1


@functools.cache
def _bomb() -> bytes:
    """Of a gigabyte, in a megabyte."""
    return gzip.compress(bytes(16 * MEGABYTE)) * 64


def _drip(content: bytes) -> Iterator[bytes]:
    for byte in content:
        yield bytes([byte])
        time.sleep(BYTE_EVERY_S)


def _of_length(kind: bytes, content: bytes, *, times: int = 1, headers: bytes = b"") -> Iterator[bytes]:
    yield HEAD + kind + headers + b"\r\nContent-Length: %d\r\n\r\n" % (len(content) * times)
    for _ in range(times):
        yield content


def _answer(way: str, kind: bytes) -> Iterator[bytes]:  # noqa: C901, PLR0912 - a table of ways
    match way:
        case "gzip_bomb":
            yield from _of_length(kind, _bomb(), headers=b"\r\nContent-Encoding: gzip")
        case "deflate_error":
            yield from _of_length(kind, b"\x78\x9c broken", headers=b"\r\nContent-Encoding: deflate")
        case "hundred_megabytes":
            yield from _of_length(kind, b'{"data": [1], "more": 1234567890}' * 32 * 1024, times=100)
        case "without_end":
            yield HEAD + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
            while True:
                yield b"10000\r\n" + bytes(65536) + b"\r\n"
        case "refusal_without_end":
            yield b"HTTP/1.1 503 Away\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
            while True:
                yield b"10000\r\n" + b" " * 65536 + b"\r\n"
        case "one_chunk_of_a_gigabyte":
            yield HEAD + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n"
            while True:
                yield bytes(65536)
        case "byte_by_byte":
            yield HEAD + kind + b"\r\nContent-Length: 1000\r\n\r\n"
            yield from _drip(b"x" * 1000)
        case "headers_byte_by_byte":
            yield from _drip(HEAD + kind + b"\r\nX-More: " + b"x" * 1000)
        case "headers_without_end":
            yield HEAD + kind
            while True:
                yield b"".join(b"\r\nX-%d: %s" % (n, b"x" * 100) for n in range(500))
        case "header_without_end":
            yield HEAD + kind + b"\r\nX-More: "
            while True:
                yield b"x" * 65536
        case "closed_half_way":
            yield HEAD + kind + b'\r\nContent-Length: 1000\r\n\r\n{"data"'
        case "no_http":
            yield b"\x00\x01SSH-2.0-OpenSSH\r\n\r\n"
        case "many_values":
            yield from _of_length(kind, b'{"data": [' + b"[]," * 650_000 + b"[]]}")
        case "deep":
            yield from _of_length(kind, b'{"data": ' + b"[" * 1_000_000)
        case "many_messages":
            yield from _of_length(kind, b"\x0a\x00" * (4 * MEGABYTE - 1))
        case "many_messages_in_one":
            yield from _of_length(kind, b"\x0a\xfe\xff\x0f" + b"\x3a\x00" * 131071, times=31)
        case "many_lines":
            yield from _of_length(kind, b"#EXTM3U\n#EXTINF:1\n" + b"\n" * 250_000)
        case _:
            raise AssertionError(way)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        request: socket.socket = self.request
        request.settimeout(30)
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := request.recv(65536)):
                    return
                head += more
            path = head.split(b" ")[1].decode()
            kind = JSON if "/video/" in path else PROTOBUF if "/twirp/" in path else PLAYLIST
            for piece in _answer(path.split("/")[1], kind):
                request.sendall(piece)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def hostile_server() -> Generator[str]:
    with subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    _bomb()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
