"""HTTP over aiohttp, with one size limit a call. The time limit is the caller's `asyncio.timeout`: whoever leaves a
call closes its connection.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from service.providers.http.answers import LARGEST_REFUSAL, Compressed, TooLarge, check

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECT_S: Final = 2.0
_OK: Final = 200
_GZIP: Final = 16 + zlib.MAX_WBITS
"""For zlib: with the header and the end of gzip."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    kind: str
    """The Content-Type without its parameters, in lower case. Empty: none was sent."""
    location: str
    """Where a redirect leads to."""
    content: bytes

    @property
    def redirects(self) -> bool:
        return self.status in _REDIRECTS


class HttpClient:
    """To be built inside a running event loop."""

    def __init__(self, *, gzip: bool = False) -> None:
        """*gzip*: answers may come compressed. They are unpacked here, no further than they may be large."""
        self._gzip = gzip
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "gzip" if gzip else "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        largest: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        redirects: bool = False,
    ) -> Answer:
        """One request, and its answer of *largest* bytes at most.

        *redirects*: an answer that is a redirect is returned, with its address. Of an answer with an error status at
        most LARGEST_REFUSAL bytes are returned. Raises NotTaken, aiohttp.ClientError, OSError.
        """
        async with self._session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
            if redirects and response.status in _REDIRECTS:
                response.close()
                return _answer(response, b"")
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
            packed = self._gzip and encoding in ("gzip", "x-gzip")
            check(response.status, "" if packed else encoding)
            refused = response.status != _OK
            gzip = _Gzip(largest + 1) if packed and not refused else None
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece if gzip is None else gzip.unpacked(piece)
                if refused and len(content) >= LARGEST_REFUSAL:
                    response.close()
                    break
                if len(content) > largest:
                    response.close()
                    raise TooLarge(largest)
            if gzip is not None and not gzip.complete:
                raise Compressed
            return _answer(response, bytes(content[:LARGEST_REFUSAL] if refused else content))


class _Gzip:
    def __init__(self, most: int) -> None:
        """*most*: bytes that one piece may become."""
        self._unpacker = zlib.decompressobj(wbits=_GZIP)
        self._most = most

    @property
    def complete(self) -> bool:
        return self._unpacker.eof

    def unpacked(self, piece: bytes) -> bytes:
        """Raises Compressed where it is not gzip."""
        try:
            return self._unpacker.decompress(piece, self._most)
        except zlib.error:
            raise Compressed from None


def _answer(response: aiohttp.ClientResponse, content: bytes) -> Answer:
    return Answer(
        status=response.status,
        kind=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        location=response.headers.get("Location", ""),
        content=content,
    )
