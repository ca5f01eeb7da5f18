"""The commands that show what broadcasts cost."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from cyclopts import Parameter
from google.protobuf.duration_pb2 import Duration

from broadcast.v1.cost_pb2 import CostKind, CostTier, CostTotal, Money
from broadcast_client.ctl.arguments import BroadcastId, Labels, Limit, OnlyIds, Owner, one
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import Column, clock, human
from broadcast_client.ctl.session import OK, InSession
from broadcast_client.values import short_name

_LINES = (Column("WHAT"), Column("TIER"), Column("QUANTITY"), Column("BILLED"), Column("A MINUTE"), Column("AMOUNT"))
_GROUPS = (Column("KEY"), Column("BROADCASTS"), Column("AMOUNT"), Column("ESTIMATED"), Column("SAVED"))


def _a_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_Time = Annotated[
    datetime | None, Parameter(converter=one(_a_time), metavar="TIME", help="ISO 8601; UTC if without zone")
]


async def cost(id: BroadcastId, /, *, session: InSession) -> int:
    """Show what a broadcast cost up to now, and what it will have cost."""
    found = await session.client.cost(id)
    if session.out.as_json:
        session.out.message(found)
        return OK
    _show_lines(found.total, session.out)
    if not found.audience_measured:
        session.out.line("the audience was not measured: delivery is missing")
    if found.HasField("forecast"):
        told = found.forecast
        text = f"forecast {dollars(told.amount)} at {clock(told.end_time)}, {dollars(told.amount_per_hour)} an hour now"
        session.out.line(text)
        if told.HasField("cap_time"):
            session.out.line(f"the cost cap is reached at {clock(told.cap_time)}")
    return OK


async def costs(
    *,
    by: Annotated[str, Parameter(metavar="owner|label:KEY", help="add up by this; default: by broadcast")] = "",
    since: _Time = None,
    until: _Time = None,
    id: OnlyIds = (),
    owner: Owner = "",
    label: Labels = (),
    limit: Limit = 50,
    session: InSession,
) -> int:
    """Show what broadcasts cost in a period."""
    shown: list[tuple[str, ...]] = []
    found = session.client.costs_all(
        by=by, start_time=since, end_time=until, ids=id, owner_id=owner, labels=dict(label)
    )
    told = 0
    async for group in found:
        if limit and told == limit:
            session.out.complain(f"there are more than {limit}: see --limit")
            break
        told += 1
        if session.out.as_json:
            session.out.message(group)
            continue
        total = group.total
        money = (dollars(each) for each in (total.amount, total.estimated_amount, total.saved))
        shown.append((group.key or "-", str(group.broadcasts), *money))
    if not session.out.as_json:
        session.out.table(_GROUPS, shown)
    return OK


def _show_lines(total: CostTotal, out: Output) -> None:
    rows = [
        (
            short_name(CostKind.DESCRIPTOR, line.kind).lower() + (" (estimate)" if line.estimated else ""),
            short_name(CostTier.DESCRIPTOR, line.tier).lower(),
            _span(line.quantity),
            _span(line.billed),
            dollars(line.price_per_minute),
            dollars(line.amount),
        )
        for line in total.lines
    ]
    out.table(_LINES, [*rows, ("total", "", "", "", "", dollars(total.amount))])
    if total.idle.seconds:
        out.line(f"nobody watched for {_span(total.idle)}, which saved {dollars(total.saved)}")


def _span(duration: Duration) -> str:
    return human(duration.ToTimedelta().total_seconds())


def dollars(money: Money) -> str:
    """Exact, with two digits at least."""
    amount = Decimal(money.units) + Decimal(money.nanos) / 1_000_000_000
    whole, _, digits = f"{amount:f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')} {money.currency_code or 'USD'}"
