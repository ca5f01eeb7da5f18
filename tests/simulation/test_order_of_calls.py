"""In which order the providers are called: at a start without an answer, after a ghost. The end: test_end_of_a_show."""

from __future__ import annotations

from typing import NoReturn

import pytest

from service.domain.broadcast import EndReason, State
from service.domain.errors import Outcome
from service.domain.ports import EgressSeen, EgressWanted
from service.domain.reasons import Operation
from tests.simulation.providers.egresses import failure
from tests.simulation.stage import Stage, play


def test_a_room_that_is_never_created_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> NoReturn:
        raise failure(Operation.CREATE_ROOM, Outcome.UNAVAILABLE, "unavailable")

    async def scene(stage: Stage) -> None:
        life = stage.prepare(replicas=2)
        monkeypatch.setattr(stage.livekit, "create_room", no)
        await life.create()
        await life.start()
        await stage.until(lambda: stage.broadcast.end_reason is EndReason.START_TIMEOUT, 135)

    play(scene)


def test_a_start_without_an_answer_is_looked_for_and_fenced_long_before_its_grace_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And when it lands at last, it cannot publish."""

    async def scene(stage: Stage) -> None:
        start = stage.livekit.start
        asked: list[EgressWanted] = []

        def lands_late(wanted: EgressWanted) -> EgressSeen:
            asked.append(wanted)
            if len(asked) > 1:
                return start(wanted)
            stage.world.env.loop.call_later(40, lambda: start(wanted))
            raise failure(Operation.START_EGRESS, Outcome.AMBIGUOUS, "deadline_exceeded")

        monkeypatch.setattr(stage.livekit, "start", lands_late)
        life = await stage.begin()
        writes = stage.writes()
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE, 35)
        assert writes == ["StartEgress", "reset_stream_key", "StartEgress"]
        await stage.until(lambda: len(stage.livekit.egresses) == 2, 60)
        await stage.all_the_while(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)

    play(scene)


def test_a_ghost_is_stopped_fenced_cut_off_and_replaced() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        writes = stage.writes()
        stage.livekit.become_ghost(stage.running[0])
        await stage.until(lambda: stage.broadcast.state is not State.LIVE, 60)
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 110)
        # The key is reset beside the first stop: what may be wedged is not waited for.
        assert "StopEgress" in writes[:2]
        fenced = [name for name in writes if name != "StopEgress"]
        assert fenced == ["reset_stream_key", "disable_live_stream", "enable_live_stream", "StartEgress"]

    play(scene)
