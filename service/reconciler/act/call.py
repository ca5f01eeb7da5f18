"""What every step does around its call: the time, the intent before it, and what becomes of a failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from service.domain.broadcast import seconds
from service.domain.errors import LeaseLost, Outcome, ProviderError
from service.domain.resources import AnyResource, Egress, LocalRecording, Phase, Room, Stream, Upload
from service.failpoints import failpoint
from service.reconciler.act.requests import backoff, trouble_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.domain.provider import Provider
    from service.domain.situation import Situation
    from service.store.leases import Claim
    from service.store.passes import Passes


_Created = TypeVar("_Created", Stream, Egress, LocalRecording, Upload)
_Stopped = TypeVar("_Stopped", Egress, LocalRecording)


class Errand:
    """One situation of one claim, in which steps are carried out."""

    def __init__(self, claim: Claim, situation: Situation, passes: Passes, lease: timedelta) -> None:
        self.claim = claim
        self.broadcast = situation.broadcast
        self._situation = situation
        self._passes = passes
        self._lease = lease

    def now(self) -> datetime:
        """The database's time, moved on by our own clock: what a call told is as old as its end.

        From the moment of the reading on: looks may have taken long since, and an egress that seems older than it is
        would be missed in a list that cannot show it yet.
        """
        return self._situation.now + seconds(asyncio.get_running_loop().time() - self._situation.read)

    async def intend(self, resource: AnyResource, point: str, *, creates: bool = False) -> None:
        """The intent, and the last look at the clock before the call.

        A process that was stopped here for longer than its lease must not call any more: another replica has looked.
        *creates*: what a stop that was committed since the plan was made must keep from happening; so is every create.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        planned_for = self.broadcast.target if creates or resource.phase is Phase.INTENDED else None
        await self._passes.intend(self.claim, resource, self._lease, planned_for=planned_for)
        failpoint(f"{point}.after_intent")
        if loop.time() - began > self._lease.total_seconds() / 2:
            raise LeaseLost(self.claim.broadcast_id)
        failpoint(f"{point}.before_call")

    def retry(self, failures: int, error: ProviderError) -> datetime:
        return self.now() + max(backoff(failures), error.retry_after or timedelta())

    def not_created(self, resource: _Created, failures: int, error: ProviderError) -> _Created:
        """What a create without success leaves: UNKNOWN where it may have been done, nothing otherwise."""
        ambiguous = error.outcome is Outcome.AMBIGUOUS
        return replace(
            resource,
            phase=Phase.UNKNOWN if ambiguous else Phase.GONE,
            failures=failures,
            retry_at=None if ambiguous else self.retry(failures, error),
            refused=error.outcome is Outcome.REFUSED,
        )

    def leaving(self, resource: _Stopped) -> _Stopped:
        """A stop that a cut-off pass intended, and nobody answered, begins anew: its time to be seen runs from here."""
        if resource.phase is Phase.DELETING and (resource.acked or resource.failures):
            return resource
        return replace(resource, phase=Phase.DELETING, changed_at=self.now(), acked=False, failures=0, retry_at=None)

    async def failed(self, resource: AnyResource, error: ProviderError, *, not_within: timedelta = timedelta()) -> None:
        """A call that changed nothing, or nobody knows; what it was about is tried again later."""
        failures = resource.failures + 1
        retry_at = max(self.retry(failures, error), self.now() + not_within)
        await self._passes.record(
            self.claim,
            [replace(resource, failures=failures, retry_at=retry_at)],
            trouble=trouble_of(error, self.now()),
        )

    async def delete(
        self,
        resource: Room | Stream | Upload,
        call: Callable[[str], Coroutine[Any, Any, None]],
        point: str,
        provider: Provider,
    ) -> None:
        leaving = replace(resource, phase=Phase.DELETING, changed_at=self.now(), acked=False)
        await self.intend(leaving, point)
        try:
            await call(resource.external_id or self.broadcast.id)
        except ProviderError as error:
            await self.failed(leaving, error)
            return
        failpoint(f"{point}.after_call")
        await self._passes.record(
            self.claim, [replace(leaving, acked=True, failures=0, retry_at=None)], recovered=provider
        )
        failpoint(f"{point}.after_record")
