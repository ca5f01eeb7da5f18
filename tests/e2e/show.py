"""One broadcast from the caller's side, and what really happened to it at the providers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from broadcast.v1.broadcast_pb2 import Broadcast, BroadcastSpec, DestinationState
from broadcast_client import BroadcastClient, Change, RetryPolicy, Snapshot, broadcast_filter, state_name
from broadcast_sandbox.effects import Effect
from tests.stack import Replica, Stack
from tests.waiting import eventually

TAG = "bs1:test:"
ONE_TRY = RetryPolicy(attempts=1)
WITHIN_S = 40.0


@dataclass
class Show:
    stack: Stack
    client: BroadcastClient
    id: str

    @classmethod
    async def create(
        cls, stack: Stack, client: BroadcastClient, spec: BroadcastSpec | None = None, *, broadcast_id: str = ""
    ) -> Show:
        broadcast = await client.create(spec, title="A show", broadcast_id=broadcast_id)
        return cls(stack, client, broadcast.id)

    async def ready(self) -> Broadcast:
        """Started, and waited for."""
        answer = await self.client.start(self.id, wait=10)
        if state_name(answer.broadcast.status.state) in ("READY", "LIVE"):
            return answer.broadcast
        return await self.until("READY", "LIVE")

    async def live(self) -> Broadcast:
        """Started, entered by its host, and playable."""
        await self.ready()
        await self.stack.host_joins(self.id)
        return await self.until("LIVE")

    async def ended(self, state: str = "ENDED") -> Broadcast:
        """Stopped, over, and at last nothing of it is left."""
        await self.client.stop(self.id)
        return await self.over(state)

    async def over(self, state: str = "ENDED", *, within: float = WITHIN_S) -> Broadcast:
        broadcast = await self.until(state, within=within)
        assert self.running() == [], f"{state}, and left running: {self.running()}"
        await self.gone()
        return broadcast

    async def gone(self) -> None:
        """Until its live stream, which is kept for the last viewers, is deleted too."""

        def nothing() -> bool:
            assert self.left() == [], self.left()
            return True

        await eventually(nothing, within=WITHIN_S)

    async def get(self) -> Broadcast:
        return await self.client.get(self.id)

    async def state(self) -> str:
        return state_name((await self.get()).status.state)

    async def until(self, *states: str, within: float = WITHIN_S) -> Broadcast:
        """Until it is in one of these states, which it may have reached before."""
        return await self._until(lambda broadcast: state_name(broadcast.status.state) in states, within, *states)

    async def until_so(
        self, reached: Callable[[Broadcast], bool], wanted: str, *, within: float = WITHIN_S
    ) -> Broadcast:
        """*wanted*: what was waited for, for who reads the failure."""
        return await self._until(reached, within, wanted)

    async def until_destination(self, name: str, state: DestinationState.ValueType) -> Broadcast:
        return await self._until(
            lambda broadcast: (name, state) in [(each.name, each.state) for each in broadcast.status.destinations],
            WITHIN_S,
            f"destination {name} {DestinationState.Name(state)}",
        )

    async def _until(self, reached: Callable[[Broadcast], bool], within: float, *wanted: str) -> Broadcast:
        """By a watch: to ask again and again is work for two cores that many tests share."""
        last: Broadcast | None = None
        try:
            async with asyncio.timeout(within), self.client.watch(broadcast_filter(ids=[self.id])) as watch:
                async for item in watch:
                    if isinstance(item, Snapshot | Change):
                        last = item.broadcast
                        if reached(last):
                            return last
        except TimeoutError:
            pass
        failure = AssertionError(f"not {' or '.join(wanted)} within {within:g} s: {last and last.status}")
        failure.add_note("\n".join(await self.story()))
        raise failure

    async def settled(self) -> Broadcast:
        """Until the providers show the newest spec."""
        generation = (await self.get()).generation
        return await self._until(
            lambda broadcast: broadcast.status.observed_generation == broadcast.generation >= generation,
            WITHIN_S,
            f"at generation {generation}",
        )

    async def reasons(self) -> list[str]:
        return [event.reason async for event in self.client.events_all(self.id)]

    async def until_told(self, reason: str, times: int = 1) -> None:
        """Until the story of the broadcast has this event, so many times."""

        async def told() -> bool:
            reasons = await self.reasons()
            assert reasons.count(reason) >= times, reasons
            return True

        await eventually(told, within=WITHIN_S, every=0.04)

    async def story(self) -> list[str]:
        """For people who look for what went wrong."""
        told = [
            (event.time.ToNanoseconds() / 1e9, f"{event.actor} {event.reason} {event.message}")
            async for event in self.client.events_all(self.id)
        ]
        done = [(each.time, f"  {each.provider} {each.kind} {each.id} {each.detail}") for each in self.effects()]
        return [f"{time % 1000:8.3f} {text}" for time, text in sorted([*told, *done])]

    # What the providers did.

    def effects(self, *kinds: str) -> list[Effect]:
        """Of this broadcast, in the order of time; no kind: all."""
        all_effects = self.stack.effects()
        streams = {each.id for each in all_effects if str(each.detail.get("passthrough", "")).startswith(self._tag)}
        return [
            each
            for each in all_effects
            if (each.id == self.id or each.detail.get("room") == self.id or each.id in streams)
            and (not kinds or each.kind in kinds)
        ]

    @property
    def _tag(self) -> str:
        return f"{TAG}{self.id}:"

    def count(self, kind: str) -> int:
        return len(self.effects(kind))

    async def until_effect(self, kind: str, times: int = 1) -> Effect:
        def there() -> Effect:
            effects = self.effects(kind)
            assert len(effects) >= times, [each.kind for each in self.effects()]
            return effects[times - 1]

        return await eventually(there, within=WITHIN_S, every=0.005)

    def running(self) -> list[str]:
        """What of this broadcast runs, or can be published to: all that is left but a disabled live stream."""
        disabled = Counter(each.id for each in self.effects("stream.disabled"))
        disabled -= Counter(each.id for each in self.effects("stream.enabled"))
        return [each for each in self.left() if each not in {f"stream {id_}" for id_ in disabled}]

    def left(self) -> list[str]:
        """What of this broadcast exists at the providers."""
        pairs = {
            "room": ("room.created", "room.deleted"),
            "egress": ("egress.started", "egress.ended", "egress.ghost"),
            "stream": ("stream.created", "stream.deleted"),
            "publisher": ("ingest.connected", "ingest.disconnected"),
        }
        return [
            f"{name} {id_}"
            for name, (born, *died) in pairs.items()
            for id_, count in (
                Counter(each.id for each in self.effects(born)) - Counter(each.id for each in self.effects(*died))
            ).items()
            for _ in range(count)
        ]

    def assert_once(self) -> None:
        """One room, one live stream, one egress were made, and all are gone."""
        made = {kind: self.count(kind) for kind in ("room.created", "stream.created", "egress.started")}
        assert made == {"room.created": 1, "stream.created": 1, "egress.started": 1}
        assert self.left() == []

    def assert_order(self, *kinds: str) -> None:
        """The first of each kind came in this order."""
        firsts = [self.effects(kind)[0] for kind in kinds]
        assert sorted(firsts, key=lambda effect: effect.time) == firsts, [(each.kind, each.time) for each in firsts]


class Referee:
    """Watches every effect for a moment at which two egresses could publish to one live stream.

    `ingest.double` of the simulator tells of two that did; this tells of two that could: running or on their way, with
    a key that is good now.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.fouls: list[str] = []
        self.looks = 0
        stack.livekit.effects.subscribe(self._look)
        stack.mux.effects.subscribe(self._look)

    def _look(self, effect: Effect) -> None:
        service = self._stack.livekit._egress  # pyright: ignore[reportPrivateUsage]
        assert service is not None
        good = {
            each.stream_key: each.id for each in self._stack.mux.store.streams.values() if each.status != "disabled"
        }
        publishers: dict[str, list[str]] = {}
        for egress in service.egresses.values():
            if egress.ended or egress.ghost:
                continue
            for output in egress.outputs.living.values():
                if output.url.key in good:
                    publishers.setdefault(good[output.url.key], []).append(egress.id)
        self.looks += 1
        self.fouls.extend(
            f"{effect.kind}: {egresses} on {stream}" for stream, egresses in publishers.items() if len(egresses) > 1
        )

    def check(self) -> None:
        assert self.looks > 0
        assert not self.fouls, self.fouls
        assert not self._stack.doubles()


