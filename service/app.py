"""The composition root: builds everything, starts it, drains it, closes it. The only place that wires.

Order of ending: readiness off and streams told to go; no new passes, those under way end; unary calls end; pools
close. Every step may also be cut off: what is stored is always enough to go on from.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from service.api.services.admin import AdminApi
from service.api.services.health import HealthApi
from service.api.services.playback import PlaybackApi
from service.api.services.webhooks import WebhookApi
from service.api.streams.moved import Moved
from service.api.transport.server import ApiOptions, ApiServer
from service.domain.errors import StoreUnavailable
from service.providers.budget import Budget
from service.providers.hls import Hls
from service.providers.livekit.client import LiveKit
from service.providers.mux.client import Mux
from service.providers.storage.links import Storage
from service.reconciler.act.requests import Providers, room_wanted
from service.reconciler.background.observer import Observer
from service.reconciler.background.orphans import Reaper
from service.reconciler.background.prober import Prober
from service.reconciler.background.sweeper import Sweeper
from service.reconciler.loop import Loop
from service.reconciler.reconciler import Reconciler, derive
from service.store.broadcasts import Broadcasts
from service.store.budgets import Budgets
from service.store.changes import CHANGED, DUE, Changes, Listener
from service.store.database import Database
from service.store.health_facts import HealthFacts
from service.store.host_stats import HostReports
from service.store.inbox import Inbox
from service.store.leases import Leases
from service.store.migrate import pending
from service.store.outages import Outages
from service.store.owned_ids import OwnedIds
from service.store.passes import Passes
from service.store.probes import Probes
from service.store.rows import Rows
from service.store.sealing import Sealer
from service.store.viewers import Viewers
from service.store.webhooks import StoredWebhooks
from service.webhooks.delivery import Deliveries
from service.webhooks.intake import Intake
from service.webhooks.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.settings.settings import Settings

log = structlog.get_logger(__name__)

WEBHOOKS_KEPT = timedelta(days=7)
_INTAKE_POOL = 3


class SchemaBehind(Exception):
    """The database misses migrations of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    grpc: int
    http: int


