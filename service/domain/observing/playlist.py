"""From the playlist that the prober saw to the row of the live stream: whether viewers get new pictures. Pure.

Mux calls a live stream active and LiveKit calls an egress connected while the playlist stands still, so only a look at
the playlist shows it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.measurements import PROBED_S, Probe
from service.domain.observing.learned import Learned
from service.domain.ports import PlaylistSeen
from service.domain.reasons import EventReason
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Phase, Stream

_OK, _NOT_ON_AIR = 200, 412
"""412 is an answer about the live stream: it is not active (muxinc/elements, playback-core/src/request-errors.ts)."""


def not_seen(answer: PlaylistSeen) -> tuple[str, str] | None:
    """The code of an *answer* that shows no playlist, and a message for people. None: it says how the playlist is.

    404, 403 or 5xx may be of the edge, of a cache, or of a proxy before it, so it says nothing of the live stream.
    """
    if answer.status in (_OK, _NOT_ON_AIR):
        return None
    return str(answer.status), f"the playback edge answers {answer.status}"


def probed(resources: Sequence[AnyResource], probe: Probe, now: datetime) -> Learned:
    """The change that follows from the last looks of the prober: whether the playlist stands still, and whether it can
    be seen at all. A look that did not see it is no sign of a stall.
    """
    resource_set = ResourceSet(resources)
    stream = resource_set.stream
    if stream is None or stream.phase is not Phase.PRESENT:
        return Learned()
    moved = _movement(resource_set, stream, probe, now)
    stream = next((each for each in moved.resources if isinstance(each, Stream)), stream)
    unseen = probe.out_of_sight(now)
    if (unseen is not None) is (stream.unseen_since is not None):
        return moved
    sight = replace(
        stream,
        unseen_since=unseen.since if unseen is not None else None,
        unseen=unseen.message if unseen is not None else "",
    )
    return Learned(resources=(sight,), events=moved.events)


def _movement(resource_set: ResourceSet, stream: Stream, probe: Probe, now: datetime) -> Learned:
    shown = probe.playlist is not None and not_seen(probe.playlist) is None
    fresh = shown and probe.playlist_at is not None and now - probe.playlist_at <= seconds(PROBED_S)
    if stream.stalled_since is not None:
        return _still(stream, stream.stalled_since, probe, now, fresh=fresh)
    # A look from before proves nothing: until host, egress and live stream are there, no playlist can move on.
    since = max(
        (moment for moment in (probe.standing_since, resource_set.whole_since) if moment is not None), default=None
    )
    if since is None or not fresh or not resource_set.playable or not probe.stands(since):
        return Learned()
    event = Event(reason=EventReason.PLAYBACK_STALLED, message="the playlist that viewers play does not move on")
    return Learned(resources=(replace(stream, stalled_since=since),), events=(event,))


def _still(stream: Stream, stalled_since: datetime, probe: Probe, now: datetime, *, fresh: bool) -> Learned:
    """The stall ends only with a new segment. If no probe is fresh the state is unknown, and it ends too."""
    if fresh and probe.standing_since is not None and probe.standing_since <= stalled_since:
        return Learned()
    event = Event(reason=EventReason.PLAYBACK_RESUMED, message="" if fresh else "nobody looked lately")
    return Learned(resources=(replace(stream, stalled_since=None, resumed_at=now),), events=(event,))
