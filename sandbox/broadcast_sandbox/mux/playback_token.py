"""Tokens of signed playback ids (mux.com/docs, Secure video playback): RS256 signed JWTs.

Checked by hand, on purpose not with the library that the service signs with. Once a signing key is registered, the
signature and `exp` are required, and `kid` is found in the header or in the claims: Mux's documentation lists it among
the claims, its SDKs write it into one or the other.
"""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broadcast_sandbox.mux.model import Json

Use = Literal["v", "t", "s", "live_stream_id"]
"""`aud`: video, thumbnail, storyboard, engagement counts of a live stream."""


def subject(token: str) -> str:
    """Of what the token says it is for. Empty: it is no token."""
    try:
        return str(_decoded(token.split(".")[1]).get("sub", ""))
    except (ValueError, IndexError):
        return ""


def genuine(token: str, playback_id: str, signing_keys: Mapping[str, str], use: Use = "v") -> bool:
    """Whether the token is for this id and this use and not expired, and signed with one of *signing_keys* (id -> PEM)
    if any.
    """
    try:
        signed, _, signature = token.rpartition(".")
        head, claims = (_decoded(part) for part in signed.split("."))
    except ValueError:
        return False
    if claims.get("sub") != playback_id or claims.get("aud", "v") != use or _expired(claims):
        return False
    return not signing_keys or ("exp" in claims and _signed(signing_keys, head, claims, signed, signature))


def _signed(signing_keys: Mapping[str, str], head: Json, claims: Json, signed: str, signature: str) -> bool:
    named = {str(part["kid"]) for part in (head, claims) if "kid" in part}
    pem = signing_keys.get(named.pop()) if len(named) == 1 else None
    if pem is None or head.get("alg") != "RS256":
        return False
    key = serialization.load_pem_public_key(pem.encode())
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(_bytes(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _decoded(part: str) -> Json:
    """Raises ValueError."""
    value: Any = json.loads(_bytes(part))
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return value  # pyright: ignore[reportUnknownVariableType]


def _expired(claims: Json) -> bool:
    expires = claims.get("exp")
    return isinstance(expires, int | float) and expires < time.time()
