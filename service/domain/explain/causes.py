"""The codes of causes: who is to look at each, what a person can do, and which others follow from it.

Codes are a promise to programs: one that was given out keeps its meaning. docs/explain.md lists them.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

_PICTURE = frozenset({"NO_MEDIA", "PLAYLIST_STALLED"})
_GIVEN_UP = frozenset({"START_LIMIT", "FALLBACK_ACTIVE"})
_SENDING = frozenset(
    {
        "EGRESS_FAILED",
        "EGRESS_ABORTED",
        "EGRESS_ENDED_UNASKED",
        "EGRESS_LIMIT_REACHED",
        "EGRESS_LOST",
        "EGRESS_GHOST",
        "RTMP_REFUSED",
        "RTMP_NOT_CONNECTED",
        "RTMP_LOST",
    }
)
_STARTING = frozenset({"EGRESS_START_STUCK", "EGRESS_START_LOST", "EGRESS_NO_WORKER"})
_AFTER_EGRESS = _PICTURE | _GIVEN_UP | {"DESTINATION_FAILED"}
_NO_ANSWER = frozenset({"START_TIMEOUT", "FALLBACK_ACTIVE", "WAITING_FOR_BUDGET"})


@dataclass(frozen=True, slots=True)
class Code:
    blame: str
    """Who is to look: service, livekit, mux, host, caller or storage."""
    remedy: str
    explains: AbstractSet[str] = frozenset()
    """Codes that follow from it: they rank below."""


CODES: dict[str, Code] = {
    # The host.
    "WAITING_FOR_HOST": Code("host", "Let a host enter the room and publish.", _PICTURE | {"WAITING_FOR_BUDGET"}),
    "HOST_LEFT": Code(
        "host",
        "Let the host come back; a token for the same identity is enough.",
        _AFTER_EGRESS | {"EGRESS_START_STUCK", "INGEST_STALLED", "NO_HOST"},
    ),
    "HOST_MUTED": Code("host", "Ask the host to unmute."),
    "NO_VIDEO": Code("host", "Ask the host to share a camera or a screen."),
    "HOST_UPLINK_POOR": Code(
        "host", "Ask the host for a better connection, or fewer or smaller tracks.", {"PLAYLIST_STALLED"}
    ),
    # What callers want.
    "NOT_ON_AIR": Code("caller", "Call SetOnAir when the show begins.", _PICTURE),
    "STOPPED_BY_CALLER": Code("caller", "Nothing: a broadcast runs once. Create another one."),
    "MAX_DURATION": Code("caller", "Create another one, with a greater max_duration if it was too short."),
    "TEST_LIMIT": Code("caller", "Create one that is no test: Mux cuts tests after 5 minutes."),
    "NO_HOST": Code("host", "Create another one when a host is there."),
    # Somebody else's hand.
    "ROOM_LOST": Code(
        "livekit",
        "Find out who deleted the room. It is made again by itself; the host has to enter again.",
        _AFTER_EGRESS | _SENDING | _STARTING | {"INGEST_STALLED", "HOST_LEFT", "WAITING_FOR_HOST", "NO_HOST"},
    ),
    "STREAM_DISABLED_OUTSIDE": Code(
        "mux",
        "Find out who disabled the live stream at Mux. Create another broadcast.",
        _AFTER_EGRESS | _SENDING | _STARTING | {"INGEST_STALLED"},
    ),
    "STREAM_DELETED_OUTSIDE": Code(
        "mux",
        "Find out who deleted the live stream at Mux. Create another broadcast.",
        _AFTER_EGRESS | _SENDING | _STARTING | {"INGEST_STALLED"},
    ),
    "KEY_RESET_OUTSIDE": Code(
        "mux",
        "Find out who reset the stream key at Mux. An egress with the new key is started by itself.",
        _AFTER_EGRESS | _SENDING | {"INGEST_STALLED"},
    ),
    # The egress.
    "EGRESS_REFUSED": Code("livekit", "Read the message: what was asked for is not possible.", _GIVEN_UP),
    "EGRESS_QUOTA": Code("livekit", "Raise LiveKit's limit of concurrent egresses, or end others.", _GIVEN_UP),
    "EGRESS_NO_WORKER": Code("livekit", "Add egress workers, or look why none is free.", _GIVEN_UP),
    "EGRESS_START_STUCK": Code("livekit", "Look at the egress worker: it does not get to work.", _AFTER_EGRESS),
    "EGRESS_START_LOST": Code(
        "livekit", "Nothing: it is looked for, the key is reset, and another one is started.", _GIVEN_UP
    ),
    "EGRESS_FAILED": Code("livekit", "Look at the egress in LiveKit; it is replaced by itself.", _AFTER_EGRESS),
    "EGRESS_ABORTED": Code("livekit", "Look at the egress in LiveKit; it is replaced by itself.", _AFTER_EGRESS),
    "EGRESS_ENDED_UNASKED": Code(
        "livekit", "Find out who stopped the egress, or which worker was shut down.", _AFTER_EGRESS
    ),
    "EGRESS_LIMIT_REACHED": Code("livekit", "Raise LiveKit's session limit of egresses.", _AFTER_EGRESS),
    "EGRESS_LOST": Code(
        "livekit", "Look why LiveKit forgot the egress; it is replaced by itself.", _AFTER_EGRESS | {"EGRESS_GHOST"}
    ),
    "EGRESS_GHOST": Code(
        "livekit",
        "Look for the worker that died. The key is reset and the egress replaced by itself.",
        _AFTER_EGRESS | {"EGRESS_FAILED", "INGEST_STALLED"},
    ),
    "RTMP_REFUSED": Code(
        "mux", "Look at the live stream at Mux: it takes no encoder.", _AFTER_EGRESS | {"EGRESS_FAILED"}
    ),
    "RTMP_NOT_CONNECTED": Code("mux", "Look at the way between LiveKit and Mux: no connection is made.", _AFTER_EGRESS),
    "RTMP_LOST": Code("mux", "Look at the way between LiveKit and Mux.", _AFTER_EGRESS | {"EGRESS_FAILED"}),
    "NO_MEDIA": Code(
        "livekit", "Look at what the egress sends: Mux sees no media in it.", _GIVEN_UP | {"PLAYLIST_STALLED"}
    ),
    "INGEST_STALLED": Code(
        "livekit",
        "Look at the egress: it says that it sends, and nothing arrives.",
        _GIVEN_UP | {"PLAYLIST_STALLED", "RTMP_LOST", "EGRESS_FAILED"},
    ),
    "PLAYLIST_STALLED": Code("mux", "Look at the live stream at Mux: its playlist stands still."),
    "START_LIMIT": Code(
        "service", "Mend what makes the egresses fail; the next start comes by itself.", {"PLAYLIST_STALLED"}
    ),
    "DESTINATION_FAILED": Code("caller", "Look at the destination; remove it and add it again under another name."),
    "FALLBACK_ACTIVE": Code("service", "Nothing: it is left when the normal way was healthy for two minutes."),
    "LOCAL_RECORDING_LOST": Code(
        "livekit", "Look for the worker that died. The recording goes on by itself, with a gap.", {"FALLBACK_ACTIVE"}
    ),
    "LOCAL_RECORDING_FAILED": Code(
        "storage", "Look at our own storage, and at the egress in LiveKit; it is tried again.", {"FALLBACK_ACTIVE"}
    ),
    "RECORDING_ERRORED": Code("mux", "Look at the asset at Mux."),
    # The providers.
    "LIVEKIT_UNREACHABLE": Code("livekit", "Look at LiveKit, and the way to it.", _NO_ANSWER | _STARTING | _PICTURE),
    "LIVEKIT_CREDENTIALS": Code(
        "service",
        "Set LIVEKIT_API_KEY and LIVEKIT_API_SECRET to what LiveKit takes.",
        _NO_ANSWER | _STARTING | {"LIVEKIT_UNREACHABLE"},
    ),
    "LIVEKIT_THROTTLED": Code(
        "livekit", "Make fewer calls, or have LiveKit's limit raised.", _NO_ANSWER | {"LIVEKIT_UNREACHABLE"}
    ),
    "LIVEKIT_REFUSED": Code("service", "Read the message: LiveKit refuses what was asked for.", _NO_ANSWER),
    "MUX_UNREACHABLE": Code("mux", "Look at Mux, and the way to it.", _NO_ANSWER),
    "MUX_CREDENTIALS": Code(
        "service", "Set MUX_TOKEN_ID and MUX_TOKEN_SECRET to what Mux takes.", _NO_ANSWER | {"MUX_UNREACHABLE"}
    ),
    "MUX_THROTTLED": Code("mux", "Make fewer calls, or have Mux's limit raised.", _NO_ANSWER | {"MUX_UNREACHABLE"}),
    "MUX_REFUSED": Code("caller", "Read the message: Mux refuses what the spec asks for.", _NO_ANSWER),
    # Ourselves.
    "START_TIMEOUT": Code("service", "Look at the story and at last_error: room or live stream could not be made."),
    "WAITING_FOR_BUDGET": Code("service", "Wait, or have the provider's rate limit raised."),
    "TAKE_DOWN_BLOCKED": Code("service", "Look at what is left; it is tried until it is gone."),
    "SERVICE_BEHIND": Code(
        "service",
        "Look at the replicas: nobody takes this broadcast up.",
        _NO_ANSWER | {"EGRESS_START_LOST", "TAKE_DOWN_BLOCKED"},
    ),
}
