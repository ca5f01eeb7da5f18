"""The request bodies that Mux accepts: mux.com/api-spec.json, mux.com/docs (Start live streaming, Handle disconnects).

Stricter than Mux may be in undocumented cases, so that a body that passes here passes at Mux: an unknown key is
refused, `test` with `max_continuous_duration` is refused on create as it is on update, and so are generated captions
with low latency, for which Mux generates none.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from broadcast_sandbox.mux.api.fields import (
    array,
    as_object,
    flag,
    invalid,
    known,
    number,
    one_of,
    text,
    whole,
)
from broadcast_sandbox.mux.model import Asset, Json, LiveStream, PlaybackId, Policy, SimulcastTarget

MAX_SIMULCAST_TARGETS = 6
_ADVANCED = "advanced_playback_policies"
_EMBEDDED = "embedded_subtitles"
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
_RESOLUTIONS = (
    "highest",
    "audio-only",
    "2160p",
    "1440p",
    "1080p",
    "720p",
    "540p",
    "480p",
    "360p",
    "270p",
)
_CAPTIONED = ("en", "en-US", "es", "fr", "de", "pt", "it")
_STREAM_META_LIMITS = {"title": 512}
"""LiveStreamMetadata of mux_python 5.1.2 has no other name."""
_META_LIMITS = {"title": 512, "creator_id": 128, "external_id": 128}
_POLICIES = ("public", "signed", "drm")
_LATENCY_MODES = ("low", "reduced", "standard")


def created_stream(body: Json) -> LiveStream:
    """Raises RefusedError."""
    body = known(body, _CREATABLE)
    test = flag(body, "test")
    if test and "max_continuous_duration" in body:
        raise invalid(MAX_TEST_MESSAGE)
    latency_mode = _latency_mode(body)
    window = 60.0 if latency_mode == "standard" else 0.0
    extra = _echoed(body)
    if latency_mode == "low" and extra.get("generated_subtitles"):
        raise invalid("generated_subtitles are not supported for low latency live streams")
    return LiveStream(
        latency_mode=latency_mode,
        reconnect_window_s=number(body, "reconnect_window", 0, 1800, window),
        max_continuous_duration_s=None if test else whole(body, "max_continuous_duration", 60, 43_200, 43_200),
        test=test,
        playback_ids=playback_ids(body),
        simulcast_targets=_simulcast_targets(body),
        new_asset_settings=_asset_settings(body, _ASSET_SETTINGS),
        extra={name: value for name, value in extra.items() if value != ""},
    )


def update_stream(stream: LiveStream, body: Json) -> None:
    """All or nothing. Raises RefusedError."""
    body = known(body, _UPDATABLE)
    if stream.test and "max_continuous_duration" in body:
        raise invalid(MAX_TEST_MESSAGE)
    latency_mode = _latency_mode(body) if "latency_mode" in body else stream.latency_mode
    if latency_mode != stream.latency_mode and stream.status != "idle":
        raise invalid("latency_mode can only be changed while the live stream is idle")
    window = number(body, "reconnect_window", 0, 1800, stream.reconnect_window_s)
    limit = stream.max_continuous_duration_s
    if not stream.test:
        limit = whole(body, "max_continuous_duration", 60, 43_200, limit or 43_200)
    settings = _asset_settings(body, _ASSET_SETTINGS_UPDATABLE)
    extra = _echoed(body)
    if latency_mode == "low" and stream.extra.get("generated_subtitles"):
        raise invalid("generated_subtitles are not supported for low latency live streams")
    stream.latency_mode = latency_mode
    stream.reconnect_window_s = window
    stream.max_continuous_duration_s = limit
    stream.new_asset_settings = stream.new_asset_settings | settings
    stream.extra = {name: value for name, value in (stream.extra | extra).items() if value != ""}


def created_asset(body: Json) -> tuple[str, Asset]:
    """The url that the file is fetched from, and the asset. Raises RefusedError."""
    body = known(body, _ASSET_SETTINGS | {"input", "inputs", "meta", "master_access", "mp4_support", "video_quality"})
    inputs = array(body, "inputs" if "inputs" in body else "input")
    url = text(as_object(inputs[0], "inputs"), "url", 4096) if inputs else None
    if not url or urlsplit(url).scheme not in ("http", "https"):
        raise invalid("inputs must have a url")
    settings = _asset_settings(
        {"new_asset_settings": {name: value for name, value in body.items() if name not in ("input", "inputs")}},
        _ASSET_SETTINGS,
    )
    return url, Asset(is_live=False, settings=settings, playback_ids=playback_ids(settings))


def simulcast_target(body: Any) -> SimulcastTarget:
    """Raises RefusedError."""
    body = known(as_object(body, "simulcast_targets"), frozenset({"url", "stream_key", "passthrough"}))
    url = text(body, "url", 2048)
    if not url:
        raise invalid("url is required")
    if urlsplit(url).scheme not in ("rtmp", "rtmps") or not urlsplit(url).hostname:
        raise invalid("url must be an RTMP or RTMPS URL")
    return SimulcastTarget(
        url=url, stream_key=text(body, "stream_key", 255), passthrough=text(body, "passthrough", 255)
    )


def playback_id(body: Json) -> PlaybackId:
    """The body of create-playback-id. Raises RefusedError."""
    body = known(body, frozenset({"policy", "drm_configuration_id"}))
    policy = _policy(body.get("policy"))
    drm = text(body, "drm_configuration_id", 255)
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
    ids.extend(playback_id(as_object(item, "advanced_playback_policies")) for item in array(body, _ADVANCED))
    return ids


def _policy(value: Any) -> Policy:
    if value not in _POLICIES:
        raise invalid(f"playback policy must be one of {', '.join(_POLICIES)}")
    return value


def _policy_list(body: Json) -> list[Any]:
    if "playback_policies" in body and "playback_policy" in body:
        raise invalid("playback_policies and playback_policy are mutually exclusive")
    value = body.get("playback_policies", body.get("playback_policy", []))
    return [value] if isinstance(value, str) else array({"playback_policies": value}, "playback_policies")


def _latency_mode(body: Json) -> Any:
    one_of(body, "latency_mode", _LATENCY_MODES)
    reduced, low = flag(body, "reduced_latency"), flag(body, "low_latency")
    if len({"latency_mode", "reduced_latency", "low_latency"} & set(body)) > 1:
        raise invalid("latency_mode, reduced_latency and low_latency are mutually exclusive")
    if reduced or low:
        return "reduced" if reduced else "low"
    return body.get("latency_mode", "standard")


def _simulcast_targets(body: Json) -> list[SimulcastTarget]:
    targets = [simulcast_target(item) for item in array(body, "simulcast_targets")]
    if len(targets) > MAX_SIMULCAST_TARGETS:
        raise invalid(f"a live stream can have at most {MAX_SIMULCAST_TARGETS} simulcast targets")
    return targets


def _asset_settings(body: Json, names: frozenset[str]) -> Json:
    if "new_asset_settings" not in body:
        return {}
    settings = known(as_object(body["new_asset_settings"], "new_asset_settings"), names)
    playback_ids(settings)
    text(settings, "passthrough", 255)
    _meta(settings, _META_LIMITS)
    for given in array(settings, "static_renditions"):
        rendition = known(as_object(given, "static_renditions"), frozenset({"resolution", "passthrough"}))
        if rendition.get("resolution") not in _RESOLUTIONS:
            raise invalid(f"static_renditions resolution must be one of {', '.join(_RESOLUTIONS)}")
    one_of(settings, "video_quality", ("plus", "premium"))
    one_of(settings, "master_access", ("none", "temporary"))
    if "playback_policy" in settings:
        settings["playback_policies"] = _policy_list(settings)
        del settings["playback_policy"]
    return settings


def _meta(body: Json, limits: Mapping[str, int]) -> None:
    if "meta" not in body:
        return
    meta = known(as_object(body["meta"], "meta"), frozenset(limits))
    for name, limit in limits.items():
        text(meta, name, limit)


def _echoed(body: Json) -> Json:
    text(body, "passthrough", 255)
    if (slate := text(body, "reconnect_slate_url", 2048)) and urlsplit(slate).scheme not in ("http", "https"):
        raise invalid("reconnect_slate_url must be an HTTP or HTTPS URL")
    flag(body, "audio_only")
    flag(body, "use_slate_for_standard_latency")
    _meta(body, _STREAM_META_LIMITS)
    if len(array(body, "generated_subtitles")) > 1:
        raise invalid("at most one generated_subtitles track")
    for given in array(body, "generated_subtitles"):
        track = known(
            as_object(given, "generated_subtitles"),
            frozenset({"name", "passthrough", "language_code", "transcription_vocabulary_ids"}),
        )
        one_of(track, "language_code", _CAPTIONED)
    channels = [as_object(item, "embedded_subtitles").get("language_channel") for item in array(body, _EMBEDDED)]
    if len(set(channels)) != len(channels):
        raise invalid("language_channel must be unique")
    return {name: body[name] for name in _ECHOED & set(body)}
