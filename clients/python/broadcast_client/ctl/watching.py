"""The commands that follow broadcasts: their events, their changes, their health."""

from typing import Annotated

from cyclopts import Parameter

from broadcast.v1.broadcast_pb2 import BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED
from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_REMOVED,
    CHANGE_TYPE_SNAPSHOT,
    BroadcastChange,
    ChangeType,
    WatchBroadcastsResponse,
    WatchHealthRequest,
    WatchHealthResponse,
)
from broadcast.v1.broadcast_service_pb2 import Heartbeat as HeartbeatMessage
from broadcast.v1.broadcast_service_pb2 import SnapshotComplete as SnapshotCompleteMessage
from broadcast_client.client import BroadcastClient
from broadcast_client.ctl.arguments import BroadcastId, Labels, OnlyIds, Owner, States, span
from broadcast_client.ctl.chain import show_change, show_explanation, show_health
from broadcast_client.ctl.contract import bounds
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import age, padded_state
from broadcast_client.ctl.session import OK, InSession
from broadcast_client.values import broadcast_filter, short_name
from broadcast_client.watch import Change, Heartbeat, Reset, Snapshot, SnapshotComplete, WatchItem
from broadcast_client.watch_health import HealthNews

_OVER = (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED)


async def events(
    id: BroadcastId,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), help="go on until the broadcast is over")] = False,
    session: InSession,
) -> int:
    """Tell the events of a broadcast, oldest first."""
    page_token, told = await _tell_events(session.client, id, session.out, "", 0)
    if not follow:
        return OK
    with session.out.breaks_told():
        await _follow_events(session.client, id, session.out, page_token, told)
    return OK


async def _follow_events(client: BroadcastClient, broadcast_id: str, out: Output, page_token: str, told: int) -> None:
    async with client.watch(broadcast_filter(ids=[broadcast_id])) as items:
        async for item in items:
            if not isinstance(item, Snapshot | Change):
                continue
            if isinstance(item, Change) and item.type == CHANGE_TYPE_REMOVED:
                break
            page_token, told = await _tell_events(client, broadcast_id, out, page_token, told)
            if item.broadcast.status.state in _OVER:
                break


async def _tell_events(
    client: BroadcastClient, broadcast_id: str, out: Output, page_token: str, told: int
) -> tuple[str, int]:
    """Print the events after revision `told`; answer where the next look begins."""
    while True:
        page = await client.events(broadcast_id, page_size=500, page_token=page_token)
        for event in page.events:
            if event.revision > told:
                out.event(event)
                told = event.revision
        if not page.next_page_token:
            # The last page may still grow: it is read again from its beginning.
            return page_token, told
        page_token = page.next_page_token


async def watch(
    *,
    id: OnlyIds = (),
    state: States = (),
    label: Labels = (),
    owner: Owner = "",
    resume_token: Annotated[str, Parameter(metavar="TOKEN", help="go on from here (as --json prints it)")] = "",
    session: InSession,
) -> int:
    """Show every change as it happens, through restarts of the service."""
    wanted = broadcast_filter(ids=id, states=state, labels=dict(label), owner_id=owner)
    with session.out.breaks_told():
        async for item in session.client.watch(wanted, resume_token=resume_token):
            if session.out.as_json:
                _tell_item_as_json(item, session.out)
            else:
                _tell_item(item, session.out)
    return OK


def _tell_item(item: WatchItem, out: Output) -> None:
    match item:
        case Snapshot():
            told, broadcast = "", item.broadcast
        case Change():
            told, broadcast = short_name(ChangeType.DESCRIPTOR, item.type).lower(), item.broadcast
        case Reset():
            out.line(f"--- from the beginning: {item.reason} ---")
            return
        case SnapshotComplete() | Heartbeat():
            return
    status = broadcast.status
    out.line(
        f"{told:<8}", padded_state(status.state), f"{age(status.state_time):>6}", broadcast.id, status.state_reason
    )


def _tell_item_as_json(item: WatchItem, out: Output) -> None:
    match item:
        case Snapshot():
            change = BroadcastChange(type=CHANGE_TYPE_SNAPSHOT, broadcast=item.broadcast)
            out.message(WatchBroadcastsResponse(change=change))
        case Change():
            change = BroadcastChange(type=item.type, broadcast=item.broadcast, revision=item.revision)
            out.message(WatchBroadcastsResponse(change=change, resume_token=item.resume_token))
        case SnapshotComplete():
            complete = SnapshotCompleteMessage()
            out.message(WatchBroadcastsResponse(snapshot_complete=complete, resume_token=item.resume_token))
        case Heartbeat():
            heartbeat = HeartbeatMessage()
            heartbeat.server_time.FromDatetime(item.server_time)
            out.message(WatchBroadcastsResponse(heartbeat=heartbeat, resume_token=item.resume_token))
        case Reset():
            out.record({"reset": {"reason": item.reason}})


async def health(id: BroadcastId, /, *, session: InSession) -> int:
    """Show the health of every part of the chain, from the host to the viewers."""
    show_health(session.out, await session.client.get_health(id))
    return OK


async def explain(id: BroadcastId, /, *, session: InSession) -> int:
    """Say why a broadcast is in its state, what happens next, and what overrides it."""
    show_explanation(session.out, await session.client.explain(id), address=session.target)
    return OK


async def watch_health(
    *,
    id: OnlyIds = (),
    state: States = (),
    label: Labels = (),
    owner: Owner = "",
    interval: Annotated[float, span(bounds(WatchHealthRequest, "interval"))] = 5.0,
    session: InSession,
) -> int:
    """Show the health of broadcasts as it changes."""
    wanted = broadcast_filter(ids=id, states=state, labels=dict(label), owner_id=owner)
    out = session.out
    with out.breaks_told():
        told: set[str] = set()
        async for news in session.client.watch_health(wanted, interval=interval):
            if out.as_json:
                if news.healths or news.removed or news.complete:
                    out.message(_health_message(news))
                continue
            if news.begins:
                told.clear()
            for each in news.healths:
                told.add(each.broadcast_id)
                show_change(out, each, news.time)
            if news.complete:
                out.line(f"--- {len(told)} match; changes follow ---")
            for broadcast_id in news.removed:
                out.line(f"--- {broadcast_id} does not match any more ---")
            if news.skipped:
                out.complain(f"{news.skipped} messages were left out: this is the latest")
    return OK


def _health_message(news: HealthNews) -> WatchHealthResponse:
    message = WatchHealthResponse(healths=news.healths, removed_broadcast_ids=news.removed, skipped_count=news.skipped)
    message.snapshot_complete = news.complete
    message.time.FromDatetime(news.time)
    return message
