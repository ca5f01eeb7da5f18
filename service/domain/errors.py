"""Every way in which we say no.

    ServiceError
    ├── InvalidField              one or more fields of the request are wrong
    ├── RequestIdReused           same request_id, other content
    ├── PageTokenInvalid
    ├── ResumeTokenInvalid
    ├── BroadcastNotFound
    ├── BroadcastExists
    ├── EtagMismatch
    ├── StateForbids
    ├── FieldImmutable
    ├── ResumeTokenExpired
    ├── Overloaded
    ├── StoreUnavailable
    ├── ShuttingDown
    ├── WebhookRefused
    ├── WebhookNotFound
    ├── ViewerLimit
    ├── ParticipantNotFound
    ├── DestinationNotFound
    ├── DestinationExists
    ├── UnmuteRefused             the provider lets only the participant unmute
    ├── SessionInvalid
    ├── ViewerRevoked
    └── ProviderUnavailable       a provider had to be asked now and did not answer

    ProviderError                 a call to a provider did not succeed; never leaves the reconciler
    Overtaken                     the callers changed the target; plan again
    LeaseLost                     another replica has the broadcast now; stop at once

`ServiceError.reason` is a value of the proto enum ErrorReason without its prefix; a test keeps the two sets equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    # Both lead to `resources`, which needs Outcome.
    from service.domain.provider import Provider
    from service.domain.reasons import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    field: str
    """Path from the request: `spec.destinations[0].url`."""
    description: str


class ServiceError(Exception):
    reason: ClassVar[str]
    violations: tuple[Violation, ...] = ()
    """Fields of the request that are wrong."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        self.retry_after: timedelta | None = None


class InvalidField(ServiceError):
    reason = "INVALID_FIELD"

    def __init__(self, *violations: Violation) -> None:
        first = violations[0]
        super().__init__(f"{first.field}: {first.description}", field=first.field)
        self.violations = violations


class RequestIdReused(ServiceError):
    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str, *, method: str) -> None:
        """*method*: what is asked now."""
        super().__init__(
            f"request_id {request_id!r} was used before with other content", request_id=request_id, method=method
        )


class PageTokenInvalid(ServiceError):
    reason = "PAGE_TOKEN_INVALID"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.violations = (Violation(field="page_token", description=message),)


class ResumeTokenInvalid(ServiceError):
    reason = "RESUME_TOKEN_INVALID"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.violations = (Violation(field="resume_token", description=message),)


class BroadcastNotFound(ServiceError):
    reason = "BROADCAST_NOT_FOUND"

    def __init__(self, broadcast_id: str) -> None:
        super().__init__(f"there is no broadcast {broadcast_id!r}", broadcast_id=broadcast_id)


class BroadcastExists(ServiceError):
    reason = "BROADCAST_EXISTS"

    def __init__(self, broadcast_id: str) -> None:
        super().__init__(f"the id {broadcast_id!r} is taken", broadcast_id=broadcast_id)


class EtagMismatch(ServiceError):
    reason = "ETAG_MISMATCH"


class StateForbids(ServiceError):
    """The message says why, such as "it was stopped". It does not name the RPC: the interface puts that before it."""

    reason = "STATE_FORBIDS"


class FieldImmutable(ServiceError):
    reason = "FIELD_IMMUTABLE"


class ResumeTokenExpired(ServiceError):
    reason = "RESUME_TOKEN_EXPIRED"


class Overloaded(ServiceError):
    reason = "OVERLOADED"


class StoreUnavailable(ServiceError):
    reason = "STORE_UNAVAILABLE"


class ShuttingDown(ServiceError):
    reason = "SHUTTING_DOWN"


class WebhookRefused(ServiceError):
    reason = "WEBHOOK_REFUSED"


class WebhookNotFound(ServiceError):
    reason = "WEBHOOK_NOT_FOUND"

    def __init__(self, webhook_id: int) -> None:
        super().__init__(f"there is no webhook {webhook_id}", webhook_id=str(webhook_id))


class ViewerLimit(ServiceError):
    reason = "VIEWER_LIMIT"


class SessionInvalid(ServiceError):
    reason = "SESSION_INVALID"


class ViewerRevoked(ServiceError):
    reason = "VIEWER_REVOKED"

    def __init__(self, broadcast_id: str, viewer_id: str) -> None:
        super().__init__(
            f"{viewer_id!r} was revoked for {broadcast_id!r}", broadcast_id=broadcast_id, viewer_id=viewer_id
        )


class ProviderUnavailable(ServiceError):
    reason = "PROVIDER_UNAVAILABLE"


class ParticipantNotFound(ServiceError):
    reason = "PARTICIPANT_NOT_FOUND"


class DestinationNotFound(ServiceError):
    reason = "DESTINATION_NOT_FOUND"

    def __init__(self, broadcast_id: str, name: str) -> None:
        super().__init__(f"{broadcast_id!r} has no destination {name!r}", broadcast_id=broadcast_id, destination=name)


class DestinationExists(ServiceError):
    reason = "DESTINATION_EXISTS"

    def __init__(self, broadcast_id: str, name: str) -> None:
        super().__init__(f"{broadcast_id!r} has a destination {name!r}", broadcast_id=broadcast_id, destination=name)


class UnmuteRefused(ServiceError):
    reason = "UNMUTE_REFUSED"


class Outcome(StrEnum):
    """The effect of a failed call on its resource. Everything else about an error is for people."""

    NOT_SENT = "not_sent"
    """The call never left the service: no effect."""
    REFUSED = "refused"
    """The provider refused the call because of its content: no effect, and a repetition is pointless."""
    MISSING = "missing"
    """The resource of the call does not exist."""
    CREDENTIALS = "credentials"
    """The credentials of the service are refused: no effect."""
    THROTTLED = "throttled"
    """There were too many requests: no effect, try later."""
    UNAVAILABLE = "unavailable"
    """Refused for now: no effect, try later."""
    AMBIGUOUS = "ambiguous"
    """The call was sent and not answered: it may have had its effect, or may still have it."""


CREDENTIAL_CODES = frozenset({"unauthenticated", "permission_denied", "401", "403", Outcome.CREDENTIALS.value})
"""The codes of providers, and our own, that mean: it answered, and refuses our credentials."""


class ProviderError(Exception):
    def __init__(
        self,
        message: str,
        *,
        provider: Provider,
        operation: Operation,
        outcome: Outcome,
        code: str = "",
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(f"{provider} {operation}: {code or outcome}: {message}")
        self.provider = provider
        self.operation = operation
        self.outcome = outcome
        self.code = code
        self.message = message
        """Without secrets: adapters redact before they raise."""
        self.retry_after = retry_after


class Overtaken(Exception):
    """The callers changed the target after the step was planned: plan again."""


class LeaseLost(Exception):
    """Another replica has claimed the broadcast since: this pass must write nothing more."""
