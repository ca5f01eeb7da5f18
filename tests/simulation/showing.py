"""Everything the service shows of a world, to be searched for secrets (I-10): what it logs and traces, and what stands
in its tables where it is not sealed.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from service import telemetry
from service.store.rows import heard_column

if TYPE_CHECKING:
    from tests.simulation.canaries import Canaries
    from tests.simulation.store.tables import Tables


class Shown(SpanProcessor):
    def __init__(self) -> None:
        self.words: defaultdict[str, set[str]] = defaultdict(set)
        """By place. Most of what is shown is shown again and again."""

    def add(self, place: str, what: object) -> None:
        self.words[place].update(str(what).split())

    def on_end(self, span: ReadableSpan) -> None:
        events = [(event.name, dict(event.attributes or {})) for event in span.events]
        self.add("a trace", f"{span.name} {dict(span.attributes or {})} {span.status.description} {events}")

    def read(self, tables: Tables) -> None:
        """Adds everything that callers are told and that an operator finds in the database."""
        for event in tables.events:
            self.add("an event", event.message)
            if event.snapshot is not None:
                self.add("a snapshot", event.snapshot)
        for row in tables.rows.values():
            self.add("a row", row)
        for webhook in tables.stored:
            self.add("a webhook", webhook.redacted)
            self.add("a webhook", heard_column(webhook.heard))
        self.add("an outage", tables.looked)

    def secrets(self, canaries: Canaries) -> Iterator[str]:
        for place, words in self.words.items():
            for word in canaries.shown(words):
                yield f"{place} shows a secret: {word}"

    @property
    def redacted(self) -> int:
        """Places where there would have been one."""
        return sum("***" in word for words in self.words.values() for word in words)

    @contextlib.contextmanager
    def all_that_is_said(self) -> Generator[list[Any]]:
        """What is traced is kept, and so is every line that goes the way of what this answers: structlog's processors
        of production.
        """
        root = logging.getLogger()
        handlers, level, config = root.handlers, root.level, structlog.get_config()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(self)
        telemetry.configure_logs("debug", json=True)
        processors = structlog.get_config()["processors"]
        root.handlers, root.level = handlers, level
        structlog.configure(**config)
        with patch.object(telemetry, "tracer", tracers.get_tracer("simulation")):
            yield [*processors, self._said]

    def _said(self, _logger: object, _method: str, line: str) -> Any:
        self.add("a log", line)
        raise structlog.DropEvent
