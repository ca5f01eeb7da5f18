"""The commands: each makes its calls, prints, and answers the exit code."""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_ENDED,
    BROADCAST_STATE_FAILED,
    BROADCAST_STATE_LIVE,
    BROADCAST_STATE_READY,
    Broadcast,
    BroadcastSpec,
)
from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_REMOVED,
    CHANGE_TYPE_SNAPSHOT,
    BroadcastChange,
    ChangeType,
    WatchBroadcastsResponse,
    WatchHealthResponse,
)
from broadcast.v1.broadcast_service_pb2 import Heartbeat as HeartbeatMessage
from broadcast.v1.broadcast_service_pb2 import SnapshotComplete as SnapshotCompleteMessage
from broadcast_client.client import BroadcastClient
from broadcast_client.ctl import services
from broadcast_client.ctl.arguments import OK
from broadcast_client.ctl.chain import show_change, show_explanation, show_health
from broadcast_client.ctl.demo import demo
from broadcast_client.ctl.render import Output, age, padded_state
from broadcast_client.errors import BroadcastEndedEarly, WaitTimeout
from broadcast_client.values import broadcast_filter, duration, short_name, state_name
from broadcast_client.watch import Change, Heartbeat, Reset, Snapshot, SnapshotComplete, WatchItem
from broadcast_client.watch_health import HealthNews

Command = Callable[[BroadcastClient, argparse.Namespace, Output], Awaitable[int]]

_OVER = (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED)


class UsageError(Exception):
    """What the command line says makes no sense."""


