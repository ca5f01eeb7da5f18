"""One line in the log for every RPC, when it is over."""

import contextlib
from collections.abc import Generator
from typing import Any

import structlog

from service.api.transport.calls import Call

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def logged(call: Call) -> Generator[None]:
    try:
        yield
    finally:
        fields: dict[str, Any] = {
            "method": call.method,
            "code": call.code.name,
            "duration_ms": round(call.seconds * 1000, 1),
            "broadcast_id": call.broadcast_id,
            "request_id": call.request_id,
            "webhook_id": call.webhook_id or "",
            "reason": call.reason,
            "fields": call.violations,
            "trace_id": call.trace_id,
            "peer": call.peer,
        }
        if call.streaming:
            fields["messages"] = call.messages
        log.info("rpc", **{name: value for name, value in fields.items() if value != ""})
