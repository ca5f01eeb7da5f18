"""Two environments of the service on one project of LiveKit and one environment of Mux: whatever one of them does, and
with whatever id, nothing of the other is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from livekit import api

from broadcast_sandbox.postgres.server import PostgresServer
from tests.e2e.show import Show
from tests.stack import LIVEKIT_SECRET, Stack, running_stack
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)
ID = "town-hall"
ENDS = ("room.deleted", "room.closed", "egress.stop", "egress.ended", "stream.disabled", "stream.deleted", "stream.key")


@pytest.fixture
async def other_database_url(postgres: PostgresServer, template_database: str, database_url: str) -> AsyncIterator[str]:
    """A second database of this test's own."""
    name = f"{database_url.rpartition('/')[2].partition('?')[0]}_other"
    yield await postgres.create_database(name, template=template_database)
    await postgres.drop_database(name)


@contextlib.asynccontextmanager
async def environments(
    one_url: str, other_url: str, one_id: str = ID, other_id: str = ID
) -> AsyncGenerator[tuple[Stack, Show, Show]]:
    """The stack, and a broadcast in prod and one in staging, neither of which is started. Prod gets the webhooks."""
    async with running_stack(one_url, BROADCAST_ENVIRONMENT="prod") as stack:
        prod = await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"])
        staging = await stack.replica(BROADCAST_ENVIRONMENT="staging", DATABASE_URL=other_url)
        yield (
            stack,
            await Show.create(stack, await stack.client(prod.target), broadcast_id=one_id),
            await Show.create(stack, await stack.client(staging.target), broadcast_id=other_id),
        )


@contextlib.asynccontextmanager
async def livekit_of(stack: Stack) -> AsyncGenerator[api.LiveKitAPI]:
    """The hands of somebody else in the same project."""
    livekit = api.LiveKitAPI(stack.livekit.base_url, "sandbox", LIVEKIT_SECRET, failover=False)
    try:
        yield livekit
    finally:
        await livekit.aclose()  # pyright: ignore[reportUnknownMemberType]


def ended(stack: Stack, since: int) -> set[str]:
    """The ids of what was stopped or deleted after so many effects."""
    return {each.id for each in stack.effects()[since:] if each.kind.startswith(ENDS)}


async def rounds() -> None:
    """Some of the sweeper and of the observer of each, with the grace of the sweeper over."""
    await asyncio.sleep(3.5)


async def test_the_same_id_in_another_environment_is_refused_and_touches_nothing(
    database_url: str, other_database_url: str
) -> None:
    async with environments(database_url, other_database_url) as (stack, prod, staging):
        await prod.live()
        since = len(stack.effects())
        streams = {each.id for each in stack.mux.effects.of("stream.created")}
        await staging.client.start(ID)
        failed = await staging.until("FAILED")
        assert failed.status.state_reason == "PROVIDER_REFUSED"
        assert failed.status.last_error.code == "foreign_room"
        assert failed.status.last_error.message == f"the room {ID!r} belongs to another environment or application"
        await staging.client.stop(ID, wait=10)
        await rounds()
        assert ended(stack, since) <= {each.id for each in stack.mux.effects.of("stream.created")} - streams
        assert await prod.state() == "LIVE"
        assert not {"EGRESS_ENDED", "EGRESS_LOST", "ROOM_LOST"} & set(await prod.reasons())
        assert not stack.doubles()
        await prod.ended()


@pytest.mark.parametrize("mark", [f"bs1:staging:{ID}", '{"application": "theirs"}'], ids=["environment", "application"])
@pytest.mark.parametrize("wait_s", [0.0, 3.0], ids=["stopped at once", "stopped later"])
async def test_a_room_of_our_name_that_is_anothers_is_not_used_and_not_deleted(
    database_url: str, mark: str, wait_s: float
) -> None:
    """Ours was deleted outside, and somebody else made one of the same name, and is in it."""
    async with running_stack(database_url, BROADCAST_ENVIRONMENT="prod") as stack:
        replica = await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"])
        prod = await Show.create(stack, await stack.client(replica.target), broadcast_id=ID)
        await prod.ready()
        async with livekit_of(stack) as livekit:
            await livekit.room.delete_room(api.DeleteRoomRequest(room=ID))
            theirs = await livekit.room.create_room(api.CreateRoomRequest(name=ID, metadata=mark))
            if wait_s:
                await stack.host_joins(ID, "their host")
            await asyncio.sleep(wait_s)
            await prod.client.stop(ID)
            await prod.until("ENDED", "FAILED")
            await rounds()
            [room] = (await livekit.room.list_rooms(api.ListRoomsRequest(names=[ID]))).rooms
            assert room.sid == theirs.sid


async def test_a_room_of_ours_stays_ours_whatever_an_application_writes_into_it(database_url: str) -> None:
    """Metadata of a room are for the applications in it, and a backend may use them."""
    async with running_stack(database_url) as stack:
        replica = await stack.replica(HTTP_PORT=stack.environment["WEBHOOK_PORT"])
        show = await Show.create(stack, await stack.client(replica.target))
        await show.ready()
        async with livekit_of(stack) as livekit:
            await livekit.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=show.id, metadata="{}"))
        await stack.host_joins(show.id)
        await show.until("LIVE")
        await show.ended()
        assert not stack.census()["rooms"]


async def test_environments_with_ids_of_their_own_live_side_by_side(database_url: str, other_database_url: str) -> None:
    async with environments(database_url, other_database_url, "one", "other") as (stack, one, other):
        await one.live()
        await other.live()
        since = len(stack.effects())
        await rounds()
        assert ended(stack, since) == set()
        egress = stack.livekit.effects.of("egress.started")[0].id
        await other.client.stop("other", wait=10)
        await eventually(lambda: len(stack.livekit.effects.of("egress.ended")) == 1, within=20)
        await rounds()
        assert egress not in ended(stack, since)
        assert await one.state() == "LIVE"
        assert not stack.doubles()
