"""The text of an environment variable becomes a value, or is refused with a reason that does not quote it.

Every parser gets a text that is not empty and has no blanks around it. It raises `Wrong`, or lets the ValueError of
int() or float() through, which the reader of the variable reports as "not a number".
"""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from service.domain.cost.money import DOLLAR
from service.domain.measurements import PROBED_S, SEEN_S
from service.domain.pool import MOST, NotAProfile, Profile, profile_from
from service.domain.secret import Secret
from service.providers.budget import Limit
from service.providers.mux.signing import SigningKey
from service.settings.hosts import is_public

LONGEST_ROUND = timedelta(seconds=min(SEEN_S, PROBED_S) / 2)
"""The longest time from one look of the observer, or of the prober, to its next. One look may be lost before what was
seen is too old to be believed.
"""
_LOWEST_RATE, _HIGHEST_RATE = 0.001, 1_000_000.0


class Wrong(ValueError):
    """The value cannot be used. The message is the reason, in our own words: it never quotes the value."""


def text(value: str) -> str:
    return value


def secret(value: str) -> Secret:
    return Secret(value)


def secrets(value: str) -> tuple[Secret, ...]:
    return tuple(Secret(part) for part in _several(value))


def key_secrets(value: str) -> tuple[tuple[str, Secret], ...]:
    """Pairs of an API key and its secret. A secret may contain colons, a key may not."""
    pairs = [part.partition(":") for part in _several(value)]
    if not all(key and secret for key, _, secret in pairs):
        raise Wrong("must be pairs of key:secret, separated by commas")
    return tuple((key, Secret(secret)) for key, _, secret in pairs)


def signing_keys(value: str) -> tuple[SigningKey, ...]:
    """Pairs of the id of a key and its private key. Neither PEM nor base64 has commas."""
    keys: list[SigningKey] = []
    for part in _several(value):
        id_, colon, private = part.partition(":")
        if not (id_.strip() and colon):
            raise Wrong("must be pairs of id:private key, separated by commas")
        try:
            keys.append(SigningKey.of(id_.strip(), private))
        except ValueError as error:
            raise Wrong(f"each private key must be an RSA key as PEM, or that in base64: {error}") from None
    return tuple(keys)


def encryption_keys(value: str) -> tuple[bytes, ...]:
    keys: list[bytes] = []
    for part in _several(value):
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:
            # binascii.Error is a ValueError; a text that is not ASCII raises ValueError itself.
            raise Wrong("must be base64") from None
        if len(key) != 32:  # noqa: PLR2004 - AES-256
            raise Wrong("each key must be 32 bytes in base64: head -c 32 /dev/urandom | base64")
        keys.append(key)
    if not keys:
        raise Wrong("must be at least one key")
    return tuple(keys)


def postgres_url(value: str) -> Secret:
    """Refuses an address that asyncpg would read in another way than its author meant: its errors quote pieces of the
    password.
    """
    parts = _split(value)
    if parts.scheme not in ("postgres", "postgresql"):
        raise Wrong("must begin with postgresql://")
    credentials, at, hosts = parts.netloc.rpartition("@")
    # Each of these signs ends the user and the password where it stands, and the rest is read as something else.
    if "#" in value or "@" in credentials or (not at and "@" in parts.path):
        raise Wrong("a # / ? @ in the user or the password must be written %23 %2F %3F %40")
    if not all(_is_host(host) for host in hosts.split(",")):
        raise Wrong("must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE (a / or ? in the password: %2F %3F)")
    if parts.query and not all("=" in pair for pair in parts.query.split("&")):
        raise Wrong("must have name=value after the ?, and & between two (a ? in the password: %3F)")
    return Secret(value)


def _is_host(host: str) -> bool:
    """A name, an IPv4 address or an IPv6 address in brackets, each with or without a port; or nothing at all."""
    found = re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", host)
    return found is not None and int(found[1] or 0) <= 65535  # noqa: PLR2004 - the ports there are


def room_server_url(value: str) -> str:
    parts = _split(value)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise Wrong("must be an http(s) or ws(s) address")
    return _not_in_the_clear(value, parts)


def http_url(value: str) -> str:
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Wrong("must be an http(s) address")
    return _not_in_the_clear(value, parts)


def _not_in_the_clear(value: str, parts: SplitResult) -> str:
    """Keys and tokens go with every call, and whoever is on the way could read them and answer in place of the host."""
    if parts.scheme in ("http", "ws") and is_public(parts.hostname or ""):
        raise Wrong("must be https (or wss): the host is a public one, and secrets would go there in the clear")
    return value


def http_base_url(value: str) -> str:
    """An address to which paths are added: without slashes at its end."""
    return http_url(value).rstrip("/")


def storage_endpoint(value: str) -> str:
    if _split(http_url(value))[2:] not in (("", "", ""), ("/", "", "")):
        raise Wrong("must be an http(s) address without a path")
    return value.rstrip("/")


