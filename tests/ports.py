"""Ports for who has to know one before it listens."""

import contextlib
import itertools
import os
import socket

# Below the range of outgoing ports, which the kernel also gives to who asks for any: between the choice and its use
# nobody else gets one of these. Test processes begin far from each other.
_FIRST, _LAST = 10_000, 15_000
_numbers = itertools.count(os.getpid() * 997)


def free_port() -> int:
    """Never the same twice in a process."""
    while True:
        port = _FIRST + next(_numbers) % (_LAST - _FIRST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
