"""When a broadcast with a scheduled start is begun without StartBroadcast. Pure.

Room and live stream are made ahead of the scheduled time, so that the broadcast is READY by then. The provider of live
streams takes one create a second, so broadcasts that are scheduled for the same minute are begun one after the other:
each has a share of the time before that follows from its id, the same in every replica.
"""

import hashlib
from datetime import datetime
from typing import Final

from service.domain.broadcast import Broadcast, Spec, Target, seconds
from service.domain.errors import InvalidField, Violation

LEAD_S: Final = 120.0
"""The shortest time from the begin to the scheduled time: a create that waits for its turn, or fails and is made again,
has so long.
"""
SPREAD_S: Final = 600.0
"""The begins of one scheduled time are spread over so long: 600 creates find their tokens in it."""
_SHARES: Final = 2**32


def provision_at(broadcast: Broadcast) -> datetime | None:
    """When room and live stream are made by themselves. It may be over. None: only StartBroadcast makes them."""
    scheduled = broadcast.spec.scheduled_start_time
    if scheduled is None or broadcast.target is not Target.CREATED or broadcast.deleted:
        return None
    number = int.from_bytes(hashlib.sha256(broadcast.id.encode()).digest()[:4], "big")
    return scheduled - seconds(LEAD_S + SPREAD_S * number / _SHARES)


def check_scheduled(spec: Spec, now: datetime) -> None:
    """Raises InvalidField for a time that is not in the future. *now*: of the database's clock."""
    scheduled = spec.scheduled_start_time
    if scheduled is not None and scheduled <= now:
        raise InvalidField(Violation(field="spec.scheduled_start_time", description="must be in the future"))


def ahead_s(spec: Spec, now: datetime) -> float:
    """Seconds from *now* to the scheduled time. 0: it is over, or there is none."""
    scheduled = spec.scheduled_start_time
    return 0.0 if scheduled is None else max((scheduled - now).total_seconds(), 0.0)
