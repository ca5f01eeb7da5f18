"""One call through mux-python, used as a transport: its authentication, paths, pool and exceptions, not its models.

The models are wrong in both directions (a PATCH resets three settings, a missing reconnect_window reads as 60, an
unknown enum value raises), so bodies are plain dictionaries and answers are read raw. The SDK is synchronous and
retries reads by itself; here each call is one request on a thread of a pool that only this adapter has.

Time limits: a caller waits 10 s at most, its wait for a thread included. A call that is given up goes on in its
thread, so its outcome is AMBIGUOUS; a call that got no thread was not sent. The thread is freed by urllib3: 2 s for
the connection, and 6 s without a byte of the answer. A peer that sends a byte every few seconds holds it for longer.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mux_python.exceptions import ApiException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
)

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.providers.calls import traced_call
from service.providers.mux.observed import UNREADABLE
from service.providers.text.readable import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from service.domain.reasons import Operation

_CONNECT, _READ = 2.0, 6.0
_WITHIN = 10.0
"""Seconds for a call, its wait for a thread included."""
PAGE = 100
# Clocks of ours and theirs, when a list is searched back to the time of an intent.
SKEW = timedelta(minutes=5)
SEARCH_PAGES = 20

_T = TypeVar("_T")


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
        raw = await self.call(operation, method, *args, **kwargs)
        try:
            return read(json.loads(raw)["data"])
        except UNREADABLE:
            raise ProviderError(
                "the answer is not what Mux answers",
                provider=Provider.MUX,
                operation=operation,
                outcome=Outcome.AMBIGUOUS,
            ) from None

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

    async def call(self, operation: Operation, method: Callable[..., Any], *args: object, **kwargs: object) -> bytes:
        def request() -> bytes:
            response = method(
                *args, **kwargs, _preload_content=False, _request_timeout=(_CONNECT, min(_READ, self._within_s))
            )
            # Reading gives the connection back to the pool. A 204 answers None.
            return b"" if response is None else response.data

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


def _failure(operation: Operation, raised: Exception) -> ProviderError | None:
    code, message = type(raised).__name__, ""
    match raised:
        case ApiException():
            refusal: Any = raised
            code, message = str(refusal.status), _message(refusal.body, int(refusal.status))
            outcome = _outcome(int(refusal.status))
        case MaxRetryError() if isinstance(
            raised.reason, NewConnectionError | NameResolutionError | ConnectTimeoutError
        ):
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case NewConnectionError() | ConnectTimeoutError():
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case HTTPError():
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
