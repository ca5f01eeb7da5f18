"""A standby took over without the last commits. What was done in them is held to be possible until it is looked for."""

from __future__ import annotations

import pytest

from service.domain.broadcast import State
from service.domain.resources import Stream
from tests.simulation.providers.network import Network, Outage
from tests.simulation.stage import ID, Stage, play
from tests.simulation.store import Standby


def away(stage: Stage, *networks: Network, for_s: float) -> None:
    for network in networks:
        network.outage = Outage(until=stage.now + for_s, mode="refused")


def test_a_key_that_was_given_out_in_a_lost_commit_is_dead_before_its_live_stream_is_deleted() -> None:
    """The row of the egress is lost, LiveKit is away, and the stop does not wait for it: nothing that can be asked
    knows of the egress, which publishes.
    """

    async def scene(stage: Stage) -> None:
        life = await stage.begin()
        standby = Standby.of(stage.world.tables)
        life.host_comes()
        await stage.until(lambda: stage.plays, 60)
        [running], stream = stage.running, stage.stream
        away(stage, stage.shared.at_livekit, for_s=60)
        stage.world.fail_over(standby)
        assert not stage.egresses
        writes = stage.writes()
        await stage.stop()
        await stage.until(lambda: stream.disabled, 40)
        assert running.runs
        assert "delete_live_stream" not in writes
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 150)
        assert not stage.running
        await stage.until(lambda: stream.deleted, 150)

    play(scene)


@pytest.mark.parametrize("answers", [True, False])
def test_a_live_stream_that_was_made_in_a_lost_commit_is_found_by_the_end(*, answers: bool) -> None:
    """It is taken down by its own broadcast, and not left to the sweeper."""

    async def scene(stage: Stage) -> None:
        life = stage.prepare()
        await life.create()
        await life.start()
        standby = Standby.of(stage.world.tables)
        standby.rows[ID].resources.clear()
        await stage.until(lambda: stage.broadcast.state is State.READY, 60)
        life.host_comes()
        await stage.until(lambda: stage.plays, 60)
        stream = stage.stream
        if not answers:
            away(stage, stage.shared.at_livekit, stage.shared.at_mux, for_s=20)
        stage.world.fail_over(standby)
        await stage.stop()
        await stage.until(lambda: stage.broadcast.state is State.ENDED, 200)
        assert [each.external_id for each in stage.row.sorted_resources() if isinstance(each, Stream)] == [stream.id]
        assert stream.disabled
        assert not stage.running
        await stage.until(lambda: stream.deleted, 150)

    play(scene)
