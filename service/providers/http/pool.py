"""A pool of urllib3 for an SDK that calls it from threads: every call ends at its deadline, and gives its thread back.

urllib3 limits the time for a connection and the time without a byte, so a peer that sends a byte now and then would
keep a thread for ever, in the headers as in the body. Here the socket of an answer is read through `_Bounded`, which
shortens the wait of each read to what is left of the call, and counts bytes. The look-up of the name and the attempts
to connect, one after the other for each address of it, are not limited in all, and end by themselves.
"""

from __future__ import annotations

import http.client
import io
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from service.providers.http.answers import LARGEST_REFUSAL, TooLarge, check, tls_failure

if TYPE_CHECKING:
    import socket

_HEADERS: Final = 256 * 1024
"""Bytes of status lines and headers, beside the content."""
_PIECE: Final = 64 * 1024
_REFUSED: Final = 400


class TlsFailed(Exception):
    """No connection, because of TLS: nothing was sent. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connect_s: float
    silence_s: float
    """Without a byte of the answer."""
    largest: int
    """Bytes of the content of an answer that is no error."""


@dataclass(slots=True)
class _Call:
    deadline: float
    """On the clock of `time.monotonic`."""
    limits: Limits

    def left(self) -> float:
        """Seconds. Raises TimeoutError if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


_call: ContextVar[_Call] = ContextVar("call")


class _Bounded(io.RawIOBase):
    """What comes from the socket of one answer."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: _Call) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._call = call
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(self._call.limits.silence_s, self._call.left()))
        count = cast("int | None", self._raw.readinto(buffer))
        self._bytes += count or 0
        if self._bytes > self._call.limits.largest + _HEADERS:
            raise TooLarge(self._call.limits.largest)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock, _call.get()), _PIECE)


class _Http(HTTPConnection):
    response_class = _Response


class _Https(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        try:
            super().connect()
        except (ssl.SSLError, ssl.CertificateError, HTTPError) as raised:
            if (failure := tls_failure(raised)) is None:
                raise
            raise TlsFailed(failure) from None


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = cast("Any", _Http)


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = cast("Any", _Https)


class BoundedPool(urllib3.PoolManager):
    """The `timeout` of a request is the time for all of it, and must have a total. An answer comes with its content
    read. Raises NotTaken, TlsFailed and the errors of urllib3; nothing is sent twice.
    """

    def __init__(self, limits: Limits, *, connections: int) -> None:
        super().__init__(num_pools=4, maxsize=connections)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._limits = limits

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # noqa: ARG002, FBT001, FBT002 - the signature of urllib3
        total = float(kw["timeout"].total)
        limits = self._limits
        call = _Call(time.monotonic() + total, limits)
        within = _call.set(call)
        kw["timeout"] = urllib3.Timeout(connect=min(limits.connect_s, total), read=min(limits.silence_s, total))
        kw.update(preload_content=False, decode_content=False, retries=False)
        try:
            response = super().urlopen(method, url, redirect=False, **kw)
            try:
                return self._read(response)
            finally:
                # A connection whose answer was read to its end has gone back to the pool before.
                response.close()
        finally:
            _call.reset(within)

    def _read(self, response: urllib3.BaseHTTPResponse) -> urllib3.HTTPResponse:
        check(response.status, response.headers.get("Content-Encoding", ""))
        refused = response.status >= _REFUSED
        content = bytearray()
        for piece in response.stream(_PIECE, decode_content=False):
            content += piece
            if refused and len(content) >= LARGEST_REFUSAL:
                break
            if len(content) > self._limits.largest:
                raise TooLarge(self._limits.largest)
        return urllib3.HTTPResponse(
            body=io.BytesIO(content[:LARGEST_REFUSAL] if refused else content),
            headers=response.headers,
            status=response.status,
            reason=response.reason,
            preload_content=True,
            decode_content=False,
        )
