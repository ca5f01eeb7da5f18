"""When an absence is believed. The one rule for every resource that a look should show and does not. Pure.

A look says that what it shows is so. It does not say that what it lacks is gone: a proxy answers an empty list, a
store loses its data, another cluster stands behind the name. So an absence changes nothing but `absent_since`, and the
resource stays as it was seen last, until the absence is believed:

- its provider was asked for it by its id and answered that it does not exist, or another source agrees, or two looks
  that are `absence_s` apart lacked it; and
- no other source contradicts. While media arrive that only this resource can have brought, it is there.

An absence that is believed says that a resource cannot be found. It does not say that it ended: an egress that is lost
may still publish, and is fenced before another one is started.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from service.domain.broadcast import seconds
from service.domain.lifecycle import Event
from service.domain.observing.learned import Learned
from service.domain.reasons import EventReason, Fault
from service.domain.resources import Egress, Kind, LocalRecording, Phase, Resource
from service.domain.timing import Timing

_R = TypeVar("_R", bound=Resource)
_LOST: Final[Mapping[Kind, tuple[EventReason, Fault]]] = {
    Kind.EGRESS: (EventReason.EGRESS_LOST, Fault.LOST),
    # Without a fault: one that is listed again is taken up, for it may put its file into the storage yet.
    Kind.RECORDING: (EventReason.RECORDING_LOST, Fault.NONE),
}
"""The event of one that is believed to be gone, and the fault of it where it had none before."""


def absent(resource: _R, now: datetime) -> _R:
    """The row after a look at *now*, by the database's clock, that should have shown it and did not."""
    return replace(resource, observed_at=now, absent_since=resource.absent_since or now)


def not_shown_yet(resource: Resource, now: datetime, timing: Timing) -> bool:
    """Whether a list at *now* need not show *resource*: it may not exist, or was found so lately that the list lags."""
    return resource.unresolved or now < resource.changed_at + seconds(timing.list_lag_s)


def not_started(egress: Egress | LocalRecording, now: datetime, timing: Timing) -> bool:
    """Whether a list at *now* that does not show *egress* shows that it was not started: nobody tries it any more."""
    over_at = egress.tries_over_at
    return egress.unresolved and over_at is not None and now >= over_at + seconds(timing.list_lag_s)


def believed_gone(resource: Resource, now: datetime, timing: Timing, *, confirmed: bool, contradicted: bool) -> bool:
    """Whether a look at *now* that did not show *resource* means that it is gone.

    *confirmed*: another source agrees, such as the provider when it is asked for the id. *contradicted*: another source
    shows what only this resource can do.
    """
    if contradicted:
        return False
    again = resource.absent_since is not None and now - resource.absent_since >= seconds(timing.absence_s)
    return confirmed or again


def recorder_absent(
    recorder: Egress | LocalRecording,
    now: datetime,
    timing: Timing,
    *,
    unknown_by_id: bool,
    contradicted: bool = False,
) -> Learned:
    """The row after a look that did not show *recorder*. One that is believed to be gone was not seen to end, so an
    egress may still be connected until it is cut off. *contradicted*: media arrive that only it can have brought;
    nothing shows whether a file is being written.
    """
    if not_started(recorder, now, timing):
        return Learned(resources=(replace(recorder, phase=Phase.GONE, observed_at=now, changed_at=now, end_seen=True),))
    if not_shown_yet(recorder, now, timing):
        return Learned(resources=(replace(recorder, observed_at=now),))
    if not believed_gone(recorder, now, timing, confirmed=unknown_by_id, contradicted=contradicted):
        return Learned(resources=(absent(recorder, now),))
    reason, fault = _LOST[recorder.kind]
    gone = replace(absent(recorder, now), phase=Phase.GONE, changed_at=now, fault=recorder.fault or fault)
    return Learned(resources=(gone,), events=(Event(reason=reason, message=recorder.external_id),))
