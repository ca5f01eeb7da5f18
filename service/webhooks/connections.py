"""The connections of the HTTP port: how many there are, and how long each may take to send a request.

Anybody may connect, and a connection that sends half of its headers would otherwise stay for ever and hold a file
descriptor that the database and the providers need.

Invariant: there are never more than `most` connections. A connection whose request is being answered is never closed
to make room; one that still waits for its headers is, the oldest of the peer that has the most.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from service import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

HEADERS_WITHIN_S = 10.0
"""From a connection until the headers of its first request are complete."""
NEXT_WITHIN_S = 30.0
"""From an answer until the headers of the next request are complete."""


class Connections:
    """Of one port."""

    def __init__(
        self,
        most: int,
        *,
        headers_within_s: float = HEADERS_WITHIN_S,
        next_within_s: float = NEXT_WITHIN_S,
    ) -> None:
        """One peer may have half of *most*."""
        self._most = most
        self._most_of_a_peer = max(1, most // 2)
        self.headers_within_s = headers_within_s
        self.next_within_s = next_within_s
        self._open: dict[asyncio.BaseProtocol, Connection] = {}
        self._waiting: dict[Connection, None] = {}
        self._of_peer: dict[str, int] = {}

    def accepting(self, http: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """The factory of protocols for `create_server`. *http*: makes the protocol that speaks HTTP."""
        return lambda: Connection(self, http())

    def of(self, http: asyncio.BaseProtocol | None) -> Connection | None:
        """The connection of a request, by its protocol."""
        return self._open.get(http) if http is not None else None

    def opened(self, connection: Connection, http: asyncio.BaseProtocol) -> bool:
        """Take it in. False: there is no room for it."""
        if self._of_peer.get(connection.peer, 0) >= self._most_of_a_peer:
            if not self._make_room(connection.peer):
                return False
        elif len(self._open) >= self._most and not self._make_room(None):
            return False
        self._open[http] = connection
        self._of_peer[connection.peer] = self._of_peer.get(connection.peer, 0) + 1
        return True

    def waits(self, connection: Connection, *, waits: bool) -> None:
        """Whether the headers of its request are awaited."""
        self._waiting.pop(connection, None)
        if waits:
            self._waiting[connection] = None

    def closed(self, connection: Connection, http: asyncio.BaseProtocol) -> None:
        self._waiting.pop(connection, None)
        if self._open.pop(http, None) is None:
            return
        self._of_peer[connection.peer] -= 1
        if not self._of_peer[connection.peer]:
            del self._of_peer[connection.peer]

    def _make_room(self, peer: str | None) -> bool:
        """Close a waiting connection: of *peer*, or of the peer that has the most. False: none waits."""
        if not self._waiting:
            return False
        if peer is None:
            waiting = {each.peer for each in self._waiting}
            peer = max(waiting, key=lambda each: self._of_peer[each])
        oldest = next((each for each in self._waiting if each.peer == peer), None)
        if oldest is None:
            return False
        oldest.close("crowded_out")
        return True


class Connection(asyncio.Protocol):
    """One connection: a protocol around the one that speaks HTTP."""

    def __init__(self, connections: Connections, http: asyncio.Protocol) -> None:
        self._connections = connections
        self._http = http
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.peer = ""
        """The address, without its port."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        if not self._connections.opened(self, self._http):
            self.close("too_many")
            return
        self._http.connection_made(transport)
        self._await_headers(self._connections.headers_within_s)

    def data_received(self, data: bytes) -> None:
        self._http.data_received(data)

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.closed(self, self._http)
        if self._transport is not None:
            self._http.connection_lost(exc)

    def request_begins(self) -> None:
        """Its headers are complete."""
        self._stop_timer()
        self._connections.waits(self, waits=False)

    def request_ends(self) -> None:
        if self._connections.of(self._http) is not None:
            self._await_headers(self._connections.next_within_s)

    def close(self, why: str) -> None:
        """At once, without an answer: whoever sends half of a request does not read one."""
        telemetry.CONNECTIONS_CLOSED.add(1, {"reason": why})
        self._stop_timer()
        self._connections.closed(self, self._http)
        if self._transport is not None:
            transport = self._transport
            if why == "too_many":
                self._transport = None
            transport.abort()

    def _await_headers(self, within_s: float) -> None:
        self._stop_timer()
        self._connections.waits(self, waits=True)
        self._timer = asyncio.get_running_loop().call_later(within_s, self.close, "no_headers")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. `::` takes IPv4 as well, as gRPC does. Raises OSError."""
    if host == "::" and socket.has_dualstack_ipv6():
        return socket.create_server((host, port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return socket.create_server((host, port), family=family, backlog=128)