def _split(value: str) -> SplitResult:
    try:
        return urlsplit(value)
    except ValueError:
        # The messages of urlsplit quote the part before the path, in which a password may be.
        raise Wrong("is no address") from None


def ingest_url(value: str) -> str:
    if "{key}" not in value:
        raise Wrong("must contain {key}")
    return value


def bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise Wrong("must be 3 to 63 of a-z, 0-9, . and -")
    return value


def region(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):
        raise Wrong("must be 1 to 64 of A-Z, a-z, 0-9 and -")
    return value


def prefix(value: str) -> str:
    # No braces: LiveKit takes them for placeholders.
    if not re.fullmatch(r"/*[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*/*", value) or len(value) > 200:  # noqa: PLR2004
        raise Wrong("must be 1 to 200 of A-Z, a-z, 0-9, ., _, =, - and single slashes")
    return value.strip("/")


def environment(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,32}", value):
        raise Wrong("must be 1 to 32 of a-z, 0-9 and -")
    return value


def port(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 65535:  # noqa: PLR2004 - the ports there are
        raise Wrong("must be 0 to 65535")
    return number


def flag(value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise Wrong("must be true or false")
    return value.lower() in ("true", "1", "yes", "on")


def log_level(value: str) -> str:
    if value.lower() not in ("debug", "info", "warning", "error"):
        raise Wrong("must be debug, info, warning or error")
    return value.lower()


def count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise Wrong("must be at least 1")
    return number


def pool_size(value: str) -> int:
    size = int(value)
    if size < 2:  # noqa: PLR2004 - so many connections are opened at the start
        raise Wrong("must be at least 2")
    return size


def seconds(value: str) -> float:
    number = float(value)
    # A year: the sum of a longer time and a moment is beyond the range of datetime.
    if not 0 < number <= 31_536_000:  # noqa: PLR2004
        raise Wrong("must be greater than 0 seconds, and a year at most")
    return number


def span(value: str) -> timedelta:
    return timedelta(seconds=seconds(value))


def long_span(value: str) -> timedelta:
    number = float(value)
    if not 0 < number <= 315_360_000:  # noqa: PLR2004 - ten years
        raise Wrong("must be greater than 0 seconds, and ten years at most")
    return timedelta(seconds=number)


def price(value: str) -> int:
    """Dollars as nano-dollars: a decimal number that is not rounded."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", value):
        raise Wrong("must be dollars, such as 0.025, of at most 9999 and 9 digits after the point")
    return int(Decimal(value) * DOLLAR)


def written_price(nanos: int) -> str:
    """What `price` reads as *nanos*."""
    return f"{(Decimal(nanos) / DOLLAR).normalize():f}"


def look_interval(value: str) -> timedelta:
    every = span(value)
    if every > LONGEST_ROUND:
        longest = LONGEST_ROUND.total_seconds()
        raise Wrong(f"must be at most {longest:g} seconds: what was seen is known for {2 * longest:g}")
    return every


def session(value: str) -> timedelta:
    length = span(value)
    if length < timedelta(minutes=2):
        raise Wrong("must be at least 120 seconds: a session is renewed after half of it, by the next KeepAlive")
    if length > timedelta(days=7):
        raise Wrong("must be at most 604800 seconds, a week")
    return length


def lease(value: str) -> timedelta:
    length = span(value)
    if length < timedelta(seconds=2):
        raise Wrong("must be at least 2 seconds")
    return length


def limit(value: str) -> Limit:
    """`RATE/BURST`, or `RATE` for a burst of the same number."""
    rate, _, burst = value.partition("/")
    parsed = Limit(rate=float(rate), burst=float(burst or rate))
    if not _LOWEST_RATE <= parsed.rate <= _HIGHEST_RATE:
        raise Wrong(f"the rate must be {_LOWEST_RATE:g} to {_HIGHEST_RATE:g} a second")
    if not 1 <= parsed.burst <= _HIGHEST_RATE:
        raise Wrong(f"the burst must be 1 to {_HIGHEST_RATE:g}")
    return parsed


def pool(value: str) -> tuple[tuple[Profile, int], ...]:
    """`PROFILE=COUNT` each, comma separated."""
    wanted: dict[Profile, int] = {}
    for part in _several(value):
        name, _, number = part.rpartition("=")
        try:
            profile = profile_from(name)
        except NotAProfile:
            raise Wrong(
                "must be LATENCY:POLICY=COUNT, such as reduced:public=5, with :audio, :test, :window-SECONDS and "
                ":duration-SECONDS before the = as the broadcasts have them"
            ) from None
        if not 1 <= int(number) <= MOST or profile in wanted:
            raise Wrong(f"each profile must be there once, with a count of 1 to {MOST}")
        wanted[profile] = int(number)
    return tuple(wanted.items())


def _several(value: str) -> list[str]:
    return [part for part in (part.strip() for part in value.split(",")) if part]