@dataclass
class Watched:
    """What a watch told of one broadcast."""

    broadcasts: list[Broadcast] = field(default_factory=list[Broadcast])
    revisions: list[int] = field(default_factory=list[int])

    @property
    def states(self) -> list[str]:
        """Without repetitions."""
        names = [state_name(each.status.state) for each in self.broadcasts]
        return [name for n, name in enumerate(names) if n == 0 or names[n - 1] != name]


@contextlib.asynccontextmanager
async def watching(client: BroadcastClient, broadcast_id: str) -> AsyncGenerator[Watched]:
    """Watches in the background, from a moment before anything inside happens."""
    watched = Watched()
    begun = asyncio.Event()

    async def follow() -> None:
        async with client.watch(broadcast_filter(ids=[broadcast_id]), heartbeat_interval=1) as watch:
            async for item in watch:
                match item:
                    case Snapshot():
                        watched.broadcasts.append(item.broadcast)
                    case Change():
                        watched.broadcasts.append(item.broadcast)
                        watched.revisions.append(item.revision)
                    case _:
                        begun.set()

    task = asyncio.create_task(follow())
    try:
        await asyncio.wait_for(begun.wait(), WITHIN_S)
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Viewer:
    """Presses play again and again. Where the service says LIVE before and after, there must be a playlist."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.samples = 0
        self.live_samples = 0
        self.wrong: list[str] = []

    async def playlist(self, url: str) -> tuple[int, int]:
        """HTTP status, and the number of the last segment of the first rendition."""
        async with self._show.stack.http.get(url) as answer:
            text = await answer.text()
        if answer.status == 200:
            [rendition] = [line for line in text.splitlines() if line and line[0] != "#"]
            async with self._show.stack.http.get(urljoin(url, rendition)) as answer:
                text = await answer.text()
        first = re.search(r"MEDIA-SEQUENCE:(\d+)", text)
        return answer.status, int(first[1]) + text.count("#EXTINF") if first else -1

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            before = await self._show.get()
            if before.status.HasField("playback"):
                status, _ = await self.playlist(before.status.playback.hls_url)
                after = await self._show.get()
                states = {state_name(each.status.state) for each in (before, after)}
                self.samples += 1
                if states == {"LIVE"} and before.status.state_time == after.status.state_time:
                    self.live_samples += 1
                    if status != 200:
                        self.wrong.append(f"LIVE, and play answers {status}")
            await asyncio.sleep(0.02)

    async def sees_moving_pictures(self) -> None:
        url = (await self._show.get()).status.playback.hls_url
        status, first = await self.playlist(url)
        assert status == 200

        async def advanced() -> bool:
            status, last = await self.playlist(url)
            assert status == 200
            return last > first

        await eventually(advanced)


@contextlib.asynccontextmanager
async def in_background(work: Callable[[], Any]) -> AsyncGenerator[asyncio.Task[Any]]:
    """Runs along; what it raises is raised at the end."""
    task: asyncio.Task[Any] = asyncio.ensure_future(work())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def webhook_replica(stack: Stack, **overrides: str) -> Replica:
    """The replica that the providers' webhooks reach."""
    return await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"], **overrides)
