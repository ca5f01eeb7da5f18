"""LiveKit's messages in the words of the domain: of answers and of webhooks. A value that is newer than the SDK becomes
UNKNOWN or "unknown". Texts of errors are redacted, because LiveKit puts urls with stream keys into them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from livekit import api
from livekit.protocol import models

from service import telemetry
from service.domain.ports import (
    EgressSeen,
    LayerSeen,
    OutputSeen,
    ParticipantKind,
    ParticipantSeen,
    PublisherSeen,
    RoomInside,
    RoomPeople,
    RoomSeen,
    TrackKind,
    TrackSeen,
)
from service.domain.resources import EgressStatus, OutputState

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPOCH = datetime.fromtimestamp(0, UTC)
_STATUSES = {
    api.EgressStatus.EGRESS_STARTING: EgressStatus.STARTING,
    api.EgressStatus.EGRESS_ACTIVE: EgressStatus.ACTIVE,
    api.EgressStatus.EGRESS_ENDING: EgressStatus.ENDING,
    api.EgressStatus.EGRESS_COMPLETE: EgressStatus.COMPLETE,
    api.EgressStatus.EGRESS_FAILED: EgressStatus.FAILED,
    api.EgressStatus.EGRESS_ABORTED: EgressStatus.ABORTED,
    api.EgressStatus.EGRESS_LIMIT_REACHED: EgressStatus.LIMIT_REACHED,
}
_TRACK_KINDS = {models.TrackType.AUDIO: TrackKind.AUDIO, models.TrackType.VIDEO: TrackKind.VIDEO}
_KINDS = {
    models.ParticipantInfo.STANDARD: ParticipantKind.PERSON,
    models.ParticipantInfo.INGRESS: ParticipantKind.INGRESS,
    models.ParticipantInfo.SIP: ParticipantKind.SIP,
    models.ParticipantInfo.EGRESS: ParticipantKind.RECORDER,
    models.ParticipantInfo.AGENT: ParticipantKind.AGENT,
}
_SOURCES = ("camera", "microphone", "screen_share", "screen_share_audio")
_PEOPLE = (models.ParticipantInfo.STANDARD, models.ParticipantInfo.INGRESS, models.ParticipantInfo.SIP)


def room_seen(room: api.Room) -> RoomSeen:
    return RoomSeen(
        name=room.name,
        sid=room.sid,
        tag=room.metadata,
        recorded=room.active_recording,
        publishers=room.num_publishers,
        participants=room.num_participants,
        created_at=datetime.fromtimestamp(room.creation_time, UTC) if room.creation_time else None,
    )


def egress_seen(info: api.EgressInfo) -> EgressSeen:
    text = ": ".join(part for part in (info.error, info.details) if part)
    file = info.file_results[0] if info.file_results else None
    return EgressSeen(
        id=info.egress_id,
        room_name=info.room_name,
        status=_STATUSES.get(info.status, EgressStatus.UNKNOWN),
        started_at=_time(info.started_at),
        ended_at=_time(info.ended_at),
        updated_ns=info.updated_at,
        outputs=tuple(_output(result) for result in info.stream_results),
        error=telemetry.redact(text),
        file=_file(info),
        file_bytes=file.size if file else 0,
        file_duration_s=file.duration / 1e9 if file else 0.0,
    )


def _file(info: api.EgressInfo) -> str:
    """The object key of the file; before there is a result, the key that was asked for. The worker may add an
    extension, which only the result has.
    """
    for result in info.file_results:
        if result.filename:
            return result.filename
    outputs = info.room_composite.file_outputs
    return outputs[0].filepath if outputs else ""


def _output(result: api.StreamInfo) -> OutputSeen:
    match result.status:
        case api.StreamInfo.Status.FAILED:
            state = OutputState.FAILED
        case api.StreamInfo.Status.FINISHED:
            state = OutputState.FINISHED
        case _:
            # An output is ACTIVE (0) from its creation. Only started_at says that it is connected.
            state = OutputState.ACTIVE if result.started_at else OutputState.CONNECTING
    return OutputSeen(
        address=result.url,
        state=state,
        message=telemetry.redact(result.error),
        started_at=_time(result.started_at),
        ended_at=_time(result.ended_at),
    )


def _time(nanos: int) -> datetime | None:
    """Of Unix nanoseconds, cut to microseconds. None: there is none, or none that a datetime can hold."""
    if not nanos:
        return None
    try:
        return _EPOCH + timedelta(microseconds=nanos // 1000)
    except OverflowError:
        return None


def people_seen(participants: Iterable[models.ParticipantInfo]) -> RoomPeople:
    """People alone. An egress is a participant too, of its own kind and hidden (livekit/protocol egress/token.go)."""
    people = [
        person
        for person in participants
        if person.kind in _PEOPLE
        and not person.permission.hidden
        and not person.permission.recorder
        and not person.permission.agent
        and person.state != models.ParticipantInfo.DISCONNECTED
    ]
    # By the tracks, muted or not: the flag `is_publisher` stays set after an unpublish.
    publishers = [seen for person in people if (seen := _publisher(person)).tracks]
    publishing = {seen.identity for seen in publishers}
    watching = [
        person
        for person in people
        if person.kind == models.ParticipantInfo.STANDARD
        and not person.permission.can_publish
        and person.identity not in publishing
    ]
    return RoomPeople(publishers=tuple(publishers), viewers=len(people) - len(publishers), watching=len(watching))


def participants_seen(participants: Iterable[models.ParticipantInfo]) -> tuple[ParticipantSeen, ...]:
    """Everybody who is in the room, each with its kind."""
    return tuple(_participant(each) for each in participants if each.state != models.ParticipantInfo.DISCONNECTED)


def _participant(seen: models.ParticipantInfo) -> ParticipantSeen:
    shown = _publisher(seen)
    return ParticipantSeen(
        identity=seen.identity,
        name=seen.name,
        kind=_kind(seen),
        joined_at=shown.joined_at,
        may_publish=_may_publish(seen.permission),
        tracks=shown.tracks,
    )


def _kind(seen: models.ParticipantInfo) -> ParticipantKind | None:
    """By the kind, and by the permissions of an older token, which has no kind."""
    kind, permission = _KINDS.get(seen.kind), seen.permission
    if permission.recorder:
        return ParticipantKind.RECORDER
    if permission.agent:
        return ParticipantKind.AGENT
    hidden = permission.hidden and kind not in (ParticipantKind.RECORDER, ParticipantKind.AGENT)
    return ParticipantKind.HIDDEN if hidden else kind


def _may_publish(permission: models.ParticipantPermission) -> tuple[str, ...]:
    """A list of sources narrows `can_publish` down (livekit/protocol auth/grants.go)."""
    if not permission.can_publish:
        return ()
    named = tuple(_name(models.TrackSource, source) for source in permission.can_publish_sources)
    return named or _SOURCES


def inside_seen(participants: Iterable[models.ParticipantInfo]) -> RoomInside:
    """An egress enters with its id as identity (livekit/protocol egress/token.go)."""
    there = [each for each in participants if each.state != models.ParticipantInfo.DISCONNECTED]
    egresses = [each for each in there if each.kind == models.ParticipantInfo.EGRESS]
    return RoomInside(
        people=people_seen(there),
        recorders=frozenset(each.identity for each in egresses),
        # As the server makes `active_recording` of them (livekit/livekit pkg/rtc/participant.go, IsRecorder).
        recorded=bool(egresses) or any(each.permission.recorder for each in there),
        anybody=bool(there),
    )


def _publisher(person: models.ParticipantInfo) -> PublisherSeen:
    return PublisherSeen(
        identity=person.identity,
        name=person.name,
        joined_at=datetime.fromtimestamp(person.joined_at, UTC) if person.joined_at else None,
        tracks=tuple(
            _track(track, kind) for track in person.tracks if (kind := _TRACK_KINDS.get(track.type)) is not None
        ),
    )


def _track(track: models.TrackInfo, kind: TrackKind) -> TrackSeen:
    # Simulcast means several layers of one codec. The fields `simulcast` and `layers` of the track are deprecated, and
    # servers still fill them.
    layers = next((codec.layers for codec in track.codecs if codec.layers), track.layers)
    return TrackSeen(
        sid=track.sid,
        source=_name(models.TrackSource, track.source),
        kind=kind,
        muted=track.muted,
        simulcast=track.simulcast or len(layers) > 1,
        width=track.width,
        height=track.height,
        mime_type=track.mime_type or next((codec.mime_type for codec in track.codecs), ""),
        layers=tuple(
            LayerSeen(
                quality=_name(models.VideoQuality, layer.quality),
                width=layer.width,
                height=layer.height,
                bitrate_bps=layer.bitrate,
            )
            for layer in layers
        ),
    )


def _name(of: type[models.TrackSource | models.VideoQuality], value: int) -> str:
    """The name in lower case. "unknown": the server is newer than the SDK."""
    return of.Name(value).lower() if value in of.values() else "unknown"
