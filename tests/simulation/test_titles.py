"""A title that is changed on air reaches the live stream, and is told as done only then."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NoReturn

import pytest

from service.domain import lifecycle
from service.domain.broadcast import State
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import EventReason, Operation
from tests.simulation.stage import ID, Stage, play


async def retitled(stage: Stage, title: str) -> None:
    spec = replace(stage.broadcast.spec, title=title)
    change = partial(lifecycle.update, etag="", spec=spec, keys={}, labels=None, paths=["title"])
    await stage.world.callers.change("UpdateBroadcast", ID, change)


def is_observed(stage: Stage) -> bool:
    return stage.broadcast.status.observed_generation == stage.broadcast.generation


@pytest.mark.parametrize("title", ["Second light", ""])
def test_a_title_that_is_changed_on_air_is_sent(title: str) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        assert is_observed(stage)
        writes = stage.writes()
        await retitled(stage, title)
        assert not is_observed(stage)
        await stage.until(lambda: is_observed(stage), 5)
        assert stage.stream.wanted.title == title
        assert writes == ["update_live_stream"]
        assert EventReason.TITLE_SET in stage.reasons
        assert stage.broadcast.state is State.LIVE

    play(scene)


def test_a_title_that_is_refused_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays unobserved, is tried again ever more rarely, and a fence does not wait for it."""

    async def scene(stage: Stage) -> None:
        def no(*_: object) -> NoReturn:
            raise ProviderError(
                "no", provider=Provider.MUX, operation=Operation.SET_TITLE, outcome=Outcome.REFUSED, code="400"
            )

        set_title = stage.mux.set_title
        await stage.live()
        monkeypatch.setattr(stage.mux, "set_title", no)
        writes = stage.writes()
        await retitled(stage, "Second light")
        await stage.until(lambda: writes.count("update_live_stream") >= 4, 30)
        assert not is_observed(stage)
        trouble = stage.broadcast.status.last_error
        assert trouble is not None
        assert trouble.operation is Operation.SET_TITLE
        assert stage.broadcast.state is State.LIVE
        stage.livekit.become_ghost(stage.running[0])
        await stage.until(lambda: "reset_stream_key" in writes and "StartEgress" in writes, 110)
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 110)
        monkeypatch.setattr(stage.mux, "set_title", set_title)
        await stage.until(lambda: is_observed(stage), 90)

    play(scene)


def test_a_title_that_is_changed_before_the_live_stream_exists_is_made_with_it() -> None:
    async def scene(stage: Stage) -> None:
        life = stage.prepare(replicas=2)
        await life.create()
        await retitled(stage, "Second light")
        writes = stage.writes()
        await life.start()
        await stage.until(lambda: stage.broadcast.state is State.READY, 10)
        assert stage.stream.wanted.title == "Second light"
        assert "update_live_stream" not in writes

    play(scene)
