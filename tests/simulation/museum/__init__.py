"""The bug museum: protections of the service, each of which can be taken away. The simulation must miss every one of
them; one that it does not miss is either not needed or not tested.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Final

from tests.simulation.museum import claims, doubles, endings, evidence, looks, pool, viewers, webhooks
from tests.simulation.museum.exhibit import Exhibits

MUSEUM: Final[Exhibits] = {
    **doubles.EXHIBITS,
    **claims.EXHIBITS,
    **looks.EXHIBITS,
    **evidence.EXHIBITS,
    **webhooks.EXHIBITS,
    **endings.EXHIBITS,
    **viewers.EXHIBITS,
    **pool.EXHIBITS,
}


@contextlib.contextmanager
def without(name: str) -> Generator[None]:
    """The service without this protection."""
    with MUSEUM[name]():
        yield
