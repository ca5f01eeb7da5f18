"""AdminService: one method an RPC, for people on call."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

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
from broadcast.v1.webhook_service_pb2 import (
    WEBHOOK_OUTCOME_UNSPECIFIED,
    WEBHOOK_PROVIDER_UNSPECIFIED,
    WebhookOutcome,
    WebhookProvider,
)
from broadcast_client.caller import Caller
from broadcast_client.connection import Connection
from broadcast_client.retry import Safety

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

_ORPHANS_S = 60.0
"""Seconds. The service asks the providers page by page, within their rate limits."""


class Admin:
    """AdminService. Errors, `timeout` and further tries are as in BroadcastClient."""

    def __init__(self, connection: Connection, call: Caller) -> None:
        self._connection = connection
        self._call = call

    @property
    def _stub(self) -> "AdminServiceAsyncStub":
        return self._connection.stub(AdminServiceStub)

    async def wake(self, broadcast_id: str, *, timeout: float | None = None) -> Broadcast:
        """Have every resource of a broadcast looked at again, now. Answers the broadcast as it was when it was woken.

        Raises BroadcastNotFound.
        """
        request = WakeBroadcastRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.WakeBroadcast, request, "WakeBroadcast", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def orphans(self, *, timeout: float = _ORPHANS_S) -> ListOrphansResponse:
        """List the resources at the providers that carry the service's mark and belong to no broadcast.

        `timeout` is 60 s unless it is given, because the providers are asked.
        """
        return await self._call(
            self._stub.ListOrphans, ListOrphansRequest(), "ListOrphans", Safety.READ, timeout=timeout
        )

    async def reap(
        self, external_ids: Iterable[str] = (), *, dry_run: bool = False, timeout: float = _ORPHANS_S
    ) -> ReapOrphansResponse:
        """Remove orphans that are old enough, at most 20 a call.

        A lost answer is not tried again, because the second answer would not name the orphans that the first call
        removed.

        Args:
            external_ids: removes only these, by the provider's id or a room's name. Empty: every orphan.
            dry_run: answer the orphans that would be removed, and remove none.
            timeout: deadline of one try, in seconds; 60 unless it is given, because the providers are asked.

        Raises:
            ProviderUnavailable: a provider did not answer.
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
        """Answer one page of the stored webhooks, newest first.

        Args:
            provider: only webhooks that this provider sent. Unspecified: of any.
            broadcast_id: only webhooks about this broadcast. Empty: about any.
            type: only webhooks of this type, in the provider's words. Empty: of any.
            outcome: only webhooks with this outcome. Unspecified: with any.
            include_bodies: answer the bodies too, without secrets.
            page_size: largest number of webhooks on the page, up to 500. 0: 50.
            page_token: next_page_token of the page before, with the same filter. Empty: the first page.
            timeout: deadline of one try, in seconds.

        Raises:
            PageTokenInvalid: the token is not one of this filter.
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
        """Iterate over every webhook that matches, newest first. One call a page; see `webhooks`."""
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
        """Have a stored webhook applied once more. Harmless: it changes only fields that were seen before its time.

        Raises WebhookNotFound.
        """
        request = ReplayWebhookRequest(webhook_id=webhook_id)
        answer = await self._call(
            self._stub.ReplayWebhook, request, "ReplayWebhook", Safety.REPEATABLE, timeout=timeout
        )
        return answer.webhook
