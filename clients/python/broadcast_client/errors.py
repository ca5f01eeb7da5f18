"""What can go wrong, as exceptions.

    BroadcastClientError
    ├── BroadcastError              an RPC failed: code, reason, metadata, violations, retry_after
    │   ├── InvalidArgument         INVALID_ARGUMENT
    │   │   ├── InvalidField            violations name the fields
    │   │   ├── RequestIdReused
    │   │   ├── PageTokenInvalid
    │   │   ├── ResumeTokenInvalid
    │   │   └── SessionInvalid          the session of a viewer is forged or damaged
    │   ├── BroadcastNotFound       NOT_FOUND
    │   ├── WebhookNotFound         NOT_FOUND
    │   ├── ParticipantNotFound     NOT_FOUND: not in the room, or it does not publish that track
    │   ├── DestinationNotFound     NOT_FOUND
    │   ├── BroadcastExists         ALREADY_EXISTS
    │   ├── DestinationExists       ALREADY_EXISTS
    │   ├── EtagMismatch            ABORTED: read again, then write again
    │   ├── FailedPrecondition      FAILED_PRECONDITION
    │   │   ├── StateForbids
    │   │   ├── FieldImmutable
    │   │   └── UnmuteRefused           LiveKit lets only the participant unmute
    │   ├── ResumeTokenExpired      OUT_OF_RANGE (a watch overcomes it by itself)
    │   ├── Overloaded              RESOURCE_EXHAUSTED
    │   ├── ViewerLimit             RESOURCE_EXHAUSTED: every place in the room is taken (not tried again by itself)
    │   ├── Unavailable             UNAVAILABLE, also when nothing listens at the target
    │   │   ├── StoreUnavailable
    │   │   ├── ShuttingDown
    │   │   └── ProviderUnavailable     LiveKit or Mux had to be asked, and did not answer
    │   ├── DeadlineExceeded        DEADLINE_EXCEEDED: a write may or may not have happened
    │   ├── CallCancelled           CANCELLED by the other side, or because the client was closed
    │   ├── Unauthenticated         UNAUTHENTICATED
    │   │   └── WebhookRefused          its signature does not verify
    │   ├── PermissionDenied        PERMISSION_DENIED
    │   │   └── ViewerRevoked
    │   └── ServiceFault            INTERNAL: trace_id finds it in the logs of the service
    ├── WaitError                   wait_until did not see the state that it waited for; carries the broadcast
    │   ├── WaitTimeout             (also a TimeoutError)
    │   └── BroadcastEndedEarly
    └── WrongEventLoop              the client was used before in another event loop

A reason or code without a class of its own is a plain class further up; `reason` and `code` tell it all the same.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast_client.values import state_name

_Detail = TypeVar("_Detail", bound=Message)


class BroadcastClientError(Exception):
    """The base of every error that this package raises."""


class WrongEventLoop(BroadcastClientError):
    """The client was used before in another event loop, to which its channel belongs."""


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    field: str
    """Path of the field such as "spec.max_duration"; the subject in a failed precondition."""
    description: str


class BroadcastError(BroadcastClientError):
    """An RPC failed."""

    codes: ClassVar[tuple[grpc.StatusCode, ...]] = ()
    """Codes that become this class when the reason has no class of its own."""
    reasons: ClassVar[tuple[str, ...]] = ()
    """Reasons that become this class."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        method: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """For people; not stable."""
        self.code = code
        """The gRPC code."""
        self.method = method
        """The RPC, such as "CreateBroadcast"."""
        self.reason = reason
        """The name of an ErrorReason. Empty: it was not the service that answered but something on the way."""
        self.metadata = dict(metadata or {})
        """Facts for programs, by the reason: "field", "broadcast_id", "state", ..."""
        self.violations = list(violations)
        """What is wrong with the request, field by field."""
        self.retry_after = retry_after
        """Seconds the service asks to wait before the next try. None: it does not say."""

    @property
    def trace_id(self) -> str:
        """What finds the call in the logs of the service; empty when it did not say."""
        return self.metadata.get("trace_id", "")

    def __str__(self) -> str:
        told = f"{self.method}: {self.reason or self.code.name}: {self.message}"
        # The service's message of one violation is that violation.
        return "; ".join([told, *(each for each in map(": ".join, self.violations) if each not in self.message)])


class InvalidArgument(BroadcastError):
    codes = (grpc.StatusCode.INVALID_ARGUMENT,)


class InvalidField(InvalidArgument):
    codes = ()
    reasons = ("INVALID_FIELD",)


class RequestIdReused(InvalidArgument):
    codes = ()
    reasons = ("REQUEST_ID_REUSED",)


class PageTokenInvalid(InvalidArgument):
    codes = ()
    reasons = ("PAGE_TOKEN_INVALID",)


class ResumeTokenInvalid(InvalidArgument):
    codes = ()
    reasons = ("RESUME_TOKEN_INVALID",)


class SessionInvalid(InvalidArgument):
    codes = ()
    reasons = ("SESSION_INVALID",)


class BroadcastNotFound(BroadcastError):
    codes = (grpc.StatusCode.NOT_FOUND,)
    reasons = ("BROADCAST_NOT_FOUND",)


class WebhookNotFound(BroadcastError):
    reasons = ("WEBHOOK_NOT_FOUND",)


class ParticipantNotFound(BroadcastError):
    reasons = ("PARTICIPANT_NOT_FOUND",)


class DestinationNotFound(BroadcastError):
    reasons = ("DESTINATION_NOT_FOUND",)


class DestinationExists(BroadcastError):
    reasons = ("DESTINATION_EXISTS",)


class BroadcastExists(BroadcastError):
    codes = (grpc.StatusCode.ALREADY_EXISTS,)
    reasons = ("BROADCAST_EXISTS",)


class EtagMismatch(BroadcastError):
    codes = (grpc.StatusCode.ABORTED,)
    reasons = ("ETAG_MISMATCH",)


class FailedPrecondition(BroadcastError):
    codes = (grpc.StatusCode.FAILED_PRECONDITION,)


class StateForbids(FailedPrecondition):
    codes = ()
    reasons = ("STATE_FORBIDS",)


class FieldImmutable(FailedPrecondition):
    codes = ()
    reasons = ("FIELD_IMMUTABLE",)


class UnmuteRefused(FailedPrecondition):
    codes = ()
    reasons = ("UNMUTE_REFUSED",)


class ResumeTokenExpired(BroadcastError):
    codes = (grpc.StatusCode.OUT_OF_RANGE,)
    reasons = ("RESUME_TOKEN_EXPIRED",)


class Overloaded(BroadcastError):
    codes = (grpc.StatusCode.RESOURCE_EXHAUSTED,)
    reasons = ("OVERLOADED",)


class ViewerLimit(BroadcastError):
    reasons = ("VIEWER_LIMIT",)


class Unavailable(BroadcastError):
    codes = (grpc.StatusCode.UNAVAILABLE,)


class StoreUnavailable(Unavailable):
    codes = ()
    reasons = ("STORE_UNAVAILABLE",)


class ShuttingDown(Unavailable):
    codes = ()
    reasons = ("SHUTTING_DOWN",)


class ProviderUnavailable(Unavailable):
    codes = ()
    reasons = ("PROVIDER_UNAVAILABLE",)


class DeadlineExceeded(BroadcastError):
    codes = (grpc.StatusCode.DEADLINE_EXCEEDED,)


class CallCancelled(BroadcastError):
    codes = (grpc.StatusCode.CANCELLED,)


class Unauthenticated(BroadcastError):
    codes = (grpc.StatusCode.UNAUTHENTICATED,)


class WebhookRefused(Unauthenticated):
    codes = ()
    reasons = ("WEBHOOK_REFUSED",)


class PermissionDenied(BroadcastError):
    codes = (grpc.StatusCode.PERMISSION_DENIED,)


class ViewerRevoked(PermissionDenied):
    codes = ()
    reasons = ("VIEWER_REVOKED",)


class ServiceFault(BroadcastError):
    codes = (grpc.StatusCode.INTERNAL,)
    reasons = ("INTERNAL",)


class WaitError(BroadcastClientError):
    """wait_until did not see what it was to see."""

    def __init__(self, message: str, *, broadcast_id: str, broadcast: Broadcast | None) -> None:
        super().__init__(message)
        self.broadcast_id = broadcast_id
        self.broadcast = broadcast
        """As it was seen last. None: it was not seen at all."""


class WaitTimeout(WaitError, TimeoutError):
    """The time was over first."""


class BroadcastEndedEarly(WaitError):
    """It is ENDED or FAILED, and so will never be what was waited for."""

    def __init__(self, *, broadcast: Broadcast) -> None:
        super().__init__(
            f"{broadcast.id} is {state_name(broadcast.status.state)} ({broadcast.status.state_reason})",
            broadcast_id=broadcast.id,
            broadcast=broadcast,
        )


def _descendants(base: type[BroadcastError]) -> Iterable[type[BroadcastError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _descendants(cls)


_BY_REASON = {reason: cls for cls in _descendants(BroadcastError) for reason in cls.reasons}
_BY_CODE = {code: cls for cls in _descendants(BroadcastError) for code in cls.codes}


def from_rpc_error(error: grpc.aio.AioRpcError, *, method: str) -> BroadcastError:
    """The exception for a failed call, of the class its reason or else its code has."""
    status = _status_of(error)
    info = _detail(status, error_details_pb2.ErrorInfo)
    retry = _detail(status, error_details_pb2.RetryInfo)
    request = _detail(status, error_details_pb2.BadRequest)
    precondition = _detail(status, error_details_pb2.PreconditionFailure)
    violations = [Violation(v.field, v.description) for v in request.field_violations]
    violations += [Violation(v.subject, v.description) for v in precondition.violations]
    cls = _BY_REASON.get(info.reason) or _BY_CODE.get(error.code(), BroadcastError)
    return cls(
        error.details() or "",
        code=error.code(),
        method=method,
        reason=info.reason,
        metadata=info.metadata,
        violations=violations,
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                # Damaged on the way: the code and the message still say what happened.
                break
    return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[_Detail]) -> _Detail:
    found = kind()
    for detail in status.details:
        if detail.Unpack(found):
            break
    return found
