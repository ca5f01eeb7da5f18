"""Bodies of webhooks: strict JSON of theirs, and the same without its secrets; and what errors say, for people.

The signature was verified, so a body that is wrong is one of the provider's, or of who has its key; either way it must
not be able to do more than be refused.
"""

from __future__ import annotations

import html
import json
import math
import re
from http import HTTPStatus
from typing import Any, NoReturn, cast

from service import telemetry
from service.domain.ports import Unreadable

# int64 has 19 digits and a sign; protojson writes those as text anyway.
_LONGEST_NUMBER = 32
_DEEPEST = 64
_LONGEST_NAME = 255
LONGEST_MESSAGE = 200
"""Of an error, as people are shown it."""

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
# By words: looked for from every place on, it would take a minute in a text of nothing but beginnings.
_WORD = re.compile(r"[^\s\"']+")
_TAG_ENDS = re.compile(">")
_WITHIN_WORDS = re.compile(r"</?(a|b|code|em|font|i|kbd|mark|small|span|strong|tt|u|wbr)\b", re.IGNORECASE)
_UNSHOWN = tuple(
    (re.compile(begin, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for begin, end in (
        ("<!--", "-->"),
        (r"<head\b", r"</head\s*>"),
        (r"<script\b", r"</script\s*>"),
        (r"<style\b", r"</style\s*>"),
    )
)
"""What of a page nobody sees."""


def parsed(body: bytes) -> dict[str, Any]:
    """The one object that *body* is. Raises Unreadable.

    Refused as well, for nobody sends them and everybody understands them differently: names that stand twice, numbers
    that are none, texts that Postgres cannot hold.
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


def redacted(body: bytes) -> str:
    """JSON for people's eyes. What cannot be read is not shown: nobody knows where its secrets are."""
    try:
        return json.dumps(_shown(parsed(body)), ensure_ascii=False)
    except Unreadable as error:
        return json.dumps({"unreadable": str(error), "bytes": len(body)})


def redacted_text(text: str) -> str:
    """Without the queries of addresses too: that is where presigned ones have their signature."""
    return telemetry.redact(_WORD.sub(_without_query, text) if "://" in text else text)


def readable(text: str, status: int | None = None) -> str:
    """What an error says, as one short line without markup and secrets. *status*: of an answer that is not the
    provider's own, but of what stands in front of it: a page, a word, nothing.
    """
    shown = html.unescape(text) if "&" in text else text
    if shown.lstrip().startswith("<"):
        shown = _without_markup(shown)
    shown = " ".join(redacted_text(" ".join(shown.split())).split())
    if status is not None and not shown.startswith(str(status)):
        shown = f"{_named(status)}: {shown}" if shown else _named(status)
    # Cut after, so that no half of a secret is too short to be recognised.
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[: LONGEST_MESSAGE - 1]}…"


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _without_markup(page: str) -> str:
    """One pass: what is opened and never closed ends it."""
    texts: list[str] = []
    at = 0
    while (opens := page.find("<", at)) >= 0:
        # A secret that is set in bold must be one word again, or nobody would know it.
        texts += page[at:opens], "" if _WITHIN_WORDS.match(page, opens) else " "
        skipped = next((end for begin, end in _UNSHOWN if begin.match(page, opens)), None)
        closes = _TAG_ENDS.search(page, opens) if skipped is None else skipped.search(page, opens)
        if closes is None:
            return "".join(texts)
        at = closes.end()
    return "".join([*texts, page[at:]])


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


def identifier(value: object) -> str:
    """An id or the name of an event. Raises Unreadable."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise Unreadable("an id or a type is missing")
    return value
