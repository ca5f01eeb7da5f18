"""Carries out the steps of a plan, each with one call at most.

Invariant: the intent is committed before the call, the record after it; every write carries the fence; a step makes one
change at a provider. So any line may be the last one that runs: the next pass goes on from the rows. A failed call is a
result too, and `outcomes` says what it means for the resource.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, assert_never

from service import telemetry
from service.domain.cost.money import CostLevel
from service.domain.errors import Overtaken
from service.domain.lifecycle import Event
from service.domain.planning.steps import (
    WRITTEN_OFF,
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
from service.domain.reasons import EventReason, Fault
from service.domain.reporting.delivery import delivery_event
from service.domain.resources import Egress, LocalRecording
from service.failpoints import failpoint
from service.reconciler.act import egresses, recordings, rooms, streams
from service.reconciler.act.outcomes import written_off
from service.reconciler.act.requests import bucket_of

if TYPE_CHECKING:
    from service.providers.budget import Rank
    from service.reconciler.act.context import PassContext

LEVEL_TOLD: Final[Mapping[CostLevel, EventReason]] = {
    CostLevel.UNDER: EventReason.COST_UNDER_CAP,
    CostLevel.NEAR: EventReason.COST_NEAR_CAP,
    CostLevel.REACHED: EventReason.COST_CAP_REACHED,
}
"""The event of a step to each level."""


class Actor:
    """Carries out the steps of one plan. Invariant: see the module."""

    def __init__(self, context: PassContext) -> None:
        self._context = context

    async def carry_out(self, step: Step, *, rank: Rank) -> datetime | None:
        """None: the step was carried out, whatever its result. Otherwise nothing was done for want of a token, and the
        answer is the time, by the database's clock, at which to ask for one again. Raises LeaseLost, StoreUnavailable.
        """
        context, bucket = self._context, bucket_of(step)
        if isinstance(step, CreateStream):
            with contextlib.suppress(Overtaken):
                if await streams.take_pooled(context, step):
                    return None
        turn = context.turn or context.broadcast.turn_at
        if (
            bucket is not None
            and (come_back := await context.providers.budget.take(bucket, rank, turn=turn)) is not None
        ):
            if isinstance(step, DisableStream):
                # A wait for a token must not keep the egress running: see the plan of the end.
                stream = next(stream for stream in context.resources.streams if stream.ordinal == step.ordinal)
                await context.passes.intend(
                    context.claim, replace(stream, retry_at=come_back, failed_at=None), context.lease
                )
            return come_back
        with telemetry.tracer.start_as_current_span(f"step {type(step).__name__}"), contextlib.suppress(Overtaken):
            await self._do(step)
        return None

    async def _do(self, step: Step) -> None:
        context = self._context
        match step:
            case CreateRoom() | AskForRoom() | DeleteRoom():
                await rooms.carry_out(context, step)
            case (
                CreateStream()
                | DisableStream()
                | SettleRecordings()
                | DeleteStream()
                | ResetKey()
                | CutStream()
                | SetTitle()
            ):
                await streams.carry_out(context, step)
            case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
                await egresses.carry_out(context, step)
            case StartRecording() | StopRecording() | UploadRecording() | DeleteUpload():
                await recordings.carry_out(context, step)
            case WriteOff():
                await self._write_off(step)
            case SetFallback():
                await self._set_fallback(step)
            case SetCostLevel():
                await self._set_cost_level(step)
            case SetDelivery():
                await self._set_delivery(step)
            case BeginScheduled() | EndBroadcast():
                await self._set_target(step)
            case _:
                assert_never(step)

    async def _set_target(self, step: BeginScheduled | EndBroadcast) -> None:
        if isinstance(step, BeginScheduled):
            failpoint("schedule.before_record")
            await self._context.record(begun=step.scheduled)
            failpoint("schedule.after_record")
            return
        ending = Event(reason=EventReason.ENDING, message=step.reason)
        await self._context.record(events=[ending], end=step.reason)
        failpoint("end.after_record")

    async def _set_fallback(self, step: SetFallback) -> None:
        fallback = step.fallback
        modes = ", ".join(fallback.modes)
        event = Event(
            reason=EventReason.FALLBACK_ENTERED if modes else EventReason.FALLBACK_LEFT,
            message=f"{fallback.reason} {modes}".strip(),
        )
        failpoint("fallback.before_record")
        await self._context.record(fallback=fallback, events=[event])
        failpoint("fallback.after_record")

    async def _set_cost_level(self, step: SetCostLevel) -> None:
        failpoint("cost.before_record")
        event = Event(reason=LEVEL_TOLD[step.level], message=step.message)
        await self._context.record(cost_level=step.level, events=[event])
        failpoint("cost.after_record")

    async def _set_delivery(self, step: SetDelivery) -> None:
        delivery = step.delivery
        failpoint("delivery.before_record")
        await self._context.record(delivery=delivery, events=[delivery_event(delivery)])
        failpoint("delivery.after_record")

    async def _write_off(self, step: WriteOff) -> None:
        context, held = self._context, self._context.resources
        everything = (*held.streams, *held.egresses, *held.recordings, *held.uploads)
        resource = next(each for each in everything if each.kind is step.kind and each.ordinal == step.ordinal)
        gone = written_off(resource, context.now())
        fault = gone.fault if isinstance(gone, Egress | LocalRecording) else Fault.NONE
        message = f"{' '.join(filter(None, (gone.external_id, fault)))}: {step.why}".removeprefix(": ")
        await context.record([gone], events=[Event(reason=WRITTEN_OFF[step.kind], message=message)])
        failpoint("write_off.after_record")
