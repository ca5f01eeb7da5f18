"""Publishers, recordings and named timers, which the life of a live stream is made of."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.mux.model import Asset, LiveStream


class PublishRejectedError(Exception):
    """The ingest refused a publisher; the text is the reason."""


@dataclass(slots=True, kw_only=True, eq=False)
class Publisher:
    """One connected encoder."""

    stream: LiveStream
    key: str
    number: int
    """1 for the first connection ever accepted for the stream."""
    media: bool = False
    deaf: bool = False
    """Its media never arrive (fault `rtmp_no_media`)."""
    behind_s: float = 0.0
    """Between the capture of a frame and its arrival here, in seconds of the provider's time."""
    finishing: bool = False
    """`complete` was called: it stays connected for the rest of the grace, and its media have no effect."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it left or when Mux cuts it."""


@dataclass(slots=True, kw_only=True)
class Recording:
    """One asset in the making, from the first connect to the end of the reconnect window."""

    asset: Asset
    announced: bool = False
    """The `recording` event was sent."""
    was_active: bool = False
    last_frame_at: float = 0.0
    """When the last frame was captured, in the provider's time; while media flow, the last when they began."""
    behind_s: float = 0.0
    """As of the publisher that sends, or sent last."""
    _media_s: float = 0.0
    _since: float | None = None

    @property
    def flowing(self) -> bool:
        return self._since is not None

    def flow(self, now: float, *, flowing: bool) -> None:
        if self.flowing:
            self.last_frame_at = now - self.behind_s
        self._media_s = self.media_s(now)
        self._since = now if flowing else None

    def media_s(self, now: float) -> float:
        return self._media_s + (0.0 if self._since is None else now - self._since)


class Timers:
    """Named timers in the provider's time. Starting one again restarts it."""

    def __init__(self, clock: ScaledClock) -> None:
        self._clock = clock
        self._tasks: dict[tuple[str, Hashable], asyncio.Task[None]] = {}
        self._closed = False

    def start(self, owner: str, name: Hashable, seconds: float, action: Callable[[], None]) -> None:
        self.stop(owner, name)
        if self._closed:
            return
        self._tasks[owner, name] = asyncio.get_running_loop().create_task(self._run(owner, name, seconds, action))

    def stop(self, owner: str, *names: Hashable) -> None:
        for name in names:
            if task := self._tasks.pop((owner, name), None):
                task.cancel()

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, owner: str, name: Hashable, seconds: float, action: Callable[[], None]) -> None:
        await self._clock.sleep(seconds)
        # Removed before it acts, so that an action that stops all timers does not cancel itself.
        del self._tasks[owner, name]
        action()
