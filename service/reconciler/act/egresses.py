"""The steps of an egress: start, stop, give it another layout or other destinations."""

from __future__ import annotations

from dataclasses import replace

from service.domain.broadcast import seconds
from service.domain.destinations import stopped_names
from service.domain.errors import Outcome, Overtaken, ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.egresses import with_egress
from service.domain.planning.steps import (
    EgressStep,
    SetDestinations,
    SetLayout,
    StartEgress,
    StopEgress,
)
from service.domain.ports import EgressWanted, Push
from service.domain.provider import ROOMS
from service.domain.reasons import EventReason, Fault
from service.domain.resources import Egress, EgressStatus, Phase, Room
from service.failpoints import failpoint
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import (
    REFUSAL_FAULTS,
    cut_off,
    not_started,
    record_failure,
    stopping,
    trouble_of,
)
from service.reconciler.act.requests import names_of, pushes_of


async def carry_out(context: PassContext, step: EgressStep) -> None:
    if isinstance(step, StartEgress):
        await _start(context, step)
        return
    egress = next(egress for egress in context.resources.egresses if egress.ordinal == step.ordinal)
    match step:
        case StopEgress():
            await _stop(context, egress, step)
        case SetLayout():
            await _set_layout(context, egress)
        case SetDestinations():
            await _set_destinations(context, egress, step)


async def _start(context: PassContext, step: StartEgress) -> None:
    stream = context.resources.stream
    assert stream is not None  # noqa: S101 - the plan starts none without
    failpoint("egress.start.before_intent")
    spec = context.broadcast.spec
    given_up = stopped_names(context.broadcast)
    pushes = {
        name: url
        for name, url in pushes_of(context.broadcast, stream, context.providers.streams).items()
        if name not in given_up
    }
    egress = Egress(
        ordinal=step.ordinal,
        phase=Phase.INTENDED,
        intended_at=context.now(),
        changed_at=context.now(),
        key_epoch=stream.key_epoch,
        layout=spec.layout,
        destinations=tuple(sorted(name for name in pushes if name)),
        pushes=pushes,
    )
    await context.intend(egress, "egress.start")
    try:
        seen = await context.while_wanted(
            context.providers.egresses.start(
                EgressWanted(
                    room_name=context.broadcast.id,
                    encoding=spec.encoding,
                    audio_only=spec.audio_only,
                    layout=spec.layout,
                    pushes=tuple(Push(name=name, url=url) for name, url in pushes.items()),
                )
            )
        )
    except Overtaken:
        failpoint("egress.start.after_failure")
        await cut_off(context, egress)
        raise
    except ProviderError as error:
        await _start_failed(context, egress, error)
        return
    failpoint("egress.start.after_call")
    started = replace(
        with_egress(egress, seen, names_of(context.broadcast, pushes, context.providers.egresses), context.now()),
        phase=Phase.PRESENT,
        changed_at=context.now(),
        external_id=seen.id,
        status=seen.status if seen.status is not EgressStatus.UNKNOWN else EgressStatus.STARTING,
        destinations=egress.destinations,
    )
    await context.record(
        [started],
        events=[Event(reason=EventReason.EGRESS_STARTED, message=seen.id)],
        recovered=ROOMS,
    )
    failpoint("egress.start.after_record")


async def _start_failed(context: PassContext, egress: Egress, error: ProviderError) -> None:
    failpoint("egress.start.after_failure")
    failures = len([e for e in context.resources.egresses if e.failures]) + 1
    failed = not_started(context, egress, failures, error)
    failed = replace(failed, fault=REFUSAL_FAULTS.get(error.outcome, Fault.NONE))
    changed: list[Room | Egress] = [failed]
    room = context.resources.room
    if error.outcome is Outcome.MISSING and room is not None:
        # The room does not exist. The next look says whether it is lost.
        changed.append(replace(room, phase=Phase.UNKNOWN, changed_at=context.now()))
    await context.record(changed, trouble=trouble_of(error, context.now()))


async def _stop(context: PassContext, egress: Egress, step: StopEgress) -> None:
    leaving = stopping(context, replace(egress, fault=step.fault or egress.fault))
    await context.intend(leaving, "egress.stop")
    try:
        await context.providers.egresses.stop(egress.external_id)
    except ProviderError as error:
        await record_failure(context, leaving, error)
        return
    failpoint("egress.stop.after_call")
    await context.record(
        [replace(leaving, acked=True, failures=0, retry_at=None)],
        events=[Event(reason=EventReason.EGRESS_STOP_SENT, message=step.why)],
        recovered=ROOMS,
    )
    failpoint("egress.stop.after_record")


async def _set_layout(context: PassContext, egress: Egress) -> None:
    layout = context.broadcast.spec.layout
    try:
        await context.providers.egresses.set_layout(egress.external_id, layout)
    except ProviderError as error:
        await record_failure(context, egress, error)
        return
    failpoint("layout.set.after_call")
    await context.record(
        [replace(egress, layout=layout, failures=0, retry_at=None)],
        events=[Event(reason=EventReason.LAYOUT_SET, message=layout)],
        recovered=ROOMS,
    )
    failpoint("layout.set.after_record")


async def _set_destinations(context: PassContext, egress: Egress, step: SetDestinations) -> None:
    stream = context.resources.stream
    assert stream is not None  # noqa: S101 - the plan starts none without
    wanted = pushes_of(context.broadcast, stream, context.providers.streams)
    adding = (*step.add, *step.again)
    pushes = {**egress.pushes, **{name: wanted[name] for name in adding}}
    # Written as if the call had failed without an answer: a pass that is cut off here leaves just that.
    grace = seconds(context.timing.update_grace_s if adding else 0)
    await context.intend(
        replace(egress, pushes=pushes, retry_at=context.now() + grace, failed_at=None), "destinations.set"
    )
    try:
        seen = await context.providers.egresses.set_pushes(
            egress.external_id,
            add=[Push(name=name, url=pushes[name]) for name in adding],
            remove=[Push(name=name, url=pushes[name]) for name in step.remove if name in pushes],
        )
    except ProviderError as error:
        if error.outcome is not Outcome.MISSING:
            # It may be done in part, or later. The next try comes after a look, when it cannot land late any more.
            late = adding and error.outcome is Outcome.AMBIGUOUS
            wait = seconds(context.timing.update_grace_s if late else 0)
            await record_failure(context, replace(egress, pushes=pushes), error, not_within=wait)
            return
        # A destination that was to be removed had failed and left by itself. The rest was done.
        seen = None
    failpoint("destinations.set.after_call")
    now_has = tuple(sorted({*egress.destinations, *adding} - {*step.remove}))
    updated = replace(egress, pushes=pushes, destinations=now_has)
    if seen is not None:
        names = names_of(context.broadcast, pushes, context.providers.egresses)
        updated = with_egress(updated, seen, names, context.now())
    await context.record(
        [replace(updated, destinations=now_has, failures=0, retry_at=None)],
        events=[
            *(Event(reason=EventReason.DESTINATION_ADDED, message=name) for name in step.add),
            *(Event(reason=EventReason.DESTINATION_RETRIED, message=name) for name in step.again),
            *(Event(reason=EventReason.DESTINATION_REMOVED, message=name) for name in step.remove),
        ],
        recovered=ROOMS,
    )
    failpoint("destinations.set.after_record")
