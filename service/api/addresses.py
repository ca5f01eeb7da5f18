"""Where the hosts of destinations lead, as seen from here."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from service.domain.broadcast import Destination
from service.domain.errors import Violation
from service.domain.validation import host_of, is_public

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host; none when it has none or nobody answers in time."""

_LIMIT_S = 1.0


async def resolve_host(host: str) -> Sequence[str]:
    """By the system's resolver, within a second."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LIMIT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return [str(address[4][0]) for address in found]


async def private_hosts(destinations: Sequence[Destination], resolve: Resolve) -> list[Violation]:
    """A violation for each destination whose name leads to an address that is not public. No answer is none: the
    provider resolves the name itself, and may know it.
    """
    hosts = {host for destination in destinations if (host := host_of(destination.url)) is not None}
    answers = dict(zip(hosts, await asyncio.gather(*(resolve(host) for host in hosts)), strict=True))
    return [
        Violation(
            field=f"spec.destinations[{index}].url", description="its host leads to an address that is not public"
        )
        for index, destination in enumerate(destinations)
        if not all(is_public(address) for address in answers.get(host_of(destination.url) or "", ()))
    ]
