"""Resources that carry our mark at a provider and belong to no broadcast."""

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
    """The broadcast that its mark names."""
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
        """Remove the orphans with these ids, or all if no id is given. *dry_run*: remove nothing, answer the same."""
        ...
