"""Whether a host of an address may be reached over the public internet, told from its text alone: a name is not looked
up, because a replica must start while DNS is away.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

_PRIVATE_NAMES: Final = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "svc",
    "svc.cluster.local",
    "test",
)
"""Ends of names that no public DNS answers (RFC 2606, 6761, 6762, 8375; names of services in Kubernetes)."""


def is_public(host: str) -> bool:
    """False for addresses of loopback, link and private networks, for names of one part, such as those of containers,
    and for names that only a private DNS knows.
    """
    name = host.lower().rstrip(".")
    address = _address(name)
    if address is not None:
        return address.is_global
    return "." in name and not any(name.endswith(f".{end}") for end in _PRIVATE_NAMES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # 134744072 and 0x8.8.8.8 are addresses for the system's resolver.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
