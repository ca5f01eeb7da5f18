"""The addresses behind the names of destinations, as this process resolves them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from service.domain.broadcast import Destination
from service.domain.errors import Violation
from service.domain.validation import host_of, is_public

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The IP addresses of a host. Empty: it has none, or no resolver answered in time. Never raises."""

_LIMIT_S = 1.0


async def resolve_host(host: str) -> Sequence[str]:
    """Asks the resolver of the system, for a second at most."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LIMIT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return [str(address[4][0]) for address in found]


async def private_hosts(destinations: Sequence[Destination], resolve: Resolve) -> list[Violation]:
    """A violation for each destination whose name has an address that is not public. A name that cannot be resolved
    is no violation: the provider resolves it itself and may know it. *destinations* have valid urls.
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
