"""Faults of the simulators: one that can never fire is refused, and the playback edge can be away alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from broadcast_sandbox.faults import FaultTable, Kind
from broadcast_sandbox.livekit.server import LiveKitSimulator, LiveKitSimulatorSettings
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from service.domain.errors import Outcome, ProviderError
from service.providers.hls import Hls
from tests.contract import test_playlists
from tests.contract.mux_bench import Mux, running
from tests.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"


def simulators() -> dict[str, LiveKitSimulator | MuxSimulator | S3Simulator]:
    return {
        "LiveKit": LiveKitSimulator(LiveKitSimulatorSettings(api_key="key", api_secret="s" * 32)),
        "Mux": MuxSimulator(
            MuxSimulatorSettings(token_id="token", token_secret="s", webhook_url=None, webhook_secret="s")
        ),
        "storage": S3Simulator(S3SimulatorSettings(bucket="recordings", access_key="key", secret_key="s")),
    }


@pytest.fixture
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as running:
        started: dict[str, str] = {}
        for name, simulator in simulators().items():
            started[name] = await simulator.start()
            running.push_async_callback(simulator.stop)
        yield started


async def post(url: str, faults: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/_faults", json=faults) as answer:
        return answer.status, await answer.text()


async def standing(url: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/_faults") as answer:
        return (await answer.json())["faults"]


@pytest.mark.parametrize(
    ("simulator", "fault", "there_is"),
    [
        ("LiveKit", {"kind": "error", "operation": "StartEgres"}, "StartEgress"),
        ("LiveKit", {"kind": "error", "operation": "create_live_stream"}, "CreateRoom"),
        ("LiveKit", {"kind": "hls_stall", "operation": "playback"}, "egress_ghost"),
        ("LiveKit", {"kind": "upload_fail"}, "egress_fail"),
        ("LiveKit", {"kind": "webhook_drop", "operation": "video.live_stream.active"}, "room_started"),
        ("LiveKit", {"kind": "worker_loss", "operation": "StopEgress"}, "StartRoomCompositeEgress"),
        ("LiveKit", {"kind": "rtmp_wedge", "operation": "egress"}, "publish"),
        ("LiveKit", {"kind": "rtmp_wedge", "detail": {"monitored": False}}, "monitor"),
        ("LiveKit", {"kind": "outage", "operation": "playback"}, "api"),
        ("Mux", {"kind": "error", "operation": "get_live_streams"}, "get_live_stream"),
        ("Mux", {"kind": "egress_ghost", "operation": "egress"}, "upload_fail"),
        ("Mux", {"kind": "worker_loss"}, "hls_stall"),
        ("Mux", {"kind": "rtmp_hang", "operation": "publish"}, "rtmp_refuse"),
        ("Mux", {"kind": "webhook_delay", "operation": "video.live_stream.actve"}, "video.live_stream.active"),
        ("Mux", {"kind": "error", "detail": {"htlm": True}}, "html"),
        ("Mux", {"kind": "outage", "match": "stream-1"}, "match"),
        ("Mux", {"kind": "outage", "times": -1}, "times"),
        ("Mux", {"kind": "outage", "operation": "playback", "delay_s": 5, "detail": {"how": "refuse"}}, "api"),
        ("Mux", {"kind": "outage", "detail": {"status": "404"}}, "status"),
        ("storage", {"kind": "error", "operation": "DeleteObject"}, "PutObject"),
        ("storage", {"kind": "late_effect"}, "lost_reply"),
        ("storage", {"kind": "rtmp_refuse"}, "outage"),
    ],
)
async def test_a_fault_that_can_never_fire_is_refused_with_what_there_is(
    urls: dict[str, str], simulator: str, fault: dict[str, Any], there_is: str
) -> None:
    status, text = await post(urls[simulator], fault)
    assert status == 400
    assert there_is in text
    assert await standing(urls[simulator]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("times", 0),
        ("times", "1"),
        ("times", True),
        ("delay_s", -1),
        ("delay_s", "soon"),
        ("status", 99),
        ("status", None),
        ("match", 7),
        ("operation", ["CreateRoom"]),
        ("detail", []),
        ("when", 1),
    ],
)
async def test_bad_values_are_refused_by_name(urls: dict[str, str], field: str, value: Any) -> None:
    for url in urls.values():
        status, text = await post(url, {"kind": "error", field: value})
        assert (status, field in text) == (400, True)


async def test_a_list_of_faults_is_taken_whole_or_not_at_all(urls: dict[str, str]) -> None:
    for url in urls.values():
        status, _ = await post(url, [{"kind": "error"}, {"kind": "error", "operation": "nonsense"}])
        assert (status, await standing(url)) == (400, [])


async def test_every_declared_operation_is_accepted(urls: dict[str, str]) -> None:
    for name, simulator in simulators().items():
        sites = simulator.faults.sites
        assert sites is not None
        for kind, site in sites.items():
            for operation in site.operations:
                assert (await post(urls[name], {"kind": kind, "operation": operation}))[0] == 200, (kind, operation)


def test_a_simulator_that_asks_for_a_fault_it_did_not_declare_is_loud() -> None:
    faults = simulators()["Mux"].faults
    with pytest.raises(AssertionError, match="nonsense"):
        faults.take("nonsense", "", "error")
    assert FaultTable().take("nonsense", "", "error") is None


def test_the_docs_name_every_kind_and_the_simulators_that_have_it() -> None:
    told: dict[str, set[str]] = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) >= 3 and cells[0].startswith("`") and set(cells[1].split(", ")) <= set(simulators()):
            told |= {kind: set(cells[1].split(", ")) for kind in re.findall(r"`(\w+)`", cells[0])}
    taken = {
        kind: {name for name, simulator in simulators().items() if kind in (simulator.faults.sites or {})}
        for kind in get_args(Kind)
    }
    assert told == taken


async def live(mux: Mux) -> str:
    stream = await mux.create(playback_policies=["public"], reconnect_window=1800)
    await mux.go_live(stream)
    return f"{mux.base}/playback/{stream['playback_ids'][0]['id']}.m3u8"


@pytest.mark.parametrize("how", ["hang", "reset"])
async def test_the_playback_edge_is_away_alone(how: str) -> None:
    """Viewers see nothing, while the API answers and the encoder goes on."""
    async with running() as mux:
        url = await live(mux)
        hls = Hls(longest_call=timedelta(seconds=20))
        fault = {"kind": "outage", "operation": "playback", "detail": {"how": how}}
        assert (await mux.control("POST", "/_faults", fault))[0] == 200
        assert (await test_playlists.refusal(hls.look(url))).outcome is Outcome.AMBIGUOUS
        assert [stream["status"] for stream in await mux.raw(mux.streams.list_live_streams)] == ["active"]
        assert mux.kinds("ingest.disconnected") == []
        await mux.control("DELETE", "/_faults")

        async def plays() -> bool:
            with contextlib.suppress(ProviderError):
                return (await hls.look(url)).status == 200
            return False

        await eventually(plays)
        await hls.close()


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_an_outage_answers_a_page_with_the_status_that_was_asked_for(status: int) -> None:
    async with running() as mux:
        url = await live(mux)
        fault = {"kind": "outage", "operation": "playback", "delay_s": 20, "detail": {"how": "error", "status": status}}
        assert (await mux.control("POST", "/_faults", fault))[0] == 200

        async def answer() -> tuple[int, str]:
            async with mux.http.get(url) as response:
                return response.status, response.content_type

        assert await answer() == (status, "text/html")

        async def back() -> bool:
            return await answer() == (200, "application/vnd.apple.mpegurl")

        await eventually(back)
