"""The commands about the people in the room."""

from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from broadcast.v1.health_pb2 import TrackHealth
from broadcast.v1.participant_pb2 import Participant, ParticipantKind
from broadcast_client.ctl.arguments import BroadcastId, Identity
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import Column, age, plain
from broadcast_client.ctl.session import OK, InSession
from broadcast_client.values import short_name

_Note = Annotated[str, Parameter(help="who asks for it, or why, for its events")]


async def participants(
    id: BroadcastId,
    /,
    *,
    publishers: Annotated[bool, Parameter(help="only those who publish")] = False,
    session: InSession,
) -> int:
    """Show who is in the room, and what each publishes."""
    answer = await session.client.participants(id, publishers_only=publishers)
    if session.out.as_json:
        session.out.message(answer)
        return OK
    if answer.participants:
        _show(answer.participants, session.out)
    else:
        session.out.line("nobody is there")
    if (more := answer.participant_count - len(answer.participants)) > 0:
        session.out.complain(f"{more} more did not fit")
    return OK


async def remove(
    id: BroadcastId,
    identity: Identity,
    /,
    *,
    note: _Note = "",
    allow_missing: Annotated[bool, Parameter(help="no error when nobody of that identity is there")] = False,
    session: InSession,
) -> int:
    """Put a participant out of the room. It may come back until its token expires."""
    await session.client.remove_participant(id, identity, note=note, allow_missing=allow_missing)
    if not session.out.as_json:
        session.out.line(f"{identity} is not in the room of {id} any more")
    return OK


async def mute(
    id: BroadcastId,
    identity: Identity,
    /,
    *,
    track: Annotated[list[str] | None, Parameter(metavar="SID", help="default: every track with sound")] = None,
    unmute: Annotated[bool, Parameter(help="unmute instead, where LiveKit is set to allow it")] = False,
    note: _Note = "",
    session: InSession,
) -> int:
    """Mute a participant, who may unmute again."""
    tracks = await session.client.mute_participant(id, identity, track_sids=track or (), unmute=unmute, note=note)
    for each in tracks:
        if session.out.as_json:
            session.out.message(each)
        else:
            session.out.line(f"{identity}: {each.source} {each.sid} is {'muted' if each.muted else 'not muted'}")
    if not tracks and not session.out.as_json:
        session.out.line(f"{identity} publishes no sound")
    return OK


def _show(seen: Iterable[Participant], out: Output) -> None:
    columns = [Column(name) for name in ("IDENTITY", "NAME", "KIND", "SINCE")]
    out.table([*columns, Column("PUBLISHES", folds=True)], [_row(each) for each in seen])


def _row(seen: Participant) -> list[str | Text]:
    tracks = [_track(each) for each in seen.tracks]
    may = "nothing now" if seen.publishable_sources else "nothing, and may not"
    return [
        plain(seen.identity),
        plain(seen.display_name),
        short_name(ParticipantKind.DESCRIPTOR, seen.kind).lower(),
        age(seen.joined_time),
        ", ".join(tracks) or may,
    ]


def _track(track: TrackHealth) -> str:
    size = f" {track.width}x{track.height}" if track.width else ""
    return f"{track.source} {track.sid}{size}{' muted' if track.muted else ''}"
