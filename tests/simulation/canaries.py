"""Secrets that are known again wherever they show (I-10): whole or in part, as they are, in hex, base64 or a URL."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterable, Iterator
from itertools import cycle
from urllib.parse import quote

_SIGNS = string.ascii_letters + string.digits
_LENGTH = 24
_SHOWS = 8
"""So many characters of one are a leak already."""
_SHOWS_IN_HEX = 16
"""Eight hexadecimal digits are in too many ids by chance."""
# What providers say of what they were given. The sources: livekit/egress pkg/errors/errors.go names the whole url; the
# rest is of proxies that tell what they did not pass on.
_SAID: dict[str, tuple[str, ...]] = {
    "livekit": (
        'invalid url "rtmps://global-live.mux.com:443/app/{}"',
        "invalid url mux://{}: invalid scheme",
        "could not authenticate: Bearer eyJhbGciOiJIUzI1NiJ9.{}.signature",
        'refused: {{"stream_key": "{}", "count": 1}}',
    ),
    "mux": (
        "upstream said no to Authorization: Basic {}",
        "cannot fetch https://storage.example/shows/0.mp4?X-Amz-Expires=3600&X-Amz-Signature={}",
        'simulcast_targets[0]: stream_key="{}" is refused',
        "could not connect to rtmps://tube.example/live/{}",
    ),
}


class Canaries:
    """All secrets of one world."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._made: list[str] = []
        self._texts = {provider: cycle(texts) for provider, texts in _SAID.items()}
        self._told = 0
        self.api = {provider: self.make() for provider in _SAID}
        """The credentials of each provider's API and the keys that sign its webhooks."""

    def make(self) -> str:
        secret = "".join(self._rng.choices(_SIGNS, k=_LENGTH))
        self._made.append(secret)
        return secret

    def any(self) -> str:
        """One of them, each in its turn."""
        self._told += 1
        return self._made[self._told % len(self._made)]

    def echo(self, provider: str) -> str:
        """A failure as *provider* words it: with a secret in it."""
        texts = self._texts.get(provider)
        return "simulated" if texts is None else next(texts).format(self.any())

    def shown(self, words: Iterable[str]) -> Iterator[str]:
        """Yields the *words* that show a secret. No secret has a space in it."""
        text = " ".join(words)
        for long, spell in ((_SHOWS, _in_text), (_SHOWS_IN_HEX, _in_hex)):
            beginnings = {spelling[:long] for secret in self._made for spelling in spell(secret)}
            # One pass over the text, whatever the number of secrets.
            for beginning in beginnings.intersection({text[n : n + long] for n in range(len(text) - long + 1)}):
                at = text.index(beginning)
                yield text[text.rfind(" ", 0, at) + 1 :].partition(" ")[0]


def _in_text(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    for lead in range(3):
        # Wherever in a text that is coded it begins: the first sign mixes with what stands before it.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * lead + secret.encode()).decode()[4 if lead else 0 :]


def _in_hex(secret: str) -> Iterator[str]:
    yield secret.encode().hex()
    yield secret.encode().hex().upper()
