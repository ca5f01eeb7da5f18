"""The codes of causes: when each is told, who is to look at it, what a person can do, and which others follow from it.

Codes are a promise to programs: one that was given out keeps its text and its meaning. `make docs` writes the table in
`docs/explain.md` from them. A code is used by its member, whose name is ours: where the text names a provider, the
member names the role.
"""

from enum import StrEnum
from typing import Final, Self

from service.domain.provider import ROOMS, STORAGE, STREAMS

_ROOMS: Final = ROOMS.display_name
_STREAMS: Final = STREAMS.display_name


class Blame(StrEnum):
    """Who is to look at a cause: a provider, by its text, or one of us."""

    ROOM_PROVIDER = ROOMS.value
    STREAM_PROVIDER = STREAMS.value
    OWN_STORAGE = STORAGE.value
    SERVICE = "service"
    HOST = "host"
    CALLER = "caller"


class CauseCode(StrEnum):
    """Why a broadcast is in its state. Compares, sorts and encodes as its text."""

    _value_: str
    blame: Blame
    when: str
    """When the code is told, for the documentation."""
    remedy: str
    """What a person can do; shown to callers."""

    def __new__(cls, text: str, blame: Blame, when: str, remedy: str) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.blame = blame
        member.when = when
        member.remedy = remedy
        return member

    # The host.
    WAITING_FOR_HOST = (
        "WAITING_FOR_HOST",
        Blame.HOST,
        "room and live stream are ready, nobody publishes yet",
        "Let a host enter the room and publish.",
    )
    HOST_LEFT = (
        "HOST_LEFT",
        Blame.HOST,
        "it was live, and nobody publishes; or it ended because the host did not come back",
        "Let the host come back; a token for the same identity is enough.",
    )
    HOST_MUTED = ("HOST_MUTED", Blame.HOST, "every camera or every microphone is muted", "Ask the host to unmute.")
    NO_VIDEO = (
        "NO_VIDEO",
        Blame.HOST,
        "somebody publishes, and no picture",
        "Ask the host to share a camera or a screen.",
    )
    HOST_UPLINK_POOR = (
        "HOST_UPLINK_POOR",
        Blame.HOST,
        "the host's browser reports a poor or lost connection",
        "Ask the host for a better connection, or fewer or smaller tracks.",
    )

    # Wishes of the callers.
    NOT_ON_AIR = (
        "NOT_ON_AIR",
        Blame.CALLER,
        "delivery policy MANUAL, and SetOnAir was not called",
        "Call SetOnAir when the show begins.",
    )
    NO_VIEWER = (
        "NO_VIEWER",
        Blame.CALLER,
        "delivery policy ON_DEMAND, and nobody watches",
        "Nothing: the next viewer starts it. If somebody watches, call JoinBroadcast and KeepAlive for them.",
    )
    STOPPED_BY_CALLER = (
        "STOPPED_BY_CALLER",
        Blame.CALLER,
        "StopBroadcast was called",
        "Nothing: a broadcast runs once. Create another one.",
    )
    MAX_DURATION = (
        "MAX_DURATION",
        Blame.CALLER,
        "it was on air for `max_duration`",
        "Create another one, with a greater max_duration if it was too short.",
    )
    COST_CAP = (
        "COST_CAP",
        Blame.CALLER,
        "it cost as much as its cost cap, whose action is STOP",
        "Create another one, with a greater cost_cap if it was too small.",
    )
    COST_NEAR_CAP = (
        "COST_NEAR_CAP",
        Blame.CALLER,
        "it has cost 80 % of its cost cap or more, and goes on",
        "Raise spec.cost_cap with UpdateBroadcast, or stop it.",
    )
    TEST_LIMIT = (
        "TEST_LIMIT",
        Blame.CALLER,
        f"a test, cut by {_STREAMS}",
        f"Create one that is no test: {_STREAMS} cuts tests after 5 minutes.",
    )
    NO_HOST = ("NO_HOST", Blame.HOST, "no host came in time", "Create another one when a host is there.")

    # Changes by somebody else.
    ROOM_LOST = (
        "ROOM_LOST",
        Blame.ROOM_PROVIDER,
        "the room was gone and we had not deleted it",
        "Find out who deleted the room. It is made again by itself; the host has to enter again.",
    )
    ROOM_FORGOTTEN = (
        "ROOM_FORGOTTEN",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} says that there is no such room, and answers a create with it",
        f"Look whether the Redis of {_ROOMS} lost its data. Restart the server of the room to end it at once.",
    )
    STREAM_DISABLED_OUTSIDE = (
        "STREAM_DISABLED_OUTSIDE",
        Blame.STREAM_PROVIDER,
        "the live stream is disabled and we had not done it",
        f"Find out who disabled the live stream at {_STREAMS}. Create another broadcast.",
    )
    STREAM_DELETED_OUTSIDE = (
        "STREAM_DELETED_OUTSIDE",
        Blame.STREAM_PROVIDER,
        "the live stream is gone and we had not deleted it",
        f"Find out who deleted the live stream at {_STREAMS}. Create another broadcast.",
    )
    KEY_RESET_OUTSIDE = (
        "KEY_RESET_OUTSIDE",
        Blame.STREAM_PROVIDER,
        "the live stream has another key than we know of, and something failed since",
        f"Find out who reset the stream key at {_STREAMS}. An egress with the new key is started by itself.",
    )

    # The egress.
    EGRESS_REFUSED = (
        "EGRESS_REFUSED",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} refuses the start for what it asks",
        "Read the message: what was asked for is not possible.",
    )
    EGRESS_QUOTA = (
        "EGRESS_QUOTA",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} answers a start that there are too many",
        f"Raise {_ROOMS}'s limit of concurrent egresses, or end others.",
    )
    EGRESS_NO_WORKER = (
        "EGRESS_NO_WORKER",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} answers a start that no worker took it",
        "Add egress workers, or look why none is free.",
    )
    EGRESS_START_STUCK = (
        "EGRESS_START_STUCK",
        Blame.ROOM_PROVIDER,
        "it was started and does not become active",
        "Look at the egress worker: it does not get to work.",
    )
    EGRESS_START_LOST = (
        "EGRESS_START_LOST",
        Blame.ROOM_PROVIDER,
        "nobody answered the start: it may have happened or not",
        "Nothing: it is looked for, the key is reset, and another one is started.",
    )
    EGRESS_FAILED = (
        "EGRESS_FAILED",
        Blame.ROOM_PROVIDER,
        "it ended FAILED",
        f"Look at the egress in {_ROOMS}; it is replaced by itself.",
    )
    EGRESS_ABORTED = (
        "EGRESS_ABORTED",
        Blame.ROOM_PROVIDER,
        "it ended ABORTED",
        f"Look at the egress in {_ROOMS}; it is replaced by itself.",
    )
    EGRESS_ENDED_UNASKED = (
        "EGRESS_ENDED_UNASKED",
        Blame.ROOM_PROVIDER,
        "it ended COMPLETE and we had not stopped it",
        "Find out who stopped the egress, or which worker was shut down.",
    )
    EGRESS_LIMIT_REACHED = (
        "EGRESS_LIMIT_REACHED",
        Blame.ROOM_PROVIDER,
        "it ended LIMIT_REACHED",
        f"Raise {_ROOMS}'s session limit of egresses.",
    )
    EGRESS_LOST = (
        "EGRESS_LOST",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} lists it no more",
        f"Look why {_ROOMS} forgot the egress; it is replaced by itself.",
    )
    EGRESS_GHOST = (
        "EGRESS_GHOST",
        Blame.ROOM_PROVIDER,
        "it is listed and is not in its room, answers no stop, or was never seen to end",
        "Look for the worker that died. The key is reset and the egress replaced by itself.",
    )
    RTMP_REFUSED = (
        "RTMP_REFUSED",
        Blame.STREAM_PROVIDER,
        "its connection to the live stream failed before it ever stood",
        f"Look at the live stream at {_STREAMS}: it takes no encoder.",
    )
    RTMP_NOT_CONNECTED = (
        "RTMP_NOT_CONNECTED",
        Blame.STREAM_PROVIDER,
        "it runs and never got its connection to the live stream: for more than 10 s now, or until it was stopped",
        f"Look at the way between {_ROOMS} and {_STREAMS}: no connection is made.",
    )
    RTMP_LOST = (
        "RTMP_LOST",
        Blame.STREAM_PROVIDER,
        "its connection to the live stream stood and broke",
        f"Look at the way between {_ROOMS} and {_STREAMS}.",
    )
    NO_MEDIA = (
        "NO_MEDIA",
        Blame.ROOM_PROVIDER,
        f"it is connected, and {_STREAMS} never saw media of it",
        f"Look at what the egress sends: {_STREAMS} sees no media in it.",
    )
    INGEST_STALLED = (
        "INGEST_STALLED",
        Blame.ROOM_PROVIDER,
        "media arrived and does not any more, although it says that it sends (a wedge)",
        f"Look at the egress in {_ROOMS}, which says that it sends, and at the way from there to {_STREAMS}.",
    )
    PLAYLIST_STALLED = (
        "PLAYLIST_STALLED",
        Blame.STREAM_PROVIDER,
        "all says that it plays, and the playlist stands still",
        f"Look at the live stream at {_STREAMS}, and at the egress in {_ROOMS} that feeds it.",
    )
    PLAYBACK_UNREACHABLE = (
        "PLAYBACK_UNREACHABLE",
        Blame.STREAM_PROVIDER,
        "all says that it plays, and the service cannot see the playlist: the edge answers with an error, or not",
        "Open the playlist in a player. If it plays, look at PLAYBACK_BASE_URL and the way from here to the edge.",
    )
    START_LIMIT = (
        "START_LIMIT",
        Blame.SERVICE,
        "five egresses failed within ten minutes, or thirty were started: no more before the window is over",
        "Mend what makes the egresses fail; the next start comes by itself.",
    )
    DESTINATION_FAILED = (
        "DESTINATION_FAILED",
        Blame.CALLER,
        "a destination failed",
        "Look at the destination. It is tried again by itself, ten times in ten minutes at most.",
    )
    DESTINATION_STOPPED = (
        "DESTINATION_STOPPED",
        Blame.CALLER,
        "a destination failed ten times in ten minutes, and nothing is sent to it any more",
        "Mend the destination, then wake the broadcast, or remove the destination and add it again.",
    )
    FALLBACK_ACTIVE = (
        "FALLBACK_ACTIVE",
        Blame.SERVICE,
        "viewers are served by a fallback",
        "Nothing: it is left when the normal way was healthy for two minutes.",
    )
    LOCAL_RECORDING_LOST = (
        "LOCAL_RECORDING_LOST",
        Blame.ROOM_PROVIDER,
        "the worker of the file egress is gone, and what it had written with it",
        "Look for the worker that died. The recording goes on by itself, with a gap.",
    )
    LOCAL_RECORDING_FAILED = (
        "LOCAL_RECORDING_FAILED",
        Blame.OWN_STORAGE,
        "a fallback asks for a recording to our own storage, and the last one failed",
        f"Look at our own storage, and at the egress in {_ROOMS}; it is tried again.",
    )
    RECORDING_ERRORED = (
        "RECORDING_ERRORED",
        Blame.STREAM_PROVIDER,
        f"{_STREAMS} could not make the recording",
        f"Look at the asset at {_STREAMS}.",
    )

    # The providers.
    ROOMS_UNREACHABLE = (
        "LIVEKIT_UNREACHABLE",
        Blame.ROOM_PROVIDER,
        "the observer gets no answer, or the last call failed so",
        f"Look at {_ROOMS}, and the way to it.",
    )
    ROOMS_CREDENTIALS = (
        "LIVEKIT_CREDENTIALS",
        Blame.SERVICE,
        f"{_ROOMS} refuses our key",
        f"Set {' and '.join(ROOMS.credentials)} to what {_ROOMS} takes.",
    )
    ROOMS_THROTTLED = (
        "LIVEKIT_THROTTLED",
        Blame.ROOM_PROVIDER,
        f"{_ROOMS} answers that these are too many requests",
        f"Make fewer calls, or have {_ROOMS}'s limit raised.",
    )
    ROOMS_REFUSED = (
        "LIVEKIT_REFUSED",
        Blame.SERVICE,
        f"{_ROOMS} refuses what was asked for",
        f"Read the message: {_ROOMS} refuses what was asked for.",
    )
    STREAMS_UNREACHABLE = (
        "MUX_UNREACHABLE",
        Blame.STREAM_PROVIDER,
        "the observer gets no answer, the last call failed so, or it ended because of that",
        f"Look at {_STREAMS}, and the way to it.",
    )
    STREAMS_CREDENTIALS = (
        "MUX_CREDENTIALS",
        Blame.SERVICE,
        f"{_STREAMS} refuses our token",
        f"Set {' and '.join(STREAMS.credentials)} to what {_STREAMS} takes.",
    )
    STREAMS_THROTTLED = (
        "MUX_THROTTLED",
        Blame.STREAM_PROVIDER,
        f"{_STREAMS} answers that these are too many requests",
        f"Make fewer calls, or have {_STREAMS}'s limit raised.",
    )
    STREAMS_REFUSED = (
        "MUX_REFUSED",
        Blame.CALLER,
        f"{_STREAMS} refuses what was asked for",
        f"Read the message: {_STREAMS} refuses what the spec asks for.",
    )

    # The service.
    START_TIMEOUT = (
        "START_TIMEOUT",
        Blame.SERVICE,
        "room and live stream could not be made in time",
        "Look at the story and at last_error: room or live stream could not be made.",
    )
    WAITING_FOR_BUDGET = (
        "WAITING_FOR_BUDGET",
        Blame.SERVICE,
        "what comes next waits for its turn at a provider's rate limit",
        "Wait, or have the provider's rate limit raised.",
    )
    TAKE_DOWN_BLOCKED = (
        "TAKE_DOWN_BLOCKED",
        Blame.SERVICE,
        "it is being taken down and something does not go: it says what, how many calls failed and how",
        "Look at what is left; it is tried until it is gone.",
    )
    SERVICE_FAULT = (
        "SERVICE_FAULT",
        Blame.SERVICE,
        "the service's own work on the broadcast fails: a bug, or a key of BROADCAST_SECRET_KEYS that is missing",
        "Look into the log of the service (`pass_failed`); put a key that is missing into BROADCAST_SECRET_KEYS.",
    )
    SERVICE_BEHIND = (
        "SERVICE_BEHIND",
        Blame.SERVICE,
        "it is due since 10 s or more, and no replica took it up",
        "Look at the replicas: nobody takes this broadcast up.",
    )
    UNEXPLAINED = (
        "UNEXPLAINED",
        Blame.SERVICE,
        "something is wrong, and no other code says why: the worst part of the health is told",
        "Look at the health of each part and at the events; wake the broadcast to have it looked at again.",
    )
