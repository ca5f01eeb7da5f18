"""What the service logs in a simulated world: kept is what it says of its own faults, which are faults of ours."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Generator, MutableMapping
from typing import Any

import structlog


@contextlib.contextmanager
def errors_told(to: Callable[[str, str], None]) -> Generator[None]:
    """*to* is told the event and the rest of every log line of level error."""

    def sink(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
        name = str(event.pop("event"))
        failure = traceback.format_exc() if event.pop("exc_info", None) else ""
        to(name, f"{dict(event)} {failure}".strip())
        raise structlog.DropEvent

    before = structlog.get_config()
    disabled = logging.root.manager.disable
    structlog.configure(processors=[sink], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        structlog.configure(**before)
