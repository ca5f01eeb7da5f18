"""A room that no list shows when its broadcast ends. LiveKit deletes a room by its name, whosever it is."""

from __future__ import annotations

import pytest

from service.domain.broadcast import State
from service.domain.errors import Outcome, ProviderError
from service.domain.provider import Provider
from service.domain.reasons import Operation
from tests.simulation.faults import Kind
from tests.simulation.providers.lies import Lie
from tests.simulation.providers.network import Call
from tests.simulation.replica import Replica
from tests.simulation.stage import ID, Stage, play


def lists_are_empty(stage: Stage, *names: str, for_s: float) -> None:
    stage.shared.at_livekit.lie = Lie(
        kind=Kind.LIST_EMPTY, names=frozenset(names), until=stage.now + for_s, rng=stage.world.env.rng
    )


@pytest.mark.parametrize("hidden", [("ListRooms",), ("ListRooms", "ListParticipants")], ids=["one list", "both lists"])
def test_the_room_of_another_environment_is_not_deleted_unseen(hidden: tuple[str, ...]) -> None:
    """The create was not answered, so nobody ever saw whose room it is. While the list of rooms is empty it may be one
    with the same name, with people inside.
    """

    async def scene(stage: Stage) -> None:
        stage.shared.strangers.take_name(ID)
        writes = stage.writes()
        called = stage.shared.called

        def unanswered(replica: Replica, call: Call, subject: str) -> None:
            called(replica, call, subject)
            if call.name == "CreateRoom":
                raise ProviderError(
                    "no answer",
                    provider=Provider.LIVEKIT,
                    operation=Operation.CREATE_ROOM,
                    outcome=Outcome.AMBIGUOUS,
                    code="deadline_exceeded",
                )

        stage.shared.called = unanswered
        life = stage.prepare()
        await life.create()
        await life.start()
        await stage.until(lambda: "CreateRoom" in writes, 10)
        lists_are_empty(stage, *hidden, for_s=20)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state.over, 60)
        assert "DeleteRoom" not in writes
        assert ID in stage.livekit.rooms

    play(scene)


def test_a_room_of_ours_is_asked_for_by_a_create_and_deleted() -> None:
    """The create answers with its sid, so it is there and ours, whatever the list says."""

    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)
        writes = stage.writes()
        lists_are_empty(stage, "ListRooms", for_s=60)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 20)
        assert ID not in stage.livekit.rooms
        assert writes.index("CreateRoom") < writes.index("DeleteRoom")

    play(scene)


def test_a_room_of_others_in_the_place_of_ours_is_not_deleted_unseen() -> None:
    """Ours closed, and another environment made one with its name. No list shows either."""

    async def scene(stage: Stage) -> None:
        await stage.begin()
        lists_are_empty(stage, "ListRooms", "ListParticipants", for_s=60)
        stage.livekit.delete_room(ID, "timeout")
        stage.shared.strangers.take_name(ID)
        writes = stage.writes()
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state.over, 60)
        assert "DeleteRoom" not in writes
        assert ID in stage.livekit.rooms

    play(scene)
