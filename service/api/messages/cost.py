"""Costs in the words of the contract."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import cost_pb2 as pb
from service.api.messages.enums import COST_BASES, COST_GROUPINGS, COST_KINDS, COST_TIERS
from service.api.messages.money import money_message
from service.api.messages.times import given_time, time_message
from service.domain.cost.bill import Bill, Forecast, Line
from service.domain.cost.entries import Entry
from service.domain.cost.prices import CostKind
from service.domain.errors import InvalidField, Violation
from service.store.ledger import Account, CostQuery, Grouping

_MICROS = 1_000_000


def given_cost_query(request: rpc.ListCostsRequest) -> CostQuery:
    """Raises InvalidField."""
    grouping = COST_GROUPINGS.member.get(request.group_by, Grouping.BROADCAST)
    if (grouping is Grouping.LABEL) is not bool(request.group_label):
        what = "must name the label" if not request.group_label else "goes with COST_GROUPING_LABEL alone"
        raise InvalidField(Violation(field="group_label", description=what))
    since = given_time(request.start_time, "start_time") if request.HasField("start_time") else None
    until = given_time(request.end_time, "end_time") if request.HasField("end_time") else None
    if since is not None and until is not None and until <= since:
        raise InvalidField(Violation(field="end_time", description="must be after start_time"))
    given = request.filter
    return CostQuery(
        grouping=grouping,
        label=request.group_label,
        ids=tuple(given.broadcast_ids),
        owner_id=given.owner_id,
        labels=tuple(sorted(given.labels.items())),
        since=since,
        until=until,
    )


def cost_message(
    account: Account, entries: Iterable[Entry], total: Bill, forecast: Forecast | None
) -> pb.BroadcastCost:
    """*entries*: those of *account*, and the estimates beside them."""
    return pb.BroadcastCost(
        broadcast_id=account.broadcast.id,
        total=total_message(total),
        entries=[
            pb.CostEntry(
                kind=COST_KINDS.number[entry.kind],
                external_id="" if entry.kind is CostKind.IDLE else entry.ref,
                tier=COST_TIERS.number[entry.tier],
                start_time=time_message(entry.from_time),
                end_time=time_message(entry.to_time),
                quantity=_duration(entry.micros(account.now)),
                basis=COST_BASES.number[entry.basis],
            )
            for entry in entries
        ],
        forecast=None if forecast is None else _forecast(forecast),
        audience_measured=account.costs.viewer_s is not None,
        time=time_message(account.now),
    )


def total_message(total: Bill) -> pb.CostTotal:
    return pb.CostTotal(
        lines=[_line(line) for line in total.lines],
        amount=money_message(total.nanos),
        estimated_amount=money_message(total.estimated_nanos),
        idle=_duration(total.idle_micros),
        saved=money_message(total.saved_nanos),
    )


def _line(line: Line) -> pb.CostLine:
    return pb.CostLine(
        kind=COST_KINDS.number[line.quantity.kind],
        tier=COST_TIERS.number[line.quantity.tier],
        quantity=_duration(line.quantity.micros),
        billed=_duration(line.quantity.billed),
        price_per_minute=money_message(line.nanos_per_minute),
        amount=money_message(line.nanos),
        estimated=line.estimated,
    )


def _forecast(forecast: Forecast) -> pb.CostForecast:
    return pb.CostForecast(
        end_time=time_message(forecast.end_time),
        amount=money_message(forecast.nanos),
        amount_per_hour=money_message(forecast.nanos_per_hour),
        cap_time=time_message(forecast.cap_time),
    )


def _duration(micros: int) -> Duration:
    seconds, rest = divmod(micros, _MICROS)
    return Duration(seconds=seconds, nanos=rest * 1000)
