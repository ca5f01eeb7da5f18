"""One replica: all roles in one process. The package `app` is the only one that wires.

Order of the start: the roles' tasks, then the ports. Order of the end: readiness off and streams sent away; no new
passes, those under way end; unary calls end; the webhooks' port closes; pools close. Every step may be cut off as well:
what is stored is always enough to go on from.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from service.app.api import ApiRole
from service.app.reconciler import reconciler_role
from service.app.shared import shared
from service.app.webhooks import webhooks_role
from service.store.changes import CHANGED, DUE, Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.settings.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    grpc: int
    http: int


async def run(settings: Settings, *, stop: asyncio.Event, started: Callable[[Ports], None] | None = None) -> None:
    """Serve until *stop* is set. *started* is told the ports, once both listen.

    Raises StoreUnavailable, OSError or SchemaBehind before anything was started; later, whatever ended a task, in an
    ExceptionGroup.
    """
    async with AsyncExitStack() as roles:
        common = await roles.enter_async_context(shared(settings))
        webhooks = await roles.enter_async_context(webhooks_role(common))
        reconciler = await roles.enter_async_context(reconciler_role(common, [webhooks.forget]))
        api = ApiRole(common, webhooks, reconciler.wake)
        listener = Listener(common.database, {CHANGED: lambda _: api.changed(), DUE: lambda _: reconciler.wake()})
        async with asyncio.TaskGroup() as tasks:
            background = reconciler.start(tasks)
            background.append(tasks.create_task(api.watch_database(), name="database"))
            if settings.listen:
                background.append(tasks.create_task(listener.run(), name="listener"))
            http_port = await webhooks.start()
            grpc_port = await api.start()
            log.info("serving", grpc_port=grpc_port, http_port=http_port, replica=settings.replica)
            if started is not None:
                started(Ports(grpc=grpc_port, http=http_port))
            await stop.wait()
            log.info("draining")
            draining = tasks.create_task(api.drain(settings.drain), name="drain")
            await reconciler.drain(settings.drain)
            await draining
            for task in background:
                task.cancel()
    log.info("stopped")
