"""One line in the log for every RPC, when it is over. Calls whose number grows with viewers have one if they fail."""

import contextlib
from collections.abc import Generator
from typing import Any

import grpc
import structlog

from service.api.transport.calls import Call

log = structlog.get_logger(__name__)

_OF_VIEWERS = frozenset({"JoinBroadcast", "KeepAlive", "LeaveBroadcast"})
"""Thousands come in a second, and metrics count them."""


@contextlib.contextmanager
def logged(call: Call) -> Generator[None]:
    try:
        yield
    finally:
        if call.method not in _OF_VIEWERS or call.code is not grpc.StatusCode.OK:
            _tell(call)


def _tell(call: Call) -> None:
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
