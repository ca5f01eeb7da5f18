"""From webhooks to the rows that they are about. Pure.

Webhooks are hints: the pass that takes them in looks at the provider right after. A webhook changes a field only if its
provider timestamp is newer than that field's. Late, repeated or reordered webhooks change nothing. The end of an egress
is believed. Only a look shows that a resource exists, that a room or a live stream is gone or disabled, or that no
encoder is connected.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from service.domain.lifecycle import Event
from service.domain.observing.egresses import egress_seen
from service.domain.observing.learned import Learned
from service.domain.observing.recordings import local_recording_seen, recording_checked, upload_checked
from service.domain.observing.streams import status_told, with_status
from service.domain.ports import Heard
from service.domain.resources import AnyResource, Egress, LocalRecording, Phase, Recording, Stream, StreamStatus, Upload
from service.domain.timing import Timing

Names = Callable[[Egress], Mapping[str, Sequence[str]]]
"""Redacted address to destinations, for one egress."""


def listen(
    resources: Sequence[AnyResource], heard: Sequence[Heard], names: Names, now: datetime, timing: Timing
) -> Learned:
    """The changes that follow from all of *heard*, taken in the order of arrival."""
    rows = {(row.kind, row.ordinal): row for row in resources}
    changed: dict[object, AnyResource] = {}
    events: list[Event] = []
    for each in heard:
        for key, row in rows.items():
            learned = _one(row, each, names, now, timing)
            for new in learned.resources:
                # A webhook is no look: the next look is due as before.
                rows[key] = changed[key] = replace(new, observed_at=row.observed_at)
            events.extend(learned.events)
    return Learned(resources=tuple(changed.values()), events=tuple(events))


def _one(row: AnyResource, heard: Heard, names: Names, now: datetime, timing: Timing) -> Learned:
    match row:
        case Egress() if _is_newer(row, heard):
            assert heard.egress is not None  # noqa: S101 - _is_newer says so
            return egress_seen(row, heard.egress, names(row), now)
        case LocalRecording() if _is_newer(row, heard):
            assert heard.egress is not None  # noqa: S101 - _is_newer says so
            return local_recording_seen(row, heard.egress, now)
        case Stream() if row.ended_at is not None:
            return _stream_recordings(row, heard, now, timing)
        case Stream():
            return _stream(row, heard, now)
        case Upload(recording=Recording() as recording):
            return _upload(row, recording, heard, now, timing)
        case _:
            return Learned()


def _is_newer(row: Egress | LocalRecording, heard: Heard) -> bool:
    seen = heard.egress
    alive = row.phase in (Phase.PRESENT, Phase.DELETING)
    return seen is not None and alive and seen.id == row.external_id and seen.updated_ns > row.updated_ns


def _stream(row: Stream, heard: Heard, now: datetime) -> Learned:
    time = heard.provider_time
    if not heard.stream_id or heard.stream_id != row.external_id or row.phase is not Phase.PRESENT or time is None:
        return Learned()
    if any(moment is not None and time <= moment for moment in (row.heard_at, row.observed_at)):
        return Learned()
    new = replace(row, heard_at=time)
    if heard.connected is not None:
        # It is compared with times of the database, whose clock may be behind the provider's.
        new = replace(new, connected=heard.connected, connected_at=min(time, now))
    events: tuple[Event, ...] = ()
    if heard.stream is not None and heard.stream.status is not StreamStatus.DISABLED:
        # The status was true when the webhook was sent, and may have changed since.
        new = replace(with_status(new, heard.stream, now), fed_at=row.fed_at, silent_at=row.silent_at)
        events = status_told(row, new.status)
    return Learned(resources=(new,), events=events)


def _stream_recordings(row: Stream, heard: Heard, now: datetime, timing: Timing) -> Learned:
    said = heard.recording
    if said is None or said.asset_id not in {recording.asset_id for recording in row.recordings}:
        return Learned()
    checked = [
        recording_checked(recording, said, since=row.ended_at or row.changed_at, now=now, timing=timing)
        if recording.asset_id == said.asset_id
        else (recording, ())
        for recording in row.recordings
    ]
    new = replace(row, recordings=tuple(recording for recording, _ in checked))
    return Learned(
        resources=(new,) if new != row else (), events=tuple(event for _, events in checked for event in events)
    )


def _upload(row: Upload, recording: Recording, heard: Heard, now: datetime, timing: Timing) -> Learned:
    said = heard.recording
    if said is None or said.asset_id != recording.asset_id:
        return Learned()
    learned = upload_checked(row, said, now, timing)
    [checked] = learned.resources
    return learned if replace(checked, observed_at=row.observed_at) != row else Learned()
