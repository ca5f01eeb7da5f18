"""The logs of the service in a simulated world. Errors are kept: each tells of a fault of the service itself."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Generator, MutableMapping, Sequence
from typing import Any

import structlog


@contextlib.contextmanager
def errors_told(to: Callable[[str, str], None], rest: Sequence[Any] = ()) -> Generator[None]:
    """*to* is told the event and the rest of every log line of level error. *rest*: structlog's processors of all
    lines; without them only errors are made.
    """

    def sink(_logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
        if method in ("error", "exception", "critical"):
            said = {name: value for name, value in event.items() if name not in ("event", "exc_info")}
            failure = traceback.format_exc() if event.get("exc_info") else ""
            to(str(event["event"]), f"{said} {failure}".strip())
        if not rest:
            raise structlog.DropEvent
        return event

    before = structlog.get_config()
    disabled = logging.root.manager.disable
    structlog.configure(
        processors=[sink, *rest],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if rest else logging.ERROR),
    )
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        structlog.configure(**before)
