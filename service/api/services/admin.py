"""AdminService: for the engineers on call."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc

from broadcast.v1 import admin_service_pb2 as rpc
from broadcast.v1.admin_service_pb2_grpc import AdminServiceServicer
from service.api.messages import tokens
from service.api.messages.broadcast import broadcast_message
from service.api.messages.pages import fitting
from service.api.messages.times import time_message
from service.api.messages.webhook import webhook_filter, webhook_message
from service.domain.errors import ProviderUnavailable
from service.domain.orphans import Orphan, Orphans
from service.store.broadcasts import Broadcasts
from service.store.leases import Leases
from service.store.webhooks.inbox import Inbox
from service.store.webhooks.stored import StoredWebhooks

_Context = grpc.aio.ServicerContext[Any, Any]

_MOST_WITH_BODIES = 50
"""A body may have 256 KiB, and a page that is read is in memory as a whole."""


class AdminApi(AdminServiceServicer):
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        leases: Leases,
        inbox: Inbox,
        webhooks: StoredWebhooks,
        orphans: Orphans,
        wake: Callable[[str], None],
        playback_base_url: str,
    ) -> None:
        """*wake*: as of `ApiServer`."""
        self._broadcasts = broadcasts
        self._leases = leases
        self._inbox = inbox
        self._webhooks = webhooks
        self._orphans = orphans
        self._wake = wake
        self._playback_base_url = playback_base_url

    async def ListOrphans(self, request: rpc.ListOrphansRequest, context: _Context) -> rpc.ListOrphansResponse:
        found = await self._orphans.find()
        return rpc.ListOrphansResponse(
            orphans=[_orphan_message(orphan) for orphan in found.orphans], incomplete=found.incomplete
        )

    async def ReapOrphans(self, request: rpc.ReapOrphansRequest, context: _Context) -> rpc.ReapOrphansResponse:
        reaped = await self._orphans.reap(frozenset(request.external_ids), dry_run=request.dry_run)
        if reaped.incomplete and not reaped.removed and not reaped.remaining:
            # Nothing was removed and no provider could be asked in full, so the caller should try again.
            error = ProviderUnavailable(
                f"could not be asked in full: {', '.join(reaped.incomplete)}", provider=reaped.incomplete[0]
            )
            error.retry_after = timedelta(seconds=2)
            raise error
        return rpc.ReapOrphansResponse(
            removed=[_orphan_message(orphan) for orphan in reaped.removed],
            remaining=[_orphan_message(orphan) for orphan in reaped.remaining],
            incomplete=reaped.incomplete,
        )

    async def WakeBroadcast(self, request: rpc.WakeBroadcastRequest, context: _Context) -> rpc.WakeBroadcastResponse:
        broadcast = await self._broadcasts.get(request.broadcast_id)
        await self._leases.wake([broadcast.id], retry=True)
        self._wake(broadcast.id)
        return rpc.WakeBroadcastResponse(broadcast=broadcast_message(broadcast, self._playback_base_url))

    async def ListWebhooks(self, request: rpc.ListWebhooksRequest, context: _Context) -> rpc.ListWebhooksResponse:
        filter_ = webhook_filter(request)
        digest = tokens.webhook_filter_hash(filter_)
        before_id = tokens.read_inbox_token(request.page_token, digest).id if request.page_token else None
        size = tokens.page_size(request.page_size)
        if request.include_bodies:
            size = min(size, _MOST_WITH_BODIES)
        found = await self._webhooks.list(filter_, limit=size + 1, before_id=before_id, bodies=request.include_bodies)
        webhooks = fitting(webhook_message(webhook) for webhook in found[:size])
        next_page_token = tokens.inbox_token(digest, webhooks[-1].id) if len(found) > len(webhooks) else ""
        return rpc.ListWebhooksResponse(webhooks=webhooks, next_page_token=next_page_token)

    async def ReplayWebhook(self, request: rpc.ReplayWebhookRequest, context: _Context) -> rpc.ReplayWebhookResponse:
        webhook = await self._inbox.replay(request.webhook_id)
        if webhook.broadcast_id:
            self._wake(webhook.broadcast_id)
        return rpc.ReplayWebhookResponse(webhook=webhook_message(webhook))


def _orphan_message(orphan: Orphan) -> rpc.Orphan:
    return rpc.Orphan(
        provider=orphan.provider,
        kind=orphan.kind,
        external_id=orphan.external_id,
        broadcast_id=orphan.broadcast_id,
        create_time=time_message(orphan.created_at),
        removable=orphan.removable,
    )
