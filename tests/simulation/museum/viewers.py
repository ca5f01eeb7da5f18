"""Exhibits: what keeps an egress running while somebody watches, and no longer."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.audience import decide as deciding
from service.domain.planning import live as plan_live

if TYPE_CHECKING:
    from datetime import datetime

    from service.domain.audience.decide import Decision
    from service.domain.delivery import Inputs
    from tests.simulation.museum.exhibit import Exhibits


def _without_window() -> contextlib.AbstractContextManager[Any]:
    """A viewer who gave no sign for ten seconds is gone."""

    def short(inputs: Inputs) -> float:
        del inputs
        return 10.0

    return patch.object(deciding, "linger_s", short)


def _without_hold() -> contextlib.AbstractContextManager[Any]:
    """Viewers who were not counted, because nobody could, are taken for none."""

    def never(inputs: Inputs) -> datetime | None:
        del inputs

    return patch.object(deciding, "_doubted_until", never)


def _without_planned_end() -> contextlib.AbstractContextManager[Any]:
    """Nobody comes back when the linger time is over: whoever stays away wakes nothing."""

    def endless(inputs: Inputs) -> Decision:
        decision = deciding.decide(inputs)
        return deciding.Decision(decided=decision.decided)

    return patch.object(plan_live, "decide", endless)


def _without_last_sign() -> contextlib.AbstractContextManager[Any]:
    """Whoever was seen once watches for ever."""

    def for_ever(inputs: Inputs) -> float:
        del inputs
        return 1e6

    return patch.object(deciding, "linger_s", for_ever)


EXHIBITS: Final[Exhibits] = {
    "a viewer who is silent for ten seconds is gone": _without_window,
    "viewers who could not be counted are none": _without_hold,
    "nobody comes back when the linger time is over": _without_planned_end,
    "who was seen once watches for ever": _without_last_sign,
}
