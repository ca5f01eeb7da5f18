"""Secrets at rest: AES-256-GCM, bound to the row they belong to, so that a copy in another row does not open."""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class CannotOpen(Exception):
    """None of the configured keys opens it."""


class Sealer:
    """Seals with the first key and opens with any, so that a key can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Each key is 32 bytes."""
        self._keys = [AESGCM(key) for key in keys]

    def seal(self, text: str, *, place: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._keys[0].encrypt(nonce, text.encode(), place.encode())

    def open(self, sealed: bytes, *, place: str) -> str:
        for key in self._keys:
            try:
                return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode()).decode()
            except (InvalidTag, ValueError):
                # ValueError: too short for a nonce.
                continue
        raise CannotOpen(place)
