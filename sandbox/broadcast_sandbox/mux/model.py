"""The objects of the simulated Mux environment and their JSON.

Sources: mux.com/api-spec.json (key names, types), mux_python 5.1.2 models. A key is absent, never null, when it is
unset. `created_at` is a string of unix seconds in REST answers and an integer in webhooks.
"""

import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Policy = Literal["public", "signed", "drm"]


def new_id(size: int = 24) -> str:
    """Base64url of *size* random bytes with `0`, `-`, `_` written as `00`, `01`, `02`: 32 characters or more."""
    text = base64.urlsafe_b64encode(secrets.token_bytes(size)).decode().rstrip("=")
    return text.replace("0", "00").replace("-", "01").replace("_", "02")


def new_stream_key() -> str:
    """It looks like a UUID but, as at Mux, has no version and variant bits."""
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def redacted(key: str) -> str:
    """First and last three characters. A key shorter than nine characters is not shown at all."""
    return f"{key[:3]}...{key[-3:]}" if len(key) >= len("abc...xyz") else "..."


@dataclass(slots=True, kw_only=True)
class PlaybackId:
    id: str = field(default_factory=lambda: new_id(32))
    policy: Policy
    drm_configuration_id: str | None = None

    def as_json(self) -> Json:
        return _present({"id": self.id, "policy": self.policy, "drm_configuration_id": self.drm_configuration_id})


@dataclass(slots=True, kw_only=True)
class SimulcastTarget:
    id: str = field(default_factory=lambda: new_id(40))
    url: str
    stream_key: str | None = None
    passthrough: str | None = None
    status: Literal["idle", "starting", "broadcasting", "errored"] = "idle"

    def as_json(self) -> Json:
        return _present(
            {
                "id": self.id,
                "url": self.url,
                "stream_key": self.stream_key,
                "passthrough": self.passthrough,
                "status": self.status,
                "error_severity": "fatal" if self.status == "errored" else None,
            }
        )


@dataclass(slots=True, kw_only=True)
class Asset:
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=lambda: int(time.time()))
    live_stream_id: str = ""
    """Empty for an asset that was made of a file."""
    status: Literal["preparing", "ready", "errored"] = "preparing"
    is_live: bool = True
    playback_ids: list[PlaybackId] = field(default_factory=list[PlaybackId])
    settings: Json = field(default_factory=dict[str, Any])
    """The live stream's `new_asset_settings` when the recording began, or those of the request for a file."""
    error: str = "The live stream ended before any media was received"
    """Told when `status` is errored."""
    test: bool = False
    duration_s: float | None = None
    ended_at: float | None = None
    """In seconds of the provider's clock."""

    @property
    def passthrough(self) -> str:
        return self.settings.get("passthrough") or ""

    @property
    def fault_target(self) -> str:
        """The text that a fault's `match` has to occur in."""
        return f"{self.id} {self.live_stream_id} {self.passthrough}"

    def as_json(self) -> Json:
        errors = {"type": "invalid_input", "messages": [self.error]}
        return _present(
            {
                "id": self.id,
                "created_at": str(self.created_at),
                "status": self.status,
                "live_stream_id": self.live_stream_id or None,
                "is_live": True if self.is_live else None,
                "duration": self.duration_s,
                "playback_ids": [playback_id.as_json() for playback_id in self.playback_ids] or None,
                "passthrough": self.settings.get("passthrough"),
                "meta": self.settings.get("meta"),
                "mp4_support": self.settings.get("mp4_support", "none"),
                "master_access": self.settings.get("master_access", "none"),
                "video_quality": self.settings.get("video_quality", "plus"),
                "ingest_type": "live_rtmp" if self.live_stream_id else "on_demand_url",
                "progress": self._progress(),
                "errors": errors if self.status == "errored" else None,
                "test": True if self.test else None,
            }
        )

    def _progress(self) -> Json:
        if self.status == "errored":
            return {"state": "errored", "progress": -1}
        if self.is_live:
            return {"state": "live", "progress": -1}
        if self.status == "preparing":
            return {"state": "ingesting", "progress": 0}
        return {"state": "completed", "progress": 100}


@dataclass(slots=True, kw_only=True)
class LiveStream:
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=lambda: int(time.time()))
    stream_key: str = field(default_factory=new_stream_key)
    srt_passphrase: str = field(default_factory=lambda: new_id(24)[:32])
    status: Literal["idle", "active", "disabled"] = "idle"
    playback_ids: list[PlaybackId] = field(default_factory=list[PlaybackId])
    simulcast_targets: list[SimulcastTarget] = field(default_factory=list[SimulcastTarget])
    latency_mode: Literal["standard", "reduced", "low"] = "standard"
    reconnect_window_s: float = 60.0
    max_continuous_duration_s: int | None = 43_200
    """None for test streams."""
    test: bool = False
    new_asset_settings: Json = field(default_factory=dict[str, Any])
    extra: Json = field(default_factory=dict[str, Any])
    """Settings that Mux only echoes: passthrough, meta, slate and subtitle settings."""
    active_asset_id: str | None = None
    recent_asset_ids: list[str] = field(default_factory=list[str])
    """Newest last."""
    connected: bool = False
    recording: bool = False
    connections: int = 0
    """Number of publishers that were ever accepted."""
    ended_at: float | None = None
    """When it last stopped being active, in seconds of the provider's clock."""

    @property
    def passthrough(self) -> str:
        return self.extra.get("passthrough") or ""

    @property
    def fault_target(self) -> str:
        """The text that a fault's `match` has to occur in."""
        return f"{self.id} {self.passthrough}"

    def as_json(self, *, ingest_protocol: str) -> Json:
        return _present(
            {
                "id": self.id,
                "created_at": str(self.created_at),
                "stream_key": self.stream_key,
                "srt_passphrase": self.srt_passphrase,
                "status": self.status,
                "playback_ids": [playback_id.as_json() for playback_id in self.playback_ids] or None,
                "new_asset_settings": self.new_asset_settings or None,
                "latency_mode": self.latency_mode,
                "reduced_latency": True if self.latency_mode == "reduced" else None,
                "low_latency": True if self.latency_mode == "low" else None,
                "reconnect_window": self.reconnect_window_s or None,
                "max_continuous_duration": self.max_continuous_duration_s,
                "test": True if self.test else None,
                "active_asset_id": self.active_asset_id,
                "recent_asset_ids": list(self.recent_asset_ids) or None,
                "simulcast_targets": [target.as_json() for target in self.simulcast_targets] or None,
                "active_ingest_protocol": ingest_protocol if self.status == "active" else None,
                **self.extra,
            }
        )

    def as_webhook_json(self, *, ingest_protocol: str) -> Json:
        return self.as_json(ingest_protocol=ingest_protocol) | {
            "created_at": self.created_at,
            "connected": self.connected,
            "recording": self.recording,
        }


def _present(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}
