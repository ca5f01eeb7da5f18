"""Typed reading of a request body. What does not fit raises RefusedError with the text of a Mux refusal."""

from collections.abc import Iterable
from typing import Any

from broadcast_sandbox.mux.model import Json


class RefusedError(Exception):
    """An answer of the `{"error": {"type", "messages"}}` shape."""

    def __init__(self, status: int, type_: str, *messages: str) -> None:
        super().__init__(f"{status} {type_}: {'; '.join(messages)}")
        self.status = status
        self.type = type_
        self.messages = list(messages)


def invalid(message: str) -> RefusedError:
    return RefusedError(400, "invalid_parameters", message)


def known(body: Json, names: frozenset[str]) -> Json:
    """The body without nulls. Refuses names that are not among *names*."""
    unknown = sorted(set(body) - names)
    if unknown:
        raise invalid(f"unknown parameter(s): {', '.join(unknown)}")
    return {name: value for name, value in body.items() if value is not None}


def as_object(value: Any, name: str) -> Json:
    if not isinstance(value, dict):
        raise invalid(f"{name} must be an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def array(body: Json, name: str) -> list[Any]:
    value = body.get(name, [])
    if not isinstance(value, list):
        raise invalid(f"{name} must be an array")
    return value  # pyright: ignore[reportUnknownVariableType]


def text(body: Json, name: str, limit: int) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    if len(value) > limit:
        raise invalid(f"{name} must be at most {limit} characters")
    return value


def flag(body: Json, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise invalid(f"{name} must be a boolean")
    return value


def number(body: Json, name: str, low: float, high: float, default: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a number")
    if not low <= value <= high:
        raise invalid(f"{name} must be between {low:g} and {high:g}")
    return value


def whole(body: Json, name: str, low: int, high: int, default: int) -> int:
    value = number(body, name, low, high, default)
    if value != int(value):
        raise invalid(f"{name} must be an integer")
    return int(value)


def one_of(body: Json, name: str, allowed: Iterable[str]) -> None:
    if name in body and body[name] not in allowed:
        raise invalid(f"{name} must be one of {', '.join(allowed)}")
