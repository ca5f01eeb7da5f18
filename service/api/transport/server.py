"""The gRPC server: its address, its options, its health service and its shutdown."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from broadcast.v1.admin_service_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from broadcast.v1.broadcast_service_pb2_grpc import add_BroadcastServiceServicer_to_server
from broadcast.v1.playback_service_pb2_grpc import PlaybackServiceServicer, add_PlaybackServiceServicer_to_server
from broadcast.v1.webhook_service_pb2_grpc import WebhookServiceServicer, add_WebhookServiceServicer_to_server
from service.api.addresses import Resolve, resolve_host
from service.api.admission import Admission
from service.api.audience.reader import AudienceReader
from service.api.connection_ages import ConnectionAges, grace_s
from service.api.services.broadcasts import BroadcastApi
from service.api.services.costs import CostApi
from service.api.services.health import HealthApi
from service.api.services.stage import StageApi
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.transport.interceptors import Interceptor
from service.api.transport.validation import ADMIN_SERVICE, BROADCAST_SERVICE, PLAYBACK_SERVICE, WEBHOOK_SERVICE
from service.domain.ports import HostTokens
from service.store.broadcasts import Broadcasts
from service.store.changes import Changes

log = structlog.get_logger(__name__)

_HEALTH_S = 1.0
_FLUSH_S = 1.0


class CannotListen(Exception):
    """Another process has the port, or this machine does not have the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    host: str = "0.0.0.0"
    port: int = 0
    """0: any free one."""
    reflection: bool = False
    playback_base_url: str = "https://stream.mux.com"
    live_layouts: bool = False
    """Whether an egress takes a new layout while it runs: a template of ours does, the provider's own does not."""
    unsigned: str = "there is none"
    """Why there is no key to sign playback tokens with, so that the policy SIGNED is refused. Empty: there is one."""
    max_receive_bytes: int = 4 << 20
    """Well above any sensible request: gRPC refuses a larger message without naming the field that is too long."""
    connections: int = 2000
    """Further ones are refused."""
    calls_per_connection: int = 250
    """Under way at once. Further ones wait in the client."""
    connection_age: timedelta = timedelta(minutes=30)
    """After it, give or take 10 %, a caller is sent to a new connection."""
    unary_limit: int = 256
    stream_limit: int = 2000

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ApiServer:
    def __init__(
        self,
        options: ApiOptions,
        *,
        broadcasts: Broadcasts,
        changes: Changes,
        tail: Tail,
        tokens: HostTokens,
        moved: Moved,
        wake: Callable[[str], None],
        health_api: HealthApi,
        cost_api: CostApi,
        audience: AudienceReader,
        stage_api: StageApi,
        resolve: Resolve = resolve_host,
        playback: PlaybackServiceServicer | None = None,
        webhooks: WebhookServiceServicer | None = None,
        admin: AdminServiceServicer | None = None,
    ) -> None:
        """*tail*: of *changes*; it is read while the server runs. *moved*: notified by the process when the change log
        grew. *wake*: called with the id of a broadcast that has work for the reconciler of this process. A service that
        is not given is not served.
        """
        self._options = options
        self._admission = Admission(unary_limit=options.unary_limit, stream_limit=options.stream_limit)
        self._tail = tail
        self._reading: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._health = cast("Any", health).aio.HealthServicer()
        api = BroadcastApi(
            broadcasts=broadcasts,
            changes=changes,
            tokens=tokens,
            moved=moved,
            wake=wake,
            resolve=resolve,
            tail=self._tail,
            admission=self._admission,
            playback_base_url=options.playback_base_url,
            unsigned=options.unsigned,
            live_layouts=options.live_layouts,
            health=health_api,
            costs=cost_api,
            stage=stage_api,
            audience=audience,
        )
        self._services: dict[str, Callable[[grpc.aio.Server], None]] = {
            BROADCAST_SERVICE: partial(add_BroadcastServiceServicer_to_server, api)
        }
        if playback is not None:
            self._services[PLAYBACK_SERVICE] = partial(add_PlaybackServiceServicer_to_server, playback)
        if webhooks is not None:
            self._services[WEBHOOK_SERVICE] = partial(add_WebhookServiceServicer_to_server, webhooks)
        if admin is not None:
            self._services[ADMIN_SERVICE] = partial(add_AdminServiceServicer_to_server, admin)

    async def start(self) -> int:
        """Listen and serve. Returns the port. Raises CannotListen."""
        ages = ConnectionAges(self._options.connection_age.total_seconds())
        server = grpc.aio.server(
            interceptors=[Interceptor(self._admission, ages)], options=_grpc_options(self._options)
        )
        for serve in self._services.values():
            serve(server)
        cast("Any", health_pb2_grpc).add_HealthServicer_to_server(self._health, server)
        if self._options.reflection:
            names = (*self._services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            cast("Any", reflection).enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        _check_free(self._options)
        try:
            port = server.add_insecure_port(self._options.address)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {self._options.address}: is another process there?") from error
        await server.start()
        self._server = server
        self._reading = asyncio.create_task(self._tail.run(), name="change-log-tail")
        await self.set_serving(True)
        log.info("api_listens", host=self._options.host, port=port)
        return port

    async def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - there is nothing else to say
        """Set the answer of the health service. Without effect after `drain` has begun."""
        statuses = health_pb2.HealthCheckResponse
        for name in ("", *self._services):
            await self._health.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)

    async def drain(self, *, grace: float = 20.0, notice: float = 0.0) -> None:
        """Stop serving. The health service says so first. After *notice* seconds, in which load balancers see it, the
        streams are ended and new calls refused; the unary calls under way have *grace* seconds to finish.
        """
        # A client of the health service that watches and does not read holds a lock for which this waits.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._health.enter_graceful_shutdown(), _HEALTH_S)
        if notice:
            await asyncio.sleep(notice)
        self._admission.drain()
        # Calls that wait for a state wake up and answer with the state that there is.
        self._tail.advanced.notify()
        await self._admission.emptied(grace)
        if self._server is not None:
            # Time for the last answers to leave, limited because a client that does not read would use up any.
            await self._server.stop(min(grace, _FLUSH_S))
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading


def _check_free(options: ApiOptions) -> None:
    """GRPC says no more than that it failed, and prints a line of its own as well. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        socket.create_server((options.host, options.port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise CannotListen(f"cannot listen on {options.address}: {reason}") from None


def _grpc_options(options: ApiOptions) -> list[tuple[str, int]]:
    age_s = options.connection_age.total_seconds()
    return [
        # Without this a second process on the port would get half of the calls instead of an error.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        # Above its own limit of waiting calls gRPC answers CANCELLED, and no handler sees the call. `Admission` refuses
        # calls instead, long before this limit.
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        # A caller that opens calls and resets them at once would fill the queue of waiting calls by itself.
        ("grpc.max_concurrent_streams", options.calls_per_connection),
        # Answered calls are counted for a moment longer. Without room for them a quick caller is cut off (RST_STREAM).
        ("grpc.http2.max_deallocating_streams", 2_000),
        ("grpc.max_allowed_incoming_connections", options.connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_age_ms", round(age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(grace_s(age_s) * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
