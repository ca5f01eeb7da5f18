"""One replica whose credentials a provider refuses: the others do its work, and nobody is told of an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

from service.domain.broadcast import ConditionType, State
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import ROOMS, STREAMS, Provider
from tests.simulation.providers.network import Call, Network
from tests.simulation.replica import Replica
from tests.simulation.stage import Stage, play

_T = TypeVar("_T")


def _refuse(replicas: Iterable[Replica], provider: Provider) -> list[str]:
    """Answers the calls that are refused, as they are made."""
    refused: list[str] = []
    for replica in replicas:
        asked = replica.call

        async def call(
            network: Network,
            call: Call,
            subject: str,
            effect: Callable[[], _T],
            asked: Callable[[Network, Call, str, Callable[[], _T]], object] = asked,  # pyright: ignore[reportArgumentType]
        ) -> _T:
            if network.name == str(provider):
                refused.append(call.name)
                await asyncio.sleep(0.02)
                raise ProviderError(
                    "no", provider=provider, operation=call.operation, outcome=Outcome.CREDENTIALS, code="401"
                )
            return await asked(network, call, subject, effect)  # type: ignore[misc]

        replica.call = call  # pyright: ignore[reportAttributeAccessIssue]
    return refused


def _holder(stage: Stage, duty: str) -> str:
    return stage.world.tables.duties[duty][0]


@pytest.mark.parametrize("provider", [ROOMS, STREAMS])
@pytest.mark.parametrize("webhooks", [False, True])
def test_the_replica_that_observes_is_refused_and_no_show_is_touched(provider: Provider, webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        writes, told = stage.writes(), len(stage.reasons)
        wrong = _holder(stage, "observer")
        _refuse([each for each in stage.world.replicas if each.name == wrong], provider)
        await stage.all_the_while(
            lambda: (
                stage.broadcast.state is State.LIVE
                and not stage.world.tables.outages()
                and not stage.broadcast.status.state_reason
            ),
            300,
        )
        assert _holder(stage, "observer") != wrong
        assert stage.running == [running]
        assert writes == []
        assert stage.reasons[told:] == []

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("provider", [ROOMS, STREAMS])
def test_a_show_starts_and_ends_although_one_replica_is_refused(provider: Provider) -> None:
    async def scene(stage: Stage) -> None:
        life = stage.prepare(replicas=3)
        refused = _refuse(stage.world.replicas[:1], provider)
        await life.create()
        await life.start()
        await stage.until(lambda: stage.broadcast.state is State.READY, 20)
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 90)
        await asyncio.sleep(60)
        assert len(stage.running) == 1
        # It is not asked again and again for what others can do.
        assert 1 <= len(refused) <= 5
        assert not stage.broadcast.fallback.modes
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 120)

    play(scene)


@pytest.mark.parametrize("provider", [ROOMS, STREAMS])
def test_where_all_are_refused_it_is_told_as_such(provider: Provider) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        _refuse(stage.world.replicas, provider)
        reason = f"{provider.upper()}_CREDENTIALS"
        await stage.until(lambda: stage.broadcast.status.state_reason == reason, 75)
        assert stage.broadcast.state is State.LIVE
        unknown = {each.type: each.reason for each in stage.broadcast.status.conditions if each.met is None}
        assert set(unknown.values()) == {reason}
        assert ConditionType.PLAYABLE in unknown

    play(scene)
