"""The inbox of webhooks in the words of the contract."""

from broadcast.v1 import admin_service_pb2 as rpc
from service.api.messages.enums import WEBHOOK_OUTCOMES, WEBHOOK_PROVIDERS
from service.api.messages.times import time_message
from service.store.webhooks.stored import StoredWebhook, WebhookFilter


def webhook_filter(request: rpc.ListWebhooksRequest) -> WebhookFilter:
    return WebhookFilter(
        provider=WEBHOOK_PROVIDERS.member.get(request.provider),
        broadcast_id=request.broadcast_id,
        type=request.type,
        outcome=WEBHOOK_OUTCOMES.member.get(request.outcome, ""),
    )


def webhook_message(webhook: StoredWebhook) -> rpc.Webhook:
    return rpc.Webhook(
        id=webhook.id,
        provider=WEBHOOK_PROVIDERS.number[webhook.provider],
        event_id=webhook.event_id,
        type=webhook.type,
        broadcast_id=webhook.broadcast_id,
        provider_time=time_message(webhook.provider_time),
        receive_time=time_message(webhook.receive_time),
        apply_time=time_message(webhook.apply_time),
        outcome=WEBHOOK_OUTCOMES.number[webhook.outcome],
        delivery_count=webhook.delivery_count,
        redacted_body=webhook.redacted,
    )
