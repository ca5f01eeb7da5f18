"""WakeBroadcast, the inbox, DeliverWebhook, and what holds for several services on one server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from livekit import api as livekit_api
from structlog.testing import capture_logs

from broadcast.v1 import admin_service_pb2 as rpc
from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as calls
from broadcast.v1 import webhook_service_pb2 as hooks
from broadcast.v1.admin_service_pb2_grpc import AdminServiceStub
from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceStub
from broadcast_sandbox.mux.events import signature_header
from service.api.transport.server import ApiOptions
from service.domain.errors import StoreUnavailable
from tests.integration.api_stage import Behind, Beside, Stage, api, refused
from tests.integration.services_stage import KEY, MUX_SECRET, SECRET, NoOrphans, admin_api, webhook_api
from tests.waiting import eventually

if TYPE_CHECKING:
    from broadcast.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceAsyncStub

STREAM_KEY = "5bd28537-9a3b-1f2e-bbb5-bbb506401234"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LIVEKIT, MUX = hooks.WEBHOOK_PROVIDER_LIVEKIT, hooks.WEBHOOK_PROVIDER_MUX


def beside(behind: Behind) -> Beside:
    return Beside(webhooks=webhook_api(behind), admin=admin_api(behind, NoOrphans()))


@dataclass(slots=True, kw_only=True)
class Show:
    stage: Stage
    admin: AdminServiceAsyncStub
    webhooks: WebhookServiceAsyncStub

    async def row(self, broadcast_id: str) -> dict[str, Any]:
        async with self.stage.database.connection() as connection:
            row = await connection.fetchrow("SELECT * FROM broadcast WHERE id = $1", broadcast_id)
        assert row is not None
        return dict(row)

    async def mux(
        self, event_id: str, about: str = "show-1", kind: str = "video.live_stream.active"
    ) -> hooks.DeliverWebhookResponse:
        body = of_mux(event_id, about, kind)
        headers = {"mux-signature": signature_header(MUX_SECRET, body, at=int(time.time()))}
        return await self.webhooks.DeliverWebhook(hooks.DeliverWebhookRequest(provider=MUX, headers=headers, body=body))

    async def livekit(
        self, event_id: str, room: str = "show-1", kind: str = "room_started"
    ) -> hooks.DeliverWebhookResponse:
        body = json.dumps(
            {"id": event_id, "createdAt": "1793491200", "event": kind, "room": {"name": room, "sid": "RM_1"}}
        )
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        token = livekit_api.AccessToken(KEY, SECRET).with_sha256(digest).to_jwt()
        return await self.webhooks.DeliverWebhook(
            hooks.DeliverWebhookRequest(provider=LIVEKIT, headers={"Authorization": token}, body=body.encode())
        )

    async def list(self, **fields: Any) -> rpc.ListWebhooksResponse:
        return await self.admin.ListWebhooks(rpc.ListWebhooksRequest(**fields))

    async def ids(self, **fields: Any) -> list[str]:
        return [each.event_id for each in (await self.list(**fields)).webhooks]


def of_mux(event_id: str, about: str, kind: str) -> bytes:
    stream = {
        "id": f"LS-{about}",
        "created_at": 1793491200,
        "status": "active",
        "stream_key": STREAM_KEY,
        "passthrough": f"bs1:test:{about}:0",
    }
    event = {
        "type": kind,
        "id": event_id,
        "created_at": "2026-11-01T19:00:37.613000Z",
        "object": {"type": "live", "id": stream["id"]},
        "environment": {"name": "prod", "id": "j29sb4"},
        "data": stream,
    }
    return json.dumps(event).encode()


@pytest.fixture
async def show(database_url: str) -> AsyncIterator[Show]:
    async with api(database_url, beside=beside) as stage:
        yield Show(stage=stage, admin=AdminServiceStub(stage.channel), webhooks=WebhookServiceStub(stage.channel))


async def test_waking_a_broadcast_makes_it_due_and_answers_it_as_it_is(show: Show) -> None:
    await show.stage.started("show-1", title="A show")
    # As a pass leaves it: taken, and due in a while.
    await show.stage.sql(
        "UPDATE broadcast SET due_at = now() + interval '1 h', lease_until = now() + interval '20 s', fence = 7"
    )
    show.stage.woken.clear()
    before = await show.row("show-1")
    answer = await show.admin.WakeBroadcast(rpc.WakeBroadcastRequest(broadcast_id="show-1"))
    assert (answer.broadcast.id, answer.broadcast.spec.title) == ("show-1", "A show")
    assert answer.broadcast.status.state == pb.BROADCAST_STATE_STARTING
    after = await show.row("show-1")
    now = await show.stage.database.now()
    assert after["due_at"] <= now < before["due_at"]
    assert after["dirty_at"] is not None
    assert (after["fence"], after["lease_until"]) == (before["fence"], before["lease_until"])
    assert show.stage.woken == ["show-1"]


async def test_waking_what_rests_or_is_not_there(show: Show) -> None:
    await show.stage.create("show-1")
    await show.admin.WakeBroadcast(rpc.WakeBroadcastRequest(broadcast_id="show-1"))
    assert (await show.row("show-1"))["due_at"] is None
    for broadcast_id in ("no-such", "Show 1"):
        refusal = await refused(show.admin.WakeBroadcast(rpc.WakeBroadcastRequest(broadcast_id=broadcast_id)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "BROADCAST_NOT_FOUND")
        assert refusal.info.metadata["broadcast_id"] == broadcast_id
    await show.stage.stub.DeleteBroadcast(calls.DeleteBroadcastRequest(broadcast_id="show-1"))
    deleted = await refused(show.admin.WakeBroadcast(rpc.WakeBroadcastRequest(broadcast_id="show-1")))
    assert deleted.reason == "BROADCAST_NOT_FOUND"


async def test_a_webhook_by_grpc_is_stored_and_wakes_its_broadcast(show: Show) -> None:
    await show.stage.started("show-1")
    await show.stage.sql("UPDATE broadcast SET due_at = NULL")
    with capture_logs() as logs:
        first = await show.mux("evt-1")
    assert (first.outcome, first.duplicate) == (hooks.WEBHOOK_OUTCOME_ACCEPTED, False)
    assert (await show.row("show-1"))["due_at"] is not None
    [line] = [entry for entry in logs if entry["event"] == "rpc"]
    assert (line["method"], line["webhook_id"]) == ("DeliverWebhook", first.webhook_id)
    again = await show.mux("evt-1")
    assert (again.webhook_id, again.duplicate) == (first.webhook_id, True)
    foreign = await show.livekit("EV_1", room="somebodys")
    assert foreign.outcome == hooks.WEBHOOK_OUTCOME_FOREIGN

    [newest, stored] = (await show.list(include_bodies=True)).webhooks
    assert (newest.id, newest.provider) == (foreign.webhook_id, LIVEKIT)
    assert (stored.id, stored.provider, stored.event_id) == (first.webhook_id, MUX, "evt-1")
    assert (stored.type, stored.broadcast_id) == ("video.live_stream.active", "show-1")
    assert stored.outcome == hooks.WEBHOOK_OUTCOME_ACCEPTED
    assert stored.delivery_count == 2
    assert stored.provider_time.ToJsonString() == "2026-11-01T19:00:37.613Z"
    assert abs(stored.receive_time.seconds - time.time()) < 60
    assert not stored.HasField("apply_time")
    assert json.loads(stored.redacted_body)["data"]["id"] == "LS-show-1"
    assert STREAM_KEY not in str((newest, stored, logs))
    assert [each.redacted_body for each in (await show.list()).webhooks] == ["", ""]


async def test_a_webhook_that_is_not_signed_is_refused_and_not_stored(show: Show) -> None:
    body = of_mux("evt-1", "show-1", "video.live_stream.active")
    good = signature_header(MUX_SECRET, body, at=int(time.time()))
    for provider, headers, sent in (
        (MUX, {}, body),
        (MUX, {"Mux-Signature": good}, body + b" "),
        (MUX, {"Mux-Signature": signature_header("other", body, at=int(time.time()))}, body),
        (MUX, {"Mux-Signature": good, "mux-signature": good}, body),
        (LIVEKIT, {"Mux-Signature": good}, body),
    ):
        request = hooks.DeliverWebhookRequest(provider=provider, headers=headers, body=sent)
        refusal = await refused(show.webhooks.DeliverWebhook(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "WEBHOOK_REFUSED")
        assert refusal.info.metadata["provider"] == ("mux" if provider == MUX else "livekit")
    assert await show.stage.sql("SELECT count(*) FROM webhook") == 0


async def test_bad_deliveries_are_named(show: Show) -> None:
    long = "x" * 8193
    for fields, field in (
        ({"provider": 0, "body": b"x"}, "provider"),
        ({"provider": 9, "body": b"x"}, "provider"),
        ({"provider": MUX, "body": b""}, "body"),
        ({"provider": MUX, "body": b"x" * (256 * 1024 + 1)}, "body"),
        ({"provider": MUX, "body": b"x", "headers": {"a": long}}, 'headers["a"]'),
        ({"provider": MUX, "body": b"x", "headers": {"a": "b\0"}}, 'headers["a"]'),
        ({"provider": MUX, "body": b"x", "headers": {str(number): "" for number in range(65)}}, "headers"),
    ):
        refusal = await refused(show.webhooks.DeliverWebhook(hooks.DeliverWebhookRequest(**cast("Any", fields))))
        assert (refusal.code, refusal.reason) == (INVALID, "INVALID_FIELD")
        assert set(refusal.fields) == {field}


async def test_the_inbox_is_filtered(show: Show) -> None:
    await show.stage.started("show-1")
    await show.stage.started("show-2")
    await show.mux("m1")
    await show.mux("m2", about="show-2")
    await show.mux("m3", kind="video.live_stream.idle")
    await show.mux("m4", kind="video.asset.warning")
    await show.livekit("l1")
    await show.livekit("l2", room="nobodys")
    assert await show.ids() == ["l2", "l1", "m4", "m3", "m2", "m1"]
    assert await show.ids(provider=MUX) == ["m4", "m3", "m2", "m1"]
    assert await show.ids(broadcast_id="show-1") == ["l1", "m4", "m3", "m1"]
    assert await show.ids(type="video.live_stream.active") == ["m2", "m1"]
    assert await show.ids(outcome=hooks.WEBHOOK_OUTCOME_FOREIGN) == ["l2"]
    assert await show.ids(outcome=hooks.WEBHOOK_OUTCOME_UNKNOWN_TYPE) == ["m4"]
    assert await show.ids(provider=MUX, broadcast_id="show-1", type="video.live_stream.idle") == ["m3"]
    assert await show.ids(provider=LIVEKIT, type="video.live_stream.idle") == []


async def test_the_inbox_comes_in_pages_that_new_ones_do_not_shift(show: Show) -> None:
    await show.stage.started("show-1")
    for number in range(7):
        await show.mux(f"m{number}")
    first = await show.list(page_size=3, provider=MUX)
    assert [each.event_id for each in first.webhooks] == ["m6", "m5", "m4"]
    await show.mux("m7")
    second = await show.list(page_size=3, provider=MUX, page_token=first.next_page_token)
    assert [each.event_id for each in second.webhooks] == ["m3", "m2", "m1"]
    third = await show.list(page_size=3, provider=MUX, page_token=second.next_page_token, include_bodies=True)
    assert [each.event_id for each in third.webhooks] == ["m0"]
    assert third.next_page_token == ""
    exactly = await show.list(page_size=8, provider=MUX)
    assert (len(exactly.webhooks), exactly.next_page_token) == (8, "")

    token = first.next_page_token
    listing = await show.stage.stub.ListBroadcasts(calls.ListBroadcastsRequest())
    for other in ({}, {"provider": LIVEKIT}, {"provider": MUX, "type": "x"}, {"provider": MUX, "broadcast_id": "x"}):
        refusal = await refused(show.list(page_token=token, **cast("Any", other)))
        assert (refusal.code, refusal.reason) == (INVALID, "PAGE_TOKEN_INVALID"), other
    for damaged in (token[:-1], f"{token}x", "x", listing.resume_token):
        assert (await refused(show.list(provider=MUX, page_token=damaged))).reason == "PAGE_TOKEN_INVALID"


async def test_bad_requests_are_named(show: Show) -> None:
    for call, field in (
        (show.list(page_size=-1), "page_size"),
        (show.list(provider=9), "provider"),
        (show.list(outcome=9), "outcome"),
        (show.list(broadcast_id="x" * 64), "broadcast_id"),
        (show.list(type="x" * 129), "type"),
        (show.list(type="a\0"), "type"),
        (show.list(page_token="x" * 513), "page_token"),
        (show.admin.ReplayWebhook(rpc.ReplayWebhookRequest()), "webhook_id"),
        (show.admin.ReplayWebhook(rpc.ReplayWebhookRequest(webhook_id=-1)), "webhook_id"),
        (show.admin.WakeBroadcast(rpc.WakeBroadcastRequest()), "broadcast_id"),
        (show.admin.ReapOrphans(rpc.ReapOrphansRequest(external_ids=["x", ""])), "external_ids[1]"),
        (show.admin.ReapOrphans(rpc.ReapOrphansRequest(external_ids=["x"] * 101)), "external_ids"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason, set(refusal.fields)) == (INVALID, "INVALID_FIELD", {field})


async def test_a_webhook_is_replayed_as_often_as_one_likes(show: Show) -> None:
    await show.stage.started("show-1")
    stored = await show.mux("m1")
    await show.stage.sql("UPDATE webhook SET apply_time = now()")
    await show.stage.sql("UPDATE broadcast SET due_at = NULL")
    show.stage.woken.clear()
    for _ in range(2):
        answer = await show.admin.ReplayWebhook(rpc.ReplayWebhookRequest(webhook_id=stored.webhook_id))
        assert (answer.webhook.id, answer.webhook.event_id) == (stored.webhook_id, "m1")
        assert not answer.webhook.HasField("apply_time"), "it is to be taken into account again"
        assert STREAM_KEY not in str(answer)
    assert (await show.row("show-1"))["due_at"] is not None
    assert show.stage.woken == ["show-1", "show-1"]
    refusal = await refused(show.admin.ReplayWebhook(rpc.ReplayWebhookRequest(webhook_id=2**62)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "WEBHOOK_NOT_FOUND")
    assert refusal.info.metadata["webhook_id"] == str(2**62)


async def test_the_database_that_is_gone_is_said_by_every_service(show: Show) -> None:
    await show.stage.database.close()
    for call in (show.list(), show.mux("m1"), show.admin.WakeBroadcast(rpc.WakeBroadcastRequest(broadcast_id="x"))):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, StoreUnavailable.reason)
        assert refusal.retry_after is not None


async def test_reflection_and_health_know_what_is_served_and_no_more(show: Show, database_url: str) -> None:
    served = {
        "broadcast.v1.BroadcastService",
        "broadcast.v1.WebhookService",
        "broadcast.v1.AdminService",
        "grpc.health.v1.Health",
    }
    assert await reflected(show.stage) == served | {"grpc.reflection.v1alpha.ServerReflection"}
    stub = cast("Any", health_pb2_grpc).HealthStub(show.stage.channel)
    for name in ("", "broadcast.v1.AdminService", "broadcast.v1.WebhookService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await show.stage.server.set_serving(False)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="broadcast.v1.AdminService"))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await stub.Check(health_pb2.HealthCheckRequest(service="broadcast.v1.PlaybackService"))
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    async with api(database_url) as alone:
        assert "broadcast.v1.AdminService" not in await reflected(alone)
        with pytest.raises(grpc.aio.AioRpcError) as absent:
            await AdminServiceStub(alone.channel).ListWebhooks(rpc.ListWebhooksRequest())
        assert absent.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def reflected(stage: Stage) -> set[str]:
    call = cast("Any", reflection_pb2_grpc).ServerReflectionStub(stage.channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    return {each.name for each in answer.list_services_response.service}


async def test_webhooks_get_through_when_the_rest_is_shed(database_url: str) -> None:
    options = ApiOptions(host="127.0.0.1", unary_limit=1)
    async with api(database_url, options=options, beside=beside) as stage:
        show = Show(stage=stage, admin=AdminServiceStub(stage.channel), webhooks=WebhookServiceStub(stage.channel))
        await stage.create("held")
        async with stage.database.transaction() as connection:
            await connection.execute("SELECT 1 FROM broadcast WHERE id = 'held' FOR UPDATE")
            start = calls.StartBroadcastRequest(broadcast_id="held")
            waiting = asyncio.ensure_future(stage.stub.StartBroadcast(start))
            await eventually(lambda: stage.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
            assert (await refused(show.list())).reason == "OVERLOADED"
            delivered = await show.livekit("l1", room="nobodys")
            assert delivered.webhook_id
        await waiting
