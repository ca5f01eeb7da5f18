"""Stream urls of an egress: parsing, shorthands and redaction.

Sources: livekit/egress pkg/config/urls.go, livekit/protocol utils/redact.go.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from broadcast_sandbox.livekit.twirp import TwirpError, psrpc_error

_RTMP_URL = re.compile(r"(rtmps?://)(.*/)(.*/)(\S*)( live=1)?")
_SHORTHAND_URL = re.compile(r"(mux|twitch)://(\S+)")
_TWITCH = "rtmps://ingest.global-contribute.live-video.net:443/app/{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamUrl:
    expanded: str
    """With the stream key: never shown, never logged."""
    redacted: str
    """The expanded form without its key, as in `StreamInfo.url`."""
    host: str
    key: str


def redact_identifier(identifier: str) -> str:
    """`{abc...xyz}`: three characters at each end of 9 or more, two of 6, one of 3, else none."""
    shown = min(len(identifier) // 3, 3)
    return f"{{{identifier[:shown]}...{identifier[len(identifier) - shown :]}}}"


def redact_request_url(url: str) -> str:
    """The form that a request is echoed in: a shorthand keeps its scheme."""
    if match := _SHORTHAND_URL.fullmatch(url):
        return f"{match[1]}://{redact_identifier(match[2])}"
    if match := _RTMP_URL.fullmatch(url):
        return f"{match[1]}{match[2]}{match[3]}{redact_identifier(match[4])}{match[5] or ''}"
    return url


def expand(url: str) -> str:
    """`mux://KEY` and `twitch://KEY` in full; anything else as it is."""
    parts = urlsplit(url)
    if parts.scheme == "mux":
        return f"rtmps://global-live.mux.com:443/app/{parts.netloc}"
    if parts.scheme == "twitch":
        return _TWITCH.format(parts.netloc)
    return url


def parse_stream_url(url: str) -> StreamUrl:
    """The refusal names the whole url, stream key included, as the real one does (pkg/errors/errors.go)."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise invalid_url(url, str(error)) from None
    if scheme not in ("rtmp", "rtmps", "mux", "twitch"):
        raise invalid_url(url, "invalid scheme")
    expanded = expand(url)
    match = _RTMP_URL.fullmatch(expanded)
    if match is None:
        raise invalid_url(url, "rtmp urls must be of format rtmp(s)://{host}(/{path})/{app}/{stream_key}( live=1)")
    return StreamUrl(
        expanded=expanded,
        redacted=redact_request_url(expanded),
        host=(urlsplit(expanded).hostname or "").lower(),
        key=match[4],
    )


def invalid_url(url: str, reason: str) -> TwirpError:
    return psrpc_error("invalid_argument", f"invalid url {url}: {reason}")
