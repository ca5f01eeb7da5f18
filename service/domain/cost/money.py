"""Money, and the cap that a caller sets. An amount is an integer of nano-dollars: billionths of a US dollar."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

CURRENCY: Final = "USD"
DOLLAR: Final = 1_000_000_000
"""Nano-dollars in a dollar."""
_MICROS_PER_MINUTE: Final = 60_000_000


class CapAction(StrEnum):
    """What happens when a broadcast costs as much as its cap."""

    STOP = "stop"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCap:
    nanos: int
    """The limit, in nano-dollars, more than 0."""
    action: CapAction = CapAction.STOP


class CostLevel(StrEnum):
    """How near the cost is to the cap, as it was told last."""

    UNDER = "under"
    """Less than 80 % of the cap, or there is no cap."""
    NEAR = "near"
    """80 % of the cap or more."""
    REACHED = "reached"
    """The whole cap or more, and the caller wants a warning alone."""


def priced(micros: int, nanos_per_minute: int) -> int:
    """The price in nano-dollars of *micros* microseconds, rounded half up."""
    return (micros * nanos_per_minute + _MICROS_PER_MINUTE // 2) // _MICROS_PER_MINUTE


def dollars(nanos: int) -> str:
    """For people, rounded to cents, or to four digits where that would be nothing."""
    amount = Decimal(nanos) / DOLLAR
    text = f"{amount:.2f}" if not nanos or amount >= Decimal("0.1") else f"{amount:.4f}"
    return f"{text} {CURRENCY}"
