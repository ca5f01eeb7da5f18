"""What identifies a migration: its SQL without comments and blanks, so that a comment can be corrected later.

Only what lies between tokens is left out. A string, a quoted name and a dollar-quoted function body are tokens, kept
sign by sign: `--` in them is no comment, and their blanks are part of what was applied. Where two texts are not sure to
mean the same, their digests differ.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

DIGESTS_OF_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "0001_initial.sql": (
        "63bd3c5b2fe4f600d1a525f3c5da09f174f451d1d323786294899751c50310ae",
        "5c2986d7fbd1209ba437d6ed78f61114573964555272ef8cbcd9454806df38e1",
    ),
    "0002_survival.sql": (
        "0a726571a2992f577a6bf9fb3c6d840493d18ef54439af204d2b2fdd22496b6f",
        "67f981e6b67ad84b1d40e42ca63860e63b74db3b2df680a6b812632476730880",
    ),
    "0003_inbox_filters.sql": (
        "72c72c97bda4baba98f8c6e3e5903834093b550ab1060265a544c56c27215734",
        "89319a0b49022d19e5466d10284bf9cb281e9f20f28e4b6edac5d6a61bbae886",
    ),
}
"""By file: the SHA-256 of the whole file as versions before this one stored it, and the present digest of the same SQL.
A database that has the first is recognised by it although comments of the file have been corrected since.
"""

# As Postgres' scanner reads (src/backend/parser/scan.l). The order matters: E'..' is tried before a name that is E, and
# a name takes all its letters before a quote may begin a string, as in date'2020-01-01'.
_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|--[^\n]*)
  | (?P<block>/\*)
  | [eE]'(?:[^'\\]|\\.|'')*'
  | '(?:[^']|'')*'
  | "(?:[^"]|"")*"
  | (?P<dollar>\$(?:[^\W\d]\w*)?\$).*?(?P=dollar)
  | [\w$.]+
  | (?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?:])+
  | .
    """,
    re.DOTALL | re.VERBOSE,
)


def digest(sql: str) -> str:
    """SHA-256 of the tokens of *sql*, in hex."""
    return hashlib.sha256("\0".join(_tokens(sql)).encode()).hexdigest()


def is_of(stored: str, name: str, sql: str) -> bool:
    """Whether *stored*, read from the table of migrations, is a digest of the file *name* that has *sql* in it now."""
    if stored in (digest(sql), hashlib.sha256(sql.encode()).hexdigest()):
        return True
    return DIGESTS_OF_FILES.get(name) == (stored, digest(sql))


def _tokens(sql: str) -> Iterator[str]:
    at = 0
    while found := _TOKEN.match(sql, at):
        if found["block"]:
            at = _end_of_comment(sql, found.end())
            continue
        if not found["blank"]:
            yield found[0]
        at = found.end()


def _end_of_comment(sql: str, at: int) -> int:
    """Where the comment ends whose `/*` ends at *at*. Comments in Postgres nest."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(sql)
