"""Sets of viewers, of which only the number is asked for: sketches that can be united, a few kilobytes at most.

Up to about 1,500 viewers a sketch counts exactly; above, the standard deviation of its error is 0.7 %. A viewer who is
in several sketches counts once in their union. Only this module knows the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import datasketches
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

log = structlog.get_logger(__name__)

LG_K: Final = 14
"""Binary logarithm of the number of registers: it decides on the error, and on the size, which is 8 kB at most."""
_UNREADABLE = (ValueError, IndexError, RuntimeError)
# It has no types of its own.
_library = cast("Any", datasketches)


class _Hll(Protocol):
    def update(self, datum: str, /) -> None: ...
    def get_estimate(self) -> float: ...
    def serialize_compact(self) -> bytes: ...


class Sketch:
    """The viewers that were added. An empty id is not counted."""

    __slots__ = ("_sketch",)

    def __init__(self) -> None:
        self._sketch: _Hll = _library.hll_sketch(LG_K, _library.tgt_hll_type.HLL_4)

    def add(self, viewer_id: str) -> None:
        self._sketch.update(viewer_id)

    @property
    def viewers(self) -> int:
        return round(self._sketch.get_estimate())

    def __bytes__(self) -> bytes:
        return self._sketch.serialize_compact()


def distinct(sketches: Iterable[bytes]) -> int:
    """How many viewers are in the union of *sketches*. Bytes that are no sketch are logged and left out."""
    union = _library.hll_union(LG_K)
    for each in sketches:
        try:
            union.update(_library.hll_sketch.deserialize(each))
        except _UNREADABLE as error:
            log.warning("sketch_unreadable", error=str(error), bytes=len(each))
    return round(union.get_estimate())
