"""One call through mux-python, used as a transport: its authentication, paths, pool and exceptions, not its models.

The models are wrong in both directions (a PATCH resets three settings, a missing reconnect_window reads as 60, an
unknown enum value raises), so bodies are plain dictionaries and answers are read raw. The SDK is synchronous and
retries reads by itself; here each call is one request on a thread of a pool that only this adapter has.

Time limits: a caller waits 10 s at most, its wait for a thread included. A call that is given up goes on in its
thread, so its outcome is AMBIGUOUS; a call that got no thread was not sent. `BoundedPool` frees the thread a second
later, or sooner: 2 s for the connection, and 6 s without a byte of the answer.

An answer is decoded in the thread too. The decoder holds the interpreter's lock meanwhile, and its time goes by the
number of values more than by the bytes, so both are limited.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mux_python.exceptions import ApiException
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as HttpTimeoutError

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.providers.calls import traced_call
from service.providers.http.answers import NotTaken
from service.providers.http.pool import Limits, TlsFailed
from service.providers.mux.observed import UNREADABLE
from service.providers.text.readable import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from service.domain.reasons import Operation

_CONNECT, _READ = 2.0, 6.0
_WITHIN = 10.0
"""Seconds for a call, its wait for a thread included."""
_FREED_AFTER = 1.0
"""Seconds that a thread has longer than its caller waits. With none, the threads of calls that were given up would
begin with calls that are given up in the same moment.
"""
_LARGEST: Final = 2 * 1024 * 1024
"""Bytes of an answer. A page of 100 assets with all their tracks has a fifth of that."""
_MOST: Final = 100_000
"""Values in an answer."""
PAGE = 100
# Clocks of ours and theirs, when a list is searched back to the time of an intent.
SKEW = timedelta(minutes=5)
SEARCH_PAGES = 20

_T = TypeVar("_T")


def limits() -> Limits:
    """Of the pool that the calls go through."""
    return Limits(connect_s=_CONNECT, silence_s=_READ, largest=_LARGEST)


class MuxCalls:
    def __init__(self, threads: ThreadPoolExecutor, longest_s: float) -> None:
        self.threads = threads
        self._within_s = min(_WITHIN, longest_s)

    async def read(
        self,
        operation: Operation,
        read: Callable[[Any], _T],
        method: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> _T:
        """The `data` of the answer, as *read* understands it. Raises ProviderError. An answer that cannot be read, such
        as a proxy's page with status 200, is AMBIGUOUS: the call may have had its effect.
        """

        def decoded(raw: bytes) -> _T:
            return read(_json(raw)["data"])

        return await self._call(operation, decoded, method, *args, **kwargs)

    async def found(
        self, operation: Operation, read: Callable[[Any], _T], method: Callable[..., Any], *args: object
    ) -> _T | None:
        """As `read`. None: the provider answered that it does not exist."""
        try:
            return await self.read(operation, read, method, *args)
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                return None
            raise

    async def call(self, operation: Operation, method: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """A call whose answer says no more than that it was done. Raises ProviderError."""
        await self._call(operation, lambda _: None, method, *args, **kwargs)

    async def _call(
        self,
        operation: Operation,
        decoded: Callable[[bytes], _T],
        method: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> _T:
        deadline = time.monotonic() + self._within_s + _FREED_AFTER

        def request() -> _T:
            left = max(deadline - time.monotonic(), 0.001)
            response = method(*args, **kwargs, _preload_content=False, _request_timeout=left)
            # A 204 answers None.
            content = b"" if response is None else response.data
            try:
                return decoded(content)
            except UNREADABLE:
                raise ProviderError(
                    "the answer is not what Mux answers",
                    provider=Provider.MUX,
                    operation=operation,
                    outcome=Outcome.AMBIGUOUS,
                ) from None

        with traced_call(Provider.MUX, operation, lambda raised: _failure(operation, raised)):
            call = self.threads.submit(request)
            try:
                async with asyncio.timeout(self._within_s):
                    return await asyncio.wrap_future(call)
            except TimeoutError:
                if not call.cancel():
                    raise
                raise ProviderError(
                    "no thread was free in time",
                    provider=Provider.MUX,
                    operation=operation,
                    outcome=Outcome.NOT_SENT,
                    code="busy",
                ) from None


def _json(raw: bytes) -> Any:
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MOST:
        raise NotTaken("too_large", f"an answer of more than {_MOST} values")
    return json.loads(raw)


def _failure(operation: Operation, raised: Exception) -> ProviderError | None:
    code, message = type(raised).__name__, ""
    match raised:
        case ApiException():
            refusal: Any = raised
            code, message = str(refusal.status), _message(refusal.body, int(refusal.status))
            outcome = _outcome(int(refusal.status))
        case NewConnectionError() | ConnectTimeoutError():
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case TlsFailed():
            code, outcome, message = "tls", Outcome.NOT_SENT, str(raised)
        case NotTaken():
            code, outcome, message = raised.code, Outcome.AMBIGUOUS, raised.message
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case HttpTimeoutError():
            outcome, message = Outcome.AMBIGUOUS, "no answer in time"
        case HTTPError() | OSError():
            outcome, message = Outcome.AMBIGUOUS, "the connection broke"
        case UnicodeDecodeError():
            # The SDK decodes error bodies itself: a proxy's page that is not UTF-8 ends here.
            outcome, message = Outcome.AMBIGUOUS, "an answer that is not Mux's"
        case _:
            return None
    return ProviderError(message, provider=Provider.MUX, operation=operation, outcome=outcome, code=code)


def _outcome(status: int) -> Outcome:
    match status:
        case 400 | 409 | 412 | 422:
            return Outcome.REFUSED
        case 401 | 403:
            return Outcome.CREDENTIALS
        case 404:
            return Outcome.MISSING
        case 429:
            return Outcome.THROTTLED
        case _:
            return Outcome.AMBIGUOUS


def _message(body: object, status: int) -> str:
    """Both shapes of error: {"error": {"type", "messages": []}} and, for 429, {"errors": []}."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        parsed = json.loads(text)
        messages = parsed["errors"] if "errors" in parsed else parsed["error"]["messages"]
        return readable(messages if isinstance(messages, str) else "; ".join(str(message) for message in messages))
    except UNREADABLE:
        return readable(text, status)