async def run(  # noqa: PLR0915 - wiring, top to bottom
    settings: Settings, *, stop: asyncio.Event, started: Callable[[Ports], None] | None = None
) -> None:
    """Serve until *stop*. Raises StoreUnavailable, SchemaBehind, or OSError where a port is taken."""
    async with contextlib.AsyncExitStack() as resources:
        database = await Database.connect(settings.database_url.reveal(), size=settings.database_pool)
        resources.push_async_callback(database.close)
        async with database.connection() as connection:
            if missing := await pending(connection):
                raise SchemaBehind(f"run `migrate` first: {', '.join(missing)}")

        # Its own, so that callers who keep the other one busy do not make a provider wait for its answer.
        # A provider sends again what was not stored: better soon than after a long wait for a row that somebody holds.
        intake_database = await Database.connect(
            settings.database_url.reveal(),
            size=_INTAKE_POOL,
            statement_timeout=timedelta(seconds=2),
            lock_timeout=timedelta(seconds=0.5),
        )
        resources.push_async_callback(intake_database.close)

        sealer = Sealer(settings.secret_keys)
        rows = Rows(sealer)
        broadcasts, changes = Broadcasts(database, rows), Changes(database, rows)
        leases = Leases(database, owner=settings.replica, ttl=settings.lease)
        storage = settings.storage
        passes = Passes(database, rows, derive=derive(settings.timing), storage=storage is not None)
        owned_ids = OwnedIds(database)

        tag = f"bs1:{settings.environment}:"
        # A call that outlives its lease would be found going on by another replica.
        longest_call = settings.lease * 0.75
        livekit = LiveKit(
            url=settings.livekit_url,
            api_key=settings.livekit_api_key,
            api_secret=settings.livekit_api_secret,
            public_url=settings.livekit_public_url,
            longest_call=longest_call,
            room_of=lambda name: room_wanted(name, tag, settings.timing),
            storage=storage,
        )
        resources.push_async_callback(livekit.close)
        mux = Mux(
            base_url=settings.mux_base_url,
            token_id=settings.mux_token_id,
            token_secret=settings.mux_token_secret,
            ingest_url=settings.mux_ingest_url,
            longest_call=longest_call,
        )
        resources.push_async_callback(mux.close)
        providers = Providers(
            rooms=livekit.rooms,
            egresses=livekit.egresses,
            streams=mux.streams,
            uploads=mux.uploads,
            budget=Budget(Budgets(database).take, settings.limits),
            tag=tag,
            storage=Storage(storage) if storage is not None else None,
            files=f"{storage.prefix}/{settings.environment}/" if storage is not None else "",
        )

        loop = Loop(leases, Reconciler(passes, providers, settings.timing, lease=settings.lease))
        observer = Observer(leases, owned_ids, Outages(database), providers, every=settings.observe_every)
        read = Reader(tag=tag, mux_environment=settings.mux_environment_id).read
        inbox = Inbox(database, sealer, read)
        deliver = Deliveries(
            Inbox(intake_database, sealer, read),
            livekit_secrets={
                settings.livekit_api_key: settings.livekit_api_secret,
                **dict(settings.livekit_webhook_secrets),
            },
            mux_secrets=settings.mux_webhook_secrets,
        ).deliver
        viewers = Viewers(database)
        probes, reports = Probes(database), HostReports(database)
        facts = HealthFacts(database, rows, storage=storage is not None)
        playlists = Hls(longest_call=longest_call)
        resources.push_async_callback(playlists.close)
        prober = Prober(
            leases,
            probes,
            providers,
            playlists,
            playback_base_url=settings.playback_base_url,
            every=settings.probe_every,
        )
        sweeper = Sweeper(
            leases,
            owned_ids,
            broadcasts,
            changes,
            providers,
            every=settings.sweep_every,
            grace=settings.sweep_grace,
            forget=[lambda: inbox.forget(older_than=WEBHOOKS_KEPT), viewers.forget, probes.forget, reports.forget],
        )
        moved = Moved()

        def wake(_broadcast_id: str) -> None:
            loop.wake()

        api = ApiServer(
            ApiOptions(
                host=settings.grpc_host,
                port=settings.grpc_port,
                reflection=settings.reflection,
                playback_base_url=settings.playback_base_url,
            ),
            broadcasts=broadcasts,
            changes=changes,
            tokens=livekit.tokens,
            moved=moved,
            wake=wake,
            health_api=HealthApi(broadcasts=broadcasts, facts=facts, reports=reports, timing=settings.timing),
            playback=PlaybackApi(
                broadcasts=broadcasts,
                viewers=viewers,
                tokens=livekit.tokens,
                now=database.now,
                playback_base_url=settings.playback_base_url,
            ),
            webhooks=WebhookApi(deliver),
            admin=AdminApi(
                broadcasts=broadcasts,
                leases=leases,
                inbox=inbox,
                webhooks=StoredWebhooks(database),
                orphans=Reaper(owned_ids, providers, grace=settings.sweep_grace),
                wake=wake,
                playback_base_url=settings.playback_base_url,
            ),
        )
        intake = Intake(
            deliver=deliver, ready=lambda: answers(database), host=settings.http_host, port=settings.http_port
        )
        listener = Listener(database, {CHANGED: lambda _: moved.notify(), DUE: lambda _: loop.wake()})

        async with asyncio.TaskGroup() as tasks:
            passing = tasks.create_task(loop.run(), name="loop")
            background = [
                tasks.create_task(observer.run(), name="observer"),
                tasks.create_task(prober.run(), name="prober"),
                tasks.create_task(sweeper.run(), name="sweeper"),
                tasks.create_task(_watch_database(database, api), name="database"),
            ]
            if settings.listen:
                background.append(tasks.create_task(listener.run(), name="listener"))
            http_port = await intake.start()
            resources.push_async_callback(intake.stop)
            grpc_port = await api.start()
            log.info("serving", grpc_port=grpc_port, http_port=http_port, replica=settings.replica)
            if started is not None:
                started(Ports(grpc=grpc_port, http=http_port))
            await stop.wait()
            log.info("draining")
            draining = tasks.create_task(api.drain(grace=settings.drain.total_seconds()), name="drain")
            await loop.drain(settings.drain)
            await passing
            await draining
            for task in background:
                task.cancel()
    log.info("stopped")


async def answers(database: Database) -> bool:
    try:
        await asyncio.wait_for(database.now(), 2)
    except (StoreUnavailable, TimeoutError):
        return False
    return True


async def _watch_database(database: Database, api: ApiServer) -> None:
    """Says NOT_SERVING while the database is away, so that load goes where it is not; and ends what holds locks for a
    replica that stands still, which no other can.
    """
    while True:
        await api.set_serving(await answers(database))
        with contextlib.suppress(StoreUnavailable):
            if ended := await database.end_stuck():
                log.warning("stuck_sessions_ended", count=ended)
        await asyncio.sleep(2)
