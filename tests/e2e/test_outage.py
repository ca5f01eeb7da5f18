"""Every process of the service is gone for a while. Viewers keep watching; afterwards what it says is true again, of
everything that happened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from livekit import api

from broadcast.v1.broadcast_pb2 import Broadcast, ConditionType
from broadcast_client import state_name
from tests.e2e.show import TAG, Show
from tests.stack import LIVEKIT_SECRET, WAITS, Process, Stack, running_stack, serving
from tests.waiting import eventually

REPLICAS = 2
_SEGMENT_S = 2.0
"""Of the providers' time."""
_PLAYLIST_SEGMENTS = 4
"""One less than the simulated playlist has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    seconds: float
    scale: float
    """Of the providers' time."""
    poll_s: float
    environment: Mapping[str, Any]
    true_within_s: float
    """After the replicas serve again, in real seconds."""


SHORT = Outage(
    seconds=12,
    scale=8,
    poll_s=0.05,
    # The room of a host who does not come back closes 64 s of the providers' time later: within the outage.
    environment={"BROADCAST_TIMING_HOST_RETURN_S": "4"},
    # Its machine is shared with other tests.
    true_within_s=45,
)
# Empty: as in production.
REAL = Outage(seconds=600, scale=1, poll_s=0.4, environment=dict.fromkeys(WAITS, ""), true_within_s=15)


