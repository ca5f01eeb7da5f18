"""I-15: every plan that a replica makes keeps the rules, in whatever state the world has brought it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from unittest.mock import patch

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast
from service.domain.cost.cap import Costs
from service.domain.planning.plan import plan
from service.domain.resources import AnyResource
from service.domain.situation import Availability
from service.domain.timing import Timing
from service.reconciler import reconciler
from tests.simulation.checks.plan_rules import Planned, broken_rules
from tests.simulation.replica import owner

if TYPE_CHECKING:
    from service.domain.planning.steps import Plan
    from tests.simulation.checks.violations import Findings
    from tests.simulation.replica import Shared


class AtPlans:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._findings = findings
        shared.planned = self._planned

    def _planned(self, planned: Planned) -> None:
        self._findings.seen["plan"] += 1
        for what in broken_rules(planned):
            self._findings.violate("I-15", f"{planned.broadcast.id}: {what}")


@contextmanager
def plans_shown() -> Generator[None]:
    """Within, each plan of a replica is shown to the checks of its world."""

    def shown(
        broadcast: Broadcast,
        resources: Sequence[AnyResource],
        now: datetime,
        timing: Timing,
        availability: Availability | None = None,
        *,
        watching: Watching = NOBODY_KNOWS,
        costs: Costs | None = None,
    ) -> Plan:
        current = plan(broadcast, resources, now, timing, availability, watching=watching, costs=costs)
        replica = owner.get()
        if replica is not None:
            replica.shared.planned(
                Planned(
                    broadcast=broadcast,
                    resources=resources,
                    now=now,
                    timing=timing,
                    availability=availability or Availability(),
                    watching=watching,
                    plan=current,
                )
            )
        return current

    with patch.object(reconciler, "plan", shown):
        yield
