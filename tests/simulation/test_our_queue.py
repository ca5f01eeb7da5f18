"""A start that waits in the queue of the service does not fail for it: the wait is no fault of a provider."""

from __future__ import annotations

from typing import NoReturn

import pytest

from service.domain.broadcast import State, seconds
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.providers.budget import Bucket
from tests.simulation.stage import Stage, play

WAIT_S = 400.0


def test_a_start_that_failed_once_waits_for_its_next_turn_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a thousand starts on one account: a live stream a second."""

    async def scene(stage: Stage) -> None:
        create, tried = stage.mux.create, list[float]()

        def fails_once(wanted: object) -> NoReturn:
            del wanted
            tried.append(stage.now)
            monkeypatch.setattr(stage.mux, "create", create)
            # So many are before it in the queue.
            bucket = stage.world.tables.buckets[Bucket.STREAMS_POST]
            last = stage.world.env.now() + seconds(WAIT_S)
            bucket.tokens, bucket.next_turns = 0.0, [last for _ in bucket.next_turns]
            raise ProviderError(
                "busy", provider=Provider.MUX, operation=Operation.CREATE_STREAM, outcome=Outcome.UNAVAILABLE
            )

        life = stage.prepare(replicas=2)
        monkeypatch.setattr(stage.mux, "create", fails_once)
        await life.create()
        await life.start()
        await stage.until(lambda: bool(tried), 10)
        await stage.all_the_while(lambda: stage.broadcast.state is State.STARTING, WAIT_S - 20)
        await stage.until(lambda: stage.broadcast.state is State.READY, 60)

    play(scene)
