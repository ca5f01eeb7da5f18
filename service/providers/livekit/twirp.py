"""The transport under livekit-api: the SDK makes the messages, the grants and the tokens, and the bytes go this way.

The SDK's own transport has no limits: it reads whatever is answered into memory, decompresses it, decodes it in the
event loop, and follows a redirect with the body and the token. Twirp is one POST a call: protobuf there and back, and
JSON for an error (https://twitchtv.github.io/twirp/docs/spec_v7.html).

A large answer is decoded in a thread, piece by piece: the parser of protobuf holds the interpreter's lock for a whole
call, and a megabyte of empty messages takes it 35 ms.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError, Message
from livekit import api

from service.providers.http.answers import NotTaken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.providers.http.client import HttpClient

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of an answer. LiveKit lists all rooms and egresses at once, an egress in up to a kilobyte."""
_MOST: Final = 50_000
"""Elements of a list."""
_PIECE: Final = 64 * 1024
_LARGEST_FIELD: Final = 1024 * 1024
_LONGEST_VARINT: Final = 10
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}
"""Wire types of protobuf (https://protobuf.dev/programming-guides/encoding), the last with their sizes in bytes."""
_OK: Final = 200
_ERRORS: Final = 400

_M = TypeVar("_M", bound=Message)


class Twirp:
    """Takes the place of `livekit.api.twirp_client.TwirpClient` in a service of the SDK."""

    def __init__(self, http: HttpClient, url: str) -> None:
        parts = urlsplit(url)
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        self._http = http
        # One at a time: each thread that computes makes the event loop wait for the interpreter's lock.
        self._decoding = asyncio.Lock()
        self._base = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/twirp/livekit"

    async def request(
        self,
        service: str,
        method: str,
        data: Message,
        headers: Mapping[str, str],
        response_class: type[_M],
        **_options: object,
    ) -> _M:
        """The answer. Raises api.ServerError, DecodeError, NotTaken, aiohttp.ClientError, OSError."""
        answer = await self._http.ask(
            "POST",
            f"{self._base}.{service}/{method}",
            headers={**headers, "Content-Type": "application/protobuf"},
            body=data.SerializeToString(),
            largest=LARGEST,
        )
        if answer.status != _OK:
            raise _refusal(answer.status, answer.content)
        if answer.kind != "application/protobuf":
            # An empty body is a valid list of nothing, and a proxy may answer with one, but not as protobuf.
            raise DecodeError("not protobuf")
        if len(answer.content) <= _PIECE:
            return response_class.FromString(answer.content)
        async with self._decoding:
            return await asyncio.to_thread(_decoded, answer.content, response_class)


def _refusal(status: int, content: bytes) -> api.ServerError:
    """Twirp's error, or one of the code "unknown" for the page of a proxy. Raises DecodeError."""
    try:
        told: Any = json.loads(content)
    except (ValueError, RecursionError):
        told = {}
    if not isinstance(told, dict) or status < _ERRORS:
        raise DecodeError("no error of Twirp")
    said = cast("dict[str, Any]", told)
    return api.ServerError(said.get("code", "unknown"), said.get("msg", ""), status=status)


def _decoded(content: bytes, response_class: type[_M]) -> _M:
    """As FromString: a message is the merge of its pieces. Raises DecodeError, NotTaken."""
    message = response_class()
    for piece in _pieces(content):
        message.MergeFromString(piece)
    return message


def _pieces(content: bytes) -> Iterator[bytes]:
    """*content*, cut between fields of the message into pieces of about _PIECE bytes."""
    begin = at = count = zeros = 0
    for piece in range(0, len(content), _PIECE):
        # Each is the length of an empty message: two bytes that become a hundred, at any depth. Texts and numbers have
        # no zeros. In pieces, because a count holds the interpreter's lock too.
        zeros += content.count(0, piece, piece + _PIECE)
        if zeros > _MOST:
            raise _too_many()
    while at < len(content):
        field = at
        tag, at = _varint(content, at)
        at = _end(content, at, tag & 7)
        count += 1
        if at > len(content):
            raise DecodeError("truncated")
        if count > _MOST or at - field > _LARGEST_FIELD:
            raise _too_many()
        if at - begin >= _PIECE:
            yield content[begin:at]
            begin = at
    yield content[begin:]


def _too_many() -> NotTaken:
    return NotTaken("too_large", f"an answer of more than {_MOST} elements, or with one of more than a megabyte")


def _end(content: bytes, at: int, wire_type: int) -> int:
    """Where the value that begins at *at* ends. Raises DecodeError."""
    if wire_type in _FIXED:
        return at + _FIXED[wire_type]
    if wire_type not in (_VARINT, _LENGTH_DELIMITED):
        raise DecodeError("a group, which LiveKit has none of")
    value, at = _varint(content, at)
    return at + value if wire_type == _LENGTH_DELIMITED else at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at *at*, and where it ends. Raises DecodeError."""
    value = 0
    for n, byte in enumerate(content[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, at + n + 1
    raise DecodeError("truncated")
