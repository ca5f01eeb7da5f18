"""What a broadcast has cost so far, and what its cap says about it. Pure.

The cost of the plan and the cost that callers are told are made by the same functions, from the same rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.domain.broadcast import Broadcast
from service.domain.cost.bill import Bill, bill, delivered, per_hour, quantities, reached_at
from service.domain.cost.entries import Entry, charged_tier, entries_of
from service.domain.cost.money import CapAction, CostCap, CostLevel, dollars
from service.domain.cost.prices import Prices
from service.domain.resources import AnyResource

NEAR_PERCENT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What is needed beside the rows to compute a cost."""

    prices: Prices = field(default_factory=Prices)
    viewer_s: float | None = None
    """Seconds for which viewers watched, of all of them together. None: the audience was not measured."""
    viewers: int | None = None
    """How many watch now. None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    entries: tuple[Entry, ...]
    bill: Bill
    nanos_per_hour: int
    """What an hour costs while all goes on as now."""


def spent_of(broadcast: Broadcast, found: Iterable[Entry], now: datetime, costs: Costs) -> Spent:
    """*found*: the entries of the ledger. The estimate of delivery is added to them."""
    entries = list(found)
    tier = charged_tier(broadcast.spec)
    if costs.viewer_s is not None:
        since = broadcast.live_time or broadcast.start_time or broadcast.create_time
        until = max(since, broadcast.end_time or now)
        entries.append(delivered(costs.viewer_s, tier, since=since, until=until))
    return Spent(
        entries=tuple(entries),
        bill=bill(quantities(entries, now), costs.prices),
        nanos_per_hour=per_hour(entries, costs.prices, viewers=costs.viewers or 0, tier=tier),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the cap of a broadcast says about its cost."""

    level: CostLevel
    message: str
    """How much of the cap is spent, for people."""
    end: bool
    """The broadcast is to be ended."""
    full_at: datetime | None
    """When the cap is reached at the present rate. None: it is, or nothing runs."""
    next_at: datetime | None
    """When the next level is reached at the present rate. None: there is none, or nothing runs."""
    runs: bool
    """Something is charged now."""


def judge(broadcast: Broadcast, resources: Sequence[AnyResource], now: datetime, costs: Costs) -> Verdict | None:
    """None: *broadcast* has no cap."""
    cap = broadcast.spec.cost_cap
    if cap is None:
        return None
    found = spent_of(broadcast, entries_of(broadcast, resources), now, costs)
    nanos, rate = found.bill.nanos, found.nanos_per_hour
    full = nanos >= cap.nanos
    near = _near(cap)
    level = CostLevel.REACHED if full else CostLevel.NEAR if nanos >= near else CostLevel.UNDER
    full_at = None if full else reached_at(nanos, rate, cap.nanos, now)
    return Verdict(
        level=level,
        message=_said(found.bill, cap),
        end=full and cap.action is CapAction.STOP,
        full_at=full_at,
        next_at=reached_at(nanos, rate, near, now) if level is CostLevel.UNDER else full_at,
        runs=rate > 0,
    )


def _near(cap: CostCap) -> int:
    return -(-cap.nanos * NEAR_PERCENT // 100)


def _said(found: Bill, cap: CostCap) -> str:
    estimated = f", of it {dollars(found.estimated_nanos)} estimated" if found.estimated_nanos else ""
    return f"{dollars(found.nanos)} of {dollars(cap.nanos)} ({found.nanos * 100 // cap.nanos} %){estimated}"
