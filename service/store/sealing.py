"""Secrets at rest: AES-256-GCM with the row's identity as associated data, so that a copy in another row does not open.

A sealed value is a nonce of 12 random bytes and the ciphertext with its tag.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class CannotOpen(Exception):
    """None of the configured keys opens the value. The message is the row's identity."""


class Sealer:
    """The first key seals, every key opens, so that a key can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Each key is 32 bytes."""
        self._keys = [AESGCM(key) for key in keys]

    def seal(self, text: str, *, row: str) -> bytes:
        """*row*: what identifies the row, in the same words for ever: `open` must be given the same."""
        nonce = os.urandom(_NONCE)
        return nonce + self._keys[0].encrypt(nonce, text.encode(), row.encode())

    def open(self, sealed: bytes, *, row: str) -> str:
        """Raises CannotOpen."""
        for key in self._keys:
            try:
                return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], row.encode()).decode()
            except (InvalidTag, ValueError):
                # ValueError: the value is too short to have a nonce.
                continue
        raise CannotOpen(row)
