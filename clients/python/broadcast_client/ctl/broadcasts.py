"""The commands that make, change, show and end broadcasts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter
from google.protobuf.json_format import ParseDict, ParseError

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_ENDED,
    BROADCAST_STATE_FAILED,
    BROADCAST_STATE_LIVE,
    BROADCAST_STATE_READY,
    Broadcast,
    BroadcastSpec,
    Destination,
)
from broadcast.v1.broadcast_service_pb2 import (
    HostRole,
    IssueHostAccessRequest,
    StartBroadcastRequest,
    StopBroadcastRequest,
)
from broadcast_client.ctl.arguments import (
    BroadcastId,
    DestinationList,
    Identity,
    Labels,
    Limit,
    NewId,
    Owner,
    States,
    a_destination,
    one,
    span,
)
from broadcast_client.ctl.contract import FieldOptions, bounds, choices, one_of, options_of
from broadcast_client.ctl.session import OK, InSession, UsageError
from broadcast_client.errors import BroadcastEndedEarly, WaitTimeout
from broadcast_client.values import broadcast_filter, state_name

_OVER = (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED)


@options_of(
    BroadcastSpec,
    {
        "layout": "such as grid or speaker",
        "scheduled_start_time": "such as 2026-12-24T20:00:00Z",
        "test": "free, watermarked, cut after 5 minutes",
    },
)
class SpecFields(FieldOptions):
    """The options of BroadcastSpec."""


SpecOptions: TypeAlias = Annotated[SpecFields | None, Parameter(name="*")]


async def create(
    *,
    id: NewId = "",
    file: Annotated[
        str, Parameter(metavar="SPEC.json", help="spec as protobuf JSON, - for stdin; options go over it")
    ] = "",
    spec: SpecOptions = None,
    label: Labels = (),
    destination: DestinationList = (),
    session: InSession,
) -> int:
    """Store a broadcast; nothing is started."""
    wanted = _spec_of_file(file) if file else BroadcastSpec()
    if spec:
        spec.fill(wanted)
    wanted.destinations.extend(destination)
    session.out.broadcast(await session.client.create(wanted, broadcast_id=id, labels=dict(label)))
    return OK


async def start(
    id: BroadcastId,
    /,
    *,
    wait: Annotated[float | None, span(f"for READY, {bounds(StartBroadcastRequest, 'wait')}")] = None,
    host: Annotated[str, Parameter(metavar="IDENTITY", help="print a host token for this identity")] = "",
    session: InSession,
) -> int:
    """Ask for a broadcast to be live."""
    answer = await session.client.start(id, wait=wait, host_identity=host)
    if session.out.as_json:
        session.out.message(answer, secrets=True)
    else:
        session.out.broadcast(answer.broadcast)
        if answer.HasField("host_access"):
            session.out.access(answer.host_access)
    status = answer.broadcast.status
    if status.state in _OVER:
        raise BroadcastEndedEarly(broadcast=answer.broadcast)
    if wait and status.state not in (BROADCAST_STATE_READY, BROADCAST_STATE_LIVE):
        raise _late(answer.broadcast, wait, "READY")
    return OK


async def stop(
    id: BroadcastId,
    /,
    *,
    note: Annotated[str, Parameter(help="why, for its events")] = "",
    wait: Annotated[float | None, span(f"for the end, {bounds(StopBroadcastRequest, 'wait')}")] = None,
    session: InSession,
) -> int:
    """End a broadcast."""
    broadcast = await session.client.stop(id, note=note, wait=wait)
    session.out.broadcast(broadcast)
    if wait and broadcast.status.state not in _OVER:
        raise _late(broadcast, wait, "ENDED")
    return OK


async def on_air(id: BroadcastId, on_air: Literal["on", "off"], /, *, session: InSession) -> int:
    """Take a broadcast of delivery MANUAL on air, or back to its backstage."""
    session.out.broadcast(await session.client.set_on_air(id, on_air == "on"))
    return OK


async def get(id: BroadcastId, /, *, session: InSession) -> int:
    """Show one broadcast."""
    session.out.broadcast(await session.client.get(id))
    return OK


async def list_(
    *, state: States = (), label: Labels = (), owner: Owner = "", limit: Limit = 50, session: InSession
) -> int:
    """Show broadcasts, newest first."""
    wanted = broadcast_filter(states=state, labels=dict(label), owner_id=owner)
    found: list[Broadcast] = []
    async for broadcast in session.client.list_all(wanted, page_size=500):
        if limit and len(found) == limit:
            session.out.complain(f"there are more than {limit}: --limit 0 shows all")
            break
        found.append(broadcast)
    session.out.broadcasts(found)
    return OK


async def host_access(
    id: BroadcastId,
    identity: Identity,
    /,
    *,
    display_name: Annotated[str, Parameter(metavar="NAME")] = "",
    ttl: Annotated[float | None, span(f"{bounds(IssueHostAccessRequest, 'ttl')} (default: 10m)")] = None,
    role: Annotated[
        int,
        Parameter(converter=one_of(HostRole.DESCRIPTOR), metavar="ROLE", help=choices(HostRole.DESCRIPTOR)),
    ] = 0,
    session: InSession,
) -> int:
    """Print a token with which a host enters."""
    access = await session.client.issue_host_access(
        id, identity, display_name=display_name, ttl=ttl, role=HostRole.ValueType(role)
    )
    session.out.access(access)
    return OK


async def delete(
    id: BroadcastId,
    /,
    *,
    allow_missing: Annotated[bool, Parameter(help="no error when there is none")] = False,
    session: InSession,
) -> int:
    """Forget a broadcast that is at rest."""
    await session.client.delete(id, allow_missing=allow_missing)
    if not session.out.as_json:
        session.out.line(f"{id} is deleted")
    return OK


async def update(
    id: BroadcastId,
    /,
    *,
    spec: SpecOptions = None,
    label: Labels = (),
    remove_label: Annotated[list[str] | None, Parameter(metavar="KEY")] = None,
    add_destination: DestinationList = (),
    remove_destination: Annotated[list[str] | None, Parameter(metavar="NAME")] = None,
    session: InSession,
) -> int:
    """Change a broadcast. A label that is given is set, the others are kept; destinations likewise."""
    wanted = BroadcastSpec()
    mask = [f"spec.{name}" for name in spec.fill(wanted)] if spec else []
    labels: dict[str, str] = {}
    etag = ""
    changes_labels = label or remove_label
    changes_destinations = add_destination or remove_destination
    if changes_labels or changes_destinations:
        # Labels and destinations are replaced whole; the etag makes sure that nobody's change in between is lost.
        present = await session.client.get(id)
        etag = present.etag
        if changes_labels:
            labels = {**present.labels, **dict(label)}
            for key in remove_label or ():
                labels.pop(key, None)
            mask.append("labels")
        if changes_destinations:
            destinations = {each.name: each for each in present.spec.destinations}
            for name in remove_destination or ():
                if destinations.pop(name, None) is None:
                    raise UsageError(f"{id} has no destination {name!r}")
            destinations.update((each.name, each) for each in add_destination)
            wanted.destinations.extend(destinations.values())
            mask.append("spec.destinations")
    if not mask:
        raise UsageError("nothing to change: see broadcastctl update --help")
    session.out.broadcast(await session.client.update(id, mask=mask, spec=wanted, labels=labels, etag=etag))
    return OK


async def add_destination(
    id: BroadcastId,
    destination: Annotated[
        Destination,
        Parameter(
            converter=one(a_destination),
            metavar="NAME=URL,KEY",
            help="KEY may be @FILE, which keeps it out of the process list",
            accepts_keys=False,
            n_tokens=1,
        ),
    ],
    /,
    *,
    session: InSession,
) -> int:
    """Send to one more RTMP address, by the egress; also on air."""
    session.out.broadcast(await session.client.add_destination(id, destination))
    return OK


async def remove_destination(
    id: BroadcastId,
    name: Annotated[str, Parameter(metavar="NAME")],
    /,
    *,
    allow_missing: Annotated[bool, Parameter(help="no error when there is none")] = False,
    session: InSession,
) -> int:
    """Send no longer to an RTMP address."""
    session.out.broadcast(await session.client.remove_destination(id, name, allow_missing=allow_missing))
    return OK


def _spec_of_file(path: str) -> BroadcastSpec:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return ParseDict(json.loads(text), BroadcastSpec())
    except (OSError, ValueError, ParseError) as error:
        raise UsageError(f"{path}: {error}") from error


def _late(broadcast: Broadcast, waited: float, wanted: str) -> WaitTimeout:
    return WaitTimeout(
        f"{broadcast.id} is {state_name(broadcast.status.state)}, not {wanted}, after {waited:g} s",
        broadcast_id=broadcast.id,
        broadcast=broadcast,
    )
