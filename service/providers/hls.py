"""Fetches the media playlist behind a playback address, as a player does (RFC 8216).

Parsed here, in the few lines that this takes: the library for it had its last release in August 2024.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import PlaylistSeen
from service.domain.provider import PLAYBACK
from service.domain.reasons import Operation
from service.providers.calls import traced_call
from service.providers.http.answers import NotTaken, tls_failure
from service.providers.http.client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

_T = TypeVar("_T")

_WITHIN = 4.0
"""Seconds for both playlists together."""
_LARGEST = 256 * 1024
_LONG = 32 * 1024
"""Characters that are read in the event loop."""
_REDIRECTS = 3
_OK = 200
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?")


class _NoPlaylist(Exception):
    pass


class _Elsewhere(Exception):
    def __init__(self, status: int | None = None) -> None:
        """*status*: of the redirect. None: the playlist names the address, or the redirects went in a circle."""
        super().__init__(status)
        self.status = status


class Hls:
    def __init__(self, *, longest_call: timedelta) -> None:
        """To be built inside a running event loop."""
        self._within_s = min(_WITHIN, longest_call.total_seconds())
        self._http = HttpClient(gzip=True)

    async def close(self) -> None:
        await self._http.close()

    async def look(self, url: str) -> PlaylistSeen:
        with traced_call(PLAYBACK, Operation.LOOK_AT_PLAYLIST, _failure):
            async with asyncio.timeout(self._within_s):
                status, text, found_at = await self._get(url)
                variant = await _unhurried(_first_variant, text) if status == _OK else None
                if variant is not None:
                    status, text, _ = await self._get(_allowed(urljoin(found_at, variant), found_at))
                return await _unhurried(_media, text) if status == _OK else PlaylistSeen(status=status)

    async def _get(self, url: str) -> tuple[int, str, str]:
        """Status, text (empty unless the status is 200), and the address after redirects."""
        for _ in range(_REDIRECTS):
            answer = await self._http.ask("GET", url, largest=_LARGEST, redirects=True)
            if not answer.redirects:
                return answer.status, _text(answer.content) if answer.status == _OK else "", url
            target = urljoin(url, answer.location)
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                raise _Elsewhere(answer.status)
            url = target
        raise _Elsewhere


async def _unhurried(read: Callable[[str], _T], text: str) -> _T:
    """*read* of *text*; in a thread where it would hold up the event loop."""
    return read(text) if len(text) <= _LONG else await asyncio.to_thread(read, text)


def _allowed(url: str, found_at: str) -> str:
    """*url* of a rendition, which Mux may serve from another of its hosts. Another host must prove its name by TLS."""
    if urlsplit(url)[:2] != urlsplit(found_at)[:2] and urlsplit(url).scheme != "https":
        raise _Elsewhere
    return url


def _text(content: bytes) -> str:
    text = content.decode()
    if not text.startswith("#EXTM3U"):
        raise _NoPlaylist
    return text


def _first_variant(text: str) -> str | None:
    """None: this is the media playlist itself."""
    announced = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#EXT-X-STREAM-INF:"):
            announced = True
        elif announced and line and not line.startswith("#"):
            return line
    if announced:
        raise _NoPlaylist
    return None


def _media(text: str) -> PlaylistSeen:
    lines = [line.strip() for line in text.splitlines()]
    segments = [line for line in lines if line and not line.startswith("#")]
    if not segments:
        # A player has nothing to play of it. It may have been cut off.
        raise _NoPlaylist
    return PlaylistSeen(
        status=_OK,
        media_sequence=int(_number(lines, "#EXT-X-MEDIA-SEQUENCE:")),
        last_segment=re.split(r"[?#]", segments[-1])[0],
        segments=len(segments),
        # Those that have left the playlist are counted in its head.
        discontinuities=lines.count("#EXT-X-DISCONTINUITY") + int(_number(lines, "#EXT-X-DISCONTINUITY-SEQUENCE:")),
        ended="#EXT-X-ENDLIST" in lines,
        target_duration_s=_number(lines, "#EXT-X-TARGETDURATION:"),
    )


def _number(lines: list[str], tag: str) -> float:
    """0 where it is not said, which is what its absence means."""
    for line in lines:
        if line.startswith(tag):
            said = line.removeprefix(tag).strip()
            if not _NUMBER.fullmatch(said):
                raise _NoPlaylist
            return float(said)
    return 0.0


def _failure(raised: Exception) -> ProviderError | None:
    """The address may have a token in it, so no text of another library is passed on."""
    match raised:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            outcome, code, message = Outcome.NOT_SENT, type(raised).__name__, "cannot connect"
            if (failure := tls_failure(raised)) is not None:
                code, message = "tls", failure
        case TimeoutError():
            outcome, code, message = Outcome.AMBIGUOUS, "timeout", "no answer in time"
        case _NoPlaylist() | ValueError():
            outcome, code, message = Outcome.AMBIGUOUS, "no_playlist", "the answer is no playlist"
        case _Elsewhere():
            outcome, code, message = Outcome.AMBIGUOUS, "elsewhere", "the answer leads to another host"
            if raised.status is not None:
                message = f"redirected ({raised.status}) to another host"
        case NotTaken():
            outcome, code, message = Outcome.AMBIGUOUS, "no_playlist", f"the answer is no playlist: {raised.message}"
        case aiohttp.ClientError() | OSError():
            outcome, code, message = Outcome.AMBIGUOUS, type(raised).__name__, "the connection broke"
        case _:
            return None
    return ProviderError(message, provider=PLAYBACK, operation=Operation.LOOK_AT_PLAYLIST, outcome=outcome, code=code)
