"""Tokens for Mux's signed playback ids: RS256 JWTs, made here with a signing key of the Mux environment.

`sub` is the playback id, `aud` the use, `exp` the end in seconds since 1970, which is required. `kid` stands in the
header and in the claims: the documentation lists it among the claims (mux.com/docs, Secure video playback), and
@mux/mux-node puts it into one of the two, by version.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.domain.ports import PlaybackToken, TokenUse
from service.domain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_AUDIENCE: Final[Mapping[TokenUse, str]] = {
    TokenUse.VIDEO: "v",
    TokenUse.THUMBNAIL: "t",
    TokenUse.STORYBOARD: "s",
    # mux.com/docs, See how many people are watching.
    TokenUse.COUNTS: "live_stream_id",
}
_TOGETHER_S: Final = 300
"""Tokens end at full multiples of this, so that one signature, which takes about a millisecond, serves many viewers."""
_KEPT: Final = 4096
"""Signed tokens that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    id: str
    pem: Secret

    @classmethod
    def of(cls, id: str, text: str) -> SigningKey:
        """*text*: the private key as PEM, or the same in base64, as Mux hands it out. A backslash and an n stand for
        a line end, because many tools cannot write one into a variable. Raises ValueError with a message that does not
        quote it.
        """
        pem = text.replace("\\n", "\n").strip()
        if not pem.startswith("-----"):
            try:
                pem = base64.b64decode("".join(pem.split()), validate=True).decode("ascii").strip()
            except (binascii.Error, UnicodeError):
                raise ValueError("neither PEM nor PEM in base64") from None
        key = cls(id=id, pem=Secret(pem))
        key.load()
        return key

    def load(self) -> RSAPrivateKey:
        """Raises ValueError."""
        try:
            key = load_pem_private_key(self.pem.reveal().encode(), password=None)
        except (ValueError, TypeError):
            # TypeError: it is encrypted. The texts of both may quote it.
            raise ValueError("no private key in PEM") from None
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("no RSA key")  # noqa: TRY004 - the value is wrong, whatever its class is
        return key


class Signer:
    """PlaybackTokens of Mux. The first key signs; the others wait for their turn of a rotation."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """*keys*: at least one. Raises ValueError."""
        self._key_id = keys[0].id
        self._key = keys[0].load()
        self._signed: OrderedDict[tuple[str, TokenUse, int], PlaybackToken] = OrderedDict()

    def sign(self, subject: str, use: TokenUse, *, until: datetime) -> PlaybackToken:
        expires = -(-int(until.timestamp()) // _TOGETHER_S) * _TOGETHER_S
        wanted = (subject, use, expires)
        signed = self._signed.get(wanted)
        if signed is None:
            signed = self._signed[wanted] = self._sign(subject, use, expires)
            if len(self._signed) > _KEPT:
                self._signed.popitem(last=False)
        return signed

    def _sign(self, subject: str, use: TokenUse, expires: int) -> PlaybackToken:
        claims = {"sub": subject, "aud": _AUDIENCE[use], "exp": expires, "kid": self._key_id}
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._key_id})
        ends = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=expires)
        return PlaybackToken(token=Secret(token), expire_time=ends)
