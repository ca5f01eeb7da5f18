"""Answers of providers that are not taken, and failures of TLS, each with a sentence for people.

A provider, or a proxy in front of it, may answer anything: a page of a gigabyte, a compressed one that grows, a
redirect, a byte a minute. Every call has one time limit and one size limit, no redirect is followed, and an answer that
comes compressed without having been asked to is not unpacked.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_REFUSAL: Final = 64 * 1024
"""Bytes of an answer with an error status that are read. The status says enough where the text is longer."""


class NotTaken(Exception):
    """An answer that is not read, or not further. The call may have had its effect. The message quotes nothing of the
    answer.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Redirected(NotTaken):
    """The request would be sent to another address, with its body and its credentials."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status), f"redirected ({status})")


class TooLarge(NotTaken):
    def __init__(self, largest: int) -> None:
        super().__init__("too_large", f"an answer of more than {largest // 1024} KiB")


class Compressed(NotTaken):
    """In a way that was not asked for, or broken. A few kilobytes can become gigabytes, so it is not unpacked."""

    def __init__(self) -> None:
        super().__init__("compressed", "a compressed answer that cannot be read")


def check(status: int, encoding: str) -> None:
    """Raises NotTaken for an answer whose *status* is a redirect, or whose Content-Encoding is not the plain one."""
    if 300 <= status <= 399:  # noqa: PLR2004 - the class of redirects
        raise Redirected(status)
    if encoding.strip().lower() not in ("", "identity"):
        raise Compressed


def tls_failure(raised: BaseException) -> str | None:
    """`TLS: ...` with the reason in words, if TLS is why *raised* was raised. None: another reason."""
    for each in _chain(raised):
        # aiohttp has an error of its own that is one of these and lacks their attributes.
        if isinstance(each, ssl.SSLCertVerificationError) and (why := getattr(each, "verify_message", "")):
            return f"TLS: the certificate is not accepted: {why}"
        if isinstance(each, ssl.SSLError) and (why := getattr(each, "reason", "")):
            return f"TLS: {str(why).replace('_', ' ').lower()}"
    if any(isinstance(each, ssl.SSLError) for each in _chain(raised)):
        return "TLS: the handshake failed"
    return None


def _chain(raised: BaseException) -> Iterator[BaseException]:
    """*raised* and the errors that led to it. Both libraries hand the error of the handshake on in one of these."""
    waiting, met = [raised], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        yield each
        further = (
            each.__cause__,
            each.__context__,
            getattr(each, "reason", None),
            getattr(each, "os_error", None),
            getattr(each, "certificate_error", None),
            *each.args,
        )
        waiting += [other for other in further if isinstance(other, BaseException)]
