"""One Mux API call without HTTP: its request, its reply, its route, and what its handlers have in common.

Every handler is a plain function of the request's parts that changes the world at once or raises `RefusedError`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from broadcast_sandbox.mux.api.fields import RefusedError, invalid
from broadcast_sandbox.mux.model import Json

T = TypeVar("T")

DEFAULT_LIMIT = 25
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    path: dict[str, str] = field(default_factory=dict[str, str])
    query: dict[str, str] = field(default_factory=dict[str, str])
    body: Json = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int = 200
    body: Json | None = None
    """None: an empty answer (204)."""


@dataclass(frozen=True, slots=True)
class Route:
    verb: str
    path: str
    operation: str
    """The name that faults use: the method of mux_python, where there is one."""
    run: Callable[[Call], Reply]


def data(value: Any, status: int = 200) -> Reply:
    return Reply(status=status, body={"data": value})


def found(item: T | None) -> T:
    """Raises RefusedError (404) if there is none."""
    if item is None:
        text = "The requested resource either doesn't exist or you don't have access to it."
        raise RefusedError(404, "not_found", text)
    return item


def page(call: Call) -> tuple[int, int]:
    """Number of the first item, from 0, and how many.

    More than the maximum is taken as the maximum; whether Mux refuses it instead is not documented.
    """
    limit = min(_positive(call, "limit", DEFAULT_LIMIT), MAX_LIMIT)
    return (_positive(call, "page", 1) - 1) * limit, limit


def _positive(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise invalid(f"{name} must be a positive integer")
    return int(text)
