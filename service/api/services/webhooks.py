"""WebhookService, and the words of the inbox."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc

from broadcast.v1 import admin_service_pb2 as admin
from broadcast.v1 import webhook_service_pb2 as rpc
from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceServicer
from service.api.messages.broadcast import time_message
from service.store.webhooks import Delivered, StoredWebhook, WebhookFilter, WebhookOutcome

_Context = grpc.aio.ServicerContext[Any, Any]

Deliver = Callable[[str, Iterable[tuple[str, str]], bytes], Awaitable[Delivered]]
"""Of provider, headers and body. Raises WebhookRefused, StoreUnavailable."""

_PROVIDERS: Final = {name: rpc.WebhookProvider.Value(f"WEBHOOK_PROVIDER_{name.upper()}") for name in ("livekit", "mux")}
_PROVIDERS_READ: Final = {number: name for name, number in _PROVIDERS.items()}
_OUTCOMES: Final = {outcome: rpc.WebhookOutcome.Value(f"WEBHOOK_OUTCOME_{outcome.name}") for outcome in WebhookOutcome}
_OUTCOMES_READ: Final = {number: outcome for outcome, number in _OUTCOMES.items()}


class WebhookApi(WebhookServiceServicer):
    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def DeliverWebhook(self, request: rpc.DeliverWebhookRequest, context: _Context) -> rpc.DeliverWebhookResponse:
        delivered = await self._deliver(_PROVIDERS_READ[request.provider], request.headers.items(), request.body)
        return rpc.DeliverWebhookResponse(
            webhook_id=delivered.webhook_id,
            outcome=_OUTCOMES[delivered.outcome],
            duplicate=delivered.duplicate,
        )


def webhook_filter(request: admin.ListWebhooksRequest) -> WebhookFilter:
    return WebhookFilter(
        provider=_PROVIDERS_READ.get(request.provider, ""),
        broadcast_id=request.broadcast_id,
        type=request.type,
        outcome=_OUTCOMES_READ.get(request.outcome, ""),
    )


def webhook_message(webhook: StoredWebhook) -> admin.Webhook:
    return admin.Webhook(
        id=webhook.id,
        provider=_PROVIDERS[webhook.provider],
        event_id=webhook.event_id,
        type=webhook.type,
        broadcast_id=webhook.broadcast_id,
        provider_time=time_message(webhook.provider_time),
        receive_time=time_message(webhook.receive_time),
        apply_time=time_message(webhook.apply_time),
        outcome=_OUTCOMES[webhook.outcome],
        delivery_count=webhook.delivery_count,
        redacted_body=webhook.redacted,
    )
