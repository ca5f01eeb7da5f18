"""The client."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_ENDED,
    BROADCAST_STATE_FAILED,
    Broadcast,
    BroadcastSpec,
)
from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_REMOVED,
    BroadcastFilter,
    CreateBroadcastRequest,
    DeleteBroadcastRequest,
    ExplainBroadcastRequest,
    GetBroadcastHealthRequest,
    GetBroadcastRequest,
    HostAccess,
    IssueHostAccessRequest,
    ListBroadcastEventsRequest,
    ListBroadcastEventsResponse,
    ListBroadcastsRequest,
    ListBroadcastsResponse,
    ReportHostStatsRequest,
    SetOnAirRequest,
    StartBroadcastRequest,
    StartBroadcastResponse,
    StopBroadcastRequest,
    UpdateBroadcastRequest,
)
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast.v1.event_pb2 import BroadcastEvent
from broadcast.v1.health_pb2 import BroadcastHealth, Explanation, HostStats
from broadcast_client.connection import Connection
from broadcast_client.errors import BroadcastEndedEarly, BroadcastNotFound, WaitTimeout
from broadcast_client.retry import RetryPolicy, Safety, call
from broadcast_client.services import Admin, Playback
from broadcast_client.values import Seconds, State, broadcast_filter, broadcast_state, duration, seconds, state_name
from broadcast_client.watch import Change, Snapshot, SnapshotComplete, Watch
from broadcast_client.watch_health import HealthWatch

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class BroadcastClient:
    """BroadcastService over one channel, and as `admin` and `playback` the services beside it.

    A client belongs to the event loop of its first call; in another one it raises WrongEventLoop.

    Every method raises BroadcastError (see `errors`), takes a `timeout` in seconds for one try, and tries again where
    that is safe. Writes take a `request_id`: a caller who chooses it may repeat the call in another process.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 10.0,
        retry: RetryPolicy | None = None,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        """Connects with the first call.

        Args:
            target: gRPC name such as "dns:///broadcast.internal:443".
            credentials: of TLS. None: plaintext.
            timeout: deadline of one try of a unary call, in seconds; what a call is told to `wait` is added.
            retry: None: RetryPolicy().
            options: further gRPC channel options; they win over the client's own.
        """
        self._policy = retry or RetryPolicy()
        self._timeout = timeout
        self._connection = Connection(target, credentials=credentials, options=options)
        self.admin = Admin(self._connection, self._call)
        self.playback = Playback(self._connection, self._call)

    @property
    def _stub(self) -> "BroadcastServiceAsyncStub":
        return self._connection.stub(BroadcastServiceStub)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel. Calls and watches under way raise CallCancelled."""
        await self._connection.close()

    async def create(
        self,
        spec: BroadcastSpec | None = None,
        *,
        broadcast_id: str = "",
        title: str = "",
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """Store a broadcast; nothing exists at the providers yet.

        Args:
            spec: what is wanted; None: the defaults.
            broadcast_id: empty: the service makes one.
            title: goes over the one in spec.
            labels: the caller's marks.
            request_id: None: a new one.
            timeout: of one try, in seconds.
        """
        wanted = BroadcastSpec()
        wanted.CopyFrom(spec or wanted)
        wanted.title = title or wanted.title
        request = CreateBroadcastRequest(
            request_id=_request_id(request_id), broadcast_id=broadcast_id, spec=wanted, labels=labels or {}
        )
        answer = await self._call(
            self._stub.CreateBroadcast, request, "CreateBroadcast", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def get(self, broadcast_id: str, *, timeout: float | None = None) -> Broadcast:
        """One broadcast as it is now."""
        request = GetBroadcastRequest(broadcast_id=broadcast_id)
        answer = await self._call(self._stub.GetBroadcast, request, "GetBroadcast", Safety.READ, timeout=timeout)
        return answer.broadcast

    async def list(
        self,
        filter: BroadcastFilter | None = None,
        *,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> ListBroadcastsResponse:
        """One page, newest first. `watch` with the same filter and its resume_token goes on without a gap."""
        request = ListBroadcastsRequest(filter=filter, page_size=page_size, page_token=page_token)
        return await self._call(self._stub.ListBroadcasts, request, "ListBroadcasts", Safety.READ, timeout=timeout)

    async def list_all(
        self,
        filter: BroadcastFilter | None = None,
        *,
        page_size: int = 0,
    ) -> AsyncIterator[Broadcast]:
        """Every broadcast that matches, newest first, a page at a time."""
        page_token = ""
        while True:
            page = await self.list(filter, page_size=page_size, page_token=page_token)
            for broadcast in page.broadcasts:
                yield broadcast
            page_token = page.next_page_token
            if not page_token:
                return

    async def update(
        self,
        broadcast_id: str,
        *,
        mask: Iterable[str],
        spec: BroadcastSpec | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """Change what `mask` names.

        Args:
            broadcast_id: which.
            mask: "labels", or fields of the spec such as "spec.title".
            spec: the new values of those fields.
            labels: the new labels, whole.
            etag: that was read; EtagMismatch when somebody was faster. Empty: overwrite.
            request_id: None: a new one.
            timeout: of one try, in seconds.
        """
        request = UpdateBroadcastRequest(
            request_id=_request_id(request_id),
            broadcast_id=broadcast_id,
            etag=etag,
            spec=spec,
            labels=labels or {},
            update_mask=FieldMask(paths=mask),
        )
        answer = await self._call(
            self._stub.UpdateBroadcast, request, "UpdateBroadcast", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def start(
        self,
        broadcast_id: str,
        *,
        wait: Seconds | None = None,
        host_identity: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> StartBroadcastResponse:
        """Ask for the broadcast to be live.

        Args:
            broadcast_id: which.
            wait: for READY, at most 30 s. That it is over is no error: look at the state.
            host_identity: who enters as host; the answer holds `host_access` then.
            request_id: None: a new one.
            timeout: of one try, in seconds, on top of `wait`.
        """
        request = StartBroadcastRequest(
            request_id=_request_id(request_id),
            broadcast_id=broadcast_id,
            wait=None if wait is None else duration(wait),
            host_identity=host_identity,
        )
        return await self._call(
            self._stub.StartBroadcast, request, "StartBroadcast", Safety.REPEATABLE, timeout=timeout, wait=wait
        )

    async def set_on_air(
        self,
        broadcast_id: str,
        on_air: bool,  # noqa: FBT001 - set_on_air(id, True) reads well
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """Take a broadcast of delivery policy MANUAL on air, or back to its backstage."""
        request = SetOnAirRequest(request_id=_request_id(request_id), broadcast_id=broadcast_id, on_air=on_air)
        answer = await self._call(self._stub.SetOnAir, request, "SetOnAir", Safety.REPEATABLE, timeout=timeout)
        return answer.broadcast

    async def stop(
        self,
        broadcast_id: str,
        *,
        note: str = "",
        wait: Seconds | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Broadcast:
        """End a broadcast. Never refused for its state.

        Args:
            broadcast_id: which.
            note: why, for the story of the broadcast.
            wait: for ENDED or FAILED, at most 60 s. That it is over is no error: look at the state.
            request_id: None: a new one.
            timeout: of one try, in seconds, on top of `wait`.
        """
        request = StopBroadcastRequest(
            request_id=_request_id(request_id),
            broadcast_id=broadcast_id,
            note=note,
            wait=None if wait is None else duration(wait),
        )
        answer = await self._call(
            self._stub.StopBroadcast, request, "StopBroadcast", Safety.REPEATABLE, timeout=timeout, wait=wait
        )
        return answer.broadcast

    async def delete(
        self, broadcast_id: str, *, etag: str = "", allow_missing: bool = False, timeout: float | None = None
    ) -> None:
        """Forget a broadcast that is at rest.

        Without `allow_missing` a lost answer is not tried again: the second try would find nothing and say NOT_FOUND.
        """
        request = DeleteBroadcastRequest(broadcast_id=broadcast_id, etag=etag, allow_missing=allow_missing)
        safety = Safety.REPEATABLE if allow_missing else Safety.ONCE
        await self._call(self._stub.DeleteBroadcast, request, "DeleteBroadcast", safety, timeout=timeout)

    async def issue_host_access(
        self,
        broadcast_id: str,
        identity: str,
        *,
        display_name: str = "",
        ttl: Seconds | None = None,
        timeout: float | None = None,
    ) -> HostAccess:
        """Mint a token with which a host enters the room. It is a secret, and so is the repr of the answer.

        Args:
            broadcast_id: which.
            identity: of the host; entering twice puts the first out.
            display_name: that others see.
            ttl: how long the token lets enter, 1 min to 6 h. None: 10 min.
            timeout: of one try, in seconds.
        """
        request = IssueHostAccessRequest(
            broadcast_id=broadcast_id,
            identity=identity,
            display_name=display_name,
            ttl=None if ttl is None else duration(ttl),
        )
        # Minting changes nothing at the service: a token whose answer was lost simply expires.
        answer = await self._call(self._stub.IssueHostAccess, request, "IssueHostAccess", Safety.READ, timeout=timeout)
        return answer.host_access

    async def events(
        self, broadcast_id: str, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
    ) -> ListBroadcastEventsResponse:
        """One page of the story of a broadcast, oldest first."""
        request = ListBroadcastEventsRequest(broadcast_id=broadcast_id, page_size=page_size, page_token=page_token)
        return await self._call(
            self._stub.ListBroadcastEvents, request, "ListBroadcastEvents", Safety.READ, timeout=timeout
        )

    async def events_all(self, broadcast_id: str, *, page_size: int = 0) -> AsyncIterator[BroadcastEvent]:
        """The story of a broadcast, oldest first, a page at a time."""
        page_token = ""
        while True:
            page = await self.events(broadcast_id, page_size=page_size, page_token=page_token)
            for event in page.events:
                yield event
            page_token = page.next_page_token
            if not page_token:
                return

    def watch(
        self,
        filter: BroadcastFilter | None = None,
        *,
        resume_token: str = "",
        heartbeat_interval: Seconds = 15.0,
    ) -> Watch:
        """What happens to broadcasts from now on, through every break of the connection.

        Args:
            filter: which; see `broadcast_filter`. None: all.
            resume_token: of an earlier item or of `list`, with the same filter. Empty: begin with a snapshot.
            heartbeat_interval: 1 s to 60 s. A stream silent for three of them is taken for dead.
        """
        return Watch(
            lambda request: self._stub.WatchBroadcasts(request),  # noqa: PLW0108 - the stub needs a running event loop
            filter=filter or BroadcastFilter(),
            resume_token=resume_token,
            heartbeat_interval=heartbeat_interval,
            policy=self._policy,
            is_closed=lambda: self._connection.is_closed,
        )

    async def get_health(self, broadcast_id: str, *, timeout: float | None = None) -> BroadcastHealth:
        """Every part of the chain: how it does, since when, and how that is known."""
        request = GetBroadcastHealthRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.GetBroadcastHealth, request, "GetBroadcastHealth", Safety.READ, timeout=timeout
        )
        return answer.health

    async def explain(self, broadcast_id: str, *, timeout: float | None = None) -> Explanation:
        """Why it is in its state: causes, the likeliest first; what happens next; and the commands that override."""
        request = ExplainBroadcastRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.ExplainBroadcast, request, "ExplainBroadcast", Safety.READ, timeout=timeout
        )
        return answer.explanation

    async def report_host_stats(
        self, broadcast_id: str, identity: str, stats: HostStats, *, timeout: float | None = None
    ) -> float:
        """Tell what the host's browser measured.

        Args:
            broadcast_id: which.
            identity: of the host in the room.
            stats: what was not measured is left out.
            timeout: of one try, in seconds.

        Returns:
            Seconds after which to report again.
        """
        request = ReportHostStatsRequest(broadcast_id=broadcast_id, identity=identity, stats=stats)
        # The latest counts: a lost one is followed by the next.
        answer = await self._call(
            self._stub.ReportHostStats, request, "ReportHostStats", Safety.REPEATABLE, timeout=timeout
        )
        return answer.report_interval.ToTimedelta().total_seconds()

    def watch_health(self, filter: BroadcastFilter | None = None, *, interval: Seconds = 5.0) -> HealthWatch:
        """The health of broadcasts, then of those whose health changed, through every break of the connection.

        Args:
            filter: which; see `broadcast_filter`. None: all.
            interval: the shortest time between two messages, 1 s to 60 s.
        """
        return HealthWatch(
            lambda request: self._stub.WatchHealth(request),  # noqa: PLW0108 - as above
            filter=filter or BroadcastFilter(),
            interval=interval,
            policy=self._policy,
            is_closed=lambda: self._connection.is_closed,
        )

    async def wait_until(
        self, broadcast_id: str, state: State | Collection[State], *, timeout: float = 60.0
    ) -> Broadcast:
        """Wait until a broadcast is in this state, or in one of these, and answer it.

        A state that was passed before the call does not count: who waits for READY while a host may already be
        publishing waits for ("READY", "LIVE").

        Raises:
            BroadcastEndedEarly: it is ENDED or FAILED instead.
            WaitTimeout: `timeout` seconds were over first.
            BroadcastNotFound: there is none, or it was deleted meanwhile.
        """
        wanted = {broadcast_state(each) for each in _each(state)}
        last: Broadcast | None = None
        try:
            async with asyncio.timeout(timeout), self.watch(broadcast_filter(ids=[broadcast_id])) as watch:
                async for item in watch:
                    match item:
                        case Change(type=kind) if kind == CHANGE_TYPE_REMOVED:
                            raise _missing(broadcast_id)
                        case Snapshot() | Change():
                            last = item.broadcast
                        case SnapshotComplete() if last is None:
                            raise _missing(broadcast_id)
                        case _:
                            continue
                    if last.status.state in wanted:
                        return last
                    if last.status.state in (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED):
                        raise BroadcastEndedEarly(broadcast=last)
        except TimeoutError:
            pass
        names = " or ".join(sorted(state_name(each) for each in wanted))
        seen = state_name(last.status.state) if last else "not seen"
        raise WaitTimeout(
            f"{broadcast_id} is {seen}, not {names}, after {timeout:g} s", broadcast_id=broadcast_id, broadcast=last
        )

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        name: str,
        safety: Safety,
        *,
        timeout: float | None,
        wait: Seconds | None = None,
    ) -> _Response:
        waits = 0.0 if wait is None else seconds(wait)
        return await call(
            method,
            request,
            name=name,
            safety=safety,
            attempt_timeout=(self._timeout if timeout is None else timeout) + waits,
            budget=self._policy.budget + waits,
            policy=self._policy,
        )


def _request_id(given: str | None) -> str:
    return str(uuid.uuid4()) if given is None else given


def _each(state: State | Collection[State]) -> Collection[State]:
    return [state] if isinstance(state, (str, int)) else state


def _missing(broadcast_id: str) -> BroadcastNotFound:
    return BroadcastNotFound(
        "there is no such broadcast",
        code=grpc.StatusCode.NOT_FOUND,
        method="WatchBroadcasts",
        reason="BROADCAST_NOT_FOUND",
        metadata={"broadcast_id": broadcast_id},
    )
