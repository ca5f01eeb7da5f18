"""Sessions of viewers: compact tokens that this service signs, so that nothing is stored for a viewer of HLS.

A session holds the ids of a broadcast and a viewer and its times. It is signed with a key that is derived from the
secret keys of the service and the environment: any replica of the environment reads it, no other environment does, and
it rotates as they do (the first key signs, all verify). Callers keep sessions over restarts and new versions of the
service, so the form of a version does not change.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BIIB")
"""Version, issued and expires in seconds since 1970, length of the broadcast's id. The viewer's id is the rest."""
_MAC: Final = 16
"""Bytes of the keyed hash: 128 bits cannot be guessed."""
_LONGEST: Final = 400
"""Characters. The longest ids make some 260."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerSession:
    broadcast_id: str
    viewer_id: str
    issued: int
    """Seconds since 1970, by the database clock."""
    expires: int
    """As `issued`. The session may have expired: that is the reader's to look at."""


class Sessions:
    def __init__(self, secret_keys: Sequence[bytes], *, environment: str, life: timedelta) -> None:
        """*secret_keys*: the first signs, all verify. *life*: of a session."""
        self.life = life
        self._keys = [_derived(key, environment) for key in secret_keys]

    def issue(self, broadcast_id: str, viewer_id: str, now: datetime) -> tuple[str, datetime]:
        """A session and when it expires. *now*: of the database clock."""
        issued = int(now.timestamp())
        expires = issued + int(self.life.total_seconds())
        broadcast, viewer = broadcast_id.encode(), viewer_id.encode()
        content = _HEAD.pack(_VERSION, issued, expires, len(broadcast)) + broadcast + viewer
        return _text(content + _mac(self._keys[0], content)), datetime.fromtimestamp(expires, UTC)

    def read(self, text: str) -> ViewerSession | None:
        """None: it is forged, damaged, of another environment, or signed with a key that is not known any more."""
        if len(text) > _LONGEST:
            return None
        try:
            signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return None
        content, mac = signed[:-_MAC], signed[-_MAC:]
        # A second spelling of the same bytes would be another session to whoever compares texts.
        if len(content) < _HEAD.size or _text(signed) != text:
            return None
        if not any(hmac.compare_digest(_mac(key, content), mac) for key in self._keys):
            return None
        version, issued, expires, length = _HEAD.unpack_from(content)
        if version != _VERSION:
            return None
        ids = content[_HEAD.size :]
        return ViewerSession(
            broadcast_id=ids[:length].decode(), viewer_id=ids[length:].decode(), issued=issued, expires=expires
        )


def _derived(key: bytes, environment: str) -> bytes:
    info = f"broadcast/viewer-session/{_VERSION}/{environment}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key)


def _mac(key: bytes, content: bytes) -> bytes:
    # Made for this, and a quarter of the time of an HMAC.
    return hashlib.blake2b(content, key=key, digest_size=_MAC).digest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
