"""The change that follows from one look or one webhook."""

from dataclasses import dataclass

from service.domain.lifecycle import Event
from service.domain.resources import AnyResource


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The rows to store, and the events to append with them. Empty: nothing changed."""

    resources: tuple[AnyResource, ...] = ()
    events: tuple[Event, ...] = ()
    adopted: int = 0
    """How many of the rows were created by a call without an answer, and were recognised now."""
