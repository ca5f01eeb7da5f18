"""From live streams that a provider shows to the rows of them. Pure.

A live stream whose create was not answered is recognised by our mark, and adopted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from service.domain.lifecycle import Event
from service.domain.observing.evidence import absent, believed_gone
from service.domain.observing.learned import Learned
from service.domain.ports import StreamSeen
from service.domain.reasons import EventReason
from service.domain.resource_set import next_ordinal
from service.domain.resources import Phase, Recording, Stream, StreamStatus
from service.domain.secret import Secret
from service.domain.timing import Timing


def created_stream(stream: Stream, seen: StreamSeen, now: datetime) -> Stream:
    return replace(
        with_status(stream, seen, now),
        phase=Phase.PRESENT,
        external_id=seen.id,
        changed_at=now,
        failures=0,
        retry_at=None,
        key=seen.key,
        playback_id=seen.playback_id,
    )


def taken_stream(ordinal: int, external_id: str, playback_id: str, key: Secret, now: datetime) -> Stream:
    """The row of a live stream that was made ahead and is a broadcast's from now on. Nobody was ever given its key."""
    return Stream(
        ordinal=ordinal,
        phase=Phase.PRESENT,
        external_id=external_id,
        intended_at=now,
        changed_at=now,
        status=StreamStatus.IDLE,
        status_since=now,
        playback_id=playback_id,
        key=key,
        unnamed=True,
    )


def with_status(stream: Stream, seen: StreamSeen, now: datetime) -> Stream:
    active = seen.status is StreamStatus.ACTIVE
    return replace(
        stream,
        observed_at=now,
        absent_since=None,
        status=seen.status,
        status_since=stream.status_since if seen.status is stream.status else now,
        fed_at=now if active else stream.fed_at,
        silent_at=stream.silent_at if active or seen.status is StreamStatus.UNKNOWN else now,
        active_asset_id=seen.active_asset_id or stream.active_asset_id,
        relays=seen.relays,
    )


def stream_absent(stream: Stream, now: datetime, timing: Timing, *, listed: bool | None, contradicted: bool) -> Learned:
    """The row after the provider answered for its id that there is no such live stream. *listed*: whether a list has it
    all the same; None: no list was asked. *contradicted*: media arrived at it when it was seen last.

    One such answer may be of another environment behind the name, or of a store that lost its data, and nothing brings
    back a broadcast that ended because of it. So it is believed if the list agrees and nothing contradicts, or if two
    looks apart agree. A live stream that was told to be deleted is expected to be absent.
    """
    if stream.phase is not Phase.DELETING:
        confirmed = listed is False and not contradicted
        if not believed_gone(stream, now, timing, confirmed=confirmed, contradicted=listed is True):
            return Learned(resources=(absent(stream, now),))
    return stream_seen(stream, None, now)


def stream_seen(stream: Stream, seen: StreamSeen | None, now: datetime) -> Learned:
    if seen is None:
        recordings = stream.recordings
        if not stream.recordings_settled and stream.active_asset_id:
            # Somebody else deleted it, so its recordings cannot be listed any more. The last one is known.
            recordings = (Recording(asset_id=stream.active_asset_id),)
        gone = replace(stream, phase=Phase.GONE, observed_at=now, changed_at=now, recordings=recordings)
        reason = EventReason.STREAM_DELETED if stream.phase is Phase.DELETING else EventReason.STREAM_LOST
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if stream.phase is Phase.DELETING:
        return Learned(resources=(replace(stream, observed_at=now),))
    now_seen = with_status(stream, seen, now)
    events = status_told(stream, seen.status)
    if not stream.key_stale and seen.key and seen.key != stream.key:
        # Somebody else reset the key. An egress that runs with the old key cannot connect with it again.
        now_seen = replace(now_seen, key=seen.key, key_epoch=stream.key_epoch + 1, key_reset_at=now)
        events = (*events, Event(reason=EventReason.KEY_RESET_OUTSIDE, message=stream.external_id))
    return Learned(resources=(now_seen,), events=events)


STATUS_SEEN: Final[Mapping[StreamStatus, EventReason]] = {
    StreamStatus.UNKNOWN: EventReason.STREAM_UNKNOWN,
    StreamStatus.IDLE: EventReason.STREAM_IDLE,
    StreamStatus.ACTIVE: EventReason.STREAM_ACTIVE,
    StreamStatus.DISABLED: EventReason.STREAM_DISABLED,
}


def status_told(stream: Stream, status: StreamStatus) -> tuple[Event, ...]:
    """The events of a status that differs from the one before."""
    if status is stream.status:
        return ()
    if stream.cutting or StreamStatus.DISABLED not in (status, stream.status):
        return (Event(reason=STATUS_SEEN[status]),)
    if status is not StreamStatus.DISABLED:
        return (Event(reason=EventReason.STREAM_ENABLED_OUTSIDE, message=stream.external_id),)
    # Our own disable had its event when it was made.
    return () if stream.disabled else (Event(reason=EventReason.STREAM_DISABLED_OUTSIDE, message=stream.external_id),)


def streams_found(stream: Stream, found: Sequence[StreamSeen], streams: Sequence[Stream], now: datetime) -> Learned:
    """*found*: everything with the mark of *stream*, oldest first. One is adopted, more become rows to be deleted."""
    known = {each.external_id for each in streams if each.external_id}
    fresh = [each for each in found if each.id not in known]
    if not fresh:
        return Learned(resources=(replace(stream, observed_at=now),))
    adopted = created_stream(stream, fresh[0], now)
    extras = [
        created_stream(
            replace(stream, ordinal=next_ordinal(streams) + n, key_epoch=0, failures=0, retry_at=None), each, now
        )
        for n, each in enumerate(fresh[1:])
    ]
    return Learned(
        resources=(adopted, *extras),
        events=(
            Event(reason=EventReason.STREAM_ADOPTED, message=adopted.external_id),
            *(Event(reason=EventReason.STREAM_SURPLUS, message=extra.external_id) for extra in extras),
        ),
        adopted=1,
    )
