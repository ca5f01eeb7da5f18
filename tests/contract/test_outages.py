"""A provider that is away: what the adapters take it for, and that media go on while an API alone is down."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from broadcast_sandbox.faults import Fault
from service.domain.errors import Outcome
from service.domain.secret import Secret
from service.providers.hls import Hls
from service.providers.mux.client import Mux
from tests.contract import test_livekit_adapter, test_mux_adapter, test_playlists
from tests.contract.livekit_stage import staged, until
from tests.contract.mux_bench import TOKEN_SECRET, running
from tests.contract.mux_bench import Mux as Bench
from tests.contract.test_livekit_adapter import livekit_at
from tests.waiting import eventually

OUTCOMES = [
    ("refuse", Outcome.NOT_SENT),
    ("reset", Outcome.AMBIGUOUS),
    ("hang", Outcome.AMBIGUOUS),
    ("error", Outcome.AMBIGUOUS),
]


@contextlib.asynccontextmanager
async def adapter(bench: Bench, longest_s: float = 20) -> AsyncGenerator[Mux]:
    mux = Mux(
        base_url=bench.base,
        token_id="token",
        token_secret=Secret(TOKEN_SECRET),
        longest_call=timedelta(seconds=longest_s),
    )
    try:
        yield mux
    finally:
        await mux.close()


@pytest.mark.parametrize(("how", "outcome"), OUTCOMES)
async def test_mux_is_away_and_comes_back(how: Any, outcome: Outcome) -> None:
    """A load balancer's 503, silence, a cut connection, and nobody who listens."""
    async with running() as bench, adapter(bench) as mux, adapter(bench, longest_s=0.5) as hasty:
        await bench.simulator.frontend.begin(how)
        streams = (hasty if how == "hang" else mux).streams
        for call in (streams.list_active, lambda: streams.create(test_mux_adapter.wanted())):
            assert (await test_mux_adapter.refusal(call())).outcome is outcome
        assert bench.kinds("stream.created") == []
        await bench.simulator.frontend.end()
        assert (await mux.streams.create(test_mux_adapter.wanted())).id


@pytest.mark.parametrize(("how", "outcome"), OUTCOMES)
async def test_livekit_is_away_and_comes_back(how: Any, outcome: Outcome) -> None:
    async with (
        staged() as stage,
        livekit_at(stage.simulator.base_url) as livekit,
        livekit_at(stage.simulator.base_url, longest_s=0.5) as hasty,
    ):
        await stage.simulator.frontend.begin(how)
        rooms = (hasty if how == "hang" else livekit).rooms
        error = await test_livekit_adapter.refusal(rooms.create(test_livekit_adapter.ROOM))
        assert error.outcome is outcome
        assert stage.kinds("room.created") == []
        await stage.simulator.frontend.end()
        assert (await livekit.rooms.create(test_livekit_adapter.ROOM)).sid


async def live(bench: Bench) -> tuple[dict[str, Any], str]:
    stream = await bench.create(playback_policies=["public"], reconnect_window=1800)
    await bench.go_live(stream)
    return stream, f"{bench.base}/playback/{stream['playback_ids'][0]['id']}.m3u8"


@pytest.mark.parametrize("how", ["reset", "hang", "error"])
async def test_viewers_keep_watching_while_the_api_is_down(how: Any) -> None:
    async with running() as bench, adapter(bench, longest_s=0.5) as mux:
        stream, url = await live(bench)
        hls = Hls(longest_call=timedelta(seconds=20))
        bench.simulator.add_fault(Fault(kind="outage", detail={"how": how}))
        await eventually(lambda: bench.simulator.frontend.outage == how)
        await test_mux_adapter.refusal(mux.streams.get(stream["id"]))
        first = await hls.look(url)

        async def advanced() -> bool:
            return (await hls.look(url)).last_segment != first.last_segment

        await eventually(advanced)
        await hls.close()
        assert bench.kinds("ingest.disconnected") == []


async def test_with_nobody_listening_the_encoder_is_cut_too() -> None:
    async with running() as bench:
        stream, url = await live(bench)
        await bench.simulator.frontend.begin("refuse")
        await bench.effect("ingest.disconnected", stream["id"])
        hls = Hls(longest_call=timedelta(seconds=20))
        assert (await test_playlists.refusal(hls.look(url))).outcome is Outcome.NOT_SENT
        await bench.simulator.frontend.end()
        assert (await hls.look(url)).status == 200
        await hls.close()


async def test_an_outage_ends_by_itself() -> None:
    """Seconds of the provider's time."""
    async with running(scale=100) as bench, adapter(bench) as mux:
        status, _ = await bench.control(
            "POST", "/_faults", {"kind": "outage", "delay_s": 30, "detail": {"how": "refuse"}}
        )
        assert status == 200

        async def away() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                await bench.control("GET", "/_state")
                return False
            return True

        await eventually(away)
        began = bench.simulator.clock.now()

        async def back() -> bool:
            return not await away()

        await eventually(back)
        assert bench.simulator.clock.now() - began > 15
        assert await mux.streams.list_active() == []


async def test_an_outage_is_ended_by_clearing_the_faults() -> None:
    async with running() as bench, adapter(bench) as mux:
        await bench.control("POST", "/_faults", {"kind": "outage", "detail": {"how": "error"}})
        await eventually(lambda: bench.simulator.frontend.outage == "error")
        await test_mux_adapter.refusal(mux.streams.list_active())
        await bench.control("DELETE", "/_faults")
        await eventually(lambda: bench.simulator.frontend.outage is None)
        assert await mux.streams.list_active() == []


@pytest.mark.parametrize("detail", [{"how": "refuse"}, {"how": "politely"}])
async def test_an_outage_that_nobody_could_end_is_refused(detail: dict[str, str]) -> None:
    async with running() as bench, staged() as stage:
        status, _ = await bench.control("POST", "/_faults", {"kind": "outage", "detail": detail})
        assert status == 400
        status, _ = await stage.post("/_faults", kind="outage", detail=detail)
        assert status == 400
        assert (bench.simulator.frontend.outage, stage.simulator.frontend.outage) == (None, None)


async def test_rooms_and_egresses_live_on_while_the_api_of_livekit_is_down() -> None:
    async with staged() as stage:
        await stage.live()
        await stage.post("/_faults", kind="outage", detail={"how": "hang"})
        await until(lambda: stage.simulator.frontend.outage == "hang")
        await stage.post("/_control/leave", room="bc-1", identity="host")
        await until(lambda: stage.receiver.of("participant_left"))
        assert stage.ingest.connections == 1


async def test_a_playlist_that_stalls_is_seen_to_stall() -> None:
    async with running() as bench:
        stream, url = await live(bench)
        hls = Hls(longest_call=timedelta(seconds=20))
        await hls.look(url)
        bench.simulator.add_fault(Fault(kind="hls_stall", match=stream["id"], times=-1))
        stalled = await hls.look(url)
        await bench.pass_time(10)
        assert await hls.look(url) == stalled
        assert (await bench.get(stream["id"]))["status"] == "active"
        bench.simulator.faults.clear()
        assert (await hls.look(url)).last_segment != stalled.last_segment
        assert bench.simulator.faults.hits["hls_stall"] == 2
        await hls.close()
