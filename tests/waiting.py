"""Waiting for what other tasks and processes bring about."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def eventually(
    check: Callable[[], Awaitable[T | None]] | Callable[[], T | None], *, within: float = 30, every: float = 0.02
) -> T:
    """Try until the check answers something true and asserts nothing false; then answer that."""
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        result: object = None
        try:
            result = check()
            if inspect.isawaitable(result):
                result = await cast("Awaitable[T | None]", result)
            if result:
                return cast("T", result)
        except AssertionError as caught:
            failure = caught
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within} s: {failure or repr(result)}") from failure
        await asyncio.sleep(every)
