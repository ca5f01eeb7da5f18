"""The API as it is served: a real channel to a real server on a real database, and no reconciler behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from service.api.audience.reader import AudienceReader
from service.api.services.costs import CostApi
from service.api.services.health import HealthApi
from service.api.services.stage import StageApi
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.transport.server import ApiOptions, ApiServer
from service.domain.cost.prices import Prices
from service.domain.lifecycle import Event
from service.domain.ports import HostRole, HostToken, Moderation, ParticipantSeen
from service.domain.reasons import Actor, EventReason
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.store.audience.counts import AudienceCounts
from service.store.audience.slots import AudienceSlots
from service.store.broadcasts import Broadcasts
from service.store.changes import Changes, Listener, append
from service.store.database import Database
from service.store.health_facts import HealthFacts
from service.store.ledger import Ledger
from service.store.measurements.host_stats import HostReports
from service.store.rows import BROADCAST_COLUMNS, Rows
from service.store.sealing import Sealer

if TYPE_CHECKING:
    from broadcast.v1.admin_service_pb2_grpc import AdminServiceServicer
    from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceAsyncStub
    from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceServicer
    from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceServicer

KEY = "stream-key-of-the-test"
_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    room_name: str
    identity: str
    display_name: str
    ttl: timedelta
    role: HostRole


class Tokens:
    """HostTokens that signs nothing."""

    def __init__(self) -> None:
        self.issued: list[Issued] = []

    def issue(
        self, *, room_name: str, identity: str, display_name: str, ttl: timedelta, role: HostRole = HostRole.HOST
    ) -> HostToken:
        self.issued.append(
            Issued(room_name=room_name, identity=identity, display_name=display_name, ttl=ttl, role=role)
        )
        expire_time = datetime(2030, 1, 1, tzinfo=UTC) + ttl
        return HostToken(url="wss://livekit.test", token=Secret("host-token"), expire_time=expire_time)


class Nobody:
    """A room in which nobody is."""

    async def participants(self, name: str) -> Sequence[ParticipantSeen]:
        del name
        return ()

    async def remove(self, name: str, identity: str) -> None:
        raise NotImplementedError

    async def mute(self, name: str, identity: str, track_sid: str, *, muted: bool) -> bool:
        raise NotImplementedError


async def _plenty() -> bool:
    return True


class Names:
    """A resolver that knows what it is told, and nothing else."""

    def __init__(self) -> None:
        self.known: dict[str, Sequence[str]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        return self.known.get(host, ())


@dataclass(slots=True, kw_only=True)
class Stage:
    database: Database
    rows: Rows
    broadcasts: Broadcasts
    changes: Changes
    tail: Tail
    server: ApiServer
    health: HealthApi
    port: int
    channel: grpc.aio.Channel
    stub: BroadcastServiceAsyncStub
    tokens: Tokens
    names: Names
    moved: Moved
    woken: list[str] = field(default_factory=list[str])

    async def create(
        self, broadcast_id: str = "", *, labels: dict[str, str] | None = None, request_id: str = "", **spec: Any
    ) -> pb.Broadcast:
        answer = await self.stub.CreateBroadcast(
            rpc.CreateBroadcastRequest(
                request_id=request_id, broadcast_id=broadcast_id, spec=pb.BroadcastSpec(**spec), labels=labels or {}
            )
        )
        return answer.broadcast

    async def started(self, broadcast_id: str, **spec: Any) -> pb.Broadcast:
        await self.create(broadcast_id, **spec)
        return (await self.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id=broadcast_id))).broadcast

    async def get(self, broadcast_id: str) -> pb.Broadcast:
        return (await self.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id=broadcast_id))).broadcast

    async def becomes(self, broadcast_id: str, state: str, *, reason: EventReason = EventReason.STATUS_CHANGED) -> None:
        """What a reconciler would commit."""
        async with self.database.transaction() as connection:
            row = await connection.fetchrow(
                f"SELECT {BROADCAST_COLUMNS} FROM broadcast WHERE id = $1 FOR UPDATE",  # noqa: S608 - a constant
                broadcast_id,
            )
            assert row is not None
            before = self.rows.broadcast(row)
            await connection.execute("UPDATE broadcast SET state = $2 WHERE id = $1", broadcast_id, state)
            await append(connection, broadcast_id, [Event(reason=reason)], actor=Actor.RECONCILER, before=before)

    async def sql(self, statement: str, *values: object) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def stored(self) -> tuple[int, int, int]:
        """Rows of broadcast, event and request."""
        return (
            await self.sql("SELECT count(*) FROM broadcast"),
            await self.sql("SELECT count(*) FROM event"),
            await self.sql("SELECT count(*) FROM request"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What a servicer is built on."""

    database: Database
    sealer: Sealer
    rows: Rows
    broadcasts: Broadcasts
    changes: Changes
    tail: Tail
    wake: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The services beside BroadcastService."""

    playback: PlaybackServiceServicer | None = None
    webhooks: WebhookServiceServicer | None = None
    admin: AdminServiceServicer | None = None


def _alone(_behind: Behind) -> Beside:
    return Beside()


@contextlib.asynccontextmanager
async def api(
    dsn: str,
    *,
    options: ApiOptions | None = None,
    listen: bool = True,
    beside: Callable[[Behind], Beside] = _alone,
    moderation: Moderation | None = None,
    spare: Callable[[], Awaitable[bool]] = _plenty,
) -> AsyncGenerator[Stage]:
    """*listen* False: nobody says that the log moved, as if every NOTIFY was lost. *moderation*: None: nobody is in any
    room. *spare*: as of StageApi.
    """
    database = await Database.connect(dsn)
    sealer = Sealer([b"k" * 32])
    rows = Rows(sealer)
    broadcasts, changes = Broadcasts(database, rows), Changes(database, rows)
    tokens, names, moved, woken = Tokens(), Names(), Moved(), list[str]()
    health_api = HealthApi(
        broadcasts=broadcasts, facts=HealthFacts(database, rows), reports=HostReports(database), timing=Timing()
    )
    tail = Tail(changes, moved, playback_base_url="https://stream.mux.com")
    others = beside(
        Behind(
            database=database,
            sealer=sealer,
            rows=rows,
            broadcasts=broadcasts,
            changes=changes,
            tail=tail,
            wake=woken.append,
        )
    )
    server = ApiServer(
        options or ApiOptions(host="127.0.0.1", reflection=True),
        broadcasts=broadcasts,
        changes=changes,
        tail=tail,
        tokens=tokens,
        moved=moved,
        wake=woken.append,
        resolve=names,
        health_api=health_api,
        cost_api=CostApi(Ledger(database, rows, prices=Prices()), Prices()),
        audience=AudienceReader(AudienceCounts(database, AudienceSlots(database))),
        stage_api=StageApi(broadcasts=broadcasts, moderation=moderation or Nobody(), spare=spare, moved=moved),
        playback=others.playback,
        webhooks=others.webhooks,
        admin=others.admin,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        port = await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        if listen:
            await stack.enter_async_context(_listening(database, moved))
        stack.push_async_callback(server.drain, grace=0)
        stack.push_async_callback(channel.close)
        yield Stage(
            database=database,
            rows=rows,
            broadcasts=broadcasts,
            changes=changes,
            tail=tail,
            server=server,
            health=health_api,
            port=port,
            channel=channel,
            stub=BroadcastServiceStub(channel),
            tokens=tokens,
            names=names,
            moved=moved,
            woken=woken,
        )


@contextlib.asynccontextmanager
async def _listening(database: Database, moved: Moved) -> AsyncGenerator[None]:
    listener = Listener(database, {"broadcast_changed": lambda _: moved.notify()})
    async with running(listener.run()):
        await listener.connected.wait()
        yield


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncGenerator[asyncio.Task[Any]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed call, taken apart."""

    code: grpc.StatusCode
    message: str
    status: status_pb2.Status

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Refusal:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                status = status_pb2.Status.FromString(value)
                assert status.code == error.code().value[0]
                return cls(code=error.code(), message=error.details() or "", status=status)
        raise AssertionError(f"no details: {error}")

    def detail(self, kind: type[_Detail]) -> _Detail | None:
        found = kind()
        return next((found for detail in self.status.details if detail.Unpack(found)), None)

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info is not None, "every error says why"
        assert info.domain == "broadcast.v1"
        return info

    @property
    def reason(self) -> str:
        return self.info.reason

    @property
    def fields(self) -> list[str]:
        bad_request = self.detail(error_details_pb2.BadRequest)
        return [violation.field for violation in bad_request.field_violations] if bad_request is not None else []

    @property
    def retry_after(self) -> float | None:
        retry = self.detail(error_details_pb2.RetryInfo)
        return retry.retry_delay.ToTimedelta().total_seconds() if retry is not None else None


async def refused(call: Any) -> Refusal:
    """The refusal of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)
    raise AssertionError(f"answered: {answer}")


def seconds(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))
