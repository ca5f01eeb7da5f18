"""The rules that every plan keeps, whatever state it is made of. Pure.

The simulation checks every plan of every simulated replica with them (invariant I-15), and
tests/unit/test_plan_properties.py checks plans of generated states, most of which no world brings about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.audience.watching import Watching
from service.domain.broadcast import Broadcast, Target, seconds
from service.domain.planning.common import back_off_ended
from service.domain.planning.steps import (
    AskForRoom,
    BeginScheduled,
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DeleteUpload,
    DisableStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetCostLevel,
    SetDelivery,
    SetDestinations,
    SetFallback,
    SetLayout,
    SetTitle,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.reasons import FallbackReason
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Kind, Phase, Stream, Upload
from service.domain.situation import Availability
from service.domain.timing import Timing

CREATING = (CreateRoom, CreateStream, StartEgress, StartRecording, ResetKey, SetTitle)
"""Steps that make something that runs, or that serve only what runs."""
AFTERWARDS = (UploadRecording, DeleteUpload, SettleRecordings, DeleteStream, WriteOff)
"""Steps about recordings and about a retired live stream, which may follow when nothing runs any more."""
ON_WHAT_IS_GONE = (UploadRecording, SettleRecordings)
"""Steps that begin when their resource is gone: a new upload, the list of what a lost live stream recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One call of `plan`: its arguments and its answer."""

    broadcast: Broadcast
    resources: Sequence[AnyResource]
    now: datetime
    timing: Timing
    availability: Availability
    watching: Watching
    plan: Plan


def resource_of(step: Step) -> tuple[Kind, int] | None:  # noqa: PLR0911 - one answer a kind
    """Kind and ordinal of the resource that *step* is about. None: it is about the broadcast itself."""
    match step:
        case CreateRoom() | AskForRoom() | DeleteRoom():
            return Kind.ROOM, step.ordinal
        case (
            CreateStream()
            | DisableStream()
            | SettleRecordings()
            | DeleteStream()
            | ResetKey()
            | CutStream()
            | SetTitle()
        ):
            return Kind.STREAM, step.ordinal
        case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
            return Kind.EGRESS, step.ordinal
        case StartRecording() | StopRecording():
            return Kind.RECORDING, step.ordinal
        case UploadRecording() | DeleteUpload():
            return Kind.UPLOAD, step.ordinal
        case WriteOff():
            return step.kind, step.ordinal
        case SetFallback() | SetDelivery() | SetCostLevel() | BeginScheduled() | EndBroadcast():
            return None


def broken_rules(planned: Planned) -> Iterator[str]:
    """A sentence for each rule that *planned* breaks."""
    for rule in RULES:
        yield from rule(planned)


def one_step_a_resource(planned: Planned) -> Iterator[str]:
    """Steps of one plan are carried out at the same time, so no two may be about the same resource."""
    counted = Counter(resource_of(step) for step in planned.plan.steps)
    del counted[None]
    for resource, steps in counted.items():
        if steps > 1:
            yield f"{steps} steps for {resource}: {planned.plan.steps}"


def nothing_for_what_is_gone(planned: Planned) -> Iterator[str]:
    rows = _by_key(planned)
    for step in planned.plan.steps:
        row = rows.get(resource_of(step))
        if row is not None and row.phase is Phase.GONE and not isinstance(step, ON_WHAT_IS_GONE):
            yield f"a step for what is gone: {step}"


def no_step_before_its_back_off_is_over(planned: Planned) -> Iterator[str]:
    """Two steps need not wait: a write-off calls nobody, and a first stop is not what the back-off counts from."""
    rows = _by_key(planned)
    for step in planned.plan.steps:
        row = rows.get(resource_of(step))
        if row is None or row.retry_at is None or row.retry_at <= planned.now:
            continue
        if back_off_ended(row, planned.broadcast, planned.now, planned.availability):
            # The provider answers again since the call failed, or a person asked for another try.
            continue
        first_stop = isinstance(step, StopEgress | StopRecording) and row.phase is Phase.PRESENT
        if not first_stop and not isinstance(step, WriteOff):
            yield f"before its back-off is over at {row.retry_at}: {step}"


def nothing_is_created_for_the_end(planned: Planned) -> Iterator[str]:
    if planned.broadcast.target is Target.LIVE:
        return
    for step in planned.plan.steps:
        if isinstance(step, CREATING):
            yield f"created although the target is {planned.broadcast.target}: {step}"


def no_start_beside_another_publisher(planned: Planned) -> Iterator[str]:
    """An egress is started when every earlier one was seen to end, or holds a dead key and was cut off."""
    if not any(isinstance(step, StartEgress) for step in planned.plan.steps):
        return
    resource_set = ResourceSet(planned.resources)
    stream = next((each for each in resource_set.streams if each.phase is Phase.PRESENT), None)
    if stream is None:
        yield "an egress is started without a live stream"
        return
    if stream.key_stale or stream.cutting:
        yield f"an egress is started with a key in doubt: stale {stream.key_stale}, cutting {stream.cutting}"
    for egress in resource_set.egresses:
        if not egress.end_seen and egress.key_epoch >= stream.key_epoch:
            yield f"an egress is started beside one whose key is alive: {egress}"
        elif resource_set.may_be_connected(egress, stream):
            yield f"an egress is started beside one that may be connected: {egress}"


def the_end_is_decided_alone(planned: Planned) -> Iterator[str]:
    ends = any(isinstance(step, EndBroadcast) for step in planned.plan.steps)
    if ends and (len(planned.plan.steps) > 1 or planned.broadcast.target is not Target.LIVE):
        yield f"target {planned.broadcast.target}, and an end among {planned.plan.steps}"


def done_when_nothing_runs(planned: Planned) -> Iterator[str]:
    current = planned.plan
    if not current.done:
        return
    if planned.broadcast.target is not Target.ENDED:
        yield f"done, and the target is {planned.broadcast.target}"
    left = [
        row
        for row in planned.resources
        if row.phase is not Phase.GONE
        and not isinstance(row, Upload)
        and not (isinstance(row, Stream) and row.disabled and row.recordings_settled)
    ]
    if left:
        yield f"done, and {left[0].kind} {left[0].ordinal} is {left[0].phase}"
    for step in current.steps:
        if not isinstance(step, AFTERWARDS):
            yield f"done, and still to do: {step}"


def it_waits_for_a_later_moment(planned: Planned) -> Iterator[str]:
    """A moment that is past would bring the broadcast back at once: a loop that never sleeps."""
    current = planned.plan
    if current.wait_until is not None and current.wait_until <= planned.now:
        yield f"it waits until {current.wait_until}, which is past at {planned.now}"
    if current.wait_until is None and not current.done and planned.broadcast.target is not Target.CREATED:
        yield "it is not done, and waits for nothing"


def fallback_modes_are_those_of_the_spec(planned: Planned) -> Iterator[str]:
    for step in planned.plan.steps:
        if isinstance(step, SetFallback) and not set(step.fallback.modes) <= set(planned.broadcast.spec.fallback_modes):
            yield f"a fallback that its caller did not allow: {step.fallback.modes}"


def a_return_is_earned(planned: Planned) -> Iterator[str]:
    """Viewers are sent back only after the normal way and both providers were well for `fallback_return_s`."""
    steps = [step for step in planned.plan.steps if isinstance(step, SetFallback)]
    before, availability = planned.broadcast.fallback, planned.availability
    taken_back = not set(before.modes) & set(planned.broadcast.spec.fallback_modes)
    for step in steps:
        if step.fallback.reason is not FallbackReason.RETURNED or taken_back:
            continue
        earliest = planned.now - seconds(planned.timing.fallback_return_s)
        moments = (before.since, ResourceSet(planned.resources).whole_since, *availability.answering_since.values())
        if availability.outages or None in availability.answering_since.values():
            yield f"viewers are sent back in an outage: {availability}"
        if late := [moment for moment in moments if moment is not None and moment > earliest]:
            yield f"viewers are sent back {planned.timing.fallback_return_s:g} s or less after {max(late)}"


RULES: tuple[Callable[[Planned], Iterator[str]], ...] = (
    one_step_a_resource,
    nothing_for_what_is_gone,
    no_step_before_its_back_off_is_over,
    nothing_is_created_for_the_end,
    no_start_beside_another_publisher,
    the_end_is_decided_alone,
    done_when_nothing_runs,
    it_waits_for_a_later_moment,
    fallback_modes_are_those_of_the_spec,
    a_return_is_earned,
)


def _by_key(planned: Planned) -> dict[tuple[Kind, int] | None, AnyResource]:
    return {(row.kind, row.ordinal): row for row in planned.resources}
