"""The services beside BroadcastService: for those who are on call, and for viewers."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from broadcast.v1.admin_service_pb2 import (
    ListOrphansRequest,
    ListOrphansResponse,
    ListWebhooksRequest,
    ListWebhooksResponse,
    ReapOrphansRequest,
    ReapOrphansResponse,
    ReplayWebhookRequest,
    WakeBroadcastRequest,
    Webhook,
)
from broadcast.v1.admin_service_pb2_grpc import AdminServiceStub
from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast.v1.playback_service_pb2 import JoinBroadcastRequest, JoinBroadcastResponse
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceStub
from broadcast.v1.webhook_service_pb2 import (
    WEBHOOK_OUTCOME_UNSPECIFIED,
    WEBHOOK_PROVIDER_UNSPECIFIED,
    WebhookOutcome,
    WebhookProvider,
)
from broadcast_client.connection import Connection
from broadcast_client.retry import Safety

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# The providers are asked for it, page by page, within their rate limits.
_ORPHANS_S = 60.0


class Caller(Protocol):
    """Makes one call, and tries again where that is safe."""

    async def __call__(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        name: str,
        safety: Safety,
        *,
        timeout: float | None,
    ) -> _Response: ...


class Admin:
    """AdminService. Raises as the methods of BroadcastClient do."""

    def __init__(self, connection: Connection, call: Caller) -> None:
        self._connection = connection
        self._call = call

    @property
    def _stub(self) -> "AdminServiceAsyncStub":
        return self._connection.stub(AdminServiceStub)

    async def wake(self, broadcast_id: str, *, timeout: float | None = None) -> Broadcast:
        """Have everything of one broadcast looked at again, now. The answer is what it was before."""
        request = WakeBroadcastRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.WakeBroadcast, request, "WakeBroadcast", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def orphans(self, *, timeout: float = _ORPHANS_S) -> ListOrphansResponse:
        """What exists at the providers with the service's mark and belongs to no broadcast."""
        return await self._call(
            self._stub.ListOrphans, ListOrphansRequest(), "ListOrphans", Safety.READ, timeout=timeout
        )

    async def reap(
        self, external_ids: Iterable[str] = (), *, dry_run: bool = False, timeout: float = _ORPHANS_S
    ) -> ReapOrphansResponse:
        """Remove orphans that are old enough, up to 20.

        A lost answer is not tried again: the second try would not name what the first removed.
        """
        request = ReapOrphansRequest(external_ids=external_ids, dry_run=dry_run)
        safety = Safety.READ if dry_run else Safety.ONCE
        return await self._call(self._stub.ReapOrphans, request, "ReapOrphans", safety, timeout=timeout)

    async def webhooks(
        self,
        *,
        provider: WebhookProvider.ValueType = WEBHOOK_PROVIDER_UNSPECIFIED,
        broadcast_id: str = "",
        type: str = "",
        outcome: WebhookOutcome.ValueType = WEBHOOK_OUTCOME_UNSPECIFIED,
        include_bodies: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> ListWebhooksResponse:
        """One page of the inbox, newest first.

        Args:
            provider: who sent it. Unspecified: any, and empty texts as well.
            broadcast_id: which it is about.
            type: the provider's type of the event.
            outcome: what became of it.
            include_bodies: answer the bodies too, without secrets.
            page_size: how many at most, up to 500. 0: 50.
            page_token: next_page_token of the page before, with the same filter.
            timeout: of one try, in seconds.
        """
        request = ListWebhooksRequest(
            provider=provider,
            broadcast_id=broadcast_id,
            type=type,
            outcome=outcome,
            include_bodies=include_bodies,
            page_size=page_size,
            page_token=page_token,
        )
        return await self._call(self._stub.ListWebhooks, request, "ListWebhooks", Safety.READ, timeout=timeout)

    async def webhooks_all(
        self,
        *,
        provider: WebhookProvider.ValueType = WEBHOOK_PROVIDER_UNSPECIFIED,
        broadcast_id: str = "",
        type: str = "",
        outcome: WebhookOutcome.ValueType = WEBHOOK_OUTCOME_UNSPECIFIED,
        include_bodies: bool = False,
        page_size: int = 0,
    ) -> AsyncIterator[Webhook]:
        """Every webhook of the filter, newest first, a page at a time."""
        page_token = ""
        while True:
            page = await self.webhooks(
                provider=provider,
                broadcast_id=broadcast_id,
                type=type,
                outcome=outcome,
                include_bodies=include_bodies,
                page_size=page_size,
                page_token=page_token,
            )
            for webhook in page.webhooks:
                yield webhook
            page_token = page.next_page_token
            if not page_token:
                return

    async def replay(self, webhook_id: int, *, timeout: float | None = None) -> Webhook:
        """Have a stored webhook taken into account once more."""
        request = ReplayWebhookRequest(webhook_id=webhook_id)
        answer = await self._call(
            self._stub.ReplayWebhook, request, "ReplayWebhook", Safety.REPEATABLE, timeout=timeout
        )
        return answer.webhook


class Playback:
    """PlaybackService. Raises as the methods of BroadcastClient do."""

    def __init__(self, connection: Connection, call: Caller) -> None:
        self._connection = connection
        self._call = call

    @property
    def _stub(self) -> "PlaybackServiceAsyncStub":
        return self._connection.stub(PlaybackServiceStub)

    async def join(self, broadcast_id: str, viewer_id: str, *, timeout: float | None = None) -> JoinBroadcastResponse:
        """How one viewer watches now; ask again after `refresh_after`. A token in the answer is a secret.

        Args:
            broadcast_id: which.
            viewer_id: the caller's id of the viewer, one for each device or tab. Asking again keeps the place.
            timeout: of one try, in seconds.
        """
        request = JoinBroadcastRequest(broadcast_id=broadcast_id, viewer_id=viewer_id)
        return await self._call(self._stub.JoinBroadcast, request, "JoinBroadcast", Safety.READ, timeout=timeout)