@pytest.mark.timeout(180)
async def test_a_short_outage(database_url: str, tmp_path: Path) -> None:
    await outage(SHORT, database_url, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_ten_minutes_at_the_pace_of_production(database_url: str, tmp_path: Path) -> None:
    await outage(REAL, database_url, tmp_path)


async def outage(wanted: Outage, database_url: str, directory: Path) -> None:
    async with running_stack(database_url, scale=wanted.scale, **wanted.environment) as stack:
        processes = await replicas(stack, directory, "before")
        client = await stack.client(processes[0].target)
        shows = [await Show.create(stack, client) for _ in range(4)]
        await asyncio.gather(*(on_air(show) for show in shows))
        watched, left, failing, deleted = shows
        async with playing(stack, watched, wanted) as viewer:
            for process in processes:
                process.tell(signal.SIGKILL)
            for process in processes:
                assert await process.process.wait() == -signal.SIGKILL
            went, clock = time.time(), stack.mux.clock
            shown, ends = viewer.segments, clock.now() + wanted.seconds * wanted.scale
            await meanwhile(stack, left, failing, deleted)
            await clock.sleep(ends - clock.now())
            assert viewer.segments - shown > 0.8 * wanted.seconds * wanted.scale / _SEGMENT_S
            lost = [each for each in stack.livekit.webhooks.sender.deliveries if each.time > went]
            assert lost
            assert not any(each.accepted for each in lost), "webhooks went nowhere"

            began = time.monotonic()
            processes = await replicas(stack, directory, "after")
            booted = time.monotonic()
            client = await stack.client(processes[0].target)
            for show in shows:
                show.client = client
            await eventually(lambda: all_true(shows), within=wanted.true_within_s, every=0.1)
            true = time.monotonic()
            print(f"true {true - booted:.1f} s after they served, {true - began:.1f} s after they were started")
            await afterwards(stack, watched, left, failing, deleted)
        viewer.check()
        print(viewer)
        assert watched.count("ingest.connected") == 1, "nobody touched what delivered"
        await asyncio.gather(*(show.ended() for show in (watched, failing, deleted)))
        assert not +stack.census(), stack.census()
        assert stack.doubles() == []
        for process in processes:
            await process.end(signal.SIGTERM)
            assert process.process.returncode == 0


async def replicas(stack: Stack, directory: Path, when: str) -> list[Process]:
    """The first is the one that webhooks reach."""
    ports = [stack.environment["WEBHOOK_PORT"], *["0"] * (REPLICAS - 1)]
    processes = [
        await stack.process(directory / f"{when}-{number}.log", HTTP_PORT=port) for number, port in enumerate(ports)
    ]
    await asyncio.gather(*(serving(process, within=60) for process in processes))
    return processes


async def on_air(show: Show) -> None:
    await show.client.start(show.id, wait=20)
    await show.until("READY")
    await show.stack.host_joins(show.id)
    await show.until("LIVE", within=60)


async def meanwhile(stack: Stack, left: Show, failing: Show, deleted: Show) -> None:
    await stack.control("leave", room=left.id, identity="ann")
    [egress] = failing.effects("egress.started")
    await stack.control("egress", egress_id=egress.id, end="failed")
    livekit = api.LiveKitAPI(stack.livekit.base_url, "sandbox", LIVEKIT_SECRET)
    await livekit.room.delete_room(api.DeleteRoomRequest(room=deleted.id))
    await livekit.aclose()


async def afterwards(stack: Stack, watched: Show, left: Show, failing: Show, deleted: Show) -> None:
    """Each on its way: one was never interrupted, one ends, one is delivered again, one waits for its host."""
    assert await watched.state() == "LIVE"
    reasons = await watched.reasons()
    assert reasons.count("STATE_LIVE") == 1, "it was said to be interrupted"
    await failing.until("LIVE", within=90)
    assert failing.count("egress.started") == 2
    await deleted.until("INTERRUPTED")
    await eventually(lambda: deleted.count("room.created") == 2, within=20)
    await stack.host_joins(deleted.id)
    await deleted.until("LIVE", within=90)
    over = await left.over(within=400)
    assert over.status.state_reason == "HOST_LEFT"


# What is true.


_CONDITIONS = {
    "room": ConditionType.CONDITION_TYPE_ROOM_READY,
    "stream": ConditionType.CONDITION_TYPE_STREAM_READY,
    "host": ConditionType.CONDITION_TYPE_HOST_PUBLISHING,
    "egress": ConditionType.CONDITION_TYPE_EGRESS_RUNNING,
    "ingest": ConditionType.CONDITION_TYPE_INGEST_ACTIVE,
    "playable": ConditionType.CONDITION_TYPE_PLAYABLE,
}


async def all_true(shows: list[Show]) -> bool:
    for show in shows:
        before = await truth(show)
        broadcast = await show.get()
        if await truth(show) != before:
            # It moved while we asked.
            return False
        told = said(broadcast)
        assert told == before, f"{show.id} says {told}, and it is {before}"
        state = state_name(broadcast.status.state)
        assert (state == "LIVE") is before["playable"], f"{show.id} is {state}, and it is {before}"
        if state in ("ENDED", "FAILED"):
            assert not any(before.values())
    return True


def said(broadcast: Broadcast) -> dict[str, bool | None]:
    """None: not known, which is no lie, and is not the truth either."""
    met = {each.type: each.met if each.HasField("met") else None for each in broadcast.status.conditions}
    return {name: met[type_] for name, type_ in _CONDITIONS.items()}


async def truth(show: Show) -> dict[str, bool]:
    """As the simulators have it, whatever anybody was told."""
    rooms = await state_of(show.stack, show.stack.livekit.base_url)
    streams = await state_of(show.stack, show.stack.mux.base_url)
    room = next((each for each in rooms["rooms"] if each["name"] == show.id), None)
    stream = next((each for each in streams["streams"] if each["passthrough"].startswith(f"{TAG}{show.id}:")), None)
    egresses = [each for each in rooms["egresses"] if each["room_name"] == show.id]
    host = room is not None and any(each.get("tracks") for each in room["participants"])
    running = any(each.get("status") == "EGRESS_ACTIVE" and not each["ghost"] for each in egresses)
    egress = running and stream is not None and bool(stream["publishers"])
    ingest = stream is not None and stream["status"] == "active"
    return {
        "room": room is not None,
        "stream": stream is not None,
        "host": host,
        "egress": egress,
        "ingest": ingest,
        "playable": host and egress and ingest,
    }


async def state_of(stack: Stack, base_url: str) -> Any:
    async with stack.http.get(f"{base_url}/_state") as answer:
        return await answer.json()


# Who watches.


@dataclass
class Player:
    """Polls the media playlist as a player does."""

    url: str
    http: aiohttp.ClientSession
    now: Callable[[], float]
    """The providers' time, as all seconds here: while this process stands still, so do they."""
    poll_late_s: float
    """So late a poll may come."""
    polls: int = 0
    segments: int = 0
    """The number of the newest."""
    longest_s: float = 0.0
    """Without a new segment."""
    wrong: list[str] = field(default_factory=list[str])
    dozed_s: float = 0.0
    """For so long it did not look."""
    _moved: float = 0.0
    _polled: float = 0.0

    async def play(self, every: float) -> None:
        """Until cancelled."""
        async with self.http.get(self.url) as answer:
            [rendition] = [line for line in (await answer.text()).splitlines() if line and line[0] != "#"]
        while True:
            async with self.http.get(urljoin(self.url, rendition)) as answer:
                self._take(answer.status, await answer.text())
            await asyncio.sleep(every)

    def _take(self, status: int, text: str) -> None:
        now = self.now()
        first = re.search(r"MEDIA-SEQUENCE:(\d+)", text)
        if status != 200 or first is None or "ENDLIST" in text:
            self.wrong.append(f"poll {self.polls}: {status} {text[:80]!r}")
            return
        begins, newest = int(first[1]), int(first[1]) + text.count("#EXTINF")
        away, self._polled = now - self._polled, now
        if self.polls and away > _PLAYLIST_SEGMENTS * _SEGMENT_S:
            # The playlist holds no more than that, and who did not look misses the rest.
            self.dozed_s += away
            self._moved, self.segments = now, max(begins, self.segments)
        if self.polls and begins > self.segments:
            self.wrong.append(f"poll {self.polls}: {begins - self.segments} segments were never seen")
        if newest < self.segments:
            self.wrong.append(f"poll {self.polls}: back from {self.segments} to {newest}")
        if newest > self.segments:
            self.longest_s = max(self.longest_s, now - self._moved if self.polls else 0.0)
            self._moved = now
        self.polls, self.segments = self.polls + 1, max(newest, self.segments)

    def check(self) -> None:
        assert self.polls > 50
        assert not self.wrong, self.wrong[:5]
        assert self.dozed_s < 0.1 * self.segments * _SEGMENT_S, f"it stood still for {self.dozed_s:.1f} s"
        longest = max(self.longest_s, self.now() - self._moved)
        assert longest < 3 * _SEGMENT_S + self.poll_late_s, f"no new segment for {longest:.1f} s"

    def __str__(self) -> str:
        return f"{self.segments} segments in {self.polls} polls, never longer than {self.longest_s:.2f} s for the next"


@contextlib.asynccontextmanager
async def playing(stack: Stack, show: Show, wanted: Outage) -> AsyncGenerator[Player]:
    url = (await show.get()).status.playback.hls_url
    player = Player(url, stack.http, stack.mux.clock.now, poll_late_s=wanted.scale)
    task = asyncio.create_task(player.play(wanted.poll_s))
    try:
        await eventually(lambda: player.polls)
        yield player
        assert not task.done(), f"it plays no more: {task}"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
