"""While viewers see the show, or should."""

from collections.abc import Mapping
from typing import Final

from tests.unit.view_rows import Row

LIVE: Final[Mapping[str, Row]] = {
    "live, seen": Row(
        get="LIVE",
        playable="met PLAYING",
        health="OK",
        causes="",
        headline="Viewers see the show.",
        join="hls",
    ),
    "live, not seen yet": Row(
        get="LIVE",
        playable="met PLAYING",
        health="UNKNOWN: PLAYBACK NOT_OBSERVED",
        causes="",
        headline="Media arrives at the live stream. Whether viewers see it is not known: nobody looked lately.",
        join="hls",
    ),
    "live, seen once": Row(
        get="LIVE",
        playable="met PLAYING",
        health="PENDING",
        causes="",
        headline=(
            "Media arrives at the live stream. Whether viewers see it is not known: the playlist is there; "
            "whether it moves on is seen at the next look."
        ),
        join="hls",
    ),
    "live, nobody looked lately": Row(
        get="LIVE",
        playable="met PLAYING",
        health=(
            "UNKNOWN: ROOM NOT_OBSERVED, HOST NOT_OBSERVED, EGRESS NOT_OBSERVED, INGEST NOT_OBSERVED, "
            "PLAYBACK NOT_OBSERVED, RECORDING NOT_OBSERVED"
        ),
        causes="",
        headline=(
            "It was live when it was looked at last. Whether viewers see it now is not known: nobody looked lately."
        ),
        join="hls",
    ),
    "live, the prober did not look lately": Row(
        get="LIVE",
        playable="met PLAYING",
        health="UNKNOWN: PLAYBACK NOT_OBSERVED",
        causes="",
        headline="Media arrives at the live stream. Whether viewers see it is not known: nobody looked lately.",
        join="hls",
    ),
    "live, signed": Row(
        get="LIVE",
        playable="unknown SIGNED",
        health="OK: PLAYBACK SIGNED",
        causes="",
        headline=(
            "Media arrives at the live stream. Whether viewers see it is not known: only who holds a viewer's"
            " token can look."
        ),
        join="hls",
    ),
    "live, signed, and there is a signing key": Row(
        get="LIVE",
        playable="met PLAYING",
        health="OK",
        causes="",
        headline="Viewers see the show.",
        join="hls",
    ),
    "live, no picture": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED: HOST NO_VIDEO",
        causes="NO_VIDEO",
        headline="Nobody publishes a picture.",
        join="hls",
    ),
    "live, the uplink is poor": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED: HOST UPLINK_POOR",
        causes="HOST_UPLINK_POOR",
        headline="The browser of ann reports a poor connection.",
        join="hls",
    ),
    "live, LiveKit is away": Row(
        get="LIVE LIVEKIT_UNREACHABLE",
        playable="unknown LIVEKIT_UNREACHABLE",
        health="UNKNOWN: ROOM LIVEKIT_UNREACHABLE, HOST LIVEKIT_UNREACHABLE, EGRESS LIVEKIT_UNREACHABLE",
        causes="LIVEKIT_UNREACHABLE",
        headline="LiveKit does not answer as it should since 00:09:00 UTC: timeout no answer in time",
        join="hls",
    ),
    "live, Mux is away": Row(
        get="LIVE MUX_UNREACHABLE",
        playable="unknown MUX_UNREACHABLE",
        health="UNKNOWN: INGEST MUX_UNREACHABLE, RECORDING MUX_UNREACHABLE",
        causes="MUX_UNREACHABLE",
        headline="Mux does not answer as it should since 00:09:00 UTC: timeout no answer in time",
        join="hls",
    ),
    "live, Mux refuses our token": Row(
        get="LIVE MUX_CREDENTIALS",
        playable="unknown MUX_CREDENTIALS",
        health="UNKNOWN: INGEST MUX_CREDENTIALS, RECORDING MUX_CREDENTIALS",
        causes="MUX_CREDENTIALS",
        headline="Mux refuses our credentials since 00:09:00 UTC: credentials no answer in time",
        join="hls",
    ),
    "live, LiveKit refuses our key": Row(
        get="LIVE LIVEKIT_CREDENTIALS",
        playable="unknown LIVEKIT_CREDENTIALS",
        health="UNKNOWN: ROOM LIVEKIT_CREDENTIALS, HOST LIVEKIT_CREDENTIALS, EGRESS LIVEKIT_CREDENTIALS",
        causes="LIVEKIT_CREDENTIALS",
        headline="LiveKit refuses our credentials since 00:09:00 UTC: credentials no answer in time",
        join="hls",
    ),
    "live, the egress is not in its room": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED: EGRESS NOT_IN_ROOM",
        causes="EGRESS_GHOST",
        headline="The egress is listed as active and is not in its room: its worker seems to be gone.",
        join="hls",
    ),
    "live, the egress ends by itself": Row(
        get="INTERRUPTED ENDING",
        playable="not met ENDING",
        health="DOWN: EGRESS ENDING",
        causes="UNEXPLAINED",
        headline="Egress: The egress is ending, and the service had not told it to.",
        join="hls",
    ),
    "live, the encoder left": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DOWN: INGEST DISCONNECTED, PLAYBACK STALLED",
        causes="INGEST_STALLED, PLAYLIST_STALLED",
        headline="The egress says that it sends, and nothing arrives at the live stream any more.",
        join="hls",
    ),
    "live, the playlist stands": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DOWN: PLAYBACK STALLED",
        causes="PLAYLIST_STALLED, INGEST_STALLED",
        headline="The playlist that viewers play stands still.",
        join="hls",
    ),
    "live, the playback edge fails": Row(
        get="LIVE PLAYBACK_UNREACHABLE",
        playable="unknown PLAYBACK_UNREACHABLE",
        health="UNKNOWN: PLAYBACK PLAYBACK_UNREACHABLE",
        causes="PLAYBACK_UNREACHABLE",
        headline=(
            "Whether viewers see the show is not known: the playlist cannot be seen: the playback edge answers 503."
        ),
        join="hls",
    ),
    "live, the live stream is not on air": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DOWN: PLAYBACK NOT_ON_AIR",
        causes="UNEXPLAINED",
        headline="Playback: the playlist answers 412.",
        join="hls",
    ),
    "live, the playlist is over": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DOWN: PLAYBACK ENDED",
        causes="UNEXPLAINED",
        headline="Playback: the playlist says it is over.",
        join="hls",
    ),
    "live, the room is not listed": Row(
        get="LIVE",
        playable="met PLAYING",
        health="UNKNOWN: ROOM NOT_LISTED",
        causes="",
        headline="Viewers see the show.",
        join="hls",
    ),
    "live, the egress is not listed": Row(
        get="LIVE",
        playable="met PLAYING",
        health="UNKNOWN: EGRESS NOT_LISTED",
        causes="",
        headline="Viewers see the show.",
        join="hls",
    ),
    "live, a destination failed": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED: DESTINATION FAILED",
        causes="DESTINATION_FAILED",
        headline="The destination one failed: refused",
        join="hls",
    ),
    "live, a change does not get there": Row(
        get="LIVE 503",
        playable="met PLAYING",
        health="DEGRADED",
        causes="LIVEKIT_UNREACHABLE",
        headline="LiveKit does not answer as it should: UpdateLayout: 503 busy",
        join="hls",
    ),
    "live, a change waits for its turn": Row(
        get="LIVE",
        playable="met PLAYING",
        health="PENDING",
        causes="WAITING_FOR_BUDGET",
        headline="What comes next waits for its turn at the provider's rate limit, at 00:10:30 UTC.",
        join="hls",
    ),
    "live, nobody takes it up": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED",
        causes="SERVICE_BEHIND",
        headline="It is due since 00:09:49 UTC, and no replica takes it up.",
        join="hls",
    ),
    "live, a fallback is about to be left": Row(
        get="LIVE",
        playable="met PLAYING",
        health="DEGRADED: PLAYBACK DIRECT_WEBRTC",
        causes="FALLBACK_ACTIVE",
        headline="Viewers watch in the room. The reason is EGRESS_FAILING.",
        join="webrtc",
    ),
}
