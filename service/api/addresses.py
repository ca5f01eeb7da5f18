"""The addresses behind the names that callers give, of destinations and slates, as this process resolves them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

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


async def private_hosts(urls: Mapping[str, str], resolve: Resolve) -> list[Violation]:
    """A violation for each of *urls*, by the field that holds it, whose name has an address that is not public. A name
    that cannot be resolved is no violation: the provider resolves it itself and may know it. *urls* are valid.
    """
    hosts = {host for url in urls.values() if (host := host_of(url)) is not None}
    answers = dict(zip(hosts, await asyncio.gather(*(resolve(host) for host in hosts)), strict=True))
    return [
        Violation(field=field, description="its host leads to an address that is not public")
        for field, url in urls.items()
        if not all(is_public(address) for address in answers.get(host_of(url) or "", ()))
    ]
