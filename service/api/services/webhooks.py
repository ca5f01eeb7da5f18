"""WebhookService: for gateways that receive the webhooks of providers for this service."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from broadcast.v1 import webhook_service_pb2 as rpc
from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceServicer
from service.api.messages.enums import WEBHOOK_OUTCOMES, WEBHOOK_PROVIDERS
from service.domain.provider import Provider
from service.store.webhooks.inbox import Delivered

_Context = grpc.aio.ServicerContext[Any, Any]

Deliver = Callable[[Provider, Iterable[tuple[str, str]], bytes], Awaitable[Delivered]]
"""Stores one webhook, of the provider, the headers and the body as it was received. Raises WebhookRefused and
StoreUnavailable.
"""


class WebhookApi(WebhookServiceServicer):
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def DeliverWebhook(self, request: rpc.DeliverWebhookRequest, context: _Context) -> rpc.DeliverWebhookResponse:
        delivered = await self._deliver(
            WEBHOOK_PROVIDERS.member[request.provider], request.headers.items(), request.body
        )
        return rpc.DeliverWebhookResponse(
            webhook_id=delivered.webhook_id,
            outcome=WEBHOOK_OUTCOMES.number[delivered.outcome],
            duplicate=delivered.duplicate,
        )
