"""Every failure of the chain, one at a time, with every webhook lost: noticed in time, told, and answered.

The rows of docs/failures.md are these: the last test holds the two together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.domain.broadcast import Destination, DestinationState, EndReason, Spec, State
from service.domain.cost.money import CostCap
from service.domain.reasons import EventReason, Fault
from service.domain.resources import OutputState, RecordingStatus
from tests.simulation.effects import Effect
from tests.simulation.faults import Kind
from tests.simulation.providers.network import Outage
from tests.simulation.stage import HOST, ID, Stage, play

OUTSIDE = ("ROOM_LOST", "STREAM_LOST", "STREAM_DISABLED_OUTSIDE", "STREAM_ENABLED_OUTSIDE", "KEY_RESET_OUTSIDE")
DOCS = Path(__file__).parents[2] / "docs" / "failures.md"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Something breaks while a broadcast is LIVE, and viewers see pictures again."""

    what: str
    happens: Callable[[Stage], None]
    tells: str
    """The event that says that it was noticed."""
    notice_s: float
    back_s: float
    """From its happening until viewers see pictures again and LIVE is said."""
    fault: str = ""
    """The fault that its row must show."""
    blamed: bool = True
    """False: it may be stopped for want of a room before it is seen to end with it."""
    outside: str = ""
    """The event that says that it was not by us. It is told once."""


def _end(kind: Kind) -> Callable[[Stage], None]:
    def happens(stage: Stage) -> None:
        [egress] = stage.running
        stage.livekit.end(egress, kind)

    return happens


def _befalls(kind: Kind) -> Callable[[Stage], None]:
    def happens(stage: Stage) -> None:
        [egress] = stage.running
        stage.livekit.befall(egress, kind)

    return happens


def _wedges(*, monitored: bool) -> Callable[[Stage], None]:
    def happens(stage: Stage) -> None:
        [egress] = stage.running
        stage.livekit.wedge(egress, monitored=monitored)

    return happens


def _next_hangs(stage: Stage) -> None:
    [egress] = stage.running
    stage.livekit.hangs_next = True
    stage.livekit.end(egress, Kind.EGRESS_FAILED)


def _lose_room(stage: Stage) -> None:
    stage.livekit.delete_room(ID, "outside")
    # A browser comes back by itself.
    stage.world.env.loop.call_later(12, lambda: stage.livekit.join(ID, HOST))


def _reset_key(stage: Stage) -> None:
    stage.mux.reset_key(stage.stream)
    [egress] = stage.running
    stage.livekit.lose_connection(egress)


REPLACED = [
    Failure(
        what="the egress fails",
        happens=_end(Kind.EGRESS_FAILED),
        tells="EGRESS_ENDED",
        notice_s=15,
        back_s=75,
        fault=Fault.FAILED,
    ),
    Failure(
        what="the egress is aborted",
        happens=_end(Kind.EGRESS_ABORTED),
        tells="EGRESS_ENDED",
        notice_s=15,
        back_s=75,
        fault=Fault.ABORTED,
    ),
    Failure(
        what="the egress completes unasked",
        happens=_end(Kind.EGRESS_COMPLETE),
        tells="EGRESS_ENDED",
        notice_s=15,
        back_s=75,
        fault=Fault.COMPLETE,
    ),
    Failure(
        what="the egress reaches its limit",
        happens=_end(Kind.EGRESS_LIMIT),
        tells="EGRESS_ENDED",
        notice_s=15,
        back_s=75,
        fault=Fault.LIMIT_REACHED,
    ),
    Failure(
        what="the worker dies and leaves a ghost",
        happens=_befalls(Kind.EGRESS_GHOST),
        tells="KEY_RESET",
        notice_s=45,
        back_s=60,
        fault=Fault.GHOST,
    ),
    Failure(
        what="the connection to the live stream fails for good",
        happens=_befalls(Kind.OUTPUT_FAILED),
        tells="EGRESS_ENDED",
        notice_s=15,
        back_s=75,
        fault=Fault.FAILED,
    ),
    Failure(
        what="the push is wedged",
        happens=_wedges(monitored=True),
        tells="EGRESS_ENDED",
        notice_s=50,
        back_s=110,
        fault=Fault.FAILED,
    ),
    Failure(
        what="the push is wedged and LiveKit does not notice",
        happens=_wedges(monitored=False),
        tells="EGRESS_STOP_SENT",
        notice_s=150,
        back_s=165,
        fault=Fault.INGEST_LOST,
    ),
    Failure(
        what="connected, and no media",
        happens=_befalls(Kind.EGRESS_NO_MEDIA),
        tells="EGRESS_STOP_SENT",
        notice_s=150,
        back_s=165,
        fault=Fault.INGEST_LOST,
    ),
    Failure(
        what="an egress never gets its connection",
        happens=_next_hangs,
        tells="EGRESS_STOP_SENT",
        notice_s=70,
        back_s=115,
        fault=Fault.NOT_CONNECTED,
    ),
    Failure(
        what="the playlist stands still",
        happens=lambda stage: stage.mux.stall(stage.stream),
        tells="PLAYBACK_STALLED",
        notice_s=35,
        back_s=110,
        fault=Fault.STALLED,
    ),
    Failure(
        what="the room is deleted outside",
        happens=_lose_room,
        tells="ROOM_LOST",
        notice_s=15,
        back_s=75,
        fault=Fault.COMPLETE,
        blamed=False,
        outside="ROOM_LOST",
    ),
    Failure(
        what="the stream key is reset outside",
        happens=_reset_key,
        tells="EGRESS_ENDED",
        notice_s=35,
        back_s=90,
        fault=Fault.FAILED,
        outside="KEY_RESET_OUTSIDE",
    ),
]