async def create(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    labels = dict(arguments.label)
    out.broadcast(await client.create(wanted(arguments), broadcast_id=arguments.id, labels=labels))
    return OK


async def start(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    answer = await client.start(arguments.id, wait=arguments.wait, host_identity=arguments.host)
    if out.as_json:
        out.message(answer, secrets=True)
    else:
        out.broadcast(answer.broadcast)
        if answer.HasField("host_access"):
            out.access(answer.host_access)
    status = answer.broadcast.status
    if status.state in _OVER:
        raise BroadcastEndedEarly(broadcast=answer.broadcast)
    if arguments.wait and status.state not in (BROADCAST_STATE_READY, BROADCAST_STATE_LIVE):
        raise _late(answer.broadcast, arguments.wait, "READY")
    return OK


async def stop(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    broadcast = await client.stop(arguments.id, note=arguments.note, wait=arguments.wait)
    out.broadcast(broadcast)
    if arguments.wait and broadcast.status.state not in _OVER:
        raise _late(broadcast, arguments.wait, "ENDED")
    return OK


async def on_air(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    out.broadcast(await client.set_on_air(arguments.id, arguments.on_air == "on"))
    return OK


async def get(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    out.broadcast(await client.get(arguments.id))
    return OK


async def list_(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    wanted_ = broadcast_filter(states=arguments.state, labels=dict(arguments.label), owner_id=arguments.owner)
    limit = arguments.limit or None
    found: list[Broadcast] = []
    async for broadcast in client.list_all(wanted_, page_size=500):
        if limit is not None and len(found) == limit:
            out.complain(f"there are more than {limit}: --limit 0 shows all")
            break
        found.append(broadcast)
    out.broadcasts(found)
    return OK


async def events(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    page_token, told = await _tell_events(client, arguments.id, out, "", 0)
    if not arguments.follow:
        return OK
    with out.breaks_told():
        await _follow_events(client, arguments.id, out, page_token, told)
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


async def watch(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    wanted_ = broadcast_filter(
        ids=arguments.id, states=arguments.state, labels=dict(arguments.label), owner_id=arguments.owner
    )
    with out.breaks_told():
        async for item in client.watch(wanted_, resume_token=arguments.resume_token):
            if out.as_json:
                _tell_item_as_json(item, out)
            else:
                _tell_item(item, out)
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


async def health(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    show_health(out, await client.get_health(arguments.id))
    return OK


async def explain(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    show_explanation(out, await client.explain(arguments.id), address=arguments.target)
    return OK


async def watch_health(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    wanted_ = broadcast_filter(
        ids=arguments.id, states=arguments.state, labels=dict(arguments.label), owner_id=arguments.owner
    )
    with out.breaks_told():
        async for news in client.watch_health(wanted_, interval=arguments.interval):
            if out.as_json:
                if news.healths or news.removed:
                    out.message(_health_message(news))
                continue
            for each in news.healths:
                show_change(out, each, news.time)
            for broadcast_id in news.removed:
                out.line(f"--- {broadcast_id} does not match any more ---")
            if news.skipped:
                out.complain(f"{news.skipped} messages were left out: this is the latest")
    return OK


def _health_message(news: HealthNews) -> WatchHealthResponse:
    message = WatchHealthResponse(healths=news.healths, removed_broadcast_ids=news.removed, skipped_count=news.skipped)
    message.time.FromDatetime(news.time)
    return message


async def host_access(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    access = await client.issue_host_access(
        arguments.id, arguments.identity, display_name=arguments.display_name, ttl=arguments.ttl
    )
    out.access(access)
    return OK


async def delete(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    await client.delete(arguments.id, allow_missing=arguments.allow_missing)
    if not out.as_json:
        out.line(f"{arguments.id} is deleted")
    return OK


async def update(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    spec = BroadcastSpec()
    mask: list[str] = []
    for name, value in (
        ("title", arguments.title),
        ("layout", arguments.layout),
        ("delivery_policy", arguments.delivery),
    ):
        if value is not None:
            setattr(spec, name, value)
            mask.append(f"spec.{name}")
    labels: dict[str, str] = {}
    etag = ""
    changes_labels = arguments.label or arguments.remove_label
    changes_destinations = arguments.add_destination or arguments.remove_destination
    if changes_labels or changes_destinations:
        # These are replaced whole; the etag makes sure that nobody's change in between is lost.
        present = await client.get(arguments.id)
        etag = present.etag
        if changes_labels:
            labels = {**present.labels, **dict(arguments.label)}
            for key in arguments.remove_label:
                labels.pop(key, None)
            mask.append("labels")
        if changes_destinations:
            destinations = {each.name: each for each in present.spec.destinations}
            for name in arguments.remove_destination:
                if destinations.pop(name, None) is None:
                    raise UsageError(f"{arguments.id} has no destination {name!r}")
            destinations.update((each.name, each) for each in arguments.add_destination)
            spec.destinations.extend(destinations.values())
            mask.append("spec.destinations")
    if not mask:
        raise UsageError("nothing to change: see broadcastctl update --help")
    out.broadcast(await client.update(arguments.id, mask=mask, spec=spec, labels=labels, etag=etag))
    return OK


async def run_demo(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    await demo(
        client,
        out,
        spec=wanted(arguments),
        broadcast_id=arguments.id,
        labels=dict(arguments.label),
        host=arguments.host,
        live_for=arguments.live_for,
        timeout=arguments.timeout,
        livekit_control=arguments.livekit_control,
    )
    return OK


COMMANDS: dict[str, Command] = {
    "create": create,
    "start": start,
    "stop": stop,
    "on-air": on_air,
    "get": get,
    "list": list_,
    "events": events,
    "watch": watch,
    "health": health,
    "explain": explain,
    "watch-health": watch_health,
    "host-access": host_access,
    "delete": delete,
    "update": update,
    "demo": run_demo,
    **services.COMMANDS,
}


def wanted(arguments: argparse.Namespace) -> BroadcastSpec:
    """The spec of a file, if any, and of the options over it.

    Raises:
        UsageError: the file cannot be read or is no spec.
    """
    path = getattr(arguments, "file", None)
    spec = _spec_of_file(path) if path else BroadcastSpec()
    for name, value in (
        ("title", arguments.title),
        ("owner_id", arguments.owner),
        ("layout", arguments.layout),
        ("latency_mode", arguments.latency),
        ("delivery_policy", arguments.delivery),
    ):
        if value is not None:
            setattr(spec, name, value)
    if arguments.encoding is not None:
        spec.encoding.preset = arguments.encoding
    if arguments.reconnect_window is not None:
        spec.reconnect_window.CopyFrom(duration(arguments.reconnect_window))
    if arguments.max_duration is not None:
        spec.max_duration.CopyFrom(duration(arguments.max_duration))
    spec.destinations.extend(arguments.destination)
    spec.test = spec.test or arguments.test
    return spec


def _spec_of_file(path: str) -> BroadcastSpec:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return ParseDict(json.loads(text), BroadcastSpec())
    except (OSError, ValueError, ParseError) as error:
        raise UsageError(f"{path}: {error}") from error


def _late(broadcast: Broadcast, waited: float, what: str) -> WaitTimeout:
    return WaitTimeout(
        f"{broadcast.id} is {state_name(broadcast.status.state)}, not {what}, after {waited:g} s",
        broadcast_id=broadcast.id,
        broadcast=broadcast,
    )
