"""Times and durations of the contract, and those of Python. A datetime that is returned here is UTC, with its zone."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from service.domain.errors import InvalidField, Violation

_NANOS = 1_000_000_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_SECONDS = 315_576_000_000
"""The bound of google.protobuf.Duration: 10,000 years."""


def given_duration(message: Duration, field: str) -> timedelta:
    """Nanoseconds are cut to microseconds.

    Raises InvalidField, which names *field*, for a message outside the definition of Duration: the rules of the
    contract compare seconds alone, so they accept nanoseconds that are more than a second or of the other sign.
    """
    if (
        not -_NANOS < message.nanos < _NANOS
        or abs(message.seconds) > _MAX_SECONDS
        or message.seconds * message.nanos < 0
    ):
        raise InvalidField(Violation(field=field, description="is no valid duration"))
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def given_time(message: Timestamp, field: str) -> datetime:
    """Raises InvalidField, which names *field*, for a time that a datetime cannot hold."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidField(Violation(field=field, description="is no valid time")) from None


def time_message(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    # FromDatetime goes by way of the calendar, and a health has about thirty times.
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def duration_message(seconds: float) -> Duration:
    """Rounded to microseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=micros * 1000)
