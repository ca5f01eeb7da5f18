"""A provider that answers what a test tells it to, byte by byte, and remembers every request that reached it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.ports import free_port


class Fate(Enum):
    """What becomes of a request instead of an answer."""

    HANG = "read, and never answered"
    CLOSE = "read, and the connection closed in order"
    RESET = "read, and the connection reset"
    PLAIN = "not read: what arrives is answered as if it were no HTTP"
    HALF = "half of an answer, and the connection closed"


Answer = bytes | Fate


def reply(status: int, body: bytes | str | Any = b"", kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer; *body* that is neither bytes nor text is sent as JSON."""
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Wire:
    """Gives `answers` in their order; the last one again and again."""

    answers: list[Answer]
    url: str = ""
    requests: list[Sent] = field(default_factory=list[Sent])
    _writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])

    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.answers == [Fate.PLAIN]:
                await reader.read(1)
                writer.write(reply(400))
                await writer.drain()
                return
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                match answer:
                    case bytes():
                        writer.write(answer)
                        await writer.drain()
                    case Fate.HANG:
                        await reader.read()
                        return
                    case Fate.CLOSE | Fate.PLAIN:
                        return
                    case Fate.HALF:
                        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"data": {"id": "half')
                        await writer.drain()
                        return
                    case Fate.RESET:
                        # Lingering for no time makes the close a RST.
                        raw = writer.get_extra_info("socket")
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                        return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks)


async def _read(reader: asyncio.StreamReader) -> Sent | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Sent(method=method, path=path, headers=headers, body=body)


@contextlib.asynccontextmanager
async def wire(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Wire]:
    provider = Wire(list(answers))
    server = await asyncio.start_server(provider.connected, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    provider.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield provider
    finally:
        server.close()
        await provider.cut()
        await server.wait_closed()


def refused_url(scheme: str = "http") -> str:
    """Where nobody listens."""
    return f"{scheme}://127.0.0.1:{free_port()}"


def self_signed(folder: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
