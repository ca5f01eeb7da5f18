"""The metrics of RPCs: how long the unary ones take, and how many streams are open."""

import contextlib
from collections.abc import Generator

from service import telemetry
from service.api.transport.calls import Call


@contextlib.contextmanager
def measured(call: Call) -> Generator[None]:
    if call.streaming:
        telemetry.STREAMS_OPEN.add(1, {"method": call.method})
    try:
        yield
    finally:
        if call.streaming:
            telemetry.STREAMS_OPEN.add(-1, {"method": call.method})
        else:
            telemetry.RPC_DURATION.record(call.seconds, {"method": call.method, "code": call.code.name})