@pytest.mark.parametrize("failure", REPLACED, ids=lambda failure: failure.what)
def test_it_is_noticed_told_and_mended(failure: Failure) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        told, began = len(stage.story), stage.now
        failure.happens(stage)
        await stage.until(lambda: failure.tells in stage.reasons[told:], failure.notice_s)
        broken = stage.broadcast
        assert broken.state is State.INTERRUPTED
        assert broken.status.state_reason
        await stage.until(
            lambda: stage.plays and stage.broadcast.state is State.LIVE, failure.back_s - (stage.now - began)
        )
        assert "STATE_INTERRUPTED" in stage.reasons[told:]
        faults = [egress.fault for egress in stage.egresses if egress.fault]
        assert faults[-1:] == [failure.fault] or (not failure.blamed and not faults)
        # Seen by us, done by somebody else.
        outside = [(failure.outside, "reconciler")] if failure.outside else []
        assert [(each.reason, each.actor) for each in stage.story if each.reason in OUTSIDE] == outside
        # Nothing was doubled on the way, and it stays so.
        await stage.all_the_while(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)
        assert len(stage.running) == 1

    play(scene)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Something after which there is nothing to go on with."""

    what: str
    happens: Callable[[Stage], None]
    reason: EndReason
    within_s: float
    outside: tuple[str, ...] = ()
    """The event that says that it was not by us. It is told once."""
    spec: Spec = field(default_factory=lambda: Spec(title="A show"))


ENDINGS = [
    Ending(
        what="the live stream is disabled outside",
        happens=lambda stage: stage.mux.disable(stage.stream, "outside"),
        reason=EndReason.STREAM_DISABLED,
        within_s=15,
        outside=("STREAM_DISABLED_OUTSIDE",),
    ),
    Ending(
        what="the live stream is deleted outside",
        happens=lambda stage: stage.mux.delete(stage.stream, "outside"),
        reason=EndReason.STREAM_LOST,
        within_s=15,
        outside=("STREAM_LOST",),
    ),
    Ending(
        what="the host leaves for good",
        happens=lambda stage: stage.livekit.leave(ID, HOST),
        reason=EndReason.HOST_LEFT,
        within_s=300 + 15,
    ),
    Ending(
        what="the longest duration is over",
        happens=lambda _: None,
        reason=EndReason.MAX_DURATION,
        within_s=120,
        spec=Spec(title="A show", max_duration_s=120),
    ),
    Ending(
        what="it has cost as much as its cost cap",
        happens=lambda _: None,
        reason=EndReason.COST_CAP,
        # Two minutes of egress and of input are 0.09 dollars.
        within_s=120 + 60,
        spec=Spec(title="A show", cost_cap=CostCap(nanos=90_000_000)),
    ),
]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.what)
def test_it_ends_with_the_reason(ending: Ending) -> None:
    async def scene(stage: Stage) -> None:
        await stage.live(ending.spec)
        ending.happens(stage)
        await stage.until(lambda: stage.broadcast.end_reason is ending.reason, ending.within_s)
        await stage.until(lambda: stage.broadcast.state.over, 60)
        assert stage.broadcast.state is (State.FAILED if ending.reason.failed else State.ENDED)
        assert stage.broadcast.status.state_reason == ending.reason
        assert not stage.running
        assert ID not in stage.livekit.rooms
        assert tuple(each for each in stage.reasons if each in OUTSIDE) == ending.outside

    play(scene)


def test_a_host_who_never_comes() -> None:
    async def scene(stage: Stage) -> None:
        await stage.begin()
        assert not stage.running
        await stage.until(lambda: stage.broadcast.end_reason is EndReason.NO_HOST, 1800 + 15)
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 30)

    play(scene)


def test_a_host_who_drops_and_comes_back() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.live()
        [egress] = stage.running
        life.host_leaves()
        await stage.until(lambda: stage.broadcast.state is State.INTERRUPTED, 15)
        assert stage.broadcast.status.state_reason == "NO_HOST"
        await asyncio.sleep(200)
        life.host_comes()
        await stage.until(lambda: stage.broadcast.state is State.LIVE, 15)
        # The egress waited for them: no start, no new recording.
        assert stage.running == [egress]

    play(scene)


def stick(stage: Stage, effect: Effect) -> None:
    """The first egress stays in STARTING."""
    if effect.kind == "egress.started" and len(stage.livekit.egresses) == 1:
        stage.livekit.befall(stage.livekit.egresses[effect.id], Kind.EGRESS_STUCK)


def test_an_egress_that_never_starts() -> None:
    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        # Before its worker has joined the room.
        stage.world.env.effects.watchers.append(lambda effect: stick(stage, effect))
        life.host_comes()
        await stage.until(lambda: bool(stage.running), 15)
        assert stage.running[0].stuck
        await stage.until(lambda: bool(stage.egresses[0].fault), 65)
        assert stage.egresses[0].fault == "START_TIMEOUT"
        await stage.until(lambda: stage.broadcast.state is State.LIVE and stage.plays, 60)

    play(scene)


def test_one_of_several_destinations_fails() -> None:
    async def scene(stage: Stage) -> None:
        places = tuple(Destination(name=name, url=f"rtmps://{name}.example/live") for name in ("one", "two"))
        await stage.live(Spec(title="A show", destinations=places))
        [egress] = stage.running
        stage.livekit.fail_destination(egress, "one")

        def states() -> dict[str, DestinationState]:
            return {each.name: each.state for each in stage.broadcast.status.destinations}

        await stage.until(lambda: states()["one"] is DestinationState.FAILED, 15)
        assert states()["two"] is DestinationState.ACTIVE
        assert [event.message for event in stage.story if event.reason == "DESTINATION_FAILED"] == ["one"]
        await asyncio.sleep(60)
        assert stage.running == [egress]
        assert stage.plays
        assert stage.broadcast.state is State.LIVE

    play(scene)


def test_a_destination_that_refuses_is_tried_ten_times_and_stopped() -> None:
    """The live stream and the other destination go on through all of it, with the same egress."""

    async def scene(stage: Stage) -> None:
        places = tuple(Destination(name=name, url=f"rtmps://{name}.example/live") for name in ("one", "two"))
        await stage.live(Spec(title="A show", destinations=places))
        [egress] = stage.running

        def state(name: str) -> DestinationState:
            return next(each.state for each in stage.broadcast.status.destinations if each.name == name)

        def told(reason: EventReason) -> int:
            return sum(event.reason == reason for event in stage.story)

        def refuse() -> None:
            outputs = [each for each in egress.outputs if each.name == "one"]
            if outputs[-1].state in (OutputState.CONNECTING, OutputState.ACTIVE):
                stage.livekit.fail_destination(egress, "one")

        def undisturbed() -> bool:
            refuse()
            return stage.plays and stage.running == [egress] and state("two") is DestinationState.ACTIVE

        began = stage.now
        while state("one") is not DestinationState.STOPPED:
            await stage.all_the_while(undisturbed, 5)
            assert stage.now - began < 660
        tries = len([each for each in egress.outputs if each.name == "one"])
        assert (tries, told(EventReason.DESTINATION_RETRIED), told(EventReason.DESTINATION_STOPPED)) == (10, 9, 1)
        await stage.all_the_while(undisturbed, 1200)
        assert len([each for each in egress.outputs if each.name == "one"]) == tries
        assert stage.broadcast.state is State.LIVE
        # The next egress is not given it either.
        stage.livekit.end(egress, Kind.EGRESS_FAILED)
        await stage.until(lambda: stage.plays and stage.running != [egress], 75)
        [second] = stage.running
        assert {each.name for each in second.outputs} == {"", "two"}
        assert state("one") is DestinationState.STOPPED

    play(scene)


def test_a_connection_that_comes_back_by_itself_is_nothing_to_act_on() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        [egress] = stage.running
        stage.livekit.befall(egress, Kind.RTMP_LOST)
        await asyncio.sleep(40)
        assert stage.running == [egress]
        assert stage.broadcast.state is State.LIVE

    play(scene)


@pytest.mark.parametrize("mode", ["refused", "unavailable", "silent", "mute"])
@pytest.mark.parametrize("provider", ["livekit", "mux"])
def test_a_provider_is_away_while_all_is_well(provider: str, mode: str) -> None:
    """Media goes on, and what nobody can confirm is said to be unknown."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        [egress] = stage.running
        at = stage.shared.at_livekit if provider == "livekit" else stage.shared.at_mux
        at.outage = Outage(until=stage.now + 90, mode=mode)
        word = f"{provider.upper()}_UNREACHABLE"
        await stage.until(lambda: stage.broadcast.status.state_reason == word, 45)
        assert stage.broadcast.state is State.LIVE
        unknown = [each for each in stage.broadcast.status.conditions if each.met is None]
        assert {each.reason for each in unknown} == {word}
        await asyncio.sleep(max(0.0, at.outage.until - stage.now))
        await stage.until(lambda: not stage.broadcast.status.state_reason, 30)
        assert stage.running == [egress]
        assert stage.plays

    play(scene)


