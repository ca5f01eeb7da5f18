"""From file egresses, and from the assets made of their files, to the rows of them. Pure.

A local recording whose start was not answered is recognised by its file, an upload by our mark; both are adopted.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.observing.evidence import recorder_absent
from service.domain.observing.learned import Learned
from service.domain.ports import EgressSeen
from service.domain.provider import STREAMS
from service.domain.reasons import EventReason
from service.domain.resources import (
    EgressStatus,
    LocalRecording,
    Phase,
    Recording,
    RecordingStatus,
    Upload,
)
from service.domain.timing import Timing


def recordings_seen(
    recordings: Sequence[LocalRecording],
    listed: Sequence[EgressSeen],
    *,
    now: datetime,
    timing: Timing,
    unknown: AbstractSet[str] = frozenset(),
) -> Learned:
    """*listed* and *unknown*: as of `egresses_seen`. A file egress is recognised by its file, of which each has its
    own, and so is one that was written off and started all the same.
    """
    by_file = {seen.file: seen for seen in listed if seen.file}
    by_id = {seen.id: seen for seen in listed}
    learned: list[Learned] = []
    for recording in recordings:
        seen = by_id.get(recording.external_id) or by_file.get(recording.file)
        if recording.phase is Phase.GONE and (seen is None or recording.end_seen or _stays(recording, seen)):
            continue
        if seen is None:
            learned.append(recorder_absent(recording, now, timing, unknown_by_id=recording.external_id in unknown))
        else:
            learned.append(local_recording_seen(recording, seen, now))
    return Learned(
        resources=tuple(resource for each in learned for resource in each.resources),
        events=tuple(event for each in learned for event in each.events),
        adopted=sum(each.adopted for each in learned),
    )


def _stays(recording: LocalRecording, seen: EgressSeen) -> bool:
    """A recording that was told to stop and written off may be listed as ACTIVE for ever. Another status shows that it
    lives.
    """
    return bool(recording.fault) and seen.status is EgressStatus.ACTIVE


def with_recording(recording: LocalRecording, seen: EgressSeen, now: datetime) -> LocalRecording:
    if seen.updated_ns and seen.updated_ns < recording.updated_ns:
        return replace(recording, observed_at=now)
    return replace(
        recording,
        external_id=seen.id,
        observed_at=now,
        status=seen.status,
        status_since=recording.status_since if seen.status is recording.status and recording.status_since else now,
        started_at=seen.started_at or recording.started_at,
        ended_at=seen.ended_at or recording.ended_at,
        error=seen.error,
        updated_ns=seen.updated_ns,
        end_seen=seen.status.terminal,
        absent_since=None,
        file_bytes=seen.file_bytes,
        duration_s=seen.file_duration_s,
    )


def local_recording_seen(recording: LocalRecording, seen: EgressSeen, now: datetime) -> Learned:
    updated = with_recording(recording, seen, now)
    events: list[Event] = []
    found = recording.unresolved or recording.phase is Phase.GONE
    if found:
        updated = replace(updated, phase=Phase.PRESENT, changed_at=now, failures=0, acked=False, retry_at=None)
        events.append(Event(reason=EventReason.RECORDING_ADOPTED, message=seen.id))
    adopted = int(found)
    if updated.end_seen:
        word = EventReason.RECORDING_WRITTEN if updated.complete else EventReason.RECORDING_FAILED
        failed = not updated.complete
        updated = replace(
            updated,
            phase=Phase.GONE,
            changed_at=now,
            failures=recording.failures + 1 if failed else 0,
            retry_at=now + seconds(min(2.0 ** (recording.failures + 1), 60.0)) if failed else None,
            failed_at=None,
        )
        events.append(Event(reason=word, message=updated.error or updated.file))
    return Learned(resources=(updated,), events=tuple(events), adopted=adopted)


def upload_found(upload: Upload, found: Sequence[Recording], now: datetime, timing: Timing) -> Learned:
    """*found*: assets with the mark of *upload*, oldest first."""
    if not found:
        return Learned(resources=(replace(upload, observed_at=now),))
    adopted = uploaded(upload, found[0], now)
    checked = upload_checked(adopted, found[0], now, timing)
    event = Event(reason=EventReason.UPLOAD_ADOPTED, message=adopted.external_id)
    return Learned(resources=checked.resources, events=(event, *checked.events), adopted=1)


def uploaded(upload: Upload, recording: Recording, now: datetime) -> Upload:
    return replace(
        upload,
        phase=Phase.PRESENT,
        external_id=recording.asset_id,
        observed_at=now,
        changed_at=now,
        failures=0,
        retry_at=None,
        # Its present status is learned from the next look, with its event.
        recording=replace(recording, uploaded=True, status=RecordingStatus.PREPARING),
    )


def upload_checked(upload: Upload, seen: Recording | None, now: datetime, timing: Timing) -> Learned:
    """The change that follows from a look at the asset of an upload. *seen* None: the asset does not exist.

    An asset that could not be made is deleted and made again, a few times: Mux does not document its errors, so no
    error shows that another attempt is pointless.
    """
    looked_at = replace(upload, observed_at=now)
    if upload.phase is Phase.DELETING and seen is None:
        wait = timing.upload_retry_s * 5 ** (upload.errored - 1)
        gone = replace(
            looked_at, phase=Phase.GONE, external_id="", changed_at=now, retry_at=now + seconds(wait), failed_at=None
        )
        return Learned(resources=(gone,))
    if upload.recording is None:
        return Learned(resources=(looked_at,))
    errored = seen is not None and seen.status is RecordingStatus.ERRORED and not upload.recording.settled
    attempts = upload.errored + 1
    if seen is not None and errored and attempts < timing.upload_attempts:
        left = replace(looked_at, phase=Phase.DELETING, recording=None, changed_at=now, acked=False, errored=attempts)
        told = f"attempt {attempts} of {timing.upload_attempts}: {seen.message or seen.asset_id}"
        return Learned(resources=(left,), events=(Event(reason=EventReason.UPLOAD_ERRORED, message=told),))
    recording, events = recording_checked(upload.recording, seen, since=upload.changed_at, now=now, timing=timing)
    return Learned(resources=(replace(looked_at, recording=recording),), events=events)


def recording_checked(
    recording: Recording, seen: Recording | None, *, since: datetime, now: datetime, timing: Timing
) -> tuple[Recording, tuple[Event, ...]]:
    """The recording after a look at it, and the events. *seen* None: it does not exist at the provider."""
    if recording.settled:
        return recording, ()
    if seen is None:
        checked = replace(
            recording, status=RecordingStatus.ERRORED, message=f"it does not exist at {STREAMS.display_name} any more"
        )
    elif not seen.settled and now > since + seconds(timing.recording_wait_s):
        checked = replace(
            recording, status=RecordingStatus.ERRORED, message=f"{STREAMS.display_name} did not finish it in time"
        )
    else:
        checked = replace(seen, uploaded=recording.uploaded)
    if not checked.settled:
        return checked, ()
    ready = checked.status is RecordingStatus.READY
    word = EventReason.RECORDING_READY if ready else EventReason.RECORDING_ERRORED
    return checked, (Event(reason=word, message=checked.message or checked.asset_id),)
