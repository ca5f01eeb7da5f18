"""One call through livekit-api: its time limit, and what every failure of it means.

The SDK has no time limit of its own (its session timeout is overridden by an explicit None in twirp_client.py), so
every call is under asyncio.timeout. Errors are told apart by `code`, never by text: those that crossed LiveKit's
internal bus carry the prefix "twirp error unknown: " (livekit/protocol utils/xtwirp).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from google.protobuf.message import DecodeError
from livekit import api

from service.domain.errors import Outcome, ProviderError
from service.providers.calls import observed
from service.providers.text.bodies import readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from service.domain.secret import Secret

_OUTCOMES = {
    "unavailable": Outcome.UNAVAILABLE,
    "resource_exhausted": Outcome.THROTTLED,
    "not_found": Outcome.MISSING,
    "invalid_argument": Outcome.REFUSED,
    "malformed": Outcome.REFUSED,
    "out_of_range": Outcome.REFUSED,
    "failed_precondition": Outcome.REFUSED,
    "unimplemented": Outcome.REFUSED,
    "bad_route": Outcome.REFUSED,
    "unauthenticated": Outcome.CREDENTIALS,
    "permission_denied": Outcome.CREDENTIALS,
}
CREATE, READ, STOP, START = 6.0, 5.0, 10.0, 15.0
"""Seconds. LiveKit may go on with a start for 70 s after we have left; that is what intents and fences are for."""

_T = TypeVar("_T")


class Calls:
    def __init__(self, longest_s: float, hidden: Sequence[Secret] = ()) -> None:
        """*hidden*: secrets that look like anything, so that they are known in a message by their value alone."""
        self._longest_s = longest_s
        self._hidden = hidden

    async def __call__(self, operation: str, within_s: float, call: Awaitable[_T]) -> _T:
        with observed("livekit", operation, lambda raised: self._failure(operation, raised)):
            async with asyncio.timeout(min(within_s, self._longest_s)):
                return await call

    def _failure(self, operation: str, raised: Exception) -> ProviderError | None:
        told = _told(operation, raised)
        if told is None:
            return None
        outcome, code, message = told
        for secret in self._hidden:
            code, message = (text.replace(secret.reveal(), "***") for text in (code, message))
        return ProviderError(
            readable(message), provider="livekit", operation=operation, outcome=outcome, code=readable(code)
        )


def not_empty(identifier: str, operation: str) -> None:
    """An empty body is a valid message of every type, and not what LiveKit answers to a write."""
    if not identifier:
        raise ProviderError(
            "an empty answer", provider="livekit", operation=operation, outcome=Outcome.AMBIGUOUS, code="empty"
        )


def _told(operation: str, raised: Exception) -> tuple[Outcome, str, str] | None:
    """What it means, its code and its message. None: it is none of LiveKit's."""
    starts = operation.startswith("Start")
    code, message = type(raised).__name__, str(raised)
    match raised:
        case api.ServerError():
            # Whatever stands in front of LiveKit has JSON of its own, such as {"code": 502}.
            code, message = str(raised.code), str(raised.message)
            if not message:
                # The SDK shows nothing of a page, such as a load balancer's.
                code, message = str(raised.status) if code == "unknown" else code, readable("", raised.status)
            outcome = _OUTCOMES.get(code, Outcome.AMBIGUOUS)
            if raised.status in (401, 403):
                # A wrong API key is answered in plain text, which the SDK calls "unknown".
                outcome = Outcome.CREDENTIALS
            if raised.status == 429:  # noqa: PLR2004 - of a proxy, which says it in no words of LiveKit's
                outcome = Outcome.THROTTLED
            if starts and outcome is Outcome.UNAVAILABLE:
                # "no response from servers": a worker may hold the request all the same (livekit/egress#720).
                outcome = Outcome.AMBIGUOUS
        case aiohttp.ClientConnectorError():
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case DecodeError() | AttributeError():
            # AttributeError: the SDK takes an error's body for an object when it is a list, a number, null or nothing.
            code, outcome, message = "unreadable", Outcome.AMBIGUOUS, "an answer that is not LiveKit's"
        case aiohttp.ClientError() | OSError():
            outcome = Outcome.AMBIGUOUS
        case _:
            return None
    return outcome, code, message
