"""The text of a provider's error as one short line for people: no markup, no secrets, 200 characters at most."""

from __future__ import annotations

import html
import re
from http import HTTPStatus

from service.providers.text.redaction import redacted_text

LONGEST_MESSAGE = 200
"""Characters of an error's text that people are shown."""

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
"""Parts of a page that a browser does not show, as the patterns of their beginning and end."""


def readable(text: str, status: int | None = None) -> str:
    """*text* as one short line without markup and secrets.

    *status*: the HTTP status of an answer that is not the provider's own but comes from a proxy in front of it, such as
    an HTML page, one word, or nothing. The line begins with it.
    """
    shown = html.unescape(text) if "&" in text else text
    if shown.lstrip().startswith("<"):
        shown = _without_markup(shown)
    shown = " ".join(redacted_text(" ".join(shown.split())).split())
    if status is not None and not shown.startswith(str(status)):
        shown = f"{_named(status)}: {shown}" if shown else _named(status)
    # Cut after the redaction: half of a secret could be too short to be recognised.
    return shown if len(shown) <= LONGEST_MESSAGE else f"{shown[: LONGEST_MESSAGE - 1]}…"


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _without_markup(page: str) -> str:
    """In one pass over *page*. A tag or comment that is never closed ends the text."""
    texts: list[str] = []
    at = 0
    while (opens := page.find("<", at)) >= 0:
        # A secret with a part in bold must become one word again, or redaction would not recognise it.
        texts += page[at:opens], "" if _WITHIN_WORDS.match(page, opens) else " "
        skipped = next((end for begin, end in _UNSHOWN if begin.match(page, opens)), None)
        closes = _TAG_ENDS.search(page, opens) if skipped is None else skipped.search(page, opens)
        if closes is None:
            return "".join(texts)
        at = closes.end()
    return "".join([*texts, page[at:]])
