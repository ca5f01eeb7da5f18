"""Texts and bodies of providers without their secrets, before people or the inbox get them."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from service import telemetry
from service.domain.ports import Unreadable
from service.providers.text.strict_json import parsed

# Names in both spellings, `streamKey` and `stream_key`.
_SECRET_NAMES = frozenset(
    {
        "accesskey",
        "accountkey",
        "authorization",
        "credentials",
        "drmtoken",
        "key",
        "passphrase",
        "password",
        "privatekey",
        "secret",
        "secretkey",
        "sessiontoken",
        "signingkey",
        "signingsecret",
        "srtpassphrase",
        "streamkey",
        "token",
        "turnpassword",
    }
)
# Word by word: a search from every position would take a minute in a text that consists of beginnings of addresses.
_WORD = re.compile(r"[^\s\"']+")


def redacted(body: bytes) -> str:
    """The JSON in *body* with its secrets replaced, for people.

    Of a body that cannot be read only the reason and the size are shown: nobody knows where its secrets are.
    """
    try:
        return json.dumps(_shown(parsed(body)), ensure_ascii=False)
    except Unreadable as error:
        return json.dumps({"unreadable": str(error), "bytes": len(body)})


def redacted_text(text: str) -> str:
    """*text* without secrets, and without the queries of addresses: a presigned address has its signature there."""
    return telemetry.redact(_WORD.sub(_without_query, text) if "://" in text else text)


def _shown(value: Any) -> Any:
    match value:
        case str():
            return redacted_text(value)
        case dict():
            pairs = cast("dict[str, Any]", value).items()
            return {
                telemetry.redact(name): "***" if _secret(name) and each not in (None, "") else _shown(each)
                for name, each in pairs
            }
        case list():
            return [_shown(each) for each in cast("list[Any]", value)]
        case _:
            return value


def _without_query(word: re.Match[str]) -> str:
    address, scheme, rest = word[0].partition("://")
    ends = min((rest.find(sign) for sign in "?#" if sign in rest), default=-1)
    return word[0] if not scheme or ends < 0 else f"{address}://{rest[:ends]}?***"


def _secret(name: str) -> bool:
    return name.replace("_", "").replace("-", "").lower() in _SECRET_NAMES
