"""The values of arguments: how they are written, and the types that commands declare for them."""

import contextlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from cyclopts import Parameter, Token

from broadcast.v1.broadcast_pb2 import Destination
from broadcast_client.values import State, broadcast_state

_Value = TypeVar("_Value")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def one(convert: Callable[[str], _Value]) -> Callable[[Any, Sequence[Token]], _Value]:
    """The converter of an argument that is given once."""
    return lambda _, tokens: convert(tokens[-1].value)


def many(convert: Callable[[str], _Value]) -> Callable[[Any, Sequence[Token]], list[_Value]]:
    """The converter of an option that may be repeated."""
    return lambda _, tokens: [convert(token.value) for token in tokens]


def a_duration(text: str) -> float:
    """Seconds of "20s", "1h30m", "500ms", "90"."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration such as 20s, 2m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def a_time(text: str) -> datetime:
    """The moment of "2026-12-24T20:00:00Z" or "2026-12-24T21:00:00+01:00"."""
    moment: datetime | None = None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text!r} is no time such as 2026-12-24T20:00:00Z")
    return moment


def a_pair(text: str) -> tuple[str, str]:
    """Key and value of "key=value"."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} is not key=value")
    return key, value


def a_destination(text: str) -> Destination:
    """The destination of "name=url" or "name=url,key"; "@path" as key reads it from a file."""
    name, rest = a_pair(text)
    url, _, key = rest.partition(",")
    if key.startswith("@"):
        try:
            key = Path(key[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the key of {name}: {error}") from error
    return Destination(name=name, url=url, stream_key=key)


BroadcastId: TypeAlias = Annotated[str, Parameter(help="of the broadcast")]
NewId: TypeAlias = Annotated[str, Parameter(metavar="ID", help="default: the service makes one")]
OnlyIds: TypeAlias = Annotated[
    Sequence[str], Parameter(name="--id", metavar="ID", help="only this; may be repeated", n_tokens=1)
]
States: TypeAlias = Annotated[
    Sequence[State],
    Parameter(
        name="--state", converter=many(broadcast_state), metavar="STATE", help="in this; may be repeated", n_tokens=1
    ),
]
Labels: TypeAlias = Annotated[
    Sequence[tuple[str, str]],
    Parameter(name="--label", converter=many(a_pair), metavar="KEY=VALUE", help="may be repeated", n_tokens=1),
]
Owner: TypeAlias = Annotated[str, Parameter(metavar="ID")]
DestinationList: TypeAlias = Annotated[
    Sequence[Destination],
    Parameter(
        converter=many(a_destination),
        metavar="NAME=URL[,KEY]",
        help="KEY may be @FILE, which keeps it out of the process list",
        n_tokens=1,
        accepts_keys=False,
    ),
]
Identity: TypeAlias = Annotated[str, Parameter(metavar="IDENTITY")]
Limit: TypeAlias = Annotated[int, Parameter(help="how many at most, 0 for all")]


def span(help: str = "") -> Parameter:
    """The declaration of a duration, in seconds once it is read."""
    return Parameter(converter=one(a_duration), metavar="DURATION", help=help)
