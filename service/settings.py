"""Everything that can be set, read once from the environment. Nothing else reads it, but OpenTelemetry its own
variables.
"""

from __future__ import annotations

import base64
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from service.domain.facts import PROBED_S, SEEN_S
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.budget import Limit, Limits
from service.providers.storage.links import StorageSettings

_T = TypeVar("_T")
LONGEST_ROUND = timedelta(seconds=min(SEEN_S, PROBED_S) / 2)
"""Of the observer and of the prober: one look may be lost before what was seen is not known any more."""
_LOWEST_RATE, _HIGHEST_RATE = 0.001, 1_000_000.0


class SettingError(Exception):
    """A variable is missing or wrong; the message names it and never shows a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    database_url: Secret
    livekit_url: str
    livekit_api_key: str
    livekit_api_secret: Secret
    mux_token_id: str
    mux_token_secret: Secret
    secret_keys: tuple[bytes, ...] = field(repr=False)
    """32 bytes each; the first seals, all open."""
    livekit_public_url: str = ""
    mux_base_url: str = "https://api.mux.com"
    mux_ingest_url: str = "mux://{key}"
    livekit_webhook_secrets: tuple[tuple[str, Secret], ...] = ()
    """Further API keys and their secrets with which LiveKit may sign webhooks, such as the next ones of a rotation."""
    mux_webhook_secrets: tuple[Secret, ...] = ()
    mux_environment_id: str = ""
    """Mux's id of our environment: webhooks of another are foreign. Empty: told by our mark alone."""
    playback_base_url: str = "https://stream.mux.com"
    storage: StorageSettings | None = None
    """Where LiveKit puts recordings while Mux cannot be reached. None: it makes none."""
    environment: str = "dev"
    """Part of every mark at the providers: what another environment made is never touched."""
    replica: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 50051
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    reflection: bool = True
    log_level: str = "info"
    database_pool: int = 12
    listen: bool = True
    """Whether Postgres notifications are used. Everything is right without them, and a little slower."""
    lease: timedelta = timedelta(seconds=20)
    observe_every: timedelta = timedelta(seconds=10)
    probe_every: timedelta = timedelta(seconds=10)
    sweep_every: timedelta = timedelta(seconds=60)
    sweep_grace: timedelta = timedelta(seconds=120)
    drain: timedelta = timedelta(seconds=10)
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Raises SettingError naming the first variable that is missing or wrong."""
    return _settings(_Reader(environ))


def variables() -> dict[str, str | None]:
    """All that `from_environment` reads, with their defaults as they are written. None: it must be set."""
    asked = _Asked()
    _settings(asked)
    return asked.defaults


def _settings(read: _Reader) -> Settings:
    return Settings(
        database_url=Secret(read.text("DATABASE_URL", check=_postgres)),
        livekit_url=read.text("LIVEKIT_URL", check=_web),
        livekit_public_url=read.text("LIVEKIT_PUBLIC_URL", "", check=_web),
        livekit_api_key=read.text("LIVEKIT_API_KEY"),
        livekit_api_secret=Secret(read.text("LIVEKIT_API_SECRET")),
        mux_token_id=read.text("MUX_TOKEN_ID"),
        mux_token_secret=Secret(read.text("MUX_TOKEN_SECRET")),
        mux_base_url=read.text("MUX_BASE_URL", "https://api.mux.com", check=_http),
        mux_ingest_url=read.text("MUX_INGEST_URL", "mux://{key}", check=_ingest),
        livekit_webhook_secrets=read.value("LIVEKIT_WEBHOOK_SECRETS", _key_secrets, ()),
        mux_webhook_secrets=tuple(Secret(s) for s in _several(read.text("MUX_WEBHOOK_SECRETS", ""))),
        mux_environment_id=read.text("MUX_ENVIRONMENT_ID", ""),
        playback_base_url=read.text("PLAYBACK_BASE_URL", "https://stream.mux.com", check=_http).rstrip("/"),
        storage=_storage(read),
        secret_keys=read.value("BROADCAST_SECRET_KEYS", _keys),
        environment=read.text("BROADCAST_ENVIRONMENT", "dev", check=_environment),
        replica=read.text("BROADCAST_REPLICA", f"{socket.gethostname()}-{os.getpid()}"),
        grpc_host=read.text("GRPC_HOST", "127.0.0.1"),
        grpc_port=read.value("GRPC_PORT", _port, 50051),
        http_host=read.text("HTTP_HOST", "127.0.0.1"),
        http_port=read.value("HTTP_PORT", _port, 8080),
        reflection=read.value("GRPC_REFLECTION", _flag, True),
        log_level=read.text("LOG_LEVEL", "info", check=_level),
        database_pool=read.value("DATABASE_POOL", _pool, 12),
        listen=read.value("DATABASE_LISTEN", _flag, True),
        lease=read.value("BROADCAST_LEASE_S", _lease, timedelta(seconds=20)),
        observe_every=read.value("BROADCAST_OBSERVE_S", _round, timedelta(seconds=10)),
        probe_every=read.value("BROADCAST_PROBE_S", _round, timedelta(seconds=10)),
        sweep_every=read.value("BROADCAST_SWEEP_S", _span, timedelta(seconds=60)),
        sweep_grace=read.value("BROADCAST_SWEEP_GRACE_S", _span, timedelta(seconds=120)),
        drain=read.value("BROADCAST_DRAIN_S", _span, timedelta(seconds=10)),
        limits=Limits(
            mux_post=read.value("BROADCAST_LIMIT_MUX_POST", _limit, Limits().mux_post),
            mux_other=read.value("BROADCAST_LIMIT_MUX_OTHER", _limit, Limits().mux_other),
            livekit=read.value("BROADCAST_LIMIT_LIVEKIT", _limit, Limits().livekit),
        ),
        timing=_timing(read),
    )


def _timing(read: _Reader) -> Timing:
    parsers: dict[object, Callable[[str], float]] = {int: _count, float: _seconds}
    values: dict[str, Any] = {
        each.name: read.value(f"BROADCAST_TIMING_{each.name.upper()}", parsers[each.type], each.default)
        for each in fields(Timing)
    }
    return Timing(**values)


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str | None = None, *, check: Callable[[str], str] = str) -> str:
        return self.value(name, check, default)

    def value(self, name: str, parse: Callable[[str], _T], default: _T | None = None) -> _T:
        text = self._environ.get(name, "").strip()
        if not text:
            if default is None:
                raise SettingError(f"{name} is not set")
            return default
        try:
            return parse(text)
        except ValueError as error:
            # Only messages of our own parsers: int() would quote the value.
            raise SettingError(f"{name}: {error.args[0] if isinstance(error, _Wrong) else 'not a number'}") from None

    def any_of(self, names: Sequence[str]) -> bool:
        return any(self.text(name, "") for name in names)


class _Asked(_Reader):
    """Only notes what is asked for."""

    def __init__(self) -> None:
        super().__init__({})
        self.defaults: dict[str, str | None] = {}

    def value(self, name: str, parse: Callable[[str], _T], default: _T | None = None) -> _T:
        del parse
        self.defaults[name] = None if default is None else _written(default)
        # Of no matter: nothing is made of these settings.
        return cast("_T", "" if default is None else default)

    def any_of(self, names: Sequence[str]) -> bool:
        del names
        return True


def _written(default: object) -> str:
    """As it would stand in the environment."""
    match default:
        case bool():
            return str(default).lower()
        case timedelta():
            return f"{default.total_seconds():g}"
        case float():
            return f"{default:g}"
        case Limit():
            return f"{default.rate:g}/{default.burst:g}"
        case _:
            return str(default or "")


class _Wrong(ValueError):
    pass


_STORAGE = tuple(
    f"BROADCAST_S3_{name}"
    for name in ("BUCKET", "ACCESS_KEY", "SECRET_KEY", "REGION", "ENDPOINT", "PREFIX", "FORCE_PATH_STYLE")
)


def _storage(read: _Reader) -> StorageSettings | None:
    """One of them alone is a mistake: recordings would be lost when they are needed."""
    if not read.any_of(_STORAGE):
        return None
    return StorageSettings(
        bucket=read.text("BROADCAST_S3_BUCKET", check=_bucket),
        access_key=Secret(read.text("BROADCAST_S3_ACCESS_KEY")),
        secret_key=Secret(read.text("BROADCAST_S3_SECRET_KEY")),
        region=read.text("BROADCAST_S3_REGION", "us-east-1", check=_region),
        endpoint=read.text("BROADCAST_S3_ENDPOINT", "", check=_endpoint).rstrip("/"),
        prefix=read.text("BROADCAST_S3_PREFIX", "recordings", check=_prefix).strip("/"),
        force_path_style=read.value("BROADCAST_S3_FORCE_PATH_STYLE", _flag, False),
    )


def _several(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _key_secrets(text: str) -> tuple[tuple[str, Secret], ...]:
    pairs = [part.partition(":") for part in _several(text)]
    if not all(key and secret for key, _, secret in pairs):
        raise _Wrong("must be pairs of key:secret, separated by commas")
    return tuple((key, Secret(secret)) for key, _, secret in pairs)


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise _Wrong("is no address") from None


def _postgres(text: str) -> str:
    if _split(text).scheme not in ("postgres", "postgresql"):
        raise _Wrong("must begin with postgresql://")
    return text


def _web(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise _Wrong("must be an http(s) or ws(s) address")
    return text


def _http(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Wrong("must be an http(s) address")
    return text


def _bucket(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text):
        raise _Wrong("must be 3 to 63 of a-z, 0-9, . and -")
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise _Wrong("must be 1 to 64 of A-Z, a-z, 0-9 and -")
    return text


def _endpoint(text: str) -> str:
    if _split(_http(text))[2:] not in (("", "", ""), ("/", "", "")):
        raise _Wrong("must be an http(s) address without a path")
    return text


def _prefix(text: str) -> str:
    # No braces: LiveKit takes them for placeholders.
    if not re.fullmatch(r"/*[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*/*", text) or len(text) > 200:  # noqa: PLR2004
        raise _Wrong("must be 1 to 200 of A-Z, a-z, 0-9, ., _, =, - and single slashes")
    return text


def _ingest(text: str) -> str:
    if "{key}" not in text:
        raise _Wrong("must contain {key}")
    return text


def _environment(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,32}", text):
        raise _Wrong("must be 1 to 32 of a-z, 0-9 and -")
    return text


def _keys(text: str) -> tuple[bytes, ...]:
    keys: list[bytes] = []
    for part in _several(text):
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:
            # binascii.Error is one; what is not ASCII raises another.
            raise _Wrong("must be base64") from None
        if len(key) != 32:  # noqa: PLR2004 - AES-256
            raise _Wrong("each key must be 32 bytes in base64: head -c 32 /dev/urandom | base64")
        keys.append(key)
    if not keys:
        raise _Wrong("must be at least one key")
    return tuple(keys)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:  # noqa: PLR2004 - the ports there are
        raise _Wrong("must be 0 to 65535")
    return port


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise _Wrong("must be true or false")
    return text.lower() in ("true", "1", "yes", "on")


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise _Wrong("must be debug, info, warning or error")
    return text.lower()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise _Wrong("must be at least 1")
    return count


def _pool(text: str) -> int:
    size = int(text)
    if size < 2:  # noqa: PLR2004 - so many are opened at the start
        raise _Wrong("must be at least 2")
    return size


def _seconds(text: str) -> float:
    value = float(text)
    # A year: what is longer does not fit into every sum of times.
    if not 0 < value <= 31_536_000:  # noqa: PLR2004
        raise _Wrong("must be greater than 0 seconds, and a year at most")
    return value


def _span(text: str) -> timedelta:
    return timedelta(seconds=_seconds(text))


def _round(text: str) -> timedelta:
    every = _span(text)
    if every > LONGEST_ROUND:
        longest = LONGEST_ROUND.total_seconds()
        raise _Wrong(f"must be at most {longest:g} seconds: what was seen is known for {2 * longest:g}")
    return every


def _lease(text: str) -> timedelta:
    lease = _span(text)
    if lease < timedelta(seconds=2):
        raise _Wrong("must be at least 2 seconds")
    return lease


def _limit(text: str) -> Limit:
    rate, _, burst = text.partition("/")
    limit = Limit(rate=float(rate), burst=float(burst or rate))
    if not _LOWEST_RATE <= limit.rate <= _HIGHEST_RATE:
        raise _Wrong(f"the rate must be {_LOWEST_RATE:g} to {_HIGHEST_RATE:g} a second")
    if not 1 <= limit.burst <= _HIGHEST_RATE:
        raise _Wrong(f"the burst must be 1 to {_HIGHEST_RATE:g}")
    return limit
