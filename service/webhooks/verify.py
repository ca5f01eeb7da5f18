"""Whether a webhook was signed by its provider: checked on the raw bytes, before anything of the body is parsed.

Signatures are compared in constant time. Without a secret nothing verifies.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.domain.secret import Secret

_TOLERANCE_S = 300
"""Mux: the largest difference between the time of the signature and our time, in both directions."""
_LEEWAY_S = 60
"""LiveKit: added to both ends of the time in which the token is valid (`nbf` to `exp`)."""
_LONGEST_MUX_HEADER = 1024
_LONGEST_TOKEN = 4096


class Refusal(StrEnum):
    """Why a webhook was refused, for logs and metrics. The sender is told only that it was refused."""

    NOT_SIGNED = "not_signed"
    TWICE_SIGNED = "twice_signed"
    MALFORMED = "malformed"
    STALE = "stale"
    """Too old, or not valid yet: it was recorded and sent again, or one of the two clocks is wrong."""
    FORGED = "forged"
    """Not signed with a secret of ours."""
    OTHER_BODY = "other_body"
    """The signature is good, but was made for another body."""


def only(headers: Iterable[tuple[str, str]], name: str) -> str | Refusal:
    """The value of the one header *name*, which is given in lower case. Two headers are refused, because a proxy might
    check the one and this service the other.
    """
    values = [value for each, value in headers if each.lower() == name]
    if len(values) > 1:
        return Refusal.TWICE_SIGNED
    return values[0].strip() if values and values[0].strip() else Refusal.NOT_SIGNED


def from_mux(header: str, body: bytes, secrets: Sequence[Secret], *, now: float) -> Refusal | None:
    """`Mux-Signature: t=<unix>,v1=<hex>[,v1=..]`, HMAC-SHA256 over "<t>.<body>" (muxinc/mux-node-sdk webhooks.ts).

    *now*: Unix time in seconds. Answers None if the webhook is Mux's. Mux's own SDKs accept any time in the future;
    here a signature from the future is refused.
    """
    if len(header) > _LONGEST_MUX_HEADER:
        return Refusal.MALFORMED
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdecimal() or len(times[0]) > 12:  # noqa: PLR2004
        return Refusal.MALFORMED
    signed = times[0].encode() + b"." + body
    good = False
    for secret in secrets:
        if not secret:
            # Anybody can sign with an empty secret.
            continue
        expected = hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest().encode()
        for signature in signatures:
            good |= hmac.compare_digest(expected, _encoded(signature))
    if not good:
        return Refusal.FORGED
    return Refusal.STALE if abs(now - int(times[0])) > _TOLERANCE_S else None


def from_livekit(header: str, body: bytes, secrets: Mapping[str, Secret]) -> Refusal | None:
    """`Authorization: <JWT>` (no "Bearer", which is accepted all the same), with the body's SHA-256 as a claim
    (livekit/protocol webhook/resource_url_notifier.go). *secrets*: API key to secret. Answers None if the webhook is
    LiveKit's.
    """
    scheme, _, rest = header.partition(" ")
    claims = _claims(rest.strip() if scheme.lower() == "bearer" else header, secrets)
    if isinstance(claims, Refusal):
        return claims
    claimed = claims.get("sha256")
    actual = base64.b64encode(hashlib.sha256(body).digest())
    if not isinstance(claimed, str) or not hmac.compare_digest(_encoded(claimed), actual):
        return Refusal.OTHER_BODY
    return None


def _claims(token: str, secrets: Mapping[str, Secret]) -> dict[str, Any] | Refusal:
    if not token or len(token) > _LONGEST_TOKEN:
        return Refusal.MALFORMED
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss", "")
        secret = secrets.get(issuer) if isinstance(issuer, str) else None
        if not secret:
            return Refusal.FORGED
        return jwt.decode(
            token,
            secret.reveal(),
            algorithms=["HS256"],
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss", "nbf"], "verify_aud": False},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        return Refusal.STALE
    except (jwt.InvalidAlgorithmError, jwt.InvalidSignatureError, jwt.InvalidKeyError):
        return Refusal.FORGED
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
        return Refusal.MALFORMED


def _encoded(text: str) -> bytes:
    """The bytes of *text*. A header that is not UTF-8 has lone surrogates in its text; each becomes `?`."""
    return text.encode(errors="replace")
