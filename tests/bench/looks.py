"""What it costs to look at 5,000 live broadcasts from one replica: the prober's and the observer's share of a core.

The edge and LiveKit are one process that answers from memory, so the figures are the service's own. Postgres is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path

from aiohttp import web
from livekit import api
from livekit.protocol import models

from service.domain.secret import Secret
from service.providers.budget import Budget, Limits
from service.providers.hls import Hls
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.reconciler.act.requests import Providers
from service.reconciler.background.observer import Observer
from service.reconciler.background.prober import Prober
from service.store.budgets import Budgets
from service.store.database import Database
from service.store.leases import Leases
from service.store.measurements.outages import Outages
from service.store.measurements.probes import Probes
from service.store.owned_ids import OwnedIds
from tests.bench.figures import Figure
from tests.stack import Process, Stack

LIVE, SECONDS = 5000, 60
EVERY = timedelta(seconds=10)
_FILL = (
    """
    INSERT INTO broadcast (id, spec, target, state, status) SELECT 'show-' || n, '{}', 'LIVE', 'LIVE',
      jsonb_build_object('playback_id', 'PB' || n) FROM generate_series(1, $1::int) AS n
    """,
    """
    INSERT INTO resource (broadcast_id, kind, ordinal, phase, external_id, intended_at, changed_at, observed_at, detail)
    SELECT 'show-' || n, kind, 0, 'present', kind || n, now(), now(), now(), jsonb_build_object('status', CASE kind
      WHEN 'stream' THEN 'active' ELSE 'ACTIVE' END, 'host_publishing', true, 'recorded', true, 'updated_ns', 5)
    FROM generate_series(1, $1::int) AS n, unnest(ARRAY['room', 'stream', 'egress']) AS kind
    """,
)


_SEEN = "SELECT broadcast_id, playlist_at FROM probe WHERE playlist_at IS NOT NULL"


def edge() -> web.Application:
    """Playlists that move on every two seconds, and LiveKit's lists of LIVE rooms."""

    async def playlist(request: web.Request) -> web.Response:
        if not request.path.endswith("media.m3u8"):
            text = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{request.path.rpartition('/')[2]}.media.m3u8\n"
            return web.Response(text=text)
        first = int(time.time() / 2)
        lines = [f"#EXTINF:2,\nhttps://chunk.example/{n}.ts?signature={'s' * 60}" for n in range(first, first + 6)]
        head = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
        return web.Response(text=head + "\n".join(lines) + "\n")

    inside = models.ParticipantInfo(identity="ann", sid="PA", state=models.ParticipantInfo.ACTIVE)
    inside.tracks.add(sid="TR_V", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA, width=1280, height=720)
    inside.tracks.add(sid="TR_A", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
    people = api.ListParticipantsResponse(participants=[inside]).SerializeToString()
    rooms = [
        api.Room(name=f"show-{n}", sid=f"RM_{n}", metadata=f"bs1:bench:show-{n}", num_publishers=1, num_participants=2)
        for n in range(1, LIVE + 1)
    ]
    for room in rooms:
        room.active_recording = True
    egresses = api.ListEgressResponse(
        items=[
            api.EgressInfo(
                egress_id=f"egress{n}",
                room_name=f"show-{n}",
                status=api.EgressStatus.EGRESS_ACTIVE,
                updated_at=5,
                stream_results=[api.StreamInfo(url="rtmps://global-live.mux.com:443/app/{abc...xyz}", started_at=1)],
            )
            for n in range(1, LIVE + 1)
        ]
    ).SerializeToString()

    async def twirp(request: web.Request) -> web.Response:
        match request.match_info["method"]:
            case "ListParticipants":
                body = people
            case "ListRooms":
                asked = {*api.ListRoomsRequest.FromString(await request.read()).names}
                shown = [room for room in rooms if not asked or room.name in asked]
                body = api.ListRoomsResponse(rooms=shown).SerializeToString()
            case _:
                body = egresses
        return web.Response(body=body, content_type="application/protobuf")

    async def streams(request: web.Request) -> web.Response:
        page = int(request.query["page"])
        data = [
            {"id": f"stream{n}", "status": "active", "created_at": "1700000000", "stream_key": "k", "passthrough": "x"}
            for n in range((page - 1) * 100 + 1, min(page * 100, LIVE) + 1)
        ]
        return web.json_response({"data": data})

    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/twirp/{service}/{method}", twirp)
    application.router.add_get("/video/v1/live-streams", streams)
    application.router.add_get("/{name:.*m3u8}", playlist)
    return application


@contextlib.asynccontextmanager
async def _edge() -> AsyncGenerator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.looks", stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def looks(stack: Stack, _process: Process, _run: int) -> list[Figure]:
    """One prober and one observer, in this process, whose processor time is measured."""
    async with contextlib.AsyncExitStack() as opened:
        base = await opened.enter_async_context(_edge())
        database = await Database.connect(stack.environment["DATABASE_URL"], size=10)
        opened.push_async_callback(database.close)
        within = timedelta(seconds=15)
        livekit = LiveKit(url=base, api_key="key", api_secret=Secret("s" * 32), longest_call=within)
        opened.push_async_callback(livekit.close)
        mux = Mux(base_url=base, token_id="id", token_secret=Secret("secret"), longest_call=within)
        opened.push_async_callback(mux.close)
        hls = Hls(longest_call=within)
        opened.push_async_callback(hls.close)
        providers = Providers(
            rooms=livekit.rooms,
            egresses=livekit.egresses,
            streams=mux.streams,
            uploads=mux.uploads,
            budget=Budget(Budgets(database).take, Limits()),
            tag="bs1:bench:",
        )
        async with database.connection() as connection:
            for statement in _FILL:
                await connection.execute(statement, LIVE)
        leases = Leases(database, owner="bench", ttl=timedelta(seconds=20))
        prober = Prober(leases, Probes(database), providers, hls, playback_base_url=base, every=EVERY)
        observer = Observer(leases, OwnedIds(database), Outages(database), providers, every=EVERY)
        return [*await _probed(database, prober), *await _observed(observer)]


async def _probed(database: Database, prober: Prober) -> list[Figure]:
    seen: dict[str, list[datetime]] = {}
    blocked: list[float] = []

    async def note() -> None:
        while True:
            async with database.connection() as connection:
                for row in await connection.fetch(_SEEN):
                    times = seen.setdefault(row["broadcast_id"], [])
                    if not times or times[-1] != row["playlist_at"]:
                        times.append(row["playlist_at"])
            await asyncio.sleep(4)

    async def feel() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            blocked.append(time.perf_counter() - began - 0.005)

    running = asyncio.create_task(prober.run())
    # The first looks of all come at once.
    await asyncio.sleep(30)
    began, spent = time.perf_counter(), _cpu()
    others = [asyncio.create_task(note()), asyncio.create_task(feel())]
    await asyncio.sleep(SECONDS)
    share = (_cpu() - spent) / (time.perf_counter() - began)
    for task in (running, *others):
        task.cancel()
    await asyncio.gather(running, *others, return_exceptions=True)
    gaps = sorted((b - a).total_seconds() for times in seen.values() for a, b in itertools.pairwise(times))
    async with database.connection() as connection:
        people = await connection.fetchval("SELECT count(*) FROM probe WHERE people_at > now() - interval '60 s'")
    late = statistics.quantiles(blocked, n=100)[98]
    return [
        _figure(f"looks at {LIVE} playlists: time between two", statistics.median(gaps), "s", EVERY.total_seconds()),
        _figure("the longest of them", gaps[-1], "s", 30),
        _figure("processor time of the prober", share * 100, "%", 100),
        _figure("rooms whose people were looked at within 60 s", people, "", LIVE),
        _figure("the event loop was late by (99th percentile)", late * 1000, "ms", 50),
    ]


async def _observed(observer: Observer) -> list[Figure]:
    blocked: list[float] = []

    async def feel() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            blocked.append(time.perf_counter() - began - 0.005)

    feeling = asyncio.create_task(feel())
    took, spent = time.perf_counter(), _cpu()
    differ = await observer.look()
    took, spent = time.perf_counter() - took, _cpu() - spent
    feeling.cancel()
    await asyncio.gather(feeling, return_exceptions=True)
    assert not differ, len(differ)
    return [
        _figure(f"a round of the observer over {LIVE}", took, "s", 30),
        _figure("its processor time", spent, "s", EVERY.total_seconds()),
        _figure("the event loop was late by at most", max(blocked) * 1000, "ms", 100),
    ]


def _figure(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name=name, value=value, unit=unit, ceiling=bound, ceiling_name="bound")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _serve() -> None:
    runner = web.AppRunner(edge(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
