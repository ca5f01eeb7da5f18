"""Lists of several pages: each page is a request of its own, and counts against the provider's limit."""

from collections.abc import Awaitable, Callable

NextPage = Callable[[], Awaitable[None]]
"""Awaited before each page but the first. It may wait, and what it raises ends the list."""


async def at_once() -> None:
    """Nothing is waited for."""
