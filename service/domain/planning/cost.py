"""The part of the plan of a running broadcast that is about its cost cap. Pure."""

from service.domain.broadcast import seconds
from service.domain.cost.cap import judge
from service.domain.cost.money import CapAction, CostLevel
from service.domain.planning.common import Planner
from service.domain.planning.steps import SetCostLevel
from service.domain.reasons import Action


class CostPlanner(Planner):
    def spends_too_much(self) -> bool:
        """Whether the broadcast is to be ended for its cost. If not, a level of the cost that was not told yet is told,
        and the plan waits for the next one.

        The audience may grow, and no row tells it: so the cost is computed again at least every `cost_look_s` while
        something runs.
        """
        cap = self.broadcast.spec.cost_cap
        verdict = judge(self.broadcast, self.resource_set.all, self.now, self.costs)
        if cap is None or verdict is None:
            if self.broadcast.cost_level is not CostLevel.UNDER:
                self.steps.append(SetCostLevel(level=CostLevel.UNDER, message="there is no cost cap any more"))
            return False
        if verdict.end:
            return True
        if verdict.level is not self.broadcast.cost_level:
            self.steps.append(SetCostLevel(level=verdict.level, message=verdict.message))
        if verdict.runs:
            self.waits.append(self.now + seconds(self.timing.cost_look_s))
        if verdict.next_at is not None:
            self.reached(verdict.next_at)
        if cap.action is CapAction.STOP and verdict.full_at is not None:
            self.reached(
                verdict.full_at, action=Action.END_BROADCAST, message="when it has cost as much as its cost cap"
            )
        return False
