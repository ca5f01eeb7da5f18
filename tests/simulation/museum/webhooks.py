"""Exhibits: what keeps webhooks from being lost or taken in twice, and secrets from being shown."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service import telemetry
from service.domain.errors import StoreUnavailable
from service.providers.text import redaction
from tests.simulation import store

if TYPE_CHECKING:
    from tests.simulation.museum.exhibit import Exhibits


def _without_dedupe() -> contextlib.AbstractContextManager[Any]:
    def new(self: store.Inbox, provider: str, event_id: str) -> bool:
        return True

    return patch.object(store.Inbox, "_is_new", new)


def _without_storing() -> contextlib.AbstractContextManager[Any]:
    stored = store.Inbox.store

    async def answered(*args: Any) -> bool:
        with contextlib.suppress(StoreUnavailable):
            return await stored(*args)
        return True

    return patch.object(store.Inbox, "store", answered)


def _without_marks() -> contextlib.AbstractContextManager[Any]:
    recorded = store.Passes.record

    async def unmarked(*args: Any, **kwargs: Any) -> Any:
        return await recorded(*args, **kwargs | {"heard": ()})

    return patch.object(store.Passes, "record", unmarked)


def _without_redaction() -> contextlib.AbstractContextManager[Any]:
    def as_it_is(text: str) -> str:
        return text

    return patch.object(telemetry, "redact", as_it_is)


def _without_hidden_fields() -> contextlib.AbstractContextManager[Any]:
    def no_secret(_name: str) -> bool:
        return False

    return patch.object(redaction, "_secret", no_secret)


EXHIBITS: Final[Exhibits] = {
    "webhooks not deduplicated": _without_dedupe,
    "webhooks answered and not stored": _without_storing,
    "webhooks not marked with the record": _without_marks,
    "no redaction": _without_redaction,
    "fields of webhooks not hidden": _without_hidden_fields,
}
