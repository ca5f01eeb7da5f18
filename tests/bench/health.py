"""What WatchHealth costs while a thousand broadcasts run."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Generator
from dataclasses import replace

import asyncpg

from service.api.streams.health import HealthWatches, Slot
from service.domain.measurements import HostStats, Quality
from service.domain.ports import PlaylistSeen
from service.domain.timing import Timing
from service.store.broadcasts import Filter
from service.store.health_facts import HealthFacts
from service.store.measurements.host_stats import HostReports
from service.store.measurements.probes import ProbeResults, Probes
from service.store.migrate import migrate
from service.store.rows import Rows
from service.store.sealing import Sealer
from tests.bench.figures import Figure
from tests.integration.store_stage import KEYS, Store, store
from tests.stack import Process, Stack
from tests.unit.health_facts import EGRESS, ROOM, STREAM, ann

RUNNING, READINGS = 1000, 5
FIRST = "running-0"
_MANY = (
    """
    INSERT INTO broadcast SELECT (jsonb_populate_record(b, to_jsonb(b) || jsonb_build_object('id', 'running-' || n))).*
    FROM broadcast b, generate_series(1, $1::int) n
    """,
    """
    INSERT INTO resource SELECT (jsonb_populate_record(r, to_jsonb(r) || jsonb_build_object(
      'broadcast_id', 'running-' || n, 'external_id', external_id || n))).*
    FROM resource r, generate_series(1, $1::int) n
    """,
    """
    INSERT INTO probe SELECT 'running-' || n, people, people_at, playlist, playlist_at
    FROM probe, generate_series(1, $1::int) n
    """,
    """
    INSERT INTO host_stats SELECT 'running-' || n, identity, stats, report_time
    FROM host_stats, generate_series(1, $1::int) n
    """,
)
_OBSERVED = """
INSERT INTO provider (name, answering_since, checked_at)
SELECT name, now() - interval '1 h', now() FROM unnest(ARRAY['livekit', 'mux']) AS name
ON CONFLICT (name) DO UPDATE SET checked_at = now()
"""
_PROBED = """
UPDATE probe SET people_at = now(), playlist_at = now(),
  playlist = playlist || jsonb_build_object('advanced_at', now(), 'standing_since', now())
"""


async def health(stack: Stack, _process: Process, run: int) -> list[Figure]:
    """CPU of a reading for all who watch, against reading the rows alone. In a database of its own, so that no service
    takes the broadcasts up.
    """
    server, _, _ = stack.environment["DATABASE_URL"].rpartition("/")
    admin = await asyncpg.connect(stack.environment["DATABASE_URL"])
    await admin.execute(f"CREATE DATABASE bench_health_alone_{run}")
    await admin.close()
    url = f"{server}/bench_health_alone_{run}"
    await migrate(url)
    rows: list[float] = []
    whole: list[float] = []
    quiet: list[float] = []
    async with store(url) as opened:
        facts = HealthFacts(opened.database, Rows(Sealer(KEYS)))
        await _fill(opened)
        ids = [f"running-{n}" for n in range(RUNNING)]
        watches = HealthWatches(opened.broadcasts, facts, Timing())
        watches.slots.add(Slot(Filter(), 1.0))
        for looked in (_OBSERVED, _PROBED) * READINGS:
            await opened.sql(looked)
            with _cpu(rows):
                assert len((await facts.read(ids)).facts) == RUNNING
            before = {*watches.board.values()}
            with _cpu(whole):
                await watches.read()
            after = {*watches.board.values()}
            assert len(after - before) == RUNNING
            with _cpu(quiet):
                await watches.read()
            assert {*watches.board.values()} == after
    return [
        Figure(
            name=name,
            value=statistics.median(spent) * 1000,
            unit="ms CPU",
            ceiling=statistics.median(rows) * 1000,
            ceiling_name="reading the rows",
        )
        for name, spent in (
            (f"health of {RUNNING}, all of them looked at", whole),
            (f"health of {RUNNING}, nothing written", quiet),
        )
    ]


async def _fill(opened: Store) -> None:
    await opened.started(FIRST)
    claim = await opened.claimed(FIRST)
    now = await opened.database.now()
    rows = [replace(each, intended_at=now, changed_at=now, observed_at=now) for each in (ROOM, STREAM, EGRESS)]
    await opened.passes.record(claim, rows)
    seen = PlaylistSeen(status=200, media_sequence=7, segments=6, last_segment="12.ts", target_duration_s=2)
    await Probes(opened.database).saw(ProbeResults(people={FIRST: ann()}, playlists={FIRST: (seen, True)}))
    await HostReports(opened.database).report(
        FIRST, "ann", HostStats(quality=Quality.GOOD, video_bitrate_bps=2_000_000)
    )
    for statement in _MANY:
        await opened.sql(statement, RUNNING - 1)
    await opened.sql("ANALYZE")


@contextlib.contextmanager
def _cpu(spent: list[float]) -> Generator[None]:
    began = time.process_time()
    yield
    spent.append(time.process_time() - began)
