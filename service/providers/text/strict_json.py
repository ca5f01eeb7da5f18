"""Strict JSON: the body of a webhook is one object that every reader understands in the same way.

The signature was verified before, so a wrong body comes from the provider or from a holder of its key. Either way it
can be refused and can do nothing else: `Unreadable` is the only error.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, cast

from service.domain.ports import Unreadable

# int64 has 19 digits and a sign; protojson writes those as text anyway.
_LONGEST_NUMBER = 32
_DEEPEST = 64
_LONGEST_NAME = 255


def parsed(body: bytes) -> dict[str, Any]:
    """The one object in *body*. Raises Unreadable.

    Refused too, because no provider sends them and readers disagree about them: a name that stands twice, NaN and
    infinities, numbers out of range, texts that Postgres cannot hold.
    """
    try:
        found: Any = json.loads(
            body.decode(), object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_no_number
        )
        _check(found, 0)
    except Unreadable:
        raise
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return cast("dict[str, Any]", found)


def identifier(value: object) -> str:
    """*value*, where it is an id or the name of an event. Raises Unreadable."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise Unreadable("an id or a type is missing")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise Unreadable("a number out of range")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable("a number out of range")
    return value


def _no_number(_text: str) -> NoReturn:
    raise Unreadable("a number that is none")


def _check(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise Unreadable("nested too deeply")
    match value:
        case str():
            _check_text(value)
        case dict():
            for name, each in cast("dict[str, Any]", value).items():
                _check_text(name)
                _check(each, depth + 1)
        case list():
            for each in cast("list[Any]", value):
                _check(each, depth + 1)
        case _:
            pass


def _check_text(text: str) -> None:
    if "\0" in text:
        raise Unreadable("a NUL in a text")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise Unreadable("half a character in a text")
