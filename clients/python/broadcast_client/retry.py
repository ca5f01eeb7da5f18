"""When a call is tried again, and after how long.

A call is tried again only if doing it twice is the same as doing it once: reads, and writes that carry a request_id.
What the service refused before it began (OVERLOADED) may always be tried again.
"""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import grpc

from broadcast_client.errors import BroadcastError, CallCancelled, ResumeTokenExpired, ViewerLimit, from_rpc_error

_log = logging.getLogger("broadcast_client")

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Safety(Enum):
    """Which codes allow another try of a call; RESOURCE_EXHAUSTED with RetryInfo does, but for ViewerLimit."""

    READ = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED))
    """Changes nothing."""
    REPEATABLE = frozenset((grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))
    """A write that the service knows again, or that does nothing the second time."""
    ONCE = frozenset[grpc.StatusCode]()
    """A write whose second try would be answered differently."""

    def allows_retry(self, error: BroadcastError) -> bool:
        if isinstance(error, ViewerLimit):
            # Places become free in minutes. The viewer should be told meanwhile.
            return False
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return error.retry_after is not None
        return error.code in self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, how long and how patiently. Exponential backoff with full jitter; RetryInfo is waited for in full."""

    attempts: int = 5
    """Tries of one call, the first included. 1: never again."""
    budget: float = 30.0
    """Seconds for all tries of one call and the pauses between them. The `wait` of a call is added."""
    initial_backoff: float = 0.1
    """Upper bound of the first pause, in seconds; it doubles with every try."""
    max_backoff: float = 5.0
    """Upper bound of every pause, in seconds, but for what RetryInfo asks."""
    jitter: Callable[[], float] = field(default=random.random, repr=False)
    """Answers a number from 0 to 1: which part of its upper bound a pause takes."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    """Answers seconds."""
    sleep: Callable[[float], Awaitable[object]] = field(default=asyncio.sleep, repr=False)
    """Waits for seconds."""

    def pause(self, failures: int, error: BroadcastError | None = None) -> float:
        """Seconds to wait after so many failures in a row, the last of them `error`."""
        # The exponent is bounded: a watch that fails for days must not overflow a float.
        bound = min(self.max_backoff, self.initial_backoff * 2.0 ** min(failures - 1, 32))
        # Jitter comes on top of RetryInfo: all who were sent away at once would come back at once.
        return (error.retry_after or 0.0 if error else 0.0) + bound * self.jitter()


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    *,
    name: str,
    safety: Safety,
    attempt_timeout: float,
    budget: float,
    policy: RetryPolicy,
) -> _Response:
    """Answer of a unary call that is tried again where that is safe.

    Args:
        method: of the stub.
        request: sent as it is in every try.
        name: of the RPC, for errors.
        safety: whether another try is allowed.
        attempt_timeout: deadline of one try, in seconds.
        budget: for everything, in seconds.
        policy: the rest.

    Raises:
        BroadcastError: of the last try. If that one was not answered in time, its message quotes the last answer.
    """
    ends = policy.clock() + budget
    answered: BroadcastError | None = None
    for attempt in itertools.count(1):
        timeout = min(attempt_timeout, ends - policy.clock())
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as caught:
            cause: BaseException = caught
            error = from_rpc_error(caught, method=name)
        except asyncio.CancelledError as caught:
            # gRPC also raises this when the channel is closed under a call, which is no cancellation of this task.
            if is_cancelling():
                raise
            raise closed(name) from caught
        if error.reason:
            answered = error
        pause = policy.pause(attempt, error)
        if attempt >= policy.attempts or not safety.allows_retry(error) or policy.clock() + pause >= ends:
            if answered is not None and not error.reason:
                # "The database does not answer" helps more than "Deadline Exceeded" of the try after it.
                error.message += f"; the answer before: {answered.reason}: {answered.message}"
            raise error from cause
        _log.info("%s: %s (%s), again in %.2f s", name, error.reason or error.code.name, error.message, pause)
        await policy.sleep(pause)
    raise AssertionError("unreachable: counting has no end")


def is_cancelling() -> bool:
    """Whether somebody cancelled the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_passing(error: BroadcastError) -> bool:
    """Whether a stream that broke with it may be connected again."""
    match error.code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED | grpc.StatusCode.DEADLINE_EXCEEDED:
            return True
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return error.retry_after is not None
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN:
            # Without a reason it was not the service that said so, but a proxy or the transport that cut the stream.
            return not error.reason
        case grpc.StatusCode.OUT_OF_RANGE:
            # The service was given another database: all that was told is void, and is told anew.
            return isinstance(error, ResumeTokenExpired)
        case _:
            return False


def closed(method: str) -> CallCancelled:
    return CallCancelled("the client was closed", code=grpc.StatusCode.CANCELLED, method=method)
