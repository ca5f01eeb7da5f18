"""One replica: all roles in one process. The package `app` is the only one that wires.

Order of the start: the ports, then the roles' tasks, so that a replica that cannot listen does nothing. Order of the
end: readiness off and streams sent away; no new passes, those under way end; unary calls end; the webhooks' port
closes; pools close. Every step may be cut off as well: what is stored is always enough to go on from.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from service.api.transport.server import CannotListen
from service.app import descriptors, memory
from service.app.api import ApiRole
from service.app.reconciler import reconciler_role
from service.app.shared import shared
from service.app.webhooks import webhooks_role
from service.store.changes import CHANGED, DUE, Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.app.webhooks import WebhooksRole
    from service.settings.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    grpc: int
    http: int


async def run(settings: Settings, *, stop: asyncio.Event, started: Callable[[Ports], None] | None = None) -> None:
    """Serve until *stop* is set. *started* is told the ports, once both listen.

    Raises StoreUnavailable, OSError, CannotListen or SchemaBehind before anything was started; later, whatever ended a
    task, in an ExceptionGroup.
    """
    descriptors.raise_limit()
    async with AsyncExitStack() as roles:
        common = await roles.enter_async_context(shared(settings))
        webhooks = await roles.enter_async_context(webhooks_role(common))
        reconciler = await roles.enter_async_context(reconciler_role(common, [webhooks.forget]))
        api = ApiRole(common, webhooks, reconciler.wake)
        listener = Listener(common.database, {CHANGED: lambda _: api.changed(), DUE: lambda _: reconciler.wake()})
        ports = await _listen(settings, webhooks, api)
        async with asyncio.TaskGroup() as tasks:
            background = reconciler.start(tasks)
            background.append(tasks.create_task(api.watch_database(), name="database"))
            background.append(tasks.create_task(memory.give_back(), name="memory"))
            background.append(tasks.create_task(api.count_viewers(), name="audience"))
            # LISTEN is session state, which a pooler does not keep.
            if settings.listen and (not settings.database_pooler or settings.database_listen_url is not None):
                background.append(tasks.create_task(listener.run(), name="listener"))
            log.info("serving", grpc_port=ports.grpc, http_port=ports.http, replica=settings.replica)
            if started is not None:
                started(ports)
            await stop.wait()
            log.info("draining")
            webhooks.drain()
            draining = tasks.create_task(api.drain(settings.drain), name="drain")
            await reconciler.drain(settings.drain)
            await draining
            for task in background:
                task.cancel()
    log.info("stopped")


async def _listen(settings: Settings, webhooks: WebhooksRole, api: ApiRole) -> Ports:
    """Open both ports. Raises CannotListen, with the variable that chooses another port."""
    try:
        http = await webhooks.start()
    except OSError as error:
        address = f"{settings.http_host}:{settings.http_port}"
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise CannotListen(f"cannot listen on {address}: {reason} (HTTP_HOST and HTTP_PORT choose another)") from None
    try:
        return Ports(http=http, grpc=await api.start())
    except CannotListen as error:
        raise CannotListen(f"{error} (GRPC_HOST and GRPC_PORT choose another)") from None
