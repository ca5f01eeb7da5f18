"""What carries our mark at a provider and belongs to no broadcast."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.domain.provider import Provider
from service.domain.resources import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    provider: Provider
    kind: Kind
    external_id: str
    broadcast_id: str
    """As far as its mark says."""
    created_at: datetime | None
    removable: bool
    """It is old enough that no create under way can be about to own it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    orphans: tuple[Orphan, ...]
    incomplete: tuple[Provider, ...]
    """Providers that could not be asked in full: there may be more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    removed: tuple[Orphan, ...]
    remaining: tuple[Orphan, ...]
    incomplete: tuple[Provider, ...]


class Orphans(Protocol):
    """Raises StoreUnavailable. A provider that does not answer is told of in the answer."""

    async def find(self) -> Found: ...

    async def reap(self, external_ids: Collection[str], *, dry_run: bool) -> Reaped:
        """Of these, or of all where none is named; what is left of them remains."""
        ...
