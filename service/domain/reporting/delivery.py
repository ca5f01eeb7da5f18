"""delivery_event(): the event of a decision about the delivery, in words for people. Pure."""

from datetime import datetime

from service.domain.delivery import Delivery, DeliveryReason
from service.domain.lifecycle import Event
from service.domain.reasons import EventReason
from service.domain.sentences import dated


def delivery_event(delivery: Delivery) -> Event:
    """*delivery*: as it is to be stored. Without inputs the delivery policy is another one by now."""
    inputs, decided = delivery.inputs, delivery.decided
    if inputs is None:
        return Event(reason=EventReason.DELIVERY_WANTED, message="the delivery policy is not ON_DEMAND any more")
    reason = EventReason.DELIVERY_WANTED if decided.wanted else EventReason.DELIVERY_IDLE
    watching, limits = inputs.watching, inputs.limits
    seen = "no viewer was seen yet" if watching.last_seen is None else f"a viewer was seen {dated(watching.last_seen)}"
    match decided.reason:
        case DeliveryReason.MIN_RUN:
            why = f"; it runs for {limits.min_run_s:g} s at least"
        case DeliveryReason.HOLD:
            why = f"; viewers were counted {_when(watching.counted_up_to)}, with a gap {_when(watching.counted_since)}"
        case DeliveryReason.FLAPPING:
            why = f"; it was started {limits.starts} times within {limits.flap_s / 60:g} min"
        case DeliveryReason.NO_VIEWER if inputs.before.wanted:
            why = f"; the linger time is {max(limits.linger_s, limits.window_s):g} s"
        case _:
            why = ""
    return Event(reason=reason, message=f"{decided.reason}: {seen}{why}")


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else dated(moment)
