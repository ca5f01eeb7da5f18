"""What a provider's failure means for the resource that the call was about. Decided here and nowhere else.

- AMBIGUOUS: the call may have had its effect. After a create the resource is UNKNOWN, and the plan looks for it before
  anything else.
- UNAVAILABLE, of a start of an egress: no worker took it, as far as LiveKit knows. A worker that answered too late may
  hold it all the same (livekit/egress#720), so it is UNKNOWN until the next list, which decides.
- Any other outcome: the call had no effect. It is made again after a back-off, or never if it was REFUSED.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from service.domain.broadcast import ProviderTrouble, seconds
from service.domain.errors import Outcome, ProviderError
from service.domain.reasons import Fault
from service.domain.resources import AnyResource, Egress, Kind, LocalRecording, Phase, Stream, Upload

if TYPE_CHECKING:
    from service.reconciler.act.context import PassContext

_Created = TypeVar("_Created", Stream, Egress, LocalRecording, Upload)
_Started = TypeVar("_Started", Egress, LocalRecording)
_Stopped = TypeVar("_Stopped", Egress, LocalRecording)


REFUSAL_FAULTS: Final[Mapping[Outcome, Fault]] = {
    Outcome.NOT_SENT: Fault.NOT_SENT,
    Outcome.REFUSED: Fault.REFUSED,
    Outcome.MISSING: Fault.MISSING,
    Outcome.CREDENTIALS: Fault.CREDENTIALS,
    Outcome.THROTTLED: Fault.THROTTLED,
    Outcome.UNAVAILABLE: Fault.UNAVAILABLE,
}
"""The fault of an egress whose start had this outcome. AMBIGUOUS is not here: the egress may run."""


def retry_at(context: PassContext, failures: int, error: ProviderError) -> datetime:
    """The time, by the database's clock, of the next try after *failures* in a row, the last of them *error*."""
    return context.now() + max(backoff(failures), error.retry_after or timedelta())


def not_created(context: PassContext, resource: _Created, failures: int, error: ProviderError) -> _Created:
    """*resource* after a create that failed: UNKNOWN where it may exist, GONE where it does not."""
    ambiguous = error.outcome is Outcome.AMBIGUOUS
    return replace(
        resource,
        phase=Phase.UNKNOWN if ambiguous else Phase.GONE,
        failures=failures,
        retry_at=None if ambiguous else retry_at(context, failures, error),
        failed_at=context.now(),
        refused=error.outcome is Outcome.REFUSED,
    )


_WRITTEN_OFF: Final[Mapping[tuple[Kind, Phase], Fault]] = {
    (Kind.EGRESS, Phase.INTENDED): Fault.START_LOST,
    (Kind.EGRESS, Phase.UNKNOWN): Fault.START_LOST,
    (Kind.EGRESS, Phase.DELETING): Fault.NOT_STOPPED,
    (Kind.RECORDING, Phase.DELETING): Fault.NOT_STOPPED,
}
"""The fault of one that is given up. One that answered no stop may be listed for ever, and its fault says that it is
not to be taken for one that came late.
"""


def written_off(
    resource: Stream | Egress | LocalRecording | Upload, now: datetime
) -> Stream | Egress | LocalRecording | Upload:
    """*resource* after it was given up at *now*. It keeps the fault that it was stopped for. That it was lost before,
    and came back, is no such fault.
    """
    gone = replace(resource, phase=Phase.GONE, changed_at=now)
    fault = _WRITTEN_OFF.get((resource.kind, resource.phase))
    if fault is None or not isinstance(gone, Egress | LocalRecording) or gone.fault not in (Fault.NONE, Fault.LOST):
        return gone
    return replace(gone, fault=fault)


def stopping(context: PassContext, resource: _Stopped) -> _Stopped:
    """*resource* as it is written before the call that stops it.

    A stop that an earlier pass intended and that was neither answered nor refused begins anew: the time within which
    its end must be seen starts now.
    """
    if resource.phase is Phase.DELETING and (resource.acked or resource.failures):
        return resource
    return replace(resource, phase=Phase.DELETING, changed_at=context.now(), acked=False, failures=0, retry_at=None)


def not_started(context: PassContext, egress: _Started, failures: int, error: ProviderError) -> _Started:
    """*egress* after a start that failed: as `not_created`, and UNKNOWN after UNAVAILABLE too. One that is GONE was
    refused before any worker took it: it cannot run.
    """
    failed = replace(not_created(context, egress, failures, error), error=error.message)
    if error.outcome is Outcome.UNAVAILABLE:
        return replace(failed, phase=Phase.UNKNOWN, tries_over_at=context.now())
    return replace(failed, end_seen=failed.phase is Phase.GONE)


async def cut_off(context: PassContext, egress: Egress | LocalRecording) -> None:
    """Record a start that we hung up, because the callers want another target. LiveKit stops its tries at once
    (measured, livekit-server 1.13.5), and a worker may have taken it before: the next list shows it, or it is none.
    """
    await context.record([replace(egress, phase=Phase.UNKNOWN, tries_over_at=context.now())])


async def record_failure(
    context: PassContext, resource: AnyResource, error: ProviderError, *, not_within: timedelta = timedelta()
) -> None:
    """Record a call that failed or whose effect is unknown, and schedule a retry, not earlier than *not_within* from
    now. Raises LeaseLost, StoreUnavailable.
    """
    failures = resource.failures + 1
    again = max(retry_at(context, failures, error), context.now() + not_within)
    # What may still land late is waited for, whatever ends in the meantime.
    failed_at = None if not_within else context.now()
    failed = replace(resource, failures=failures, retry_at=again, failed_at=failed_at)
    await context.record([failed], trouble=trouble_of(error, context.now()))


def backoff(failures: int) -> timedelta:
    """Exponential from 1 s to 60 s, with jitter so that what failed together does not come back together."""
    return seconds(min(2.0 ** max(failures - 1, 0), 60.0) * random.uniform(0.75, 1.25))


def trouble_of(error: ProviderError, now: datetime) -> ProviderTrouble:
    """What callers are told of it."""
    return ProviderTrouble(
        provider=error.provider,
        operation=error.operation,
        code=error.code,
        message=error.message,
        retryable=error.outcome is not Outcome.REFUSED,
        time=now,
        outcome=error.outcome,
    )
