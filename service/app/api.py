"""The role that serves callers over gRPC. It writes what is wanted, and calls providers only to moderate a room."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from service.api.audience.collector import Collector
from service.api.audience.reader import AudienceReader
from service.api.services.admin import AdminApi
from service.api.services.costs import CostApi
from service.api.services.health import HealthApi
from service.api.services.stage import StageApi
from service.api.services.webhooks import WebhookApi
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.transport.server import ApiOptions, ApiServer
from service.app import descriptors
from service.app.playback import playback_api
from service.domain.broadcast import seconds
from service.domain.errors import StoreUnavailable
from service.providers.budget import Bucket, Rank
from service.reconciler.background.orphans import Reaper
from service.store.audience.counts import AudienceCounts
from service.store.audience.slots import AudienceSlots
from service.store.health_facts import HealthFacts
from service.store.ledger import Ledger
from service.store.measurements.host_stats import HostReports
from service.store.webhooks.stored import StoredWebhooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.app.shared import Shared
    from service.app.webhooks import WebhooksRole

log = structlog.get_logger(__name__)

_DATABASE_LOOK_S = 2.0


class ApiRole:
    def __init__(self, shared: Shared, webhooks: WebhooksRole, wake: Callable[[], None]) -> None:
        """*wake*: told that a write left work for a reconciler of this process. One in another process is told by
        Postgres.
        """
        settings, database = shared.settings, shared.database
        self._shared = shared
        self._moved = Moved()
        slot, window = seconds(settings.timing.audience_slot_s), seconds(settings.timing.audience_window_s)
        slots = AudienceSlots(database, slot=slot, window=window)
        self._collector = Collector(slots, replica=settings.replica, slot=slot, window=window)
        counts = AudienceCounts(database, slots)
        tail = Tail(shared.changes, self._moved, playback_base_url=settings.playback_base_url)

        def woken(_broadcast_id: str) -> None:
            wake()

        self._server = ApiServer(
            ApiOptions(
                host=settings.grpc_host,
                port=settings.grpc_port,
                reflection=settings.reflection,
                playback_base_url=settings.playback_base_url,
                live_layouts=bool(settings.egress_template_url),
                unsigned="" if shared.playback_tokens is not None else "MUX_SIGNING_KEYS is not set",
                connections=descriptors.for_grpc(),
                calls_per_connection=settings.calls_per_connection,
                connection_age=settings.connection_age,
            ),
            broadcasts=shared.broadcasts,
            changes=shared.changes,
            tail=tail,
            tokens=shared.host_tokens,
            moved=self._moved,
            wake=woken,
            health_api=HealthApi(
                broadcasts=shared.broadcasts,
                facts=HealthFacts(
                    database,
                    shared.rows,
                    storage=shared.providers.storage is not None,
                    prices=settings.prices,
                    signing=shared.playback_tokens is not None,
                ),
                reports=HostReports(database),
                timing=settings.timing,
            ),
            cost_api=CostApi(Ledger(database, shared.rows, prices=settings.prices), settings.prices),
            stage_api=StageApi(
                broadcasts=shared.broadcasts,
                moderation=shared.moderation,
                spare=partial(shared.providers.budget.spare, Bucket.ROOMS, Rank.START),
                moved=self._moved,
            ),
            audience=AudienceReader(counts),
            playback=playback_api(shared, tail, counts, self._collector.saw),
            webhooks=WebhookApi(webhooks.deliver),
            admin=AdminApi(
                broadcasts=shared.broadcasts,
                leases=shared.leases,
                inbox=webhooks.inbox,
                webhooks=StoredWebhooks(database),
                orphans=Reaper(shared.owned_ids, shared.providers, grace=settings.sweep_grace),
                wake=woken,
                playback_base_url=settings.playback_base_url,
            ),
        )

    def changed(self) -> None:
        """The change log grew: tell those who watch now instead of at their next poll."""
        self._moved.notify()

    async def start(self) -> int:
        """Listen and serve; the port. Raises CannotListen."""
        return await self._server.start()

    async def drain(self, within: timedelta) -> None:
        """Readiness off, streams sent away, then unary calls under way may take *within*. The viewers of the last of
        them are told of at the end.
        """
        await self._server.drain(grace=within.total_seconds())
        await self._collector.drain()

    async def count_viewers(self) -> None:
        """Tell the database of the viewers who are seen here, until the drain."""
        await self._collector.run()

    async def watch_database(self) -> None:
        """Until it is cancelled. While the database is away or takes no writes the health service says NOT_SERVING, so
        that calls go to replicas that reach it. And it ends the sessions that hold locks for a replica that stands
        still: that replica cannot. And it notices a database that was replaced, or whose clock was set back.
        """
        served = True
        while True:
            serves = await self._shared.database_serves()
            if serves is not served:
                log.warning("database_serves" if serves else "database_does_not_serve")
            served = serves
            await self._server.set_serving(serves)
            await self._look_after()
            await asyncio.sleep(_DATABASE_LOOK_S)

    async def _look_after(self) -> None:
        try:
            await self._shared.history.look()
            await self._shared.upkeep.look_at_clock()
            if ended := await self._shared.database.end_stuck():
                log.warning("stuck_sessions_ended", count=ended)
        except StoreUnavailable:
            # The next look tries again.
            pass
        except Exception:
            # The replica serves without it, and a task that fails would end it.
            log.exception("database_not_looked_after")
