"""What fails by a fault of our own is told, is tried rarely, and keeps no broadcast from its end."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.typing import EventDict

from broadcast.v1.broadcast_pb2 import BroadcastSpec, Destination
from broadcast_client import state_name
from service.domain.broadcast import Broadcast, Spec
from service.domain.broadcast import Destination as StoredDestination
from service.domain.errors import StoreUnavailable
from service.domain.lifecycle import Change, start, stop
from service.domain.secret import Secret
from service.reconciler.reconciler import fault_of
from service.store.passes import Passes
from service.store.sealing import CannotOpen
from tests.e2e.show import Show
from tests.integration.store_stage import KEYS, NOBODYS, store
from tests.stack import running_stack
from tests.waiting import eventually

NEW = b"n" * 32
OLD_FIRST, NEW_FIRST = (
    ",".join(base64.b64encode(key).decode() for key in keys) for keys in ((KEYS[0], NEW), (NEW, KEYS[0]))
)
WITH_KEY = BroadcastSpec(
    destinations=[Destination(name="other", url="rtmps://live.example.com/app", stream_key="k-1234567890")]
)


async def test_replicas_in_the_midst_of_a_rotation_read_what_each_other_sealed(database_url: str) -> None:
    """The second step reaches one replica after the other: their first keys differ, and each has both."""
    async with running_stack(database_url, webhooks=False, BROADCAST_SECRET_KEYS=OLD_FIRST) as stack:
        one = await stack.replica(BROADCAST_REPLICA="one")
        two = await stack.replica(BROADCAST_REPLICA="two", BROADCAST_SECRET_KEYS=NEW_FIRST)
        for made_by, stopped_by in ((one, two), (two, one)):
            client, other = await stack.client(made_by.target), await stack.client(stopped_by.target)
            show = await Show.create(stack, client, WITH_KEY)
            await show.live()
            await other.update(show.id, spec=BroadcastSpec(title="B"), mask=["spec.title"])
            show.client = other
            await show.ended()


async def test_a_stop_needs_no_key_of_a_destination(database_url: str) -> None:
    """A replica of the first step of a rotation that was left out: it cannot read what the new key sealed."""
    spec = Spec(destinations=(StoredDestination(name="other", url="rtmps://live.example.com/app"),))
    async with store(database_url, keys=(NEW,)) as new, store(database_url) as old:
        await new.broadcasts.create("show", spec, {"other": Secret("k-1234567890")}, {}, NOBODYS)
        sealed = await new.sql("SELECT secrets FROM broadcast")
        await old.broadcasts.change("show", start, NOBODYS)
        with pytest.raises(StoreUnavailable, match="no key"):
            # Another replica may have it: the caller tries again.
            await old.broadcasts.change("show", lambda stored, _: _renamed(stored), NOBODYS)
        await old.broadcasts.change("show", lambda stored, now: stop(stored, now, ""), NOBODYS)
        assert await new.sql("SELECT secrets FROM broadcast") == sealed
        claim = await old.claimed("show", lane=0)
        situation = await old.passes.load(claim, timedelta(seconds=20))
        assert situation.broadcast.destination_keys == {}


def _renamed(stored: Broadcast) -> Change:
    spec = Spec(destinations=(StoredDestination(name="another", url="rtmps://live.example.com/app"),))
    return Change(
        broadcast=replace(stored, spec=spec, destination_keys={"another": Secret("x")}), events=(), wake=False
    )


async def test_a_pass_that_cannot_read_a_key_is_told_and_does_not_keep_the_broadcast_from_its_end(
    database_url: str, logs: list[EventDict]
) -> None:
    async with running_stack(database_url, webhooks=False) as stack, store(database_url) as beside:
        replica = await stack.replica()
        client = await stack.client(replica.target)
        show = await Show.create(stack, client)
        await show.live()
        secret = await beside.sql("SELECT secret FROM resource WHERE kind = 'stream'")

        async def told() -> bool:
            # Again and again, because a pass under way writes the row as it read it.
            await beside.sql("UPDATE resource SET secret = repeat('x', 40)::bytea WHERE kind = 'stream'")
            await client.admin.wake(show.id)
            return (await show.get()).status.last_error.provider == "service"

        await eventually(told, every=0.3)
        error = (await show.get()).status.last_error
        assert (error.operation, error.code, error.retryable) == ("pass", "CANNOT_OPEN", True)
        assert "BROADCAST_SECRET_KEYS" in error.message
        explained = await client.explain(show.id)
        assert explained.causes[0].code == "SERVICE_FAULT"
        parts = {part.reason for part in (await client.get_health(show.id)).parts}
        assert "SERVICE_FAULT" in parts
        # It is tried again after four seconds at least, however often it is woken.
        tries = await failures(logs)
        for _ in range(10):
            await client.admin.wake(show.id)
            await asyncio.sleep(0.1)
        assert await failures(logs) - tries <= 1
        reasons = [event.reason for event in (await client.events(show.id)).events]
        assert reasons.count("PASS_FAILED") == 1
        # The key is found again.
        await beside.sql("UPDATE resource SET secret = $1 WHERE kind = 'stream'", secret)
        await eventually(lambda: recovered(show), within=60)
        assert "PASS_RECOVERED" in [event.reason for event in (await client.events(show.id)).events]
        # And it is lost again, and nothing is left behind by a stop all the same.
        await beside.sql("UPDATE resource SET secret = repeat('x', 40)::bytea WHERE secret IS NOT NULL")
        await show.ended()
    _forget_failures(logs)


async def failures(logs: list[EventDict]) -> int:
    return len([each for each in logs if each["event"] == "pass_failed"])


def _forget_failures(logs: list[EventDict]) -> None:
    """They are the subject here, and in every other test a fault."""
    logs[:] = [each for each in logs if each["event"] != "pass_failed"]


async def recovered(show: Show) -> bool:
    found = await show.get()
    return not found.status.HasField("last_error") and state_name(found.status.state) == "LIVE"


async def test_a_bug_is_told_without_the_text_of_its_error(
    database_url: str, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("sk-secret")

    async with running_stack(database_url, webhooks=False) as stack:
        replica = await stack.replica()
        client = await stack.client(replica.target)
        show = await Show.create(stack, client)
        monkeypatch.setattr(Passes, "intend", broken)
        await client.start(show.id)

        async def told() -> bool:
            return (await show.get()).status.last_error.code == "KeyError"

        await eventually(told)
        assert "sk-secret" not in str(await show.get())
        monkeypatch.undo()
        await eventually(lambda: settled(show), within=60)
        await show.ended()
    _forget_failures(logs)


async def settled(show: Show) -> bool:
    found = await show.get()
    return not found.status.HasField("last_error") and state_name(found.status.state) == "READY"


def test_codes_of_faults() -> None:
    assert fault_of(CannotOpen("stream/show/0"))[0] == "CANNOT_OPEN"
    code, message = fault_of(ValueError("sk-secret"))
    assert code == "ValueError"
    assert "sk-secret" not in message
