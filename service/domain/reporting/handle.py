"""The playback handle: how all viewers of a broadcast watch, with a generation that grows when that changes. Pure.

It is stored whenever the row is written, so every replica says the same, and viewers are told of a change once,
whichever replica they ask.
"""

from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import Broadcast, State
from service.domain.playback_handle import HandleKind, PlaybackHandle
from service.domain.reporting.playback import Hls, InTheRoom, NotYet, Over, Way, way_of


def handle_of(broadcast: Broadcast, now: datetime) -> PlaybackHandle:
    """The handle of a broadcast as it is stored. *now*: of the database's clock."""
    stored = broadcast.status.playback_handle
    if stored is not None:
        return stored
    kind, playback_ids = _content(way_of(broadcast, now), broadcast)
    return PlaybackHandle(kind=kind, playback_ids=playback_ids, generation=1, since=broadcast.update_time)


def with_handle(before: Broadcast, after: Broadcast, now: datetime) -> Broadcast:
    """*after* with its handle, of the next generation if it is another one than that of *before*, which is the same
    broadcast as it is stored. *now*: of the database's clock.
    """
    if after.state is State.CREATED:
        return after
    handle = handle_of(before, now)
    kind, playback_ids = _content(way_of(after, now), after)
    if (kind, playback_ids) != (handle.kind, handle.playback_ids):
        handle = PlaybackHandle(kind=kind, playback_ids=playback_ids, generation=handle.generation + 1, since=now)
    return replace(after, status=replace(after.status, playback_handle=handle))


def _content(way: Way, broadcast: Broadcast) -> tuple[HandleKind, tuple[str, ...]]:
    match way:
        case Hls():
            return HandleKind.HLS, (broadcast.status.playback_id,)
        case InTheRoom():
            return HandleKind.WEBRTC, ()
        case NotYet():
            return HandleKind.STARTING, ()
        case Over(recordings=recordings) if recordings:
            return HandleKind.RECORDING, tuple(each.playback_id for each in recordings)
        case Over():
            return HandleKind.ENDED, ()
