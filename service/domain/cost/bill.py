"""From the entries of the ledger to money: lines, totals, what a minute costs now, a forecast. Pure.

Every amount is made of integers: microseconds, nano-dollars a minute. A total is the sum of its lines.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.cost.entries import Basis, Entry
from service.domain.cost.money import CostCap, priced
from service.domain.cost.prices import EGRESS_STEP_US, CostKind, Prices, Tier

_EGRESSES = (CostKind.EGRESS, CostKind.FILE_EGRESS)
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """All entries of one kind and tier, in microseconds."""

    kind: CostKind
    tier: Tier
    micros: int
    billed: int
    """With every egress rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    quantity: Quantity
    nanos_per_minute: int
    nanos: int

    @property
    def estimated(self) -> bool:
        return self.quantity.kind is CostKind.DELIVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Nano-dollars."""

    lines: tuple[Line, ...]
    nanos: int
    estimated_nanos: int
    """The part of `nanos` that is an estimate."""
    idle_micros: int
    saved_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    end_time: datetime
    nanos: int
    nanos_per_hour: int
    cap_time: datetime | None
    """When the cap is reached at this rate. None: there is none, or not before `end_time`."""


def billed(kind: CostKind, micros: int) -> int:
    """The microseconds that are charged for an entry of *micros*."""
    return -(-micros // EGRESS_STEP_US) * EGRESS_STEP_US if kind in _EGRESSES else micros


def quantities(entries: Iterable[Entry], now: datetime) -> list[Quantity]:
    """One of each kind and tier, in a fixed order."""
    sums: defaultdict[tuple[CostKind, Tier], list[int]] = defaultdict(lambda: [0, 0])
    for entry in entries:
        micros = entry.micros(now)
        both = sums[entry.kind, entry.tier]
        both[0] += micros
        both[1] += billed(entry.kind, micros)
    order = {kind: n for n, kind in enumerate(CostKind)}
    return [
        Quantity(kind=kind, tier=tier, micros=micros, billed=charged)
        for (kind, tier), (micros, charged) in sorted(sums.items(), key=lambda each: (order[each[0][0]], each[0][1]))
    ]


def bill(found: Sequence[Quantity], prices: Prices) -> Bill:
    lines: list[Line] = []
    idle = saved = 0
    for each in found:
        per_minute = prices.per_minute(each.kind, each.tier)
        nanos = priced(each.billed, per_minute)
        if each.kind is CostKind.IDLE:
            idle, saved = idle + each.micros, saved + nanos
            nanos = 0
        lines.append(Line(quantity=each, nanos_per_minute=per_minute, nanos=nanos))
    return Bill(
        lines=tuple(lines),
        nanos=sum(line.nanos for line in lines),
        estimated_nanos=sum(line.nanos for line in lines if line.estimated),
        idle_micros=idle,
        saved_nanos=saved,
    )


def per_hour(entries: Iterable[Entry], prices: Prices, *, viewers: int, tier: Tier) -> int:
    """Nano-dollars that an hour costs while everything that goes on now goes on. *viewers*: of them there are now;
    *tier*: in which they are charged.
    """
    rate = sum(
        priced(_HOUR_US, prices.per_minute(entry.kind, entry.tier))
        for entry in entries
        if entry.to_time is None and entry.kind is not CostKind.IDLE
    )
    return rate + viewers * priced(_HOUR_US, prices.per_minute(CostKind.DELIVERY, tier))


def reached_at(nanos: int, nanos_per_hour: int, limit: int, now: datetime) -> datetime | None:
    """When a cost of *nanos* at *now* is *limit* at this rate. None: never."""
    if nanos >= limit:
        return now
    if nanos_per_hour <= 0:
        return None
    micros = -(-(limit - nanos) * _HOUR_US // nanos_per_hour)
    # Further than a year is as good as never, and a datetime ends somewhere.
    return now + timedelta(microseconds=micros) if micros < _HOUR_US * 8_760 else None


def forecast(nanos: int, nanos_per_hour: int, *, end: datetime, now: datetime, cap: CostCap | None) -> Forecast:
    """*end*: the planned end. One that has passed adds nothing."""
    left = max((end - now) // timedelta(microseconds=1), 0)
    reached = None if cap is None else reached_at(nanos, nanos_per_hour, cap.nanos, now)
    return Forecast(
        end_time=end,
        nanos=nanos + left * nanos_per_hour // _HOUR_US,
        nanos_per_hour=nanos_per_hour,
        cap_time=reached if reached is not None and reached <= end else None,
    )


def delivered(viewer_s: float, tier: Tier, *, since: datetime, until: datetime) -> Entry:
    """The estimate of what viewers were sent: *viewer_s* seconds of all of them together, from *since* to *until*."""
    return Entry(
        kind=CostKind.DELIVERY,
        ref="",
        tier=tier,
        from_time=since,
        to_time=until,
        quantity_s=viewer_s,
        basis=Basis.ESTIMATED,
    )
