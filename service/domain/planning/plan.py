"""plan(): from what is wanted and what was seen to what to do next. Pure: no clock, no I/O, no chance.

Invariants, each a property test:
- at most one step per resource;
- nothing that runs is created once the target is ENDED; a file that was recorded may be uploaded still;
- an egress is started only when no other can publish: every earlier one was seen to end, or holds a dead key and is
  not connected;
- nothing is given up for want of an answer: what ends a wait is a look that was made after its time;
- a plan whose steps succeed reaches `done` in a bounded number of rounds, from any state, once the target is ENDED;
- planning twice from the same facts gives the same plan; one without steps waits for a later moment, or is done.
"""

from collections.abc import Sequence
from datetime import datetime

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast, Target
from service.domain.cost.cap import Costs
from service.domain.planning.ending import End
from service.domain.planning.live import Live
from service.domain.planning.steps import BeginScheduled, Plan, Wait
from service.domain.reasons import Action
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource
from service.domain.schedule import provision_at
from service.domain.sentences import dated
from service.domain.situation import Availability
from service.domain.timing import Timing


def plan(
    broadcast: Broadcast,
    resources: Sequence[AnyResource],
    now: datetime,
    timing: Timing,
    availability: Availability | None = None,
    *,
    watching: Watching = NOBODY_KNOWS,
    costs: Costs | None = None,
) -> Plan:
    """*watching*: of the viewers. While nothing is known of them no egress that runs for viewers is stopped. *costs*:
    the prices and the audience that a cost cap is compared with.
    """
    resource_set, availability, costs = ResourceSet(resources), availability or Availability(), costs or Costs()
    match broadcast.target:
        case Target.CREATED:
            return _until_scheduled(broadcast, now)
        case Target.LIVE:
            return Live(broadcast, resource_set, now, timing, availability, watching=watching, costs=costs).plan()
        case Target.ENDED:
            return End(broadcast, resource_set, now, timing, availability, costs=costs).plan()


def _until_scheduled(broadcast: Broadcast, now: datetime) -> Plan:
    begins_at, scheduled = provision_at(broadcast), broadcast.spec.scheduled_start_time
    if begins_at is None or scheduled is None:
        return Plan()
    if begins_at <= now:
        return Plan(steps=(BeginScheduled(scheduled=scheduled),))
    message = f"room and live stream are made, ahead of its scheduled start at {dated(scheduled)}"
    wait = Wait(action=Action.BEGIN_SCHEDULED, message=message, until=begins_at)
    return Plan(wait_until=begins_at, waits=(wait,))
