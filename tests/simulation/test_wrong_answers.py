"""Answers that are wrong: one source lies, the others tell the truth. Nothing that delivers is touched."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from service.domain.broadcast import ConditionType, State
from service.domain.reasons import Fault
from service.domain.resources import EgressStatus
from tests.simulation.faults import Kind
from tests.simulation.providers.lies import LISTS, Lie
from tests.simulation.providers.network import Call
from tests.simulation.stage import ID, Stage, play

_LISTS = sorted(itertools.chain(*LISTS.values()))
_ANY = [names for n in range(1, len(_LISTS) + 1) for names in itertools.combinations(_LISTS, n)]
_BAD = {"EGRESS_LOST", "ROOM_LOST", "STREAM_LOST"}


def _lie(stage: Stage, kind: Kind, names: tuple[str, ...], for_s: float) -> None:
    for network in (stage.shared.at_livekit, stage.shared.at_mux):
        network.lie = Lie(
            kind=kind,
            names=frozenset(names) & frozenset(LISTS[network.name]),
            until=stage.now + for_s,
            rng=stage.world.env.rng,
            strange=stage.shared.strangers.own,
        )


@pytest.mark.parametrize("for_s", [1, 12, 60])
@pytest.mark.parametrize("names", _ANY, ids=",".join)
@pytest.mark.parametrize("webhooks", [False, True])
def test_lists_that_are_empty_interrupt_nothing(names: tuple[str, ...], for_s: float, webhooks: bool) -> None:  # noqa: FBT001
    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        writes, told = stage.writes(), len(stage.reasons)
        _lie(stage, Kind.LIST_EMPTY, names, for_s)
        stage.world.tables.wake([ID])
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, for_s + 60)
        assert stage.running == [running]
        assert writes == []
        assert not {*_BAD, "HOST_STOPPED"} & set(stage.reasons[told:])
        met = {each.type: each.met for each in stage.broadcast.status.conditions}
        assert met[ConditionType.ROOM_READY] is met[ConditionType.EGRESS_RUNNING] is True

    play(scene, webhooks=webhooks)


@pytest.mark.parametrize("for_s", [1, 12, 60])
@pytest.mark.parametrize("names", [*((name,) for name in _LISTS), *LISTS.values()], ids=",".join)
@pytest.mark.parametrize("kind", [Kind.LIST_STALE, Kind.LIST_SHORT, Kind.LIST_FOREIGN])
def test_other_lies_change_nothing_at_the_providers(kind: Kind, names: tuple[str, ...], for_s: float) -> None:
    async def scene(stage: Stage) -> None:
        stage.shared.strangers.come()
        await stage.live()
        [running] = stage.running
        stage.shared.strangers.record(running.room)
        writes, told = stage.writes(), len(stage.reasons)
        _lie(stage, kind, names, for_s)
        stage.world.tables.wake([ID])
        await stage.all_the_while(lambda: stage.plays, for_s + 60)
        assert running in stage.running
        assert writes == []
        assert not _BAD & set(stage.reasons[told:])
        await stage.until(lambda: stage.broadcast.state is State.LIVE, 15)

    play(scene)


def _lost(stage: Stage) -> list[str]:
    return [each.external_id for each in stage.egresses if each.fault is Fault.LOST]


def test_a_dead_record_that_comes_back_is_given_up_once() -> None:
    """The record of an egress whose worker died stays ACTIVE for ever and answers no stop. A lie loses it, the truth
    brings it back, and it must not come back each time that it is given up.
    """

    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        stage.livekit.become_ghost(running)
        _lie(stage, Kind.LIST_FOREIGN, ("ListEgress",), 240)
        await stage.until(lambda: bool(_lost(stage)), 240)
        [lost] = _lost(stage)
        await stage.until(lambda: stage.livekit.egresses[lost].status is EgressStatus.ACTIVE, 10)
        stage.livekit.become_ghost(stage.livekit.egresses[lost])
        stage.shared.at_livekit.lie = None
        await stage.until(lambda: "EGRESS_SURPLUS" in stage.reasons, 300)
        await stage.until(lambda: "EGRESS_WRITTEN_OFF" in stage.reasons[stage.reasons.index("EGRESS_SURPLUS") :], 120)
        told = len(stage.reasons)
        for _ in range(20):
            stage.world.tables.wake([ID])
            await stage.all_the_while(lambda: True, 60)
        assert stage.reasons[told:].count("EGRESS_SURPLUS") == 0
        assert stage.plays

    play(scene)


@pytest.mark.parametrize("webhooks", [False, True])
def test_one_answer_that_the_live_stream_does_not_exist_ends_nothing(webhooks: bool) -> None:  # noqa: FBT001
    """For 1.5 s Mux knows no live stream by its id, while its list has it. The broadcast would have FAILED for ever."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        [running] = stage.running
        network = stage.shared.at_mux
        asked = network.ask

        async def ask(call: Call, subject: str, effect: Callable[[], Any]) -> Any:
            answer = await asked(call, subject, effect)
            return None if call.name == "get_live_stream" else answer

        network.ask = ask
        stage.world.tables.wake([ID])
        await asyncio.sleep(1.5)
        network.ask = asked
        await stage.all_the_while(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert stage.running == [running]
        assert "STREAM_LOST" not in stage.reasons

    play(scene, webhooks=webhooks)


def test_an_empty_list_of_participants_while_an_egress_starts_is_no_host_who_left() -> None:
    """Nothing is delivered yet that would contradict it, and the list of rooms counts the host."""

    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        life.host_comes()
        await stage.until(lambda: "EGRESS_STARTED" in stage.reasons, 60)
        _lie(stage, Kind.LIST_EMPTY, ("ListParticipants",), 6)
        stage.world.tables.wake([ID])
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 90)
        assert "HOST_STOPPED" not in stage.reasons

    play(scene)
