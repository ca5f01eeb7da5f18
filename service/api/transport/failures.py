"""From the exception of an RPC to the error that its caller gets."""

import asyncio
import contextlib
import secrets
from collections.abc import Generator

import grpc
import structlog

from service import telemetry
from service.api.transport import errors
from service.api.transport.calls import TEXT_LIMIT, Call
from service.domain.errors import ServiceError

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def failing_into(call: Call) -> Generator[None]:
    """Nothing that is raised inside leaves, except a cancellation of the RPC itself: `call.failure` is then the error
    to send. An error that is none of the domain's is a fault of the service: it is logged with its traceback, and the
    caller gets the id of the trace.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            # The cancellation came from inside: gRPC would leave the caller without an answer.
            _fault(call)
            log.exception("rpc_failed", method=call.method, trace_id=call.trace_id)
        else:
            call.code = grpc.StatusCode.CANCELLED
            raise
    except ServiceError as error:
        call.code, call.reason, call.failure = errors.code_of(error), error.reason, errors.status_of(error, call.method)
        call.violations = ", ".join(violation.field for violation in error.violations)[:TEXT_LIMIT]
    except Exception:
        _fault(call)
        log.exception("rpc_failed", method=call.method, trace_id=call.trace_id)


def _fault(call: Call) -> None:
    call.trace_id = telemetry.trace_id() or secrets.token_hex(16)
    call.code, call.reason = grpc.StatusCode.INTERNAL, errors.INTERNAL
    call.failure = errors.internal(call.trace_id)
