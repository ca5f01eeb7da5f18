"""What Mux accepts in a request body: mux.com/api-spec.json, mux.com/docs (Start live streaming, Handle disconnects).

Stricter than Mux may be in two undocumented places, so that a caller that passes here passes there: an unknown key is
refused, and `test` with `max_continuous_duration` is refused on create as it is on update.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from broadcast_sandbox.mux.model import Asset, Json, LiveStream, PlaybackId, Policy, SimulcastTarget

MAX_SIMULCAST_TARGETS = 6
MAX_TEST_MESSAGE = "Cannot use max continuous duration with test live streams"

_ECHOED = frozenset(
    {
        "passthrough",
        "meta",
        "audio_only",
        "embedded_subtitles",
        "generated_subtitles",
        "use_slate_for_standard_latency",
        "reconnect_slate_url",
    }
)
_UPDATABLE = frozenset(
    {
        "passthrough",
        "meta",
        "latency_mode",
        "reconnect_window",
        "use_slate_for_standard_latency",
        "reconnect_slate_url",
        "max_continuous_duration",
        "new_asset_settings",
    }
)
_CREATABLE = (
    _UPDATABLE
    | _ECHOED
    | {
        "playback_policy",
        "playback_policies",
        "advanced_playback_policies",
        "reduced_latency",
        "low_latency",
        "test",
        "simulcast_targets",
    }
)
_ASSET_SETTINGS_UPDATABLE = frozenset({"mp4_support", "master_access", "video_quality", "meta"})
_ASSET_SETTINGS = _ASSET_SETTINGS_UPDATABLE | {
    "playback_policy",
    "playback_policies",
    "advanced_playback_policies",
    "passthrough",
    "normalize_audio",
    "copy_overlays",
    "static_renditions",
    "per_title_encode",
    "max_resolution_tier",
    "encoding_tier",
}
_META_LIMITS = {"title": 512, "creator_id": 128, "external_id": 128}
_POLICIES = ("public", "signed", "drm")
_LATENCY_MODES = ("low", "reduced", "standard")


class RefusedError(Exception):
    """An answer of the `{"error": {"type", "messages"}}` shape."""

    def __init__(self, status: int, type_: str, *messages: str) -> None:
        super().__init__(f"{status} {type_}: {'; '.join(messages)}")
        self.status = status
        self.type = type_
        self.messages = list(messages)


def invalid(message: str) -> RefusedError:
    return RefusedError(400, "invalid_parameters", message)


def created_stream(body: Json) -> LiveStream:
    """Raises RefusedError."""
    body = _known(body, _CREATABLE)
    test = _flag(body, "test")
    if test and "max_continuous_duration" in body:
        raise invalid(MAX_TEST_MESSAGE)
    latency_mode = _latency_mode(body)
    window = 60.0 if latency_mode == "standard" else 0.0
    return LiveStream(
        latency_mode=latency_mode,
        reconnect_window_s=_number(body, "reconnect_window", 0, 1800, window),
        max_continuous_duration_s=None if test else _whole(body, "max_continuous_duration", 60, 43_200, 43_200),
        test=test,
        playback_ids=playback_ids(body),
        simulcast_targets=_simulcast_targets(body),
        new_asset_settings=_asset_settings(body, _ASSET_SETTINGS),
        extra={name: value for name, value in _echoed(body).items() if value != ""},
    )


def update_stream(stream: LiveStream, body: Json) -> None:
    """All or nothing. Raises RefusedError."""
    body = _known(body, _UPDATABLE)
    if stream.test and "max_continuous_duration" in body:
        raise invalid(MAX_TEST_MESSAGE)
    latency_mode = _latency_mode(body) if "latency_mode" in body else stream.latency_mode
    if latency_mode != stream.latency_mode and stream.status != "idle":
        raise invalid("latency_mode can only be changed while the live stream is idle")
    window = _number(body, "reconnect_window", 0, 1800, stream.reconnect_window_s)
    limit = stream.max_continuous_duration_s
    if not stream.test:
        limit = _whole(body, "max_continuous_duration", 60, 43_200, limit or 43_200)
    settings = _asset_settings(body, _ASSET_SETTINGS_UPDATABLE)
    extra = _echoed(body)
    stream.latency_mode = latency_mode
    stream.reconnect_window_s = window
    stream.max_continuous_duration_s = limit
    stream.new_asset_settings = stream.new_asset_settings | settings
    stream.extra = {name: value for name, value in (stream.extra | extra).items() if value != ""}


def created_asset(body: Json) -> tuple[str, Asset]:
    """Where to fetch it, and the asset. Raises RefusedError."""
    body = _known(body, _ASSET_SETTINGS | {"input", "inputs", "meta", "master_access", "mp4_support", "video_quality"})
    inputs = _array(body, "inputs" if "inputs" in body else "input")
    url = _text(_object(inputs[0], "inputs"), "url", 4096) if inputs else None
    if not url or urlsplit(url).scheme not in ("http", "https"):
        raise invalid("inputs must have a url")
    settings = _asset_settings(
        {"new_asset_settings": {name: value for name, value in body.items() if name not in ("input", "inputs")}},
        _ASSET_SETTINGS,
    )
    return url, Asset(is_live=False, settings=settings, playback_ids=playback_ids(settings))


def simulcast_target(body: Any) -> SimulcastTarget:
    """Raises RefusedError."""
    body = _known(_object(body, "simulcast_targets"), frozenset({"url", "stream_key", "passthrough"}))
    url = _text(body, "url", 2048)
    if not url:
        raise invalid("url is required")
    if urlsplit(url).scheme not in ("rtmp", "rtmps") or not urlsplit(url).hostname:
        raise invalid("url must be an RTMP or RTMPS URL")
    return SimulcastTarget(
        url=url, stream_key=_text(body, "stream_key", 255), passthrough=_text(body, "passthrough", 255)
    )


def playback_id(body: Json) -> PlaybackId:
    """The body of create-playback-id. Raises RefusedError."""
    body = _known(body, frozenset({"policy", "drm_configuration_id"}))
    policy = _policy(body.get("policy"))
    drm = _text(body, "drm_configuration_id", 255)
    if (policy == "drm") != (drm is not None):
        raise invalid("drm_configuration_id is required with, and only with, the drm policy")
    return PlaybackId(policy=policy, drm_configuration_id=drm)


def playback_ids(body: Json) -> list[PlaybackId]:
    """One per policy of playback_policies (or the older playback_policy) and of advanced_playback_policies."""
    ids: list[PlaybackId] = []
    for given in _policy_list(body):
        policy = _policy(given)
        if policy == "drm":
            raise invalid("the drm policy needs advanced_playback_policies")
        ids.append(PlaybackId(policy=policy))
    ids.extend(playback_id(_object(item, "advanced_playback_policies")) for item in _array(body, _ADVANCED))
    return ids


_ADVANCED = "advanced_playback_policies"


def _known(body: Json, names: frozenset[str]) -> Json:
    """The body without nulls."""
    unknown = sorted(set(body) - names)
    if unknown:
        raise invalid(f"unknown parameter(s): {', '.join(unknown)}")
    return {name: value for name, value in body.items() if value is not None}


def _object(value: Any, name: str) -> Json:
    if not isinstance(value, dict):
        raise invalid(f"{name} must be an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _array(body: Json, name: str) -> list[Any]:
    value = body.get(name, [])
    if not isinstance(value, list):
        raise invalid(f"{name} must be an array")
    return value  # pyright: ignore[reportUnknownVariableType]


def _text(body: Json, name: str, limit: int) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    if len(value) > limit:
        raise invalid(f"{name} must be at most {limit} characters")
    return value


def _flag(body: Json, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise invalid(f"{name} must be a boolean")
    return value


def _number(body: Json, name: str, low: float, high: float, default: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a number")
    if not low <= value <= high:
        raise invalid(f"{name} must be between {low:g} and {high:g}")
    return value


def _whole(body: Json, name: str, low: int, high: int, default: int) -> int:
    value = _number(body, name, low, high, default)
    if value != int(value):
        raise invalid(f"{name} must be an integer")
    return int(value)


def _one_of(body: Json, name: str, allowed: Iterable[str]) -> None:
    if name in body and body[name] not in allowed:
        raise invalid(f"{name} must be one of {', '.join(allowed)}")


def _policy(value: Any) -> Policy:
    if value not in _POLICIES:
        raise invalid(f"playback policy must be one of {', '.join(_POLICIES)}")
    return value


def _policy_list(body: Json) -> list[Any]:
    if "playback_policies" in body and "playback_policy" in body:
        raise invalid("playback_policies and playback_policy are mutually exclusive")
    value = body.get("playback_policies", body.get("playback_policy", []))
    return [value] if isinstance(value, str) else _array({"playback_policies": value}, "playback_policies")


def _latency_mode(body: Json) -> Any:
    _one_of(body, "latency_mode", _LATENCY_MODES)
    reduced, low = _flag(body, "reduced_latency"), _flag(body, "low_latency")
    if len({"latency_mode", "reduced_latency", "low_latency"} & set(body)) > 1:
        raise invalid("latency_mode, reduced_latency and low_latency are mutually exclusive")
    if reduced or low:
        return "reduced" if reduced else "low"
    return body.get("latency_mode", "standard")


def _simulcast_targets(body: Json) -> list[SimulcastTarget]:
    targets = [simulcast_target(item) for item in _array(body, "simulcast_targets")]
    if len(targets) > MAX_SIMULCAST_TARGETS:
        raise invalid(f"a live stream can have at most {MAX_SIMULCAST_TARGETS} simulcast targets")
    return targets


def _asset_settings(body: Json, names: frozenset[str]) -> Json:
    if "new_asset_settings" not in body:
        return {}
    settings = _known(_object(body["new_asset_settings"], "new_asset_settings"), names)
    playback_ids(settings)
    _text(settings, "passthrough", 255)
    _meta(settings)
    _one_of(settings, "video_quality", ("plus", "premium"))
    _one_of(settings, "master_access", ("none", "temporary"))
    if "playback_policy" in settings:
        settings["playback_policies"] = _policy_list(settings)
        del settings["playback_policy"]
    return settings


def _meta(body: Json) -> None:
    if "meta" not in body:
        return
    meta = _known(_object(body["meta"], "meta"), frozenset(_META_LIMITS))
    for name, limit in _META_LIMITS.items():
        _text(meta, name, limit)


def _echoed(body: Json) -> Json:
    _text(body, "passthrough", 255)
    _text(body, "reconnect_slate_url", 2048)
    _flag(body, "audio_only")
    _flag(body, "use_slate_for_standard_latency")
    _meta(body)
    if len(_array(body, "generated_subtitles")) > 1:
        raise invalid("at most one generated_subtitles track")
    channels = [_object(item, "embedded_subtitles").get("language_channel") for item in _array(body, _EMBEDDED)]
    if len(set(channels)) != len(channels):
        raise invalid("language_channel must be unique")
    return {name: body[name] for name in _ECHOED & set(body)}


_EMBEDDED = "embedded_subtitles"
