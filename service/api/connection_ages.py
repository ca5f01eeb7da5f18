"""How old the connections of callers are, so that their streams end in words before gRPC cuts the connection.

gRPC closes a connection for new calls when it is old, 10 % sooner or later than it was told, and cuts off what is still
open after a grace. Callers then connect anew, to other replicas too: behind a balancer of connections nobody would else
ever move to a new replica. gRPC tells no handler of it, so the age is counted from the first call of the peer.

Invariant: a stream ends after gRPC has closed its connection for new calls, or its caller would come back on the
old one, and before the grace is over.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 4096
_ENDS = (1.1, 1.2)
_MARGIN_S = 10.0


def grace_s(age_s: float) -> float:
    """How long gRPC waits for the calls of a connection that is *age_s* old, give or take 10 %."""
    return 0.3 * age_s + _MARGIN_S


class ConnectionAges:
    def __init__(self, age_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._age_s = age_s
        self._clock = clock
        self._since: dict[str, tuple[float, float]] = {}
        """By peer, the oldest first: when it was first heard, and when its streams end."""

    def heard(self, peer: str) -> None:
        """A call of *peer*, an address with its port, came."""
        now = self._clock()
        if (known := self._since.get(peer)) is not None and now < known[0] + 1.1 * self._age_s + grace_s(self._age_s):
            return
        # The port was given to another connection: it takes its place at the end.
        self._since.pop(peer, None)
        if len(self._since) >= _REMEMBERED:
            del self._since[next(iter(self._since))]
        self._since[peer] = (now, now + self._age_s * random.uniform(*_ENDS))

    def ends_in(self, peer: str) -> float:
        """Seconds until a stream of *peer* should end."""
        known = self._since.get(peer)
        return self._age_s if known is None else max(0.0, known[1] - self._clock())
