"""Steps of an egress: started, stopped, given another layout or other destinations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.domain.broadcast import seconds
from service.domain.errors import Outcome, ProviderError
from service.domain.lifecycle import Event
from service.domain.observing.provider_state import with_egress
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
from service.domain.resource_set import ResourceSet
from service.domain.resources import REFUSAL_FAULTS, Egress, EgressStatus, Phase, Room
from service.failpoints import failpoint
from service.reconciler.act.call import Errand
from service.reconciler.act.requests import names_of, pushes_of, trouble_of

if TYPE_CHECKING:
    from service.domain.timing import Timing
    from service.reconciler.act.requests import Providers
    from service.store.passes import Passes


class EgressSteps:
    def __init__(
        self, errand: Errand, resource_set: ResourceSet, passes: Passes, providers: Providers, timing: Timing
    ) -> None:
        self._errand = errand
        self._claim = errand.claim
        self._broadcast = errand.broadcast
        self._view = resource_set
        self._passes = passes
        self._providers = providers
        self._timing = timing

    async def carry_out(self, step: EgressStep) -> None:
        if isinstance(step, StartEgress):
            await self._start(step)
            return
        egress = next(egress for egress in self._view.egresses if egress.ordinal == step.ordinal)
        match step:
            case StopEgress():
                await self._stop(egress, step)
            case SetLayout():
                await self._set_layout(egress)
            case SetDestinations():
                await self._set_destinations(egress, step)

    async def _start(self, step: StartEgress) -> None:
        stream = self._view.stream
        assert stream is not None  # noqa: S101 - the plan starts none without
        failpoint("egress.start.before_intent")
        spec = self._broadcast.spec
        pushes = pushes_of(self._broadcast, stream, self._providers.streams)
        egress = Egress(
            ordinal=step.ordinal,
            phase=Phase.INTENDED,
            intended_at=self._errand.now(),
            changed_at=self._errand.now(),
            key_epoch=stream.key_epoch,
            layout=spec.layout,
            destinations=tuple(sorted(name for name in pushes if name)),
            pushes=pushes,
        )
        await self._errand.intend(egress, "egress.start")
        try:
            seen = await self._providers.egresses.start(
                EgressWanted(
                    room_name=self._broadcast.id,
                    encoding=spec.encoding,
                    audio_only=spec.audio_only,
                    layout=spec.layout,
                    pushes=tuple(Push(name=name, url=url) for name, url in pushes.items()),
                )
            )
        except ProviderError as error:
            await self._start_failed(egress, error)
            return
        failpoint("egress.start.after_call")
        started = replace(
            with_egress(egress, seen, names_of(self._broadcast, pushes, self._providers.egresses), self._errand.now()),
            phase=Phase.PRESENT,
            changed_at=self._errand.now(),
            external_id=seen.id,
            status=seen.status if seen.status is not EgressStatus.UNKNOWN else EgressStatus.STARTING,
            destinations=egress.destinations,
        )
        await self._passes.record(
            self._claim,
            [started],
            events=[Event(reason=EventReason.EGRESS_STARTED, message=seen.id)],
            recovered=ROOMS,
        )
        failpoint("egress.start.after_record")

    async def _start_failed(self, egress: Egress, error: ProviderError) -> None:
        failpoint("egress.start.after_failure")
        failures = len([e for e in self._view.egresses if e.failures]) + 1
        failed = self._errand.not_created(egress, failures, error)
        gone = failed.phase is Phase.GONE
        failed = replace(
            failed,
            # Refused before any worker took it: it cannot publish.
            end_seen=gone,
            error=error.message,
            fault=REFUSAL_FAULTS[error.outcome] if gone else Fault.NONE,
        )
        changed: list[Room | Egress] = [failed]
        room = self._view.room
        if error.outcome is Outcome.MISSING and room is not None:
            # The room is not there: whether it is coming back is for the next look to say.
            changed.append(replace(room, phase=Phase.UNKNOWN, changed_at=self._errand.now()))
        await self._passes.record(self._claim, changed, trouble=trouble_of(error, self._errand.now()))

    async def _stop(self, egress: Egress, step: StopEgress) -> None:
        leaving = self._errand.leaving(replace(egress, fault=step.fault or egress.fault))
        await self._errand.intend(leaving, "egress.stop")
        try:
            await self._providers.egresses.stop(egress.external_id)
        except ProviderError as error:
            await self._errand.failed(leaving, error)
            return
        failpoint("egress.stop.after_call")
        await self._passes.record(
            self._claim,
            [replace(leaving, acked=True, failures=0, retry_at=None)],
            events=[Event(reason=EventReason.EGRESS_STOP_SENT, message=step.why)],
            recovered=ROOMS,
        )
        failpoint("egress.stop.after_record")

    async def _set_layout(self, egress: Egress) -> None:
        layout = self._broadcast.spec.layout
        try:
            await self._providers.egresses.set_layout(egress.external_id, layout)
        except ProviderError as error:
            await self._errand.failed(egress, error)
            return
        failpoint("layout.set.after_call")
        await self._passes.record(
            self._claim,
            [replace(egress, layout=layout, failures=0, retry_at=None)],
            events=[Event(reason=EventReason.LAYOUT_SET, message=layout)],
            recovered=ROOMS,
        )
        failpoint("layout.set.after_record")

    async def _set_destinations(self, egress: Egress, step: SetDestinations) -> None:
        stream = self._view.stream
        assert stream is not None  # noqa: S101 - the plan starts none without
        wanted = pushes_of(self._broadcast, stream, self._providers.streams)
        pushes = {**egress.pushes, **{name: wanted[name] for name in step.add}}
        # As if it had failed without an answer, which is what a pass that is cut off leaves behind.
        grace = seconds(self._timing.update_grace_s if step.add else 0)
        await self._errand.intend(
            replace(egress, pushes=pushes, retry_at=self._errand.now() + grace), "destinations.set"
        )
        try:
            seen = await self._providers.egresses.set_pushes(
                egress.external_id,
                add=[Push(name=name, url=pushes[name]) for name in step.add],
                remove=[Push(name=name, url=pushes[name]) for name in step.remove if name in pushes],
            )
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                # Partly done perhaps, or done later: the next try comes after a look, when it is too late for that.
                late = step.add and error.outcome is Outcome.AMBIGUOUS
                wait = seconds(self._timing.update_grace_s if late else 0)
                await self._errand.failed(replace(egress, pushes=pushes), error, not_within=wait)
                return
            # What was to be removed had failed and left by itself; the rest is done.
            seen = None
        failpoint("destinations.set.after_call")
        now_has = tuple(sorted({*egress.destinations, *step.add} - {*step.remove}))
        updated = replace(egress, pushes=pushes, destinations=now_has)
        if seen is not None:
            names = names_of(self._broadcast, pushes, self._providers.egresses)
            updated = with_egress(updated, seen, names, self._errand.now())
        await self._passes.record(
            self._claim,
            [replace(updated, destinations=now_has, failures=0, retry_at=None)],
            events=[
                *(Event(reason=EventReason.DESTINATION_ADDED, message=name) for name in step.add),
                *(Event(reason=EventReason.DESTINATION_REMOVED, message=name) for name in step.remove),
            ],
            recovered=ROOMS,
        )
        failpoint("destinations.set.after_record")
