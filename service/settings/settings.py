"""Everything that can be set, read once from the environment. No other module reads the environment, except
OpenTelemetry its own variables and `failpoints` the one of its tests.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import cast

from service.domain.cost.prices import Prices
from service.domain.pool import Profile
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.budget import Limits
from service.providers.mux.signing import SigningKey
from service.providers.storage.links import StorageSettings
from service.settings import parsers
from service.settings.declared import Group, Variable, declared, group, setting

_ALL_ADDRESSES = ("0.0.0.0", "::", "0", "*", "::0")
_LONGEST_ROUND = f"at most {parsers.LONGEST_ROUND.total_seconds():g}: one look may fail before health says UNKNOWN"


def _replica() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


_PRICED = {
    "egress": "an egress with a picture; 0 where you run LiveKit yourself",
    "egress_audio": "an egress of sound alone",
    "input_720p": "encoding of a live stream of up to 1280 x 720 pixels",
    "input_1080p": "encoding of a larger one",
    "input_audio": "encoding of sound alone",
    "recording_720p": "a recorded minute, stored for a month, of up to 1280 x 720 pixels",
    "recording_1080p": "the same of a larger picture",
    "recording_audio": "the same of sound alone",
    "delivery_720p": "a minute that one viewer is sent, of up to 1280 x 720 pixels",
    "delivery_1080p": "the same of a larger picture",
    "delivery_audio": "the same of sound alone",
}


def _waits() -> dict[str, Variable]:
    """Every field of Timing has a variable; the docstring of the field is its meaning."""
    return {
        each.name: Variable(
            name=f"BROADCAST_TIMING_{each.name.upper()}",
            parse=parsers.count if each.type is int else parsers.seconds,
            help="",
            unit="s" if each.name.endswith("_s") else "",
        )
        for each in fields(Timing)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Secrets are `Secret` or kept out of `repr`, so settings can be printed."""

    database_url: Secret = setting(
        "DATABASE_URL", parsers.postgres_url, help="postgresql://USER:PASSWORD@HOST/DATABASE, migrated with `migrate`"
    )
    livekit_url: str = setting("LIVEKIT_URL", parsers.room_server_url, help="the LiveKit server, for its API")
    livekit_public_url: str = setting(
        "LIVEKIT_PUBLIC_URL", parsers.room_server_url, "", help="where browsers connect, if that is another address"
    )
    livekit_api_key: str = setting("LIVEKIT_API_KEY", parsers.text, help="calls LiveKit, signs tokens and webhooks")
    livekit_api_secret: Secret = setting("LIVEKIT_API_SECRET", parsers.secret, help="the secret of LIVEKIT_API_KEY")
    mux_token_id: str = setting("MUX_TOKEN_ID", parsers.text, help="access token of the Mux environment")
    mux_token_secret: Secret = setting("MUX_TOKEN_SECRET", parsers.secret, help="the secret of MUX_TOKEN_ID")
    mux_base_url: str = setting("MUX_BASE_URL", parsers.http_url, "https://api.mux.com", help="the API of Mux")
    mux_ingest_url: str = setting(
        "MUX_INGEST_URL", parsers.ingest_url, "mux://{key}", help="where egresses push; {key} is the stream key"
    )
    livekit_webhook_secrets: tuple[tuple[str, Secret], ...] = setting(
        "LIVEKIT_WEBHOOK_SECRETS",
        parsers.key_secrets,
        (),
        help="key:secret, comma separated: further keys that may sign webhooks, such as the next one of a rotation",
    )
    mux_webhook_secrets: tuple[Secret, ...] = setting(
        "MUX_WEBHOOK_SECRETS", parsers.secrets, (), help="comma separated; empty: no Mux webhook is believed"
    )
    mux_environment_id: str = setting(
        "MUX_ENVIRONMENT_ID",
        parsers.text,
        "",
        help="webhooks of another Mux environment are foreign; empty: only our mark tells them apart",
    )
    mux_stats_url: str = setting(
        "MUX_STATS_URL",
        parsers.http_base_url,
        "https://stats.mux.com",
        help="where Mux counts viewers; it is asked if there is a key in MUX_SIGNING_KEYS",
    )
    egress_template_url: str = setting(
        "EGRESS_TEMPLATE_URL",
        parsers.http_url,
        "",
        help="the page that egresses record: a template that takes a new layout while it runs; empty: LiveKit's own",
    )
    playback_base_url: str = setting(
        "PLAYBACK_BASE_URL", parsers.http_base_url, "https://stream.mux.com", help="where players find playlists"
    )
    mux_signing_keys: tuple[SigningKey, ...] = setting(
        "MUX_SIGNING_KEYS",
        parsers.signing_keys,
        (),
        help="id:private key, comma separated, the private key as PEM or in base64 as Mux hands it out: the first "
        "signs the playback tokens of policy SIGNED, the others are for a rotation; empty: SIGNED is refused",
    )
    storage: StorageSettings | None = group(
        StorageSettings,
        "where recordings go while Mux cannot be reached; if none of these is set, no such recordings are made",
        {
            "bucket": Variable(name="BROADCAST_S3_BUCKET", parse=parsers.bucket, help="the bucket"),
            "access_key": Variable(
                name="BROADCAST_S3_ACCESS_KEY", parse=parsers.secret, help="writes and reads objects"
            ),
            "secret_key": Variable(
                name="BROADCAST_S3_SECRET_KEY", parse=parsers.secret, help="the secret of BROADCAST_S3_ACCESS_KEY"
            ),
            "region": Variable(name="BROADCAST_S3_REGION", parse=parsers.region, help="the region of the bucket"),
            "endpoint": Variable(name="BROADCAST_S3_ENDPOINT", parse=parsers.storage_endpoint, help="empty: Amazon's"),
            "prefix": Variable(name="BROADCAST_S3_PREFIX", parse=parsers.prefix, help="object keys begin with it"),
            "force_path_style": Variable(
                name="BROADCAST_S3_FORCE_PATH_STYLE",
                parse=parsers.flag,
                help="the bucket is in the path, not in the host",
            ),
        },
        optional=True,
    )
    secret_keys: tuple[bytes, ...] = setting(
        "BROADCAST_SECRET_KEYS",
        parsers.encryption_keys,
        secret=True,
        help="32 bytes in base64 each, comma separated; the first encrypts, all decrypt",
    )
    environment: str = setting(
        "BROADCAST_ENVIRONMENT",
        parsers.environment,
        "dev",
        help="part of every mark at the providers: what another environment made is never touched",
    )
    replica: str = setting(
        "BROADCAST_REPLICA",
        parsers.text,
        _replica,
        default_text="host-pid",
        help="the name of this replica in leases and traces",
    )
    grpc_host: str = setting("GRPC_HOST", parsers.text, "127.0.0.1", help="where gRPC listens")
    grpc_port: int = setting("GRPC_PORT", parsers.port, 50051, help="the port of gRPC; 0: any free one")
    calls_per_connection: int = setting(
        "GRPC_CALLS_PER_CONNECTION",
        parsers.count,
        250,
        help="calls under way on one connection, streams included; a further one waits in the client. Raise it "
        "behind a proxy that sends all calls over few connections",
    )
    connection_age: timedelta = setting(
        "GRPC_CONNECTION_AGE_S",
        parsers.span,
        timedelta(minutes=30),
        unit="s",
        help="after so long, give or take 10 %, a connection is closed for new calls, so that callers reach new "
        "replicas; its streams end within a fifth of the time more, and are taken up again by their callers",
    )
    http_host: str = setting("HTTP_HOST", parsers.text, "127.0.0.1", help="where webhooks and probes are answered")
    http_port: int = setting("HTTP_PORT", parsers.port, 8080, help="the port of HTTP; 0: any free one")
    reflection: bool = setting("GRPC_REFLECTION", parsers.flag, True, help="whether gRPC reflection is served")
    log_level: str = setting("LOG_LEVEL", parsers.log_level, "info", help="debug, info, warning or error")
    database_pooler: bool = setting(
        "DATABASE_POOLER",
        parsers.flag,
        False,
        help="whether DATABASE_URL leads to a pooler in transaction mode, such as PgBouncer",
    )
    database_listen_url: Secret | None = setting(
        "DATABASE_LISTEN_URL",
        parsers.secret,
        None,
        default_text="",
        help="with DATABASE_POOLER: Postgres itself, for notifications; unset: none are used",
    )
    database_pool: int = setting("DATABASE_POOL", parsers.pool_size, 12, help="connections of this replica, at most")
    listen: bool = setting(
        "DATABASE_LISTEN",
        parsers.flag,
        True,
        help="whether Postgres notifications are used; without them all is right and a little slower",
    )
    lease: timedelta = setting(
        "BROADCAST_LEASE_S",
        parsers.lease,
        timedelta(seconds=20),
        unit="s",
        help="after a crash other replicas take over when so much time has passed",
    )
    observe_every: timedelta = setting(
        "BROADCAST_OBSERVE_S",
        parsers.look_interval,
        timedelta(seconds=10),
        unit="s",
        help=f"from one look at all rooms and egresses to the next; {_LONGEST_ROUND}",
    )
    probe_every: timedelta = setting(
        "BROADCAST_PROBE_S",
        parsers.look_interval,
        timedelta(seconds=10),
        unit="s",
        help=f"from one look at playlists and participants to the next; {_LONGEST_ROUND}",
    )
    sweep_every: timedelta = setting(
        "BROADCAST_SWEEP_S",
        parsers.span,
        timedelta(seconds=60),
        unit="s",
        help="from one search for resources without an owner to the next",
    )
    sweep_grace: timedelta = setting(
        "BROADCAST_SWEEP_GRACE_S",
        parsers.span,
        timedelta(seconds=120),
        unit="s",
        help="a resource without an owner is left alone for so long",
    )
    pool: tuple[tuple[Profile, int], ...] = setting(
        "BROADCAST_POOL",
        parsers.pool,
        (),
        help="idle live streams that are made ahead, by LATENCY:POLICY=COUNT, comma separated, such as "
        "reduced:public=5; empty: none",
    )
    deleted_kept: timedelta = setting(
        "BROADCAST_DELETED_KEPT_S",
        parsers.span,
        timedelta(days=30),
        unit="s",
        help="the rows of a deleted broadcast are removed after so long, and its id may be used again",
    )
    events_kept: timedelta = setting(
        "BROADCAST_EVENTS_KEPT_S",
        parsers.span,
        timedelta(days=30),
        unit="s",
        help="the story of a broadcast reaches so far back, and so do resume tokens",
    )
    requests_kept: timedelta = setting(
        "BROADCAST_REQUESTS_KEPT_S",
        parsers.span,
        timedelta(days=7),
        unit="s",
        help="a write with a request_id is known again for so long",
    )
    webhooks_kept: timedelta = setting(
        "BROADCAST_WEBHOOKS_KEPT_S",
        parsers.span,
        timedelta(days=7),
        unit="s",
        help="webhooks can be listed and replayed for so long, and a repeated delivery is known again",
    )
    session: timedelta = setting(
        "BROADCAST_SESSION_S",
        parsers.session,
        timedelta(hours=2),
        unit="s",
        help="a viewer's session, and a playback token with it, is good for so long, and is renewed after half of it. "
        "A player that is given a new token loads anew; a revoked viewer who kept the address may play until it ends",
    )
    drain: timedelta = setting(
        "BROADCAST_DRAIN_S",
        parsers.span,
        timedelta(seconds=10),
        unit="s",
        help="calls and passes under way may take so long at the end",
    )
    limits: Limits = group(
        Limits,
        "calls to the providers of all replicas together: a rate a second and a burst, as RATE/BURST",
        {
            "mux_post": Variable(
                name="BROADCAST_LIMIT_MUX_POST", parse=parsers.limit, unit="1/s", help="POST requests"
            ),
            "mux_other": Variable(
                name="BROADCAST_LIMIT_MUX_OTHER", parse=parsers.limit, unit="1/s", help="other requests"
            ),
            "livekit": Variable(name="BROADCAST_LIMIT_LIVEKIT", parse=parsers.limit, unit="1/s", help="all requests"),
        },
    )
    costs_kept: timedelta = setting(
        "BROADCAST_COSTS_KEPT_S",
        parsers.long_span,
        timedelta(days=400),
        unit="s",
        help="the ledger of a broadcast is kept for so long after the rows of the broadcast were removed",
    )
    prices: Prices = group(
        Prices,
        "US dollars a minute, see docs/costs.md; a recording's price is that of a month of storage",
        {
            name: Variable(
                name=f"BROADCAST_PRICE_{name.upper()}",
                parse=parsers.price,
                help=meaning,
                unit="USD",
                default_text=parsers.written_price(getattr(Prices(), name)),
            )
            for name, meaning in _PRICED.items()
        },
    )
    timing: Timing = group(Timing, "waits in seconds, and limits of a number", _waits())


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Raises SettingError naming the first variable that is missing or wrong."""
    return Settings(**{name: each.read(environ) for name, each in declared(Settings).items()})


def database_url(environ: Mapping[str, str]) -> Secret:
    """For commands that need nothing but the database. Raises SettingError."""
    return cast("Secret", declared(Settings)["database_url"].read(environ))


def grpc_target(environ: Mapping[str, str]) -> str:
    """HOST:PORT for commands that call the replica on this machine. Where it listens on all addresses that is
    127.0.0.1, which is one of them in either family. Raises SettingError.
    """
    found = declared(Settings)
    host, port = str(found["grpc_host"].read(environ)).strip("[]"), found["grpc_port"].read(environ)
    if host in _ALL_ADDRESSES:
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def variables() -> list[Variable]:
    """All that `from_environment` reads, in the order in which help shows it."""
    found: list[Variable] = []
    for each in declared(Settings).values():
        found += each.variables.values() if isinstance(each, Group) else [each]
    return found