def test_livekit_is_away_when_the_egress_fails() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.shared.at_livekit.outage = Outage(until=stage.now + 200, mode="refused")
        stage.livekit.end(stage.running[0], Kind.EGRESS_FAILED)
        # Longer than the reconnect window: Mux closes the recording, and the next connection begins another.
        await stage.until(lambda: not stage.stream.active, 130)
        await asyncio.sleep(max(0.0, 200 - 130))
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 75)
        assert len(stage.stream.assets) == 2
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 60)
        await stage.until(lambda: all(each.settled for each in stage.broadcast.status.recordings), 120)
        assert len(stage.broadcast.status.recordings) == 2

    play(scene)


def test_an_egress_that_answers_no_stop_is_cut_off() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        [deaf] = stage.running
        deaf.deaf_s = 10_000.0
        # Wanted no more, and deaf: another is to run, and never both.
        deaf.room.hosts.clear()
        stage.livekit.wedge(deaf)
        stage.livekit.join(ID, HOST)
        await stage.until(lambda: len(stage.egresses) > 1, 240)
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 120)

    play(scene)


def test_one_that_is_connected_and_silent_and_answers_no_stop_is_cut_off() -> None:
    """An idle live stream is no proof that nobody is connected: he may send again, beside the next one."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        [deaf] = stage.running
        deaf.deaf_s = 10_000.0
        stage.livekit.befall(deaf, Kind.EGRESS_NO_MEDIA)
        await stage.until(lambda: "STREAM_CUT" in stage.reasons, 200)
        await stage.until(lambda: stage.plays and stage.broadcast.state is State.LIVE, 60)
        assert deaf.session is None
        assert stage.reasons.count("STREAM_CUT") == 1

    play(scene)


def test_the_recording_is_ready_after_the_end() -> None:
    async def scene(stage: Stage) -> None:
        await stage.live()
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 60)
        [recording] = stage.broadcast.status.recordings
        await stage.until(lambda: stage.broadcast.status.recordings[0].settled, 120)
        [ready] = stage.broadcast.status.recordings
        assert ready.asset_id == recording.asset_id
        assert ready.status in (RecordingStatus.READY, RecordingStatus.ERRORED)
        if ready.status is RecordingStatus.READY:
            assert ready.playback_id
        assert stage.broadcast.state is State.ENDED
        # At rest for good.
        await asyncio.sleep(30)
        assert stage.row.due is None

    play(scene)


def test_a_total_outage_of_ten_minutes() -> None:
    """All replicas are killed; media flows without them; afterwards what is said is true within 15 s."""

    async def scene(stage: Stage) -> None:
        await stage.live()
        stage.shared.died = lambda _replica: None
        for replica in list(stage.world.replicas):
            replica.crash()
        stage.world.replicas.clear()
        await stage.all_the_while(lambda: stage.plays, 600)
        stage.livekit.leave(ID, HOST)
        await asyncio.sleep(5)
        for _ in range(2):
            stage.world.begin()
        await stage.until(lambda: stage.broadcast.state is State.INTERRUPTED and stage.true, 15)

    play(scene)


def test_the_table_says_what_was_seen() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", DOCS.read_text(), flags=re.MULTILINE))
    for failure in REPLACED:
        assert rows[failure.what] == f"{failure.notice_s:g} s, back within {failure.back_s:g} s"
    for ending in ENDINGS:
        assert rows[ending.what].startswith(f"{ending.within_s:g} s")
