"""From what a provider shows to what we hold of it. Pure.

Adoption lives here: a resource whose creation nobody answered is recognised by our mark and becomes ours again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.ports import EgressSeen, OutputSeen, RoomSeen, StreamSeen
from service.domain.provider import STREAMS
from service.domain.reasons import EventReason, Fault
from service.domain.resource_set import next_ordinal
from service.domain.resources import (
    END_FAULTS,
    AnyResource,
    Egress,
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    resources: tuple[AnyResource, ...] = ()
    events: tuple[Event, ...] = ()
    adopted: int = 0


def room_seen(
    room: Room, seen: RoomSeen | None, now: datetime, *, missing: Mapping[str, datetime] | None = None
) -> Learned:
    """*missing*: see `ResourceSet.missing`."""
    if seen is None:
        gone = replace(room, phase=Phase.GONE, observed_at=now, changed_at=now, host_publishing=False, host_since=now)
        reason = EventReason.ROOM_DELETED if room.phase is Phase.DELETING else EventReason.ROOM_LOST
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if room.phase is Phase.DELETING:
        return Learned(resources=(replace(room, observed_at=now),))
    publishing = seen.publishers > 0
    changed = publishing is not room.host_publishing
    events: tuple[Event, ...] = ()
    if changed and (publishing or room.host_publishing):
        events = (Event(reason=EventReason.HOST_PUBLISHING if publishing else EventReason.HOST_STOPPED),)
    return Learned(
        resources=(
            replace(
                room,
                phase=Phase.PRESENT,
                observed_at=now,
                changed_at=room.changed_at if room.phase is Phase.PRESENT else now,
                external_id=seen.name,
                sid=seen.sid,
                host_publishing=publishing,
                host_since=now if changed or room.host_since is None else room.host_since,
                recorded=seen.recorded,
                missing=missing or {},
            ),
        ),
        events=events,
    )


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


def with_status(stream: Stream, seen: StreamSeen, now: datetime) -> Stream:
    active = seen.status is StreamStatus.ACTIVE
    return replace(
        stream,
        observed_at=now,
        status=seen.status,
        status_since=stream.status_since if seen.status is stream.status else now,
        fed_at=now if active else stream.fed_at,
        silent_at=stream.silent_at if active or seen.status is StreamStatus.UNKNOWN else now,
        active_asset_id=seen.active_asset_id or stream.active_asset_id,
        relays=seen.relays,
    )


def stream_seen(stream: Stream, seen: StreamSeen | None, now: datetime) -> Learned:
    if seen is None:
        recordings = stream.recordings
        if not stream.recordings_settled and stream.active_asset_id:
            # Deleted by somebody else: nobody can list what it recorded any more, but the last one is known.
            recordings = (Recording(asset_id=stream.active_asset_id),)
        gone = replace(stream, phase=Phase.GONE, observed_at=now, changed_at=now, recordings=recordings)
        reason = EventReason.STREAM_DELETED if stream.phase is Phase.DELETING else EventReason.STREAM_LOST
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if stream.phase is Phase.DELETING:
        return Learned(resources=(replace(stream, observed_at=now),))
    now_seen = with_status(stream, seen, now)
    events = status_told(stream, seen.status)
    if not stream.key_stale and seen.key and seen.key != stream.key:
        # Reset by somebody else. What runs with the old key cannot come back with it.
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
    """What the story says of a status that is another than the one before."""
    if status is stream.status:
        return ()
    if stream.cutting or StreamStatus.DISABLED not in (status, stream.status):
        return (Event(reason=STATUS_SEEN[status]),)
    if status is not StreamStatus.DISABLED:
        return (Event(reason=EventReason.STREAM_ENABLED_OUTSIDE, message=stream.external_id),)
    # That we disabled it was told when we did.
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


def with_egress(egress: Egress, seen: EgressSeen, names: Mapping[str, Sequence[str]], now: datetime) -> Egress:
    """*names*: redacted address to the destinations it may be. Reports may come late: an older one changes nothing."""
    if seen.updated_ns and seen.updated_ns < egress.updated_ns:
        return replace(egress, observed_at=now)
    outputs = _named(egress, seen.outputs, names)
    has = {
        output.name
        for output in outputs
        # One that failed stays in the report after it was removed.
        if output.state in (OutputState.CONNECTING, OutputState.ACTIVE)
        or (output.state is OutputState.FAILED and output.name in egress.destinations)
    }
    updated = replace(
        egress,
        observed_at=now,
        status=seen.status,
        status_since=egress.status_since if seen.status is egress.status and egress.status_since else now,
        outputs=outputs,
        error=seen.error,
        updated_ns=seen.updated_ns,
        destinations=tuple(sorted(name for name in has if name)) if outputs else egress.destinations,
        end_seen=seen.status.terminal,
    )
    return replace(updated, delivering_since=(egress.delivering_since or now) if updated.delivering else None)


_ORDER = (OutputState.ACTIVE, OutputState.CONNECTING, OutputState.FAILED, OutputState.FINISHED)


def _named(egress: Egress, seen: Sequence[OutputSeen], names: Mapping[str, Sequence[str]]) -> tuple[Output, ...]:
    """By name, and of one name the living first. Keys that are alike at both ends make one address of several
    destinations: what lives gets the names first, those it is known to have before the others.
    """
    left = {
        address: sorted(given, key=lambda name: name not in egress.destinations) for address, given in names.items()
    }
    outputs: list[Output] = []
    for output in sorted(seen, key=lambda output: _ORDER.index(output.state)):
        # An address nobody gave it is shown as it is: it is redacted already.
        given = left.get(output.address, [output.address])
        name = given.pop(0) if len(given) > 1 else given[0]
        outputs.append(Output(name=name, state=output.state, message=output.message))
    return tuple(sorted(outputs, key=lambda output: output.name))


def egresses_seen(
    egresses: Sequence[Egress],
    listed: Sequence[EgressSeen],
    *,
    names: Mapping[str, Sequence[str]],
    address: str,
    key_epoch: int,
    now: datetime,
    timing: Timing,
) -> Learned:
    """*listed*: all egresses of the room. *address*: what an output to the live stream with its present key, of
    *key_epoch*, looks like.
    """
    listed = [seen for seen in listed if not seen.file]
    by_id = {seen.id: seen for seen in listed}
    resources: list[AnyResource] = []
    events: list[Event] = []
    adopted = 0
    known = {egress.external_id for egress in egresses if egress.external_id}
    strangers = sorted(
        (seen for seen in listed if seen.id not in known), key=lambda seen: seen.updated_ns, reverse=True
    )
    for egress in egresses:
        if egress.phase is Phase.GONE:
            continue
        seen = by_id.get(egress.external_id) if egress.external_id else None
        if seen is None and egress.unresolved:
            seen = _recognise(egress, strangers, address, key_epoch)
            if seen is not None:
                strangers.remove(seen)
                adopted += 1
                events.append(Event(reason=EventReason.EGRESS_ADOPTED, message=seen.id))
                egress = replace(  # noqa: PLW2901 - from here on it is the one that was found
                    egress, external_id=seen.id, phase=Phase.PRESENT, changed_at=now, failures=0
                )
        learned = egress_seen(egress, seen, names, now, timing)
        resources.extend(learned.resources)
        events.extend(learned.events)
    for n, seen in enumerate(seen for seen in strangers if not seen.status.terminal):
        stranger = Egress(
            ordinal=next_ordinal(egresses) + n,
            phase=Phase.PRESENT,
            external_id=seen.id,
            intended_at=seen.started_at or now,
            changed_at=now,
            key_epoch=key_epoch if _pushes_to(seen, address) else -1,
        )
        resources.append(with_egress(stranger, seen, names, now))
        events.append(Event(reason=EventReason.EGRESS_SURPLUS, message=seen.id))
    return Learned(resources=tuple(resources), events=tuple(events), adopted=adopted)


def _recognise(egress: Egress, strangers: Sequence[EgressSeen], address: str, key_epoch: int) -> EgressSeen | None:
    """A start without an answer is told by the key it pushes with, of which LiveKit shows both ends."""
    for seen in strangers:
        ours = _pushes_to(seen, address)
        if ours if egress.key_epoch == key_epoch else not ours:
            return seen
    return None


def _pushes_to(seen: EgressSeen, address: str) -> bool:
    return any(output.address == address for output in seen.outputs)


def egress_seen(
    egress: Egress,
    seen: EgressSeen | None,
    names: Mapping[str, Sequence[str]],
    now: datetime,
    timing: Timing,
) -> Learned:
    if seen is None:
        # A list may lag behind a start; records of what has ended vanish after a day.
        young = now < egress.changed_at + seconds(timing.list_lag_s)
        if egress.unresolved or young:
            return Learned(resources=(replace(egress, observed_at=now),))
        fault = egress.fault if egress.phase is Phase.DELETING else Fault.LOST
        gone = replace(egress, phase=Phase.GONE, observed_at=now, changed_at=now, end_seen=True, fault=fault)
        return Learned(resources=(gone,), events=(Event(reason=EventReason.EGRESS_LOST, message=egress.external_id),))
    updated = with_egress(egress, seen, names, now)
    if not updated.status.terminal:
        started = updated.status is EgressStatus.ACTIVE and egress.status is not EgressStatus.ACTIVE
        delivering = updated.delivering and not egress.delivering
        return Learned(
            resources=(updated,),
            events=(
                *((Event(reason=EventReason.EGRESS_ACTIVE),) if started else ()),
                *((Event(reason=EventReason.EGRESS_CONNECTED),) if delivering else ()),
            ),
        )
    asked = egress.phase is Phase.DELETING
    ended = replace(
        updated,
        phase=Phase.GONE,
        changed_at=now,
        retry_at=None,
        fault=egress.fault if asked else END_FAULTS[updated.status],
    )
    # COMPLETE does not mean as intended: a lost room, a shed worker and a killed process all end so.
    reason = EventReason.EGRESS_STOPPED if asked else EventReason.EGRESS_ENDED
    return Learned(
        resources=(ended,), events=(Event(reason=reason, message=f"{updated.status} {updated.error}".strip()),)
    )


def recordings_seen(
    recordings: Sequence[LocalRecording], listed: Sequence[EgressSeen], *, now: datetime, timing: Timing
) -> Learned:
    """*listed*: all egresses of the room. A file egress is told by its file, of which each has its own; so is one that
    was written off and came all the same.
    """
    by_file = {seen.file: seen for seen in listed if seen.file}
    by_id = {seen.id: seen for seen in listed}
    learned: list[Learned] = []
    for recording in recordings:
        seen = by_id.get(recording.external_id) or by_file.get(recording.file)
        if recording.phase is Phase.GONE and (seen is None or recording.end_seen or _stays(recording, seen)):
            continue
        learned.append(local_recording_seen(recording, seen, now, timing))
    return Learned(
        resources=tuple(resource for each in learned for resource in each.resources),
        events=tuple(event for each in learned for event in each.events),
        adopted=sum(each.adopted for each in learned),
    )


def _stays(recording: LocalRecording, seen: EgressSeen) -> bool:
    """What was told to stop and written off may be listed as it was for ever; another status is of one that lives."""
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
        error=seen.error,
        updated_ns=seen.updated_ns,
        end_seen=seen.status.terminal,
        file_bytes=seen.file_bytes,
        duration_s=seen.file_duration_s,
    )


def local_recording_seen(recording: LocalRecording, seen: EgressSeen | None, now: datetime, timing: Timing) -> Learned:
    if seen is None:
        young = now < recording.changed_at + seconds(timing.list_lag_s)
        if recording.unresolved or young:
            return Learned(resources=(replace(recording, observed_at=now),))
        gone = replace(recording, phase=Phase.GONE, observed_at=now, changed_at=now)
        return Learned(
            resources=(gone,), events=(Event(reason=EventReason.RECORDING_LOST, message=recording.external_id),)
        )
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
        # What became of it by now is learned, and told, as of any other.
        recording=replace(recording, uploaded=True, status=RecordingStatus.PREPARING),
    )


def upload_checked(upload: Upload, seen: Recording | None, now: datetime, timing: Timing) -> Learned:
    """What Mux says of an upload by now; None: it has none such any more.

    What Mux could not make is deleted and made again, a few times: its errors are not documented, so none of them tells
    that another attempt is in vain.
    """
    looked_at = replace(upload, observed_at=now)
    if upload.phase is Phase.DELETING and seen is None:
        wait = timing.upload_retry_s * 5 ** (upload.errored - 1)
        gone = replace(looked_at, phase=Phase.GONE, external_id="", changed_at=now, retry_at=now + seconds(wait))
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
    """What Mux says of a recording by now; None: it has none such any more."""
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
