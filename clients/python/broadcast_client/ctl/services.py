"""The commands for those who are on call, and for viewers."""

import argparse
from collections.abc import Awaitable, Callable, Iterable

from rich.table import Table

from broadcast.v1.admin_service_pb2 import Orphan, Webhook
from broadcast.v1.playback_service_pb2 import JoinBroadcastResponse
from broadcast.v1.webhook_service_pb2 import WebhookOutcome, WebhookProvider
from broadcast_client.client import BroadcastClient
from broadcast_client.ctl.arguments import OK
from broadcast_client.ctl.render import Output, age, clock, human, plain
from broadcast_client.values import short_name, state_name

Command = Callable[[BroadcastClient, argparse.Namespace, Output], Awaitable[int]]


async def wake(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    broadcast = await client.admin.wake(arguments.id)
    if out.as_json:
        out.message(broadcast)
    else:
        out.line(f"{broadcast.id} is looked at again; it was {state_name(broadcast.status.state)}")
    return OK


async def orphans(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    del arguments
    found = await client.admin.orphans()
    if out.as_json:
        out.message(found)
    elif found.orphans:
        out.console.print(_orphans(("", each) for each in found.orphans))
    elif not found.incomplete:
        out.line("there are none")
    _complain_of_more(found.incomplete, out)
    return OK


async def reap(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    answer = await client.admin.reap(arguments.external_id, dry_run=arguments.dry_run)
    if out.as_json:
        out.message(answer)
    else:
        removed = "would go" if arguments.dry_run else "removed"
        told = [*((removed, each) for each in answer.removed), *(("remains", each) for each in answer.remaining)]
        if told:
            out.console.print(_orphans(told))
        else:
            out.line("there is nothing to remove")
    _complain_of_more(answer.incomplete, out)
    return OK


async def webhooks(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    told = 0
    async for webhook in client.admin.webhooks_all(
        provider=arguments.provider,
        broadcast_id=arguments.broadcast,
        type=arguments.type,
        outcome=arguments.outcome,
        include_bodies=arguments.bodies,
        page_size=min(arguments.limit + 1, 500) if arguments.limit else 500,
    ):
        if arguments.limit and told == arguments.limit:
            out.complain(f"there are more than {arguments.limit}: --limit 0 shows all")
            break
        _tell_webhook(webhook, out)
        told += 1
    return OK


async def replay(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    _tell_webhook(await client.admin.replay(arguments.webhook_id), out)
    return OK


async def join(client: BroadcastClient, arguments: argparse.Namespace, out: Output) -> int:
    answer = await client.playback.join(arguments.id, arguments.viewer)
    if out.as_json:
        out.message(answer, secrets=True)
        return OK
    out.line(f"{arguments.id} is {state_name(answer.state)}: {_how(answer)}")
    for recording in answer.recording.recordings:
        out.line(recording.playback_id)
    if answer.webrtc.token:
        # By itself and never wrapped: it is copied.
        out.line(answer.webrtc.token)
    return OK


COMMANDS: dict[str, Command] = {
    "wake": wake,
    "orphans": orphans,
    "reap": reap,
    "webhooks": webhooks,
    "replay": replay,
    "join": join,
}


def _how(answer: JoinBroadcastResponse) -> str:
    match answer.WhichOneof("handle"):
        case "hls":
            return answer.hls.playback.hls_url
        case "webrtc":
            return (
                f"in the room at {answer.webrtc.livekit_url} until {clock(answer.webrtc.expire_time)}, with the token"
            )
        case "starting":
            eta = answer.starting.eta.ToTimedelta().total_seconds() if answer.starting.HasField("eta") else None
            when = f", in about {human(eta)}" if eta is not None else ""
            return f"nothing to watch yet ({answer.starting.reason}){when}"
        case "recording":
            return "over; the recordings are"
        case "ended":
            return "over; its recording is being prepared" if answer.ended.recording_pending else "over"
        case _:
            return "a way to watch that is newer than this client"


def _complain_of_more(incomplete: Iterable[str], out: Output) -> None:
    if unasked := ", ".join(incomplete):
        out.complain(f"there may be more: {unasked} could not be asked in full")


def _orphans(told: Iterable[tuple[str, Orphan]]) -> Table:
    table = Table("", "PROVIDER", "KIND", "ID", "BROADCAST", "AGE", "REMOVABLE", box=None, pad_edge=False)
    for what, each in told:
        removable = "yes" if each.removable else "too young"
        table.add_row(
            what,
            each.provider,
            each.kind,
            plain(each.external_id),
            plain(each.broadcast_id),
            age(each.create_time),
            removable,
        )
    return table


def _tell_webhook(webhook: Webhook, out: Output) -> None:
    if out.as_json:
        out.message(webhook)
        return
    provider = short_name(WebhookProvider.DESCRIPTOR, webhook.provider).lower()
    outcome = short_name(WebhookOutcome.DESCRIPTOR, webhook.outcome).lower()
    times = f"{webhook.delivery_count} times" if webhook.delivery_count > 1 else ""
    applied = "applied" if webhook.apply_time.seconds else ""
    out.line(
        f"{webhook.id:<8}",
        clock(webhook.receive_time),
        f"{provider:<8}",
        f"{outcome:<12}",
        f"{applied:<7}",
        webhook.type,
        webhook.broadcast_id,
        times,
    )
    if webhook.redacted_body:
        out.line(f"  {webhook.redacted_body}")
