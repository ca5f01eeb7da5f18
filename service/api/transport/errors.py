"""Errors of the domain as google.rpc.Status, with the details of AIP-193."""

import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service.domain.errors import ServiceError, StateForbids

DOMAIN = "broadcast.v1"
INTERNAL = "INTERNAL"

CODES: Final[dict[str, grpc.StatusCode]] = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_ID_REUSED": grpc.StatusCode.INVALID_ARGUMENT,
    "PAGE_TOKEN_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "RESUME_TOKEN_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "BROADCAST_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "BROADCAST_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "ETAG_MISMATCH": grpc.StatusCode.ABORTED,
    "STATE_FORBIDS": grpc.StatusCode.FAILED_PRECONDITION,
    "FIELD_IMMUTABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "RESUME_TOKEN_EXPIRED": grpc.StatusCode.OUT_OF_RANGE,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "SHUTTING_DOWN": grpc.StatusCode.UNAVAILABLE,
    "WEBHOOK_REFUSED": grpc.StatusCode.UNAUTHENTICATED,
    "WEBHOOK_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "VIEWER_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "PROVIDER_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "PARTICIPANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "DESTINATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "DESTINATION_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "UNMUTE_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "SESSION_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "VIEWER_REVOKED": grpc.StatusCode.PERMISSION_DENIED,
    INTERNAL: grpc.StatusCode.INTERNAL,
}

# The most particular first.
_NAMED: Final = (
    ("Webhook", "webhook_id"),
    ("Participant", "identity"),
    ("Destination", "destination"),
    ("Broadcast", "broadcast_id"),
)
"""Resource and the entry of the metadata that names it."""
_RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_DEFAULT_PAUSE = (0.5, 2.0)
# A replica that shuts down spreads its callers over this time, so that the next replica does not get all at once.
_DRAIN_PAUSE = (0.0, 5.0)

# The status travels in trailing metadata. A client accepts 8 KB of that, and the status may hold text of the request.
_TEXT_BYTES = 300
_VIOLATIONS_BYTES = 2500


def code_of(error: ServiceError) -> grpc.StatusCode:
    return CODES[error.reason]


def status_of(error: ServiceError, method: str = "") -> status_pb2.Status:
    """The error as the caller gets it. *method*: the name of the RPC, which a refusal by the state names."""
    code = code_of(error)
    if isinstance(error, StateForbids) and method:
        error = _with_method(error, method)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={name: _cut(value) for name, value in error.metadata.items()},
        )
    ]
    if error.violations:
        details.append(_bad_request(error))
    match code:
        case grpc.StatusCode.FAILED_PRECONDITION:
            subject = error.metadata.get("field") or error.metadata.get("broadcast_id", "")
            failure = error_details_pb2.PreconditionFailure()
            failure.violations.add(type=error.reason, subject=_cut(subject), description=_cut(error.message))
            details.append(failure)
        case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.ALREADY_EXISTS:
            kind, name = next((each for each in _NAMED if each[1] in error.metadata), _NAMED[-1])
            details.append(
                error_details_pb2.ResourceInfo(
                    resource_type=f"broadcast.v1.{kind}",
                    resource_name=_cut(error.metadata.get(name, "")),
                    description=_cut(error.message),
                )
            )
        case _ if code in _RETRYABLE:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(round(_pause(error) * 1000))
            details.append(retry)
        case _:
            pass
    return _status(code, error.message, details)


def internal(trace_id: str) -> status_pb2.Status:
    """A fault of the service. The caller gets the id of the trace and nothing else of the fault."""
    info = error_details_pb2.ErrorInfo(reason=INTERNAL, domain=DOMAIN, metadata={"trace_id": trace_id})
    return _status(grpc.StatusCode.INTERNAL, f"a fault of the service; its trace is {trace_id}", [info])


def trailing_metadata(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _with_method(error: StateForbids, method: str) -> StateForbids:
    """The domain says why, and does not know which RPC was called."""
    message = f"{method} of {error.metadata['broadcast_id']!r} is not possible: {error.message}"
    return StateForbids(message, **error.metadata, method=method)


def _bad_request(error: ServiceError) -> error_details_pb2.BadRequest:
    bad_request = error_details_pb2.BadRequest()
    for violation in dict.fromkeys(error.violations):
        bad_request.field_violations.add(field=_cut(violation.field), description=_cut(violation.description))
        if bad_request.ByteSize() > _VIOLATIONS_BYTES:
            break
    return bad_request


def _status(code: grpc.StatusCode, message: str, details: Iterable[Message]) -> status_pb2.Status:
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=_cut(message))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _pause(error: ServiceError) -> float:
    """Seconds until the caller should try again, at random so that callers do not come back at the same time."""
    if error.retry_after is not None:
        return error.retry_after / timedelta(seconds=1) * random.uniform(1, 1.5)
    low, high = _DRAIN_PAUSE if error.reason == "SHUTTING_DOWN" else _DEFAULT_PAUSE
    return random.uniform(low, high)


def _cut(text: str) -> str:
    """*text* in at most _TEXT_BYTES of UTF-8, marked where it is cut."""
    encoded = text.encode()
    if len(encoded) <= _TEXT_BYTES:
        return text
    return encoded[:_TEXT_BYTES].decode(errors="ignore") + "..."
