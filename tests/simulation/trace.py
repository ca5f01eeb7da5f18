"""The trace of a world: its last lines in full, and one hash of all lines."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable

LINES = 200


class Trace:
    def __init__(self, clock: Callable[[], float], *, lines: int | None) -> None:
        """*lines*: how many are kept; None keeps all."""
        self._clock = clock
        self._hash = hashlib.blake2b(digest_size=16)
        self._last: deque[tuple[float, tuple[object, ...]]] = deque(maxlen=lines)
        self.count = 0

    def add(self, *what: object) -> None:
        now = self._clock()
        self.count += 1
        self._last.append((now, what))
        self._hash.update(f"{now:.6f}{what}".encode())

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def last(self) -> list[str]:
        return [f"{now:10.3f}  {'  '.join(str(part) for part in what)}" for now, what in self._last]
