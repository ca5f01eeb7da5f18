"""How a client makes a unary call: its deadlines, and which of them a `wait` lengthens."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from dataclasses import dataclass
from typing import TypeVar

import grpc

from broadcast_client.retry import RetryPolicy, Safety, call
from broadcast_client.values import Seconds, seconds

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Makes the unary calls of all services of one client, and repeats them where that is safe."""

    policy: RetryPolicy
    timeout: float
    """The deadline of one try, in seconds, where the call itself names none."""

    async def __call__(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        name: str,
        safety: Safety,
        *,
        timeout: float | None,
        wait: Seconds | None = None,
    ) -> _Response:
        """Make the call *name*.

        *timeout*: the deadline of one try, in seconds; None: the client's. *wait*: the time for which the service may
        delay its answer. It is added to the deadline of each try and to the budget of all tries. Raises BroadcastError.
        """
        waits = 0.0 if wait is None else seconds(wait)
        return await call(
            method,
            request,
            name=name,
            safety=safety,
            attempt_timeout=(self.timeout if timeout is None else timeout) + waits,
            budget=self.policy.budget + waits,
            policy=self.policy,
        )
