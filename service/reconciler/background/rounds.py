"""The loop of every background task: one round at an interval, by one replica at a time, for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, final

import structlog

from service.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from datetime import timedelta

    from service.domain.provider import Provider
    from service.store.leases import Leases

log = structlog.get_logger(__name__)

_DUTY_ROUNDS = 3
"""A duty lasts for so many intervals: another replica takes it when its holder missed two rounds."""


_PATIENCE = 1.5
"""Intervals for which a replica that gave up a duty leaves it to others, each of which asks for it once an interval."""


_LONG_S = 1.0
"""A shorter round is not long, whatever the interval is."""


class RefusedHere(Exception):
    """A provider refuses the credentials of this replica, so another one may do better: the duty is given up."""

    def __init__(self, provider: Provider) -> None:
        super().__init__(provider)
        self.provider = provider


class Rounds(ABC):
    """One background task. Invariant: no error of a round ends the loop, only cancellation does.

    A duty saves work and excludes nothing: after a holder stood still, two replicas may do the same round at once. So a
    round must be harmless when it is done twice.
    """

    name: ClassVar[str]
    """Names the duty, the asyncio task and the log event `<name>_failed`."""
    shared: ClassVar[bool] = False
    """Whether every replica does rounds, because they claim what they do. False: one replica at a time, by a duty."""
    waits_first: ClassVar[bool] = False
    """Whether the first round comes one interval after the start instead of at once."""

    def __init__(self, leases: Leases, *, every: timedelta) -> None:
        """*every*: from the end of a round to the begin of the next; a fifth of it after a long round."""
        self._leases = leases
        self._every = every

    @abstractmethod
    async def round(self) -> None:
        """One round. It must end by itself. Raises StoreUnavailable, and RefusedHere where another replica may do
        better; a provider that does not answer is no error.
        """

    @final
    async def run(self) -> None:
        """Until it is cancelled."""
        if self.waits_first:
            await asyncio.sleep(self._every.total_seconds())
        while True:
            pause, began = self._every, asyncio.get_running_loop().time()
            try:
                if self.shared or await self._leases.take_duty(self.name, self._every * _DUTY_ROUNDS):
                    await self.round()
            except StoreUnavailable:
                # The next round tries again.
                pass
            except RefusedHere as refused:
                pause *= _PATIENCE
                await self._give_up(refused.provider)
            except Exception:
                # A bug of ours must not take the replica down: passes and callers do not depend on this task.
                event = f"{self.name}_failed"
                log.exception(event)
            if asyncio.get_running_loop().time() - began > max(pause.total_seconds() / 2, _LONG_S):
                # What a long round saw is old already.
                pause /= 5
            await asyncio.sleep(pause.total_seconds())

    async def _give_up(self, provider: Provider) -> None:
        log.warning("duty_given_up", duty=self.name, provider=provider, settings=provider.credentials)
        # Where this fails, the duty ends by itself.
        with contextlib.suppress(StoreUnavailable):
            await self._leases.give_up_duty(self.name)
