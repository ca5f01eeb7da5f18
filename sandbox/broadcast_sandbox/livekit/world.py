"""The parts that all of the simulated LiveKit shares: settings, clock, faults, effects, webhooks, background tasks."""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.livekit.webhooks import LiveKitWebhooks

_log = logging.getLogger(__name__)
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitSimulatorSettings:
    """Every `_s` is a number of seconds of the provider's time."""

    api_key: str
    api_secret: str = field(repr=False)
    webhook_url: str | None = None
    ingests: Mapping[str, str] = field(default_factory=dict[str, str])
    """RTMP host -> base url of a simulated ingest: a push connects a WebSocket to `{base}/app/{key}`.

    Any other host is a destination outside the sandbox that takes every publisher.
    """
    egress_start_s: float = 3.0
    """From StartEgress to ACTIVE, when there is a track to record."""
    egress_holds_s: float = 3.0
    """An egress holds so much media. A stop sends it, and who throws the egress out loses it (measured, egress 1.14.1:
    a jitter buffer of 2 s, a mixer of 2.75 s)."""
    egress_stop_s: float = 3.0
    """From ENDING to COMPLETE: what it holds is sent."""
    drain_cap_s: float = 30.0
    """The same for an egress whose connection is wedged: it waits for the end of its stream for so long (livekit/egress
    pkg/pipeline/controller.go; measured, egress 1.14.1)."""
    list_lag_s: float = 0.0
    """ListEgress shows the records as they were this long ago."""
    drop_timeout_s: float = 21.0
    """From a lost connection to participant_left (measured, livekit-server 1.13.5)."""
    counts_every_s: float = 5.0
    """The counts of a room are refreshed this often at best (livekit/livekit pkg/rtc/room.go, roomUpdateInterval)."""
    session_limit_s: float | None = None
    """An egress is ended with LIMIT_REACHED this long after ACTIVE. Self-hosted default: no limit."""
    workers: int = -1
    """Number of egresses that can run at once; -1 = no limit, 0 = no worker at all. An egress that fails with error
    code 500 takes its worker away."""
    auto_create: bool = True
    """Joining an unknown room creates it (livekit-server `room.auto_create`)."""
    empty_timeout_s: int = 300
    departure_timeout_s: int = 20
    """This and `empty_timeout_s` hold if CreateRoom says 0 (livekit/livekit pkg/config/config.go)."""
    room_end_reason: bool = False
    """Whether room_finished names the reason. livekit-server 1.13.5 does not, newer ones do."""


class Background:
    """Tasks that outlive the request that started them, all cancelled at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a background task of the simulated LiveKit failed", exc_info=error)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)


@dataclass(slots=True, kw_only=True)
class World:
    settings: LiveKitSimulatorSettings
    clock: ScaledClock
    faults: FaultTable
    effects: EffectLog
    webhooks: LiveKitWebhooks
    background: Background
    workers: int
    latency_ms: float = 0.0
    """Real milliseconds before every API call."""


def new_id(prefix: str) -> str:
    """Prefix and 12 characters (livekit/protocol utils/guid/id.go)."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(12))


def later_than(previous_ns: int) -> int:
    """Now in ns, but later than *previous_ns*: readers order egress records by it."""
    return max(time.time_ns(), previous_ns + 1)
