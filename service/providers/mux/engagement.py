"""Mux's engagement counts: unique viewers of a live stream, of the players that run Mux Data.

`GET /counts?token=JWT` answers `{"data": [{"views": 95, "viewers": 94, "updated_at": "..."}]}`
(mux.com/docs, See how many people are watching). It is no call of the Video API: another host, no access token, and a
token of a signing key in its place.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import TokenUse
from service.domain.ports.webhooks import Unreadable
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.providers.calls import traced_call
from service.providers.http.answers import NotTaken
from service.providers.http.client import HttpClient
from service.providers.text.strict_json import parsed

if TYPE_CHECKING:
    from datetime import datetime

    from service.domain.ports import PlaybackTokens

_WITHIN_S: Final = 4.0
_LARGEST: Final = 64 * 1024
_GOOD_FOR: Final = timedelta(minutes=2)
_MOST: Final = 10**12
"""An answer above is none."""
_OK: Final = 200


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Counts:
    """Engagement of Mux."""

    def __init__(self, tokens: PlaybackTokens, *, base_url: str, longest_call: timedelta) -> None:
        """To be built inside a running event loop."""
        self._tokens = tokens
        self._base_url = base_url
        self._within_s = min(_WITHIN_S, longest_call.total_seconds())
        self._http = HttpClient()

    async def close(self) -> None:
        await self._http.close()

    async def viewers(self, stream_id: str, *, now: datetime) -> int:
        token = self._tokens.sign(stream_id, TokenUse.COUNTS, until=now + _GOOD_FOR).token.reveal()
        with traced_call(Provider.MUX, Operation.COUNT_VIEWERS, _failure):
            async with asyncio.timeout(self._within_s):
                answer = await self._http.ask("GET", f"{self._base_url}/counts?token={token}", largest=_LARGEST)
            if answer.status != _OK:
                raise _Refused(answer.status)
            return _viewers(answer.content)


def _viewers(content: bytes) -> int:
    """Raises Unreadable."""
    data = parsed(content).get("data")
    if not isinstance(data, list):
        raise Unreadable("no data")
    rows = cast("list[Any]", data)
    # The documentation does not show the answer for a live stream without viewers.
    found = cast("dict[str, Any]", rows[0]).get("viewers") if rows and isinstance(rows[0], dict) else 0
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= _MOST:
        raise Unreadable("no count")
    return found


def _failure(raised: Exception) -> ProviderError | None:
    """The address has a token in it, so no text of another library is passed on."""
    match raised:
        case _Refused():
            outcome = Outcome.CREDENTIALS if raised.status in (401, 403) else Outcome.AMBIGUOUS
            code, message = str(raised.status), f"answered with status {raised.status}"
        case TimeoutError():
            outcome, code, message = Outcome.AMBIGUOUS, "timeout", "no answer in time"
        case Unreadable() | NotTaken():
            outcome, code, message = Outcome.AMBIGUOUS, "no_counts", "the answer has no counts"
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            outcome, code, message = Outcome.NOT_SENT, type(raised).__name__, "cannot connect"
        case aiohttp.ClientError() | OSError():
            outcome, code, message = Outcome.AMBIGUOUS, type(raised).__name__, "the connection broke"
        case _:
            return None
    return ProviderError(message, provider=Provider.MUX, operation=Operation.COUNT_VIEWERS, outcome=outcome, code=code)
