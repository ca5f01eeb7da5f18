"""way_of(): how a viewer watches now. Pure, over what is stored."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.broadcast import (
    Broadcast,
    Condition,
    ConditionType,
    FallbackMode,
    ReasonOfCondition,
    State,
    seconds,
)
from service.domain.reasons import ConditionReason
from service.domain.resource_set import on_air, unwatched
from service.domain.resources import Recording, RecordingStatus

_EGRESS_ON_ITS_WAY = (
    ConditionReason.NOT_RUNNING,
    ConditionReason.UNKNOWN,
    ConditionReason.STARTING,
    ConditionReason.CONNECTING,
)
_NO_STREAM = (ConditionReason.UNKNOWN, ConditionReason.NOT_LISTED, ConditionReason.DELETING)
"""Reasons of STREAM_READY with which it is not known whether there is a live stream, or it goes."""
_STREAM_ENDED = (ConditionReason.IDLE, ConditionReason.DISABLED, ConditionReason.NO_STREAM)
"""Reasons of INGEST_ACTIVE with which the provider has ended the recording, and with it the playlist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hls:
    interrupted: bool = False
    """The player shows a slate until the media is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheRoom:
    hls: bool
    """HLS plays too, because the fallback is about to be left: a viewer who finds no place in the room can use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    reason: ReasonOfCondition
    """The reason of the condition PLAYABLE, or NOT_STARTED."""
    eta: timedelta | None = None
    """How long it takes until there is something to watch. None: nobody can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    recordings: tuple[Recording, ...] = ()
    """The recordings that can be played."""
    pending: bool = False
    """A recording is still being prepared."""


Way = Hls | InTheRoom | NotYet | Over


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTakes:
    """How long a start takes. The defaults are for a service that has not seen ten starts yet: StartEgress with its
    browser takes 5 to 15 s, its connection 1 or 2 s, and the live stream is active 10 to 20 s after that (docs of
    LiveKit egress and Mux live streams, and their issue trackers).
    """

    whole: timedelta = timedelta(seconds=30)
    """From the start of the egress until the broadcast is LIVE."""
    ingest: timedelta = timedelta(seconds=15)
    """The part of it from the moment at which the egress delivers."""


USUAL = StartTakes()


def way_of(broadcast: Broadcast, now: datetime, takes: StartTakes = USUAL) -> Way:
    """*now*: of the clock that wrote the broadcast, the database's. *takes*: for the time until there is something to
    watch.
    """
    match broadcast.state:
        case State.CREATED:
            return NotYet(reason=ConditionReason.NOT_STARTED)
        case State.STOPPING | State.ENDED | State.FAILED:
            return _over(broadcast)
        case _ if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
            return InTheRoom(hls=broadcast.state is State.LIVE and _has_hls(broadcast))
        case State.LIVE if _has_hls(broadcast):
            return Hls()
        case State.INTERRUPTED if _has_hls(broadcast) and _slate(broadcast, now):
            return Hls(interrupted=True)
        case _:
            playable = _condition(broadcast, ConditionType.PLAYABLE)
            reason = playable.reason if playable is not None else ConditionReason.STARTING
            return NotYet(reason=reason, eta=_eta(broadcast, now, takes))


def _over(broadcast: Broadcast) -> Over:
    recordings = broadcast.status.recordings
    return Over(
        recordings=tuple(each for each in recordings if each.status is RecordingStatus.READY and each.playback_id),
        # Until nothing is left running, what will be recorded is not known.
        pending=any(not each.settled for each in recordings)
        or (broadcast.state is State.STOPPING and broadcast.live_time is not None),
    )


def _has_hls(broadcast: Broadcast) -> bool:
    return bool(broadcast.status.playback_id)


def _slate(broadcast: Broadcast, now: datetime) -> bool:
    """Whether the live stream still waits for the media to come back, within its reconnect window."""
    ingest = _condition(broadcast, ConditionType.INGEST_ACTIVE)
    playable = _condition(broadcast, ConditionType.PLAYABLE)
    if ingest is None or playable is None or ingest.reason in _STREAM_ENDED:
        return False
    return bool(ingest.met) or now < playable.transition_time + seconds(broadcast.spec.reconnect_window_s)


def _eta(broadcast: Broadcast, now: datetime, takes: StartTakes) -> timedelta | None:
    """How long it takes until LIVE. None: the host, SetOnAir, the live stream or an answer is missing, the last start
    of an egress failed, or it takes longer than usual.
    """
    last_error = broadcast.status.last_error
    if last_error is not None and last_error.operation.starts_egress:
        return None
    stream = _condition(broadcast, ConditionType.STREAM_READY)
    host = _condition(broadcast, ConditionType.HOST_PUBLISHING)
    egress = _condition(broadcast, ConditionType.EGRESS_RUNNING)
    ingest = _condition(broadcast, ConditionType.INGEST_ACTIVE)
    # A broadcast that waits for a viewer waits for the one who asks.
    wanted = on_air(broadcast) or unwatched(broadcast)
    if host is None or egress is None or ingest is None or not host.met or not wanted:
        return None
    if ingest.reason == ConditionReason.NO_STREAM or (stream is not None and stream.reason in _NO_STREAM):
        return None
    if ingest.met is None and ingest.reason != ConditionReason.NOT_OBSERVED:
        return None
    if egress.met:
        ready_at = egress.transition_time + takes.ingest
    elif egress.reason == ConditionReason.NO_VIEWER:
        ready_at = now + takes.whole
    elif egress.reason in _EGRESS_ON_ITS_WAY:
        wanted_since = broadcast.delivery.decided.since or host.transition_time
        ready_at = max(host.transition_time, egress.transition_time, wanted_since) + takes.whole
    else:
        return None
    return ready_at - now if ready_at > now else None


def _condition(broadcast: Broadcast, type_: ConditionType) -> Condition | None:
    return next((each for each in broadcast.status.conditions if each.type is type_), None)
