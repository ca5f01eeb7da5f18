"""Whether a webhook is the provider's. On the raw bytes, in constant time, before anything is parsed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import jwt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.domain.secret import Secret

_TOLERANCE_S = 300
_LEEWAY_S = 60
_LONGEST_HEADER = 4096


def from_mux(header: str, body: bytes, secrets: Sequence[Secret], *, now: float) -> bool:
    """`Mux-Signature: t=<unix>,v1=<hex>[,v1=..]`, HMAC-SHA256 over "<t>.<body>" (muxinc/mux-node-sdk webhooks.ts).

    Mux's own SDKs accept any time in the future; a signature that is to be used later is refused here.
    """
    if len(header) > _LONGEST_HEADER:
        return False
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdecimal() or len(times[0]) > 12:  # noqa: PLR2004
        return False
    if abs(now - int(times[0])) > _TOLERANCE_S:
        return False
    signed = times[0].encode() + b"." + body
    good = False
    for secret in secrets:
        expected = hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest().encode()
        for signature in signatures:
            good |= hmac.compare_digest(expected, _encoded(signature))
    return good


def from_livekit(header: str, body: bytes, secrets: Mapping[str, Secret]) -> bool:
    """`Authorization: <JWT>` (no "Bearer", which is accepted all the same), with the body's SHA-256 as a claim
    (livekit/protocol webhook/resource_url_notifier.go). *secrets*: API key to secret.
    """
    token = header.removeprefix("Bearer ").strip()
    if not token or len(token) > _LONGEST_HEADER:
        return False
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss", "")
        secret = secrets.get(issuer) if isinstance(issuer, str) else None
        if secret is None:
            return False
        claims = jwt.decode(
            token,
            secret.reveal(),
            algorithms=["HS256"],
            leeway=_LEEWAY_S,
            options={"require": ["exp", "iss"], "verify_aud": False},
        )
    except (jwt.PyJWTError, ValueError):
        return False
    claimed = claims.get("sha256")
    actual = base64.b64encode(hashlib.sha256(body).digest())
    return isinstance(claimed, str) and hmac.compare_digest(_encoded(claimed), actual)


def _encoded(text: str) -> bytes:
    """Bytes of no encoding stand in a header's text as lone surrogates, which do not encode as they are."""
    return text.encode(errors="replace")
