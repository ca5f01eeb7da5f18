"""A look that a pass misses is made within seconds: an error of the provider, or no token, is no reason to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from service.domain.broadcast import State
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import STREAMS
from service.domain.resources import Stream
from tests.simulation.providers.network import Call
from tests.simulation.stage import ID, Stage, play

_T = TypeVar("_T")
_BROKEN_S = 1.5


def _break(stage: Stage, operation: str) -> Callable[[], None]:
    network = stage.shared.at_mux
    asked = network.ask

    async def ask(call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        if call.name == operation:
            raise ProviderError(
                "so it says", provider=STREAMS, operation=call.operation, outcome=Outcome.AMBIGUOUS, code="503"
            )
        return await asked(call, subject, effect)

    network.ask = ask

    def mend() -> None:
        network.ask = asked

    return mend


async def _no_tokens(stage: Stage, for_s: float) -> None:
    ends = stage.now + for_s
    while stage.now < ends:
        for name, bucket in stage.world.tables.buckets.items():
            if name.startswith(STREAMS):
                bucket.tokens, bucket.refilled_at = 0.0, stage.world.tables.now()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["an error", "no token"])
@pytest.mark.parametrize("webhooks", [False, True])
def test_a_missed_look_at_a_live_show_is_made_within_seconds(how: str, webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.live()
        tables = stage.world.tables
        mend = _break(stage, "get_live_stream") if how == "an error" else lambda: None
        tables.wake([ID])
        doubted = tables.now()
        await (asyncio.sleep(_BROKEN_S) if how == "an error" else _no_tokens(stage, _BROKEN_S))
        mend()

        def looked() -> bool:
            [stream] = [each for each in stage.row.resources.values() if isinstance(each, Stream)]
            return stream.observed_at is not None and stream.observed_at >= doubted

        await stage.until(looked, 5)
        assert stage.broadcast.state is State.LIVE

    play(scene, webhooks=webhooks)


def test_a_provider_that_is_away_for_long_is_asked_ever_more_rarely() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        asked = 0
        mend = _break(stage, "get_live_stream")
        broken = stage.shared.at_mux.ask

        async def counted(call: Call, subject: str, effect: Callable[[], _T]) -> _T:
            nonlocal asked
            asked += call.name == "get_live_stream"
            return await broken(call, subject, effect)

        stage.shared.at_mux.ask = counted
        stage.world.tables.wake([ID])
        await asyncio.sleep(600)
        mend()
        assert 20 <= asked <= 80

    play(scene)
