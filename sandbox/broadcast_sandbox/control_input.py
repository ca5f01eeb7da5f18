"""Reading what people and tests send to the control endpoints. Bad input raises ControlError naming the field."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web

_T = TypeVar("_T")
Body = Mapping[str, Any]
_LOOPBACK = ("127.0.0.1", "::1")


class ControlError(Exception):
    """Answered with `{"error": text}`."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def refuse_strangers(request: web.Request) -> None:
    """Control endpoints need no credentials, so they are for this machine only."""
    if request.remote not in _LOOPBACK:
        raise web.HTTPForbidden(text=json.dumps({"error": "loopback only"}), content_type="application/json")


def typed(body: Body, name: str, kind: type[_T], default: _T | None = None) -> _T:
    value = body.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ControlError(f"{name}: {kind.__name__} expected")
    return value


def text(body: Body, name: str) -> str:
    value = typed(body, name, str)
    if not value:
        raise ControlError(f"{name}: must not be empty")
    return value


def number(body: Body, name: str, default: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ControlError(f"{name}: number expected")
    return float(value)
