"""A standby that lags behind, and takes over without the last commits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.store.tables import Row, Tables, Webhook

_SAME = ("head", "floor", "history", "fence_base")
_COPIED = (
    "events",
    "requests",
    "duties",
    "delivered",
    "looked",
    "probes",
    "probe_due",
    "external",
    "audience",
    "counting",
)
"""Their values are never changed in place."""


@dataclass(frozen=True, slots=True)
class Standby:
    """The tables as they were at some moment."""

    values: dict[str, Any]
    rows: dict[str, Row]
    stored: list[Webhook]
    kept: list[int]

    @classmethod
    def of(cls, tables: Tables) -> Standby:
        return cls(
            {name: getattr(tables, name) for name in _SAME} | {name: getattr(tables, name).copy() for name in _COPIED},
            {
                name: replace(row, resources=dict(row.resources), ledger=dict(row.ledger))
                for name, row in tables.rows.items()
            },
            [replace(webhook) for webhook in tables.stored],
            [webhook.id for webhook in tables.webhooks],
        )

    def take_over(self, tables: Tables) -> None:
        """Once: what is written from now on is written here. A replica begins a new history before anything else."""
        for name, value in self.values.items():
            setattr(tables, name, value)
        tables.rows = self.rows
        tables.stored = self.stored
        tables.webhooks = [webhook for webhook in self.stored if webhook.id in self.kept]
        tables.begin_history(tables.history)
