"""Webhooks of the Mux simulator, and the delivery engine that both simulators share."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.faults import Fault, FaultTable
from broadcast_sandbox.mux.events import signature_header
from broadcast_sandbox.webhooks import WebhookSender
from tests.contract.mux_bench import SECRET, Hook, Mux, Receiver, running
from tests.waiting import eventually


@pytest.fixture
async def mux() -> AsyncIterator[Mux]:
    async with running() as mux:
        yield mux


def test_signature_is_that_of_the_official_vector() -> None:
    """Provider facts, Mux 3 and 16.16."""
    assert signature_header("SuperSecret123", b'{"test":"body"}', at=1565125718) == (
        "t=1565125718,v1=854ece4c22acef7c66b57d4e504153bc512595e8e9c772ece2a68150548c19a7"
    )
    assert signature_header("SuperSecret123", b'{"test":"bodz"}', at=1565125718)[-64:] != (
        "854ece4c22acef7c66b57d4e504153bc512595e8e9c772ece2a68150548c19a7"
    )


def assert_signed(hook: Hook) -> None:
    at = int(hook.signature.split(",")[0].removeprefix("t="))
    assert abs(time.time() - at) < 10
    assert signature_header(SECRET, hook.raw, at=at) == hook.signature


async def test_webhooks_are_signed(mux: Mux) -> None:
    """Provider facts, Mux 3."""
    await mux.create()
    await eventually(lambda: mux.receiver.hooks)
    assert_signed(mux.receiver.hooks[0])


async def test_failed_delivery_is_repeated_with_the_same_id_and_its_history() -> None:
    """Provider facts, Mux 3 and 16.18: 4xx too; `attempts` filled; later events are not held up."""
    async with running(scale=100) as mux:
        mux.receiver.answers = [500, 404]
        stream = await mux.create()
        await mux.raw(mux.streams.update_live_stream, stream["id"], {"passthrough": "x"})
        await eventually(lambda: mux.receiver.types().count("live_stream.created") >= 2)
        hooks = await eventually(lambda: mux.receiver.hooks if len(mux.receiver.hooks) == 4 else None)
        created = mux.receiver.of("live_stream.created")
        assert len({hook["id"] for hook in created}) == 1
        assert created[-1]["attempts"][0]["response_status_code"] == 500
        assert mux.receiver.types()[:2] == ["live_stream.created", "live_stream.updated"]
        for hook in hooks:
            assert_signed(hook)
        await eventually(lambda: sum(one.accepted for one in mux.simulator.webhooks.deliveries) == 2)


async def test_slow_receiver_counts_as_a_failure() -> None:
    """Provider facts, Mux 3 and 16.18 (5 s at Mux)."""
    async with running(webhook_timeout_s=0.1) as mux:
        mux.receiver.slow_s = 0.5
        await mux.create()
        hooks = await eventually(lambda: mux.receiver.hooks if len(mux.receiver.hooks) >= 2 else None)
        assert len(hooks[1].json["attempts"]) == 1
        assert mux.simulator.webhooks.deliveries[0].status is None


async def test_webhook_faults(mux: Mux) -> None:
    """Provider facts, Mux 3 and 16.17: lost, doubled, late and reordered."""
    faults = mux.simulator.faults
    faults.add(Fault(kind="webhook_drop", operation="video.live_stream.created"))
    faults.add(Fault(kind="webhook_reorder", operation="video.live_stream.disabled"))
    faults.add(Fault(kind="webhook_delay", operation="video.live_stream.updated", delay_s=60))
    faults.add(Fault(kind="webhook_duplicate", operation="video.live_stream.deleted", match="b/9"))
    stream = await mux.create(passthrough="b/9")
    await asyncio.to_thread(mux.streams.update_live_stream, stream["id"], {"meta": {"title": "t"}})
    await asyncio.to_thread(mux.streams.disable_live_stream, stream["id"])
    await asyncio.to_thread(mux.streams.enable_live_stream, stream["id"])
    await asyncio.to_thread(mux.streams.delete_live_stream, stream["id"])
    await eventually(lambda: len(mux.receiver.hooks) == 5)
    order = ["enabled", "disabled", "deleted", "deleted", "updated"]
    assert mux.receiver.types() == [f"live_stream.{name}" for name in order]
    assert len({hook["id"] for hook in mux.receiver.of("live_stream.deleted")}) == 1
    assert faults.hits == {
        "webhook_drop": 1,
        "webhook_reorder": 1,
        "webhook_delay": 1,
        "webhook_duplicate": 1,
    }


async def test_sender_that_holds_the_line_keeps_the_order_of_a_key() -> None:
    """Provider facts, LiveKit: queued notifier, one queue a key, retries inside it, none on 4xx."""
    receiver = Receiver(answers=[503, 200, 400])
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sender = WebhookSender(
        url=f"http://127.0.0.1:{runner.addresses[0][1]}/hook",
        clock=ScaledClock(100),
        faults=FaultTable(),
        retry_waits_s=(1, 2, 4, 8),
        timeout_s=None,
        retry_on=lambda status: status == 429 or (status >= 500 and status != 501),
    )
    for name in ("a", "b", "c"):
        sender.send(key="room", event=name, event_id=name, body=name.encode(), headers=dict)
    await sender.start()
    await eventually(lambda: len(sender.deliveries) == 4)
    assert [(one.event, one.status, one.attempt) for one in sender.deliveries] == [
        ("a", 503, 1),
        ("a", 200, 2),
        ("b", 400, 1),
        ("c", 200, 1),
    ]
    sender.enabled = False
    sender.send(key="room", event="d", event_id="d", body=b"d", headers=dict)
    sender.enabled = True
    sender.send(key="room", event="e", event_id="e", body=b"e", headers=dict)
    await eventually(lambda: len(sender.deliveries) == 5)
    assert [hook.raw for hook in receiver.hooks] == [b"a", b"a", b"b", b"c", b"e"]
    await sender.close()
    await runner.cleanup()
