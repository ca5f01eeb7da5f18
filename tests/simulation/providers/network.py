"""The way to a provider: every call may fail in each of the ways of `Outcome`, may be answered late or never, and may
have its effect long after its caller gave up. Within the time limits of the real adapters.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.providers.text.readable import readable
from tests.simulation.faults import Kind
from tests.simulation.providers.lies import NoAnswer

if TYPE_CHECKING:
    from tests.simulation.environment import Environment
    from tests.simulation.providers.lies import Lie

_T = TypeVar("_T")
LATE_S = (9.0, 88.0)
"""Seconds from a create to its late effect: LiveKit tries for 70 s (livekit/protocol rpc/egress_client.go)."""
NO_WORKER_S = (21.7, 24.3)
"""From a start that no worker takes to its refusal (measured, livekit-server 1.13.5)."""
HELD, HELD_S = 0.2, 1.0
"""How often a worker took a start that was refused or given up, and how late it is shown then (livekit/egress#720)."""
LATE_UPLOAD_S = (9.0, 900.0)
"""The same for an upload. No document gives a limit, so it may land after the time in which it is looked for."""
LATE_WRITE_S = (1.0, 15.0)
"""The same for other writes: the request waited in a proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    until: float
    mode: str
    """refused, unavailable, silent (no effect and no answer), mute (the effect, and no answer)."""


@dataclass(frozen=True, slots=True)
class Call:
    provider: str
    name: str
    within_s: float
    writes: bool = False
    creates: bool = False
    late: tuple[float, float] | None = None
    """Seconds until the effect of a create that the provider goes on with after its caller has left."""

    @property
    def starts_egress(self) -> bool:
        return self.name in ("StartEgress", "StartFileEgress")

    @property
    def operation(self) -> Operation:
        """As the adapters name it: they start an egress of either sort by one call."""
        return Operation.START_EGRESS if self.starts_egress else Operation(self.name)


LIST_EGRESS = Call("livekit", "ListEgress", 5.0)
GET_EGRESS = Call("livekit", "ListEgress", 5.0)
"""The same call, for one id."""


class _Late:
    """An effect that lands once, long after its caller gave up."""

    def __init__(self, network: Network, operation: str, effect: Callable[[], object]) -> None:
        self._network = network
        self._operation = operation
        self._effect: Callable[[], object] | None = effect

    def land(self) -> None:
        effect, self._effect = self._effect, None
        if effect is not None:
            self._network.env.trace.add("late effect", self._operation)
            self._network.land(effect)

    def give_up(self) -> None:
        self._effect = None


class Network:
    """The network between the replicas and one provider."""

    def __init__(self, name: str, env: Environment) -> None:
        self.name = name
        self.env = env
        self.outage: Outage | None = None
        self.lie: Lie | None = None
        self.lied: defaultdict[str, list[float]] = defaultdict(list)
        """When wrong answers were given, by the name of the call."""
        self.worker_is_free: Callable[[], bool] = lambda: True
        """Whether a start of an egress finds a worker."""
        self._late: dict[str, list[_Late]] = {}
        """Effects that are yet to land, by their subject."""

    async def ask(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        env = self.env
        where = f"{call.provider}.{call.name}"
        if self.outage is not None and env.loop.time() < self.outage.until:
            env.faults.count(Kind.OUTAGE, where)
            return await self._in_outage(call, effect, self.outage.mode)
        if call.starts_egress and not self.worker_is_free():
            await asyncio.sleep(env.rng.uniform(*NO_WORKER_S))
            raise self._error(call, Outcome.UNAVAILABLE)
        match env.faults.of_call(where, writes=call.writes, creates=call.creates):
            case None:
                await asyncio.sleep(env.rng.uniform(0.02, 1.5 if call.writes and self.name == "mux" else 0.25))
                return self._answer(call, subject, effect)
            case Kind.SLOW:
                await asyncio.sleep(env.rng.uniform(1.0, call.within_s * 0.95))
                return self._answer(call, subject, effect)
            case Kind.NO_EFFECT | Kind.LOST_REPLY | Kind.LATE_EFFECT as fault:
                await self._unanswered(fault, call, subject, effect)
                raise self._error(call, Outcome.AMBIGUOUS)
            case fault:
                raise await self._refusal(fault, call, effect)

    def _answer(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        answer = effect()
        if self.lie is not None and self.lie.about(call, self.env.loop.time()):
            self.env.faults.count(self.lie.kind, f"{call.provider}.{call.name}")
            self.lied[call.name].append(self.env.loop.time())
            try:
                return self.lie.told(call, subject, answer)
            except NoAnswer:
                raise self._error(call, Outcome.AMBIGUOUS) from None
        if call is LIST_EGRESS:
            # The worst moment for a start to land is right after somebody looked.
            for late in self._late.pop(subject, ()):
                if self.env.rng.random() < 0.9:
                    self.env.after(0, 0.05, late.land)
        return answer

    async def _refusal(self, fault: Kind, call: Call, effect: Callable[[], object]) -> ProviderError:
        rng = self.env.rng
        match fault:
            case Kind.NOT_SENT:
                await asyncio.sleep(rng.uniform(0.01, 2.0))
                return self._error(call, Outcome.NOT_SENT)
            case Kind.THROTTLED:
                await asyncio.sleep(rng.uniform(0.02, 0.1))
                return self._error(call, Outcome.THROTTLED, rng.choice([None, 1.0, 5.0]))
            case Kind.REFUSED:
                await asyncio.sleep(0.1)
                return self._error(call, Outcome.REFUSED)
            case _ if call.starts_egress:
                await asyncio.sleep(rng.uniform(*NO_WORKER_S))
                if rng.random() < HELD:
                    self.env.after(0, HELD_S, lambda: self.land(effect))
                return self._error(call, Outcome.UNAVAILABLE)
            case _:
                await asyncio.sleep(rng.uniform(0.02, 0.5))
                return self._error(call, Outcome.AMBIGUOUS if call.provider == "mux" else Outcome.UNAVAILABLE)

    async def _unanswered(self, fault: Kind, call: Call, subject: str, effect: Callable[[], object]) -> None:
        rng, within_s = self.env.rng, call.within_s
        # A connection breaks at any time, or nothing comes until the time is up.
        patience = rng.choice((within_s, rng.uniform(0.1, within_s)))
        if fault is Kind.LOST_REPLY:
            spent = rng.uniform(0.02, patience)
            await asyncio.sleep(spent)
            self.land(effect)
            await asyncio.sleep(patience - spent)
            return
        if fault is Kind.LATE_EFFECT:
            late = _Late(self, call.name, effect)
            self._late.setdefault(subject, []).append(late)
            self.env.after(*(call.late or LATE_WRITE_S), late.land)
            try:
                await asyncio.sleep(patience)
            except asyncio.CancelledError:
                if call.starts_egress:
                    self._hung_up(late)
                raise
            return
        await asyncio.sleep(patience)

    def _hung_up(self, late: _Late) -> None:
        """The server stops its tries, and a worker that took the request before goes on with it (measured,
        livekit-server 1.13.5).
        """
        if self.env.rng.random() < HELD:
            self.env.after(0, HELD_S, late.land)
        else:
            late.give_up()

    async def _in_outage(self, call: Call, effect: Callable[[], _T], mode: str) -> _T:
        if mode == "refused":
            await asyncio.sleep(0.02)
            raise self._error(call, Outcome.NOT_SENT)
        if mode == "unavailable":
            await asyncio.sleep(0.05)
            raise self._error(call, Outcome.AMBIGUOUS if call.provider == "mux" else Outcome.UNAVAILABLE)
        if mode == "mute" and call.writes:
            self.land(effect)
        await asyncio.sleep(call.within_s)
        raise self._error(call, Outcome.AMBIGUOUS)

    def refusal(self, call: Call) -> ProviderError:
        """The answer to a replica whose credentials are wrong."""
        self.env.faults.count(Kind.CREDENTIALS, f"{call.provider}.{call.name}")
        return self._error(call, Outcome.CREDENTIALS)

    def land(self, effect: Callable[[], object]) -> None:
        try:
            effect()
        except ProviderError as error:
            self.env.trace.add("unanswered", error.operation, error.outcome)

    def _error(self, call: Call, outcome: Outcome, retry_after: float | None = None) -> ProviderError:
        return ProviderError(
            # Providers echo secrets in their errors, and the adapters redact them.
            readable(self.env.canaries.echo(self.name)),
            provider=Provider(self.name),
            operation=call.operation,
            outcome=outcome,
            code=outcome.value,
            retry_after=None if retry_after is None else timedelta(seconds=retry_after),
        )
