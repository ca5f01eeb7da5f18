"""The environment that points the service at the simulators."""

import base64
import secrets
from dataclasses import dataclass, field

BUCKET = "recordings"
MUX_TOKEN_ID = "sandbox"  # noqa: S105 - an id, no secret
ACCESS_KEY = "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Made anew by every sandbox."""

    livekit: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    mux: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    mux_webhook: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    storage: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    service_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode(), repr=False)


def environment_of(
    made: Secrets, *, database_url: str, livekit_url: str, mux_url: str, storage_url: str, signing_key: tuple[str, str]
) -> dict[str, str]:
    """Addresses and secrets, and waiting times that suit providers whose time runs faster.

    *signing_key*: the id and the private key of one that the simulated Mux knows.
    """
    return {
        "DATABASE_URL": database_url,
        "LIVEKIT_URL": livekit_url,
        "LIVEKIT_API_KEY": "sandbox",
        "LIVEKIT_API_SECRET": made.livekit,
        "MUX_BASE_URL": mux_url,
        "MUX_TOKEN_ID": MUX_TOKEN_ID,
        "MUX_TOKEN_SECRET": made.mux,
        "MUX_WEBHOOK_SECRETS": made.mux_webhook,
        "MUX_SIGNING_KEYS": ":".join(signing_key),
        "MUX_STATS_URL": mux_url,
        "PLAYBACK_BASE_URL": f"{mux_url}/playback",
        **storage_environment(storage_url, made.storage),
        "BROADCAST_SECRET_KEYS": made.service_key,
        "BROADCAST_ENVIRONMENT": "sandbox",
        "BROADCAST_OBSERVE_S": "2",
        "BROADCAST_PROBE_S": "2",
        "BROADCAST_SWEEP_S": "10",
        "BROADCAST_SWEEP_GRACE_S": "20",
        "BROADCAST_DRAIN_S": "2",
        "BROADCAST_TIMING_LIST_LAG_S": "0.5",
        "BROADCAST_TIMING_LOOKUP_S": "0.5",
        "BROADCAST_TIMING_WATCH_S": "0.5",
    }


def storage_environment(url: str, secret_key: str) -> dict[str, str]:
    return {
        "BROADCAST_S3_ENDPOINT": url,
        "BROADCAST_S3_BUCKET": BUCKET,
        "BROADCAST_S3_ACCESS_KEY": ACCESS_KEY,
        "BROADCAST_S3_SECRET_KEY": secret_key,
        "BROADCAST_S3_FORCE_PATH_STYLE": "true",
    }
