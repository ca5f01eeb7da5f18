"""Answers that are wrong: one source lies, the others tell the truth. Nothing that delivers is touched."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from service.domain.broadcast import ConditionType, State
from tests.simulation.stage import ID, Stage, play

_NOTHING: dict[str, Callable[[Any], Any]] = {
    "ListEgress": lambda _: [],
    "ListParticipants": lambda answer: type(answer)(),
    "ListRooms": lambda answer: [] if isinstance(answer, list) else None,
    "list_live_streams": lambda answer: ([], answer[1]) if isinstance(answer, tuple) else [],
}
_ANY = [names for n in range(1, len(_NOTHING) + 1) for names in itertools.combinations(sorted(_NOTHING), n)]


def _lie(stage: Stage, names: tuple[str, ...]) -> None:
    for network in (stage.shared.at_livekit, stage.shared.at_mux):
        network.lies = {name: _NOTHING[name] for name in names}


@pytest.mark.parametrize("for_s", [1, 12, 60])
@pytest.mark.parametrize("names", _ANY, ids=",".join)
@pytest.mark.parametrize("webhooks", [False, True])
def test_lists_that_are_empty_interrupt_nothing(names: tuple[str, ...], for_s: float, webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        writes, told = stage.writes(), len(stage.reasons)
        _lie(stage, names)
        stage.world.tables.wake([ID])
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, for_s)
        _lie(stage, ())
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert stage.running == [running]
        assert writes == []
        assert not {"EGRESS_LOST", "ROOM_LOST", "STREAM_LOST", "HOST_STOPPED"} & set(stage.reasons[told:])
        met = {each.type: each.met for each in stage.broadcast.status.conditions}
        assert met[ConditionType.ROOM_READY] is met[ConditionType.EGRESS_RUNNING] is True

    play(scene, webhooks=webhooks)
