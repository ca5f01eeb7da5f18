"""Broadcasts as the service itself would have written them, for tests of what is told of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from service.domain.lifecycle import Event
from service.domain.ports import PlaylistSeen
from service.domain.reasons import EventReason
from service.domain.resources import AnyResource, Stream
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.reconciler.reconciler import derive
from service.store.health_facts import HealthFacts
from service.store.leases import Leases
from service.store.measurements.host_stats import HostReports
from service.store.measurements.probes import ProbeResults, Probes
from service.store.passes import Passes
from tests.integration.api_stage import Stage
from tests.unit.health_facts import EGRESS, EMPTY, IDLE, ROOM, STREAM, ann

SECRET_KEY = "the-key-of-the-live-stream"


class Written:
    """What a pass would write of a broadcast, by the code that writes it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.probes = Probes(stage.database)
        self.facts = HealthFacts(stage.database, stage.rows)
        self.reports = HostReports(stage.database)
        self._leases = Leases(stage.database, owner="test", ttl=timedelta(seconds=60))
        self._passes = Passes(stage.database, stage.rows, derive=derive(Timing()))

    async def now(self) -> datetime:
        return await self.stage.database.now()

    async def record(
        self, broadcast_id: str, *resources: AnyResource, events: Sequence[EventReason] = (), **outcome: Any
    ) -> None:
        """*resources* as if they were made and seen just now."""
        now = await self.now()
        fresh = [
            replace(each, **dict.fromkeys(("intended_at", "changed_at", "observed_at"), now)) for each in resources
        ]
        await self.stage.sql("UPDATE broadcast SET due_at = now(), lane = 1 WHERE id = $1", broadcast_id)
        [claim] = await self._leases.claim(1, limit=1)
        await self._passes.record(claim, fresh, events=[Event(reason=each) for each in events], **outcome)
        await self._passes.release(claim, now + timedelta(seconds=60))

    async def ready(self, broadcast_id: str, **spec: Any) -> None:
        await self.stage.started(broadcast_id, **spec)
        await self.record(broadcast_id, EMPTY, self.stream(broadcast_id, IDLE))

    async def live(self, broadcast_id: str, **spec: Any) -> None:
        await self.stage.started(broadcast_id, **spec)
        egress = replace(EGRESS, external_id=f"EG_{broadcast_id}", pushes={"": Secret(f"rtmps://mux/app/{SECRET_KEY}")})
        await self.record(broadcast_id, ROOM, self.stream(broadcast_id, STREAM), egress)

    async def plays(self, broadcast_id: str) -> None:
        """The prober saw people and a playlist that moves."""
        await self.probes.saw(ProbeResults(people={broadcast_id: ann()}))
        await self.moves(broadcast_id)

    async def moves(self, broadcast_id: str) -> None:
        seen = PlaylistSeen(status=200, media_sequence=7, segments=6, last_segment="12.ts", target_duration_s=2)
        await self.saw_playlist(broadcast_id, seen, advanced=True)

    async def saw_playlist(self, broadcast_id: str, seen: PlaylistSeen, *, advanced: bool = False) -> None:
        await self.probes.saw(ProbeResults(playlists={broadcast_id: (seen, advanced)}))

    def stream(self, broadcast_id: str, stream: Stream) -> Stream:
        return replace(stream, external_id=f"LS_{broadcast_id}", key=Secret(SECRET_KEY))
