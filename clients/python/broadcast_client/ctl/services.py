"""The commands for engineers on call, and for viewers."""

from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from broadcast.v1.admin_service_pb2 import Orphan, Webhook
from broadcast.v1.broadcast_pb2 import AudienceSource
from broadcast.v1.playback_service_pb2 import JoinBroadcastResponse
from broadcast.v1.webhook_service_pb2 import WebhookOutcome, WebhookProvider
from broadcast_client.ctl.arguments import BroadcastId, Limit
from broadcast_client.ctl.contract import choices, one_of
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import Column, age, clock, human, plain
from broadcast_client.ctl.session import OK, InSession
from broadcast_client.values import short_name, state_name


async def wake(id: BroadcastId, /, *, session: InSession) -> int:
    """Have everything of a broadcast looked at again, now."""
    broadcast = await session.client.admin.wake(id)
    if session.out.as_json:
        session.out.message(broadcast)
    else:
        session.out.line(f"{broadcast.id} is looked at again; it was {state_name(broadcast.status.state)}")
    return OK


async def orphans(*, session: InSession) -> int:
    """Show the resources at the providers that belong to no broadcast."""
    found = await session.client.admin.orphans()
    if session.out.as_json:
        session.out.message(found)
    elif found.orphans:
        _show_orphans((("", each) for each in found.orphans), session.out)
    elif not found.incomplete:
        session.out.line("there are none")
    _complain_of_more(found.incomplete, session.out)
    return OK


async def reap(
    *external_id: Annotated[str, Parameter(help="only these (default: all)")],
    dry_run: Annotated[bool, Parameter(help="show what would be removed, and remove nothing")] = False,
    session: InSession,
) -> int:
    """Remove orphans that are old enough, up to 20."""
    answer = await session.client.admin.reap(external_id, dry_run=dry_run)
    if session.out.as_json:
        session.out.message(answer)
    else:
        removed = "would go" if dry_run else "removed"
        told = [*((removed, each) for each in answer.removed), *(("remains", each) for each in answer.remaining)]
        if told:
            _show_orphans(told, session.out)
        else:
            session.out.line("there is nothing to remove")
    _complain_of_more(answer.incomplete, session.out)
    return OK


async def webhooks(
    *,
    provider: Annotated[
        int,
        Parameter(
            converter=one_of(WebhookProvider.DESCRIPTOR),
            metavar="PROVIDER",
            help=choices(WebhookProvider.DESCRIPTOR).lower(),
        ),
    ] = 0,
    broadcast: Annotated[str, Parameter(metavar="ID", help="about this one")] = "",
    type: Annotated[str, Parameter(help="such as egress_ended or video.live_stream.active")] = "",
    outcome: Annotated[
        int,
        Parameter(
            converter=one_of(WebhookOutcome.DESCRIPTOR),
            metavar="OUTCOME",
            help=choices(WebhookOutcome.DESCRIPTOR).lower(),
        ),
    ] = 0,
    bodies: Annotated[bool, Parameter(help="show the bodies too, without secrets")] = False,
    limit: Limit = 50,
    session: InSession,
) -> int:
    """Show the stored webhooks, newest first."""
    told = 0
    async for webhook in session.client.admin.webhooks_all(
        provider=WebhookProvider.ValueType(provider),
        broadcast_id=broadcast,
        type=type,
        outcome=WebhookOutcome.ValueType(outcome),
        include_bodies=bodies,
        page_size=min(limit + 1, 500) if limit else 500,
    ):
        if limit and told == limit:
            session.out.complain(f"there are more than {limit}: --limit 0 shows all")
            break
        _tell_webhook(webhook, session.out)
        told += 1
    return OK


async def replay(
    webhook_id: Annotated[int, Parameter(help="number of the stored webhook")], /, *, session: InSession
) -> int:
    """Have a stored webhook applied once more."""
    _tell_webhook(await session.client.admin.replay(webhook_id), session.out)
    return OK


async def join(
    id: BroadcastId,
    viewer_id: Annotated[str, Parameter(help="one for each device or tab")],
    /,
    *,
    session: InSession,
) -> int:
    """Say how a viewer watches now, and take a place where that is in the room."""
    answer = await session.client.playback.join(id, viewer_id)
    if session.out.as_json:
        session.out.message(answer, secrets=True)
        return OK
    session.out.line(f"{id} is {state_name(answer.state)}: {_how(answer)}")
    if answer.hls.HasField("tokens"):
        session.out.line(f"signed: the token plays until {clock(answer.hls.tokens.expire_time)}")
    for recording in answer.recording.recordings:
        session.out.line(recording.hls_url or recording.playback_id)
    if answer.webrtc.token:
        # By itself and never wrapped: it is copied.
        session.out.line(answer.webrtc.token)
    return OK


async def audience(
    id: BroadcastId,
    /,
    *,
    report: Annotated[int | None, Parameter(help="tell that so many watch, instead of asking")] = None,
    session: InSession,
) -> int:
    """Show how many watch, and who counted them."""
    if report is not None:
        await session.client.playback.report_audience(id, report)
        session.out.line(f"{id} has {report} viewers, for the next minute")
        return OK
    broadcast = await session.client.get(id)
    told = broadcast.status.audience
    if session.out.as_json:
        session.out.message(told)
        return OK
    if told.HasField("viewers"):
        session.out.line(f"{id} has {told.viewers} viewers, as {_source(told.rule)} says")
    else:
        session.out.line(f"{id} is {state_name(broadcast.status.state)}: nobody measured how many watch")
    rows: list[list[str | Text]] = [
        [_source(each.source), str(each.viewers), human(each.age.ToTimedelta().total_seconds())] for each in told.counts
    ]
    if rows:
        session.out.table([Column(name) for name in ("SOURCE", "VIEWERS", "AGE")], rows)
    return OK


def _source(source: int) -> str:
    return short_name(AudienceSource.DESCRIPTOR, source)


async def revoke(
    id: BroadcastId,
    viewer_id: Annotated[str, Parameter(help="as in join")],
    /,
    *,
    reinstate: Annotated[bool, Parameter(help="let the viewer back in")] = False,
    session: InSession,
) -> int:
    """Shut a viewer out of a broadcast, or let one back in."""
    await session.client.playback.revoke(id, viewer_id, reinstate=reinstate)
    if not session.out.as_json:
        session.out.line(f"{viewer_id} {'may watch' if reinstate else 'may not watch'} {id}")
    return OK


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


def _show_orphans(told: Iterable[tuple[str, Orphan]], out: Output) -> None:
    rows: list[list[str | Text]] = [
        [
            action,
            each.provider,
            each.kind,
            plain(each.external_id),
            plain(each.broadcast_id),
            age(each.create_time),
            "yes" if each.removable else "too young",
        ]
        for action, each in told
    ]
    out.table([Column(name) for name in ("", "PROVIDER", "KIND", "ID", "BROADCAST", "AGE", "REMOVABLE")], rows)


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
