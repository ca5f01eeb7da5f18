"""Policy SIGNED, from the service to the simulated playback edge, which checks every token."""

from __future__ import annotations

import time

import pytest

from broadcast.v1.broadcast_pb2 import CONDITION_TYPE_PLAYABLE, PLAYBACK_POLICY_SIGNED, Broadcast, BroadcastSpec
from broadcast_client import InvalidField
from broadcast_sandbox.faults import Fault
from tests.e2e.show import Show
from tests.stack import Stack, running_stack

SIGNED = BroadcastSpec(playback_policy=PLAYBACK_POLICY_SIGNED)


def with_key(stack: Stack) -> Stack:
    stack.environment["MUX_SIGNING_KEYS"] = ":".join(stack.mux.make_signing_key())
    return stack


def playable(broadcast: Broadcast) -> tuple[bool | None, str]:
    [found] = [each for each in broadcast.status.conditions if each.type == CONDITION_TYPE_PLAYABLE]
    return found.met if found.HasField("met") else None, found.reason


@pytest.mark.parametrize("webhooks", [True, False])
async def test_a_signed_broadcast_that_stalls_is_interrupted_and_healed(database_url: str, webhooks: bool) -> None:  # noqa: FBT001
    async with running_stack(database_url, webhooks=webhooks) as stack:
        replica = await with_key(stack).replica()
        show = await Show.create(stack, await stack.client(replica.target), SIGNED)
        live = await show.live()
        assert playable(live) == (True, "PLAYING")
        stack.mux.add_fault(Fault(kind="hls_stall", operation="playback", match=show.id, times=-1))
        began = time.monotonic()
        await show.until("INTERRUPTED", within=15)
        assert time.monotonic() - began < 15
        stack.mux.faults.clear()
        await show.until("LIVE")
        reasons = await show.reasons()
        assert "PLAYBACK_STALLED" in reasons
        assert "PLAYBACK_RESUMED" in reasons
        await show.ended()


async def test_without_a_key_signed_is_refused_and_never_claimed(database_url: str) -> None:
    async with running_stack(database_url) as stack:
        signing = await with_key(stack).replica()
        show = await Show.create(stack, await stack.client(signing.target), SIGNED)
        await signing.end()
        replica = await stack.replica(MUX_SIGNING_KEYS="")
        client = await stack.client(replica.target)
        with pytest.raises(InvalidField) as refused:
            await client.create(SIGNED)
        [violation] = refused.value.violations
        assert violation.field == "spec.playback_policy"
        assert "MUX_SIGNING_KEYS" in violation.description
        unsigned = await client.create()
        with pytest.raises(InvalidField):
            await client.update(unsigned.id, spec=SIGNED, mask=["spec.playback_policy"])
        show.client = client
        assert playable(await show.live()) == (None, "SIGNED")
        await show.ended()
