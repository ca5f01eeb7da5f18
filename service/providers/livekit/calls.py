"""One call through livekit-api: its time limit, and the meaning of every failure.

Every call runs under asyncio.timeout, and `Twirp` limits the size of its answer. Errors are told apart by `code`, never
by text: a text that crossed LiveKit's internal bus has the prefix "twirp error unknown: " (livekit/protocol
utils/xtwirp).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
from google.protobuf.message import DecodeError
from livekit import api

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.providers.calls import traced_call
from service.providers.http.answers import NotTaken, tls_failure
from service.providers.text.readable import readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

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
_WITHIN_S: Final[Mapping[Operation, float]] = {
    Operation.CREATE_ROOM: 6,
    Operation.LIST_ROOMS: 5,
    Operation.LIST_PARTICIPANTS: 5,
    Operation.REMOVE_PARTICIPANT: 5,
    Operation.MUTE_TRACK: 5,
    Operation.DELETE_ROOM: 10,
    Operation.START_EGRESS: 28,
    Operation.LIST_EGRESSES: 5,
    Operation.SET_LAYOUT: 10,
    Operation.SET_OUTPUTS: 10,
    Operation.STOP_EGRESS: 10,
}
"""Seconds for the answer, by operation: those that LiveKit is asked for. A start that no worker takes is refused after
21.7 to 24.3 s (measured, livekit-server 1.13.5; 27 s by its code), and only the refusal says that nothing runs. A
server whose caller hangs up stops its tries, but a request that a worker took goes on.
"""

_T = TypeVar("_T")
_Seen = TypeVar("_Seen")
_MANY: Final = 500
"""Elements of a list that are read in the event loop: about 3 ms."""


class LiveKitCalls:
    """Makes the calls of this adapter. Every failure is a ProviderError without secrets."""

    def __init__(self, longest_s: float, longest_start_s: float, hidden: Sequence[Secret] = ()) -> None:
        """*longest_s*: seconds after which a call is given up. *longest_start_s*: the same of a start of an egress.
        *hidden*: secrets without a form that redaction knows; they are replaced in messages by their value.
        """
        self._longest_s = longest_s
        self._longest_start_s = longest_start_s
        self._hidden = hidden

    async def __call__(self, operation: Operation, call: Awaitable[_T]) -> _T:
        """The answer of *call*, a request of the SDK that was not sent yet. Raises ProviderError."""
        with traced_call(Provider.LIVEKIT, operation, lambda raised: self._failure(operation, raised)):
            longest_s = self._longest_start_s if operation.starts_egress else self._longest_s
            async with asyncio.timeout(min(_WITHIN_S[operation], longest_s)):
                return await call

    def _failure(self, operation: Operation, raised: Exception) -> ProviderError | None:
        meaning = _meaning(raised)
        if meaning is None:
            return None
        outcome, code, message = meaning
        for secret in self._hidden:
            code, message = (text.replace(secret.reveal(), "***") for text in (code, message))
        return ProviderError(
            readable(message), provider=Provider.LIVEKIT, operation=operation, outcome=outcome, code=readable(code)
        )


async def each_seen(elements: Sequence[_T], seen: Callable[[_T], _Seen]) -> list[_Seen]:
    """*seen* of each. A long list is read in a thread, so that the event loop goes on meanwhile."""
    if len(elements) <= _MANY:
        return _each_seen(elements, seen)
    return await asyncio.to_thread(_each_seen, elements, seen)


def _each_seen(elements: Iterable[_T], seen: Callable[[_T], _Seen]) -> list[_Seen]:
    return [seen(each) for each in elements]


def not_empty(identifier: str, operation: Operation) -> None:
    """Raises ProviderError for an answer without an *identifier*. An empty body is a valid message of every type, and
    LiveKit never answers a write with one.
    """
    if not identifier:
        raise ProviderError(
            "an empty answer", provider=Provider.LIVEKIT, operation=operation, outcome=Outcome.AMBIGUOUS, code="empty"
        )


def _meaning(raised: Exception) -> tuple[Outcome, str, str] | None:
    """Outcome, code and message of *raised*. None: it is no failure of LiveKit."""
    code, message = type(raised).__name__, str(raised)
    match raised:
        case api.ServerError():
            return _refusal(raised)
        case aiohttp.ClientConnectorError():
            failure = tls_failure(raised)
            code, message = (code, "cannot connect") if failure is None else ("tls", failure)
            outcome = Outcome.NOT_SENT
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case NotTaken():
            code, outcome, message = raised.code, Outcome.AMBIGUOUS, raised.message
        case DecodeError():
            code, outcome, message = "unreadable", Outcome.AMBIGUOUS, "an answer that is not LiveKit's"
        case aiohttp.ClientError() | OSError():
            outcome, message = Outcome.AMBIGUOUS, "the connection broke"
        case _:
            return None
    return outcome, code, message


def _refusal(raised: api.ServerError) -> tuple[Outcome, str, str]:
    """Outcome, code and message of an answer with an error status."""
    # A proxy in front of LiveKit has JSON of its own, such as {"code": 502}.
    code, message = str(raised.code), str(raised.message)
    if not message:
        # The SDK shows nothing of an HTML page, such as a load balancer's.
        code, message = str(raised.status) if code == "unknown" else code, readable("", raised.status)
    outcome = _OUTCOMES.get(code, Outcome.AMBIGUOUS)
    if raised.status in (401, 403):
        # A wrong API key is answered in plain text, which the SDK calls "unknown".
        outcome = Outcome.CREDENTIALS
    if raised.status == 429:  # noqa: PLR2004 - of a proxy, which has no code of LiveKit's for it
        outcome = Outcome.THROTTLED
    return outcome, code, message
