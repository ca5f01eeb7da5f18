"""Two egresses in one room, of which one dies: who is left there hides, in LiveKit's list of rooms, who is missing.

Played as the rows of docs/failures.md are (test_failures.py), with every webhook lost.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from service.domain.broadcast import FallbackMode, State
from service.domain.ports import RoomInside
from tests.simulation.faults import Kind
from tests.simulation.providers import calls
from tests.simulation.providers.egresses import TrueEgress
from tests.simulation.providers.network import Outage
from tests.simulation.stage import Stage, play
from tests.simulation.test_failures import DOCS


async def beside_a_recording(stage: Stage) -> tuple[TrueEgress, TrueEgress]:
    """The egress and the file egress of a fallback, both at work: Mux was away, and answers again since a moment."""
    await stage.live()
    stage.shared.at_mux.outage = Outage(until=stage.now + 160, mode="refused")
    await stage.until(lambda: bool(stage.recording), 150)
    await asyncio.sleep(max(0.0, stage.shared.at_mux.outage.until - stage.now) + 12)
    assert stage.broadcast.fallback.modes == (FallbackMode.LOCAL_RECORDING,)
    [egress], [file] = stage.running, stage.recording
    return egress, file


GHOST_BESIDE = ("the worker dies beside a local recording", 60, 110)
GHOST_FILE = ("the worker of a local recording dies", 60, 60)


def test_a_worker_that_dies_beside_a_recording() -> None:
    """The room goes on being recorded, says LiveKit's list of rooms: who of the two is there it does not say."""
    _, notice_s, back_s = GHOST_BESIDE

    async def scene(stage: Stage) -> None:
        egress, file = await beside_a_recording(stage)
        told, began = len(stage.story), stage.now
        stage.livekit.befall(egress, Kind.EGRESS_GHOST)
        await stage.until(lambda: "KEY_RESET" in stage.reasons[told:], notice_s)
        assert stage.broadcast.state is State.INTERRUPTED
        assert stage.recording == [file], "it is in nobody's way"
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, back_s - (stage.now - began))
        assert [egress.fault for egress in stage.egresses if egress.fault][-1] == "GHOST"
        assert len(stage.running) == 1
        # The list shows it as active for ever, so nothing changes.
        await stage.until(lambda: not stage.broadcast.fallback.modes, 300)
        await asyncio.sleep(30)
        dirty = stage.broadcast.dirty_at
        await stage.all_the_while(lambda: stage.broadcast.dirty_at == dirty, 60)

    play(scene, storage=True)


@pytest.mark.parametrize("both", [False, True], ids=["alone", "with the one beside it"])
def test_a_worker_of_a_recording_that_dies(both: bool) -> None:  # noqa: FBT001 - a parameter
    _, notice_s, back_s = GHOST_FILE

    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.shared.at_mux.outage = Outage(until=stage.now + 400, mode="refused")
        await stage.until(lambda: bool(stage.recording), 150)
        await asyncio.sleep(12)
        [egress], [file] = stage.running, stage.recording
        told, began = len(stage.story), stage.now
        for dies in (file, egress) if both else (file,):
            stage.livekit.befall(dies, Kind.EGRESS_GHOST)
        await stage.until(lambda: "RECORDING_WRITTEN_OFF" in stage.reasons[told:], notice_s)
        await stage.until(lambda: bool(stage.recording), max(1.0, back_s - (stage.now - began)))
        assert both or stage.running == [egress]
        # The file of the first is lost with its worker, and its row stays gone.
        await stage.until(lambda: any(each.uploaded for each in stage.broadcast.status.recordings), 500)
        await stage.until(lambda: all(each.settled for each in stage.broadcast.status.recordings), 400)
        assert [each.complete for each in stage.recordings] == [False, True]
        assert stage.reasons[told:].count("RECORDING_WRITTEN_OFF") == 1
        await asyncio.sleep(30)
        dirty = stage.broadcast.dirty_at
        await stage.all_the_while(lambda: stage.broadcast.dirty_at == dirty, 60)

    play(scene, storage=True)


def test_who_is_in_a_room_is_asked_again_and_again_only_where_several_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    ask = calls.Rooms.inside

    async def counted(self: calls.Rooms, name: str) -> RoomInside:
        asked.append(asyncio.get_running_loop().time())
        return await ask(self, name)

    monkeypatch.setattr(calls.Rooms, "inside", counted)

    async def scene(stage: Stage) -> None:
        # With one that failed, and one whose worker died.
        await stage.live()
        stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        await asyncio.sleep(120)
        stage.livekit.befall(stage.running[0], Kind.EGRESS_GHOST)
        await asyncio.sleep(400)
        assert stage.broadcast.state is State.LIVE
        # A pass that was woken looks once.
        woken = len(asked)
        assert woken <= 20
        stage.shared.at_mux.outage = Outage(until=stage.now + 200, mode="refused")
        await stage.until(lambda: bool(stage.recording), 150)
        began = stage.now
        await asyncio.sleep(60)
        assert 2 <= len(asked) - woken <= 8
        await stage.until(lambda: not stage.broadcast.fallback.modes and not stage.recording, 400)
        await asyncio.sleep(30)
        assert len(asked) - woken <= (stage.now - began) / 10
        told = len(asked)
        await asyncio.sleep(300)
        assert len(asked) - told <= 1, "every 300 s everything is looked at"

    play(scene, storage=True)


def test_a_recording_that_answers_no_stop_is_told_again_more_and_more_rarely() -> None:
    """The list shows it as active for ever. It must not be taken for one that came back: it is stopped again because
    it is in its room, and that is looked at ever more rarely.
    """

    async def scene(stage: Stage) -> None:
        _, file = await beside_a_recording(stage)
        file.deaf_s = 10_000.0
        await stage.until(lambda: "RECORDING_WRITTEN_OFF" in stage.reasons, 240)
        told, dirty = len(stage.story), stage.broadcast.dirty_at
        await asyncio.sleep(330)
        assert 1 <= stage.reasons[told:].count("EGRESS_STILL_RUNS") <= 4
        assert "RECORDING_ADOPTED" not in stage.reasons[told:]
        assert stage.broadcast.dirty_at == dirty
        # The one that goes on must not hide that the other dies.
        stage.livekit.befall(stage.running[0], Kind.EGRESS_GHOST)
        await stage.until(lambda: "EGRESS_WRITTEN_OFF" in stage.reasons[told:], GHOST_BESIDE[1])

    play(scene, storage=True)


def test_the_table_says_what_was_seen() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", DOCS.read_text(), flags=re.MULTILINE))
    what, notice_s, back_s = GHOST_BESIDE
    assert rows[what] == f"{notice_s} s, back within {back_s} s"
    what, notice_s, again_s = GHOST_FILE
    assert rows[what] == f"{notice_s} s, recorded again within {again_s} s"
