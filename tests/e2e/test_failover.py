"""Failover, switch-over and restore: nobody goes on from a place that is lost, and nothing is started twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast_client import BroadcastClient, Change, Reset, Snapshot, SnapshotComplete, Unavailable
from broadcast_sandbox.postgres.server import PostgresServer
from service.domain.errors import LeaseLost
from service.domain.resources import Phase
from service.store.history import History
from tests.e2e.show import Show
from tests.failover import Pair, pair
from tests.integration.store_stage import Store, egress, store
from tests.stack import Stack, running_stack
from tests.waiting import eventually

GOOD_AGAIN_S = 5.0


@pytest.fixture
async def two_servers() -> AsyncIterator[Pair]:
    async with pair() as servers:
        yield servers


@contextlib.asynccontextmanager
async def served(dsn: str) -> AsyncGenerator[tuple[Stack, BroadcastClient, Any]]:
    """The client beside the bare stub."""
    async with running_stack(dsn, webhooks=False) as stack:
        replica = await stack.replica()
        async with grpc.aio.insecure_channel(replica.target) as channel:
            yield stack, await stack.client(replica.target), BroadcastServiceStub(channel)


async def written(client: BroadcastClient, prefix: str) -> bool:
    with contextlib.suppress(Unavailable):
        return bool((await client.create(broadcast_id=f"{prefix}-{time.monotonic_ns()}", timeout=2)).id)
    return False


async def listed(stub: Any) -> set[str]:
    return {each.id for each in (await stub.ListBroadcasts(rpc.ListBroadcastsRequest())).broadcasts}


async def end_of(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(20):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
    raise AssertionError("it ended as if all had been told")


async def ends_out_of_range(stub: Any, token: str) -> bool:
    code = await end_of(stub.WatchBroadcasts(rpc.WatchBroadcastsRequest(resume_token=token)))
    assert code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNAVAILABLE)
    return code is grpc.StatusCode.OUT_OF_RANGE


@pytest.mark.parametrize("commits", ["lost", "kept"])
async def test_no_watch_goes_on_after_another_server_took_over(two_servers: Pair, commits: str) -> None:
    """Without the last commits, revisions are given out a second time: whoever went on from one would miss changes for
    ever. And writes are good within five seconds of the address being right.
    """
    async with served(two_servers.dsn) as (_, client, stub):
        await client.create(broadcast_id="before")
        token = ""
        if commits == "lost":
            await two_servers.falls_behind()
        async with client.watch(heartbeat_interval=1) as watch:
            assert isinstance(await anext(watch), Snapshot)
            assert isinstance(await anext(watch), SnapshotComplete)
            for n in range(3):
                await client.create(broadcast_id=f"last-{n}")
                item = await anext(watch)
                assert isinstance(item, Change)
                token = item.resume_token
            if commits == "kept":
                await two_servers.follows()
            await two_servers.take_over()
            moved = time.monotonic()
            await eventually(lambda: written(client, "after"), within=20)
            assert time.monotonic() - moved < GOOD_AGAIN_S
            # So many that the present revision is past the one of the token.
            for _ in range(6):
                assert await written(client, "more")
            await eventually(lambda: ends_out_of_range(stub, token))
            items: list[Any] = []
            async with asyncio.timeout(20):
                while not (items and isinstance(items[-1], SnapshotComplete)):
                    items.append(await anext(watch))
        reset = next(n for n, item in enumerate(items) if isinstance(item, Reset))
        ids = {item.broadcast.id for item in items[reset:] if isinstance(item, Snapshot)}
        assert ids == await listed(stub)
        assert "before" in ids
        assert ("last-2" in ids) is (commits == "kept")


async def test_an_idle_stream_is_ended_too(postgres: PostgresServer, database_url: str) -> None:
    """A server that was replaced between two reads: no read failed, and there is another history all the same."""
    async with served(database_url) as (stack, client, stub):
        await client.create(broadcast_id="show")
        changes = stub.WatchBroadcasts(rpc.WatchBroadcastsRequest())
        health = stub.WatchHealth(rpc.WatchHealthRequest(interval=Duration(seconds=1)))
        for call in (changes, health):
            assert await call.read() is not grpc.aio.EOF
        async with store(stack.environment["DATABASE_URL"]) as other:
            assert await other.sql("SELECT server IS NOT NULL FROM head")
            await other.sql("UPDATE head SET server = 'another/00000001'")
        ends = await asyncio.gather(end_of(changes), end_of(health))
        # A read before the replica looked is refused, and one after it is of another history.
        assert set(ends) <= {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNAVAILABLE}
        await eventually(lambda: written(client, "after"), within=GOOD_AGAIN_S)


async def test_a_log_that_went_back_and_on_again_is_noticed(database_url: str) -> None:
    """A server that lost commits at a crash, or a volume that was rolled back: the server is the same, and by the next
    read the revisions are past those that were lost.
    """
    async with served(database_url) as (stack, client, stub):
        for n in range(4):
            await client.create(broadcast_id=f"show-{n}")
        call = stub.WatchBroadcasts(rpc.WatchBroadcastsRequest())
        token = ""
        for _ in range(5):
            token = (await call.read()).resume_token
        async with store(stack.environment["DATABASE_URL"]) as other:
            history = await other.sql("SELECT history::text FROM head")
            async with other.database.transaction() as connection:
                await connection.execute("DELETE FROM event WHERE revision > 2")
                await connection.execute("DELETE FROM broadcast WHERE id IN ('show-2', 'show-3')")
                await connection.execute("UPDATE head SET revision = 2")
                await connection.execute(
                    "INSERT INTO event (revision, broadcast_id, reason, actor, state, snapshot) "
                    "SELECT n, 'show-1', 'SEEN', 'test', 'CREATED', snapshot - 'x' "
                    "FROM generate_series(3, 9) AS n, (SELECT snapshot FROM event WHERE revision = 2) AS s"
                )
                await connection.execute("UPDATE head SET revision = 9")
            assert await end_of(call) is grpc.StatusCode.OUT_OF_RANGE
            assert await other.sql("SELECT history::text FROM head") != history
        assert await end_of(stub.WatchBroadcasts(rpc.WatchBroadcastsRequest(resume_token=token))) is (
            grpc.StatusCode.OUT_OF_RANGE
        )


async def test_an_older_copy_that_is_put_in_place_is_another_history(
    postgres: PostgresServer, database_url: str
) -> None:
    """As after a restore of a dump: the server is the same, the database is not."""
    name, copy = urlsplit(database_url).path[1:], f"{urlsplit(database_url).path[1:]}_copy"

    async def put(old: str, new: str) -> None:
        await postgres.drop_database(new)
        await postgres.create_database(new, template=old)

    async with running_stack(database_url, webhooks=False) as stack:

        @contextlib.asynccontextmanager
        async def replica() -> AsyncGenerator[tuple[BroadcastClient, Any]]:
            replica = await stack.replica()
            async with grpc.aio.insecure_channel(replica.target) as channel:
                yield await stack.client(replica.target), BroadcastServiceStub(channel)
            await replica.end()

        async with replica() as (client, _):
            await client.create(broadcast_id="kept")
        await put(name, copy)
        async with replica() as (client, stub):
            await client.create(broadcast_id="lost")
            token = (await stub.ListBroadcasts(rpc.ListBroadcastsRequest())).resume_token
        await put(copy, name)
        await postgres.drop_database(copy)
        async with replica() as (client, stub):
            for _ in range(3):
                await eventually(partial(written, client, "after"), within=GOOD_AGAIN_S)
            assert {"kept", "lost"} & await listed(stub) == {"kept"}
            await eventually(partial(ends_out_of_range, stub, token))


async def test_no_fence_is_given_out_a_second_time(two_servers: Pair) -> None:
    """A pass whose claim is lost writes nothing, although another claim of the same broadcast was made since."""
    async with store(two_servers.dsn, owner="one") as one, store(two_servers.dsn, owner="two") as two:
        assert not await History(one.database).look()
        await one.started("show")
        await two_servers.falls_behind()
        lost = await one.claimed("show")
        await two_servers.take_over()

        async def refused_until_looked() -> bool:
            return await claims(two) == []

        await eventually(refused_until_looked)
        assert await History(two.database).look()
        [claim] = await claims(two)
        assert claim.fence > lost.fence + 1000
        with pytest.raises(LeaseLost):
            await one.passes.intend(lost, egress(phase=Phase.INTENDED), timedelta(seconds=20))
        # Whoever looks next finds all done.
        assert not await History(one.database).look()


async def claims(of: Store) -> list[Any]:
    return list(await of.leases.claim(1, limit=10))


@pytest.mark.parametrize("lost", ["the start of the egress", "the whole start"])
async def test_an_egress_whose_start_is_lost_is_found_and_not_doubled(two_servers: Pair, lost: str) -> None:
    async with served(two_servers.dsn) as (stack, client, _):
        show = await Show.create(stack, client, broadcast_id="show")
        if lost == "the whole start":
            # Only that it is wanted is known: the pass that makes room and live stream is lost.
            await client.start("show")
            await two_servers.falls_behind()
            await show.ready()
        else:
            await show.ready()
            await two_servers.falls_behind()
        await show.live()
        started = len(stack.livekit.effects.of("egress.started"))
        assert started == 1
        await two_servers.take_over()
        held = await two_servers.sql("SELECT count(*) FROM resource WHERE kind = 'egress'")
        assert held == 0

        async def live() -> bool:
            with contextlib.suppress(Unavailable):
                return await show.state() == "LIVE" and await verified(two_servers)
            return False

        await eventually(live, within=60)
        assert stack.doubles() == []
        assert len(stack.livekit.effects.of("egress.started")) == started
        await show.ended()
        assert stack.doubles() == []


async def verified(servers: Pair) -> bool:
    return await servers.sql("SELECT count(*) = 0 FROM broadcast WHERE unverified_since IS NOT NULL") is True


async def test_an_egress_that_was_replaced_meanwhile_is_found_by_its_new_key(two_servers: Pair) -> None:
    """The rows name an egress that is over and a key that is dead. What runs was started with the next key."""
    async with served(two_servers.dsn) as (stack, client, _):
        show = await Show.create(stack, client, broadcast_id="show")
        await show.live()
        await two_servers.falls_behind()
        [first] = stack.livekit.effects.of("egress.started")
        await stack.control("egress", egress_id=first.id, end="failed")
        await eventually(lambda: len(stack.livekit.effects.of("egress.started")) == 2, within=60)
        await show.until("LIVE", within=60)
        await two_servers.take_over()

        async def live() -> bool:
            with contextlib.suppress(Unavailable):
                return await show.state() == "LIVE" and await verified(two_servers)
            return False

        await eventually(live, within=60)
        assert stack.doubles() == []
        await show.ended()


async def test_a_database_that_stays_is_not_looked_at_twice(database_url: str) -> None:
    async with store(database_url) as one:
        history = History(one.database)
        assert not await history.look()
        await one.started("show")
        claim = await one.claimed("show")
        assert not await history.look()
        assert (claim.fence, await one.sql("SELECT fence_base FROM head")) == (1, 0)
        assert await one.sql("SELECT count(*) FROM broadcast WHERE unverified_since IS NOT NULL") == 0


async def test_an_operator_may_say_that_commits_are_lost(database_url: str) -> None:
    """A volume that was rolled back while no replica ran shows nothing of it."""
    async with store(database_url) as one:
        await one.started("show")
        history = await one.sql("SELECT history FROM head")
        command = (sys.executable, "-m", "service", "migrate", "--restored")
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "DATABASE_URL": database_url})
        assert await process.wait() == 0
        assert await one.sql("SELECT history FROM head") != history
        assert await one.sql("SELECT count(*) FROM broadcast WHERE unverified_since IS NOT NULL") == 1


async def test_replicas_that_look_at_once_begin_one_history(database_url: str) -> None:
    async with store(database_url) as one:
        looks = [History(one.database) for _ in range(6)]
        await looks[0].look()
        await one.sql("UPDATE head SET server = 'another/00000001'")
        assert sum(await asyncio.gather(*(each.look() for each in looks))) == 1


async def test_a_user_without_rights_on_the_control_file_sees_the_timeline(database_url: str) -> None:
    """Managed servers close functions of the server itself."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("CREATE ROLE history_plain")
            whole = await connection.fetchval("SELECT server_history()")
            await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
            await connection.execute("SET LOCAL ROLE history_plain")
            part = await connection.fetchval("SELECT server_history()")
            assert whole.partition("/")[2] == part.partition("/")[2]
            assert part.startswith("/")
            raise asyncio.CancelledError  # noqa: TRY301 - rolled back
    except asyncio.CancelledError:
        pass
    finally:
        await connection.close()
