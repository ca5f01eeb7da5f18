"""BroadcastService in a dict, served for real: what the client is tested against when the service is not the subject.

It keeps the promises a client builds on (request ids, resume tokens, pages), and fails when told to.
"""
# ruff: noqa: N802
# The names of the methods are the contract's.

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceServicer, add_BroadcastServiceServicer_to_server
from broadcast.v1.event_pb2 import BroadcastEvent
from service.domain.reasons import Actor
from tests.ports import free_port

Context = grpc.aio.ServicerContext[Any, Any]

HOST_TOKEN = "host-token-of-the-fake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A call as it arrived."""

    method: str
    request: Any
    time_remaining: float | None
    """Seconds to the deadline; None: the caller set none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of one call."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "told to fail"
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field violations: path to description."""
    subjects: Mapping[str, str] = field(default_factory=dict[str, str])
    """Violated preconditions: subject to description."""
    retry_after: float | None = None
    """Seconds, in a RetryInfo."""
    after_effect: bool = False
    """The call has its effect, only the answer is lost."""

    async def abort(self, context: Context) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        details: list[Message] = []
        if self.reason:
            details.append(
                error_details_pb2.ErrorInfo(reason=self.reason, domain="broadcast.v1", metadata=self.metadata)
            )
        if self.fields:
            bad_request = error_details_pb2.BadRequest()
            for path, description in self.fields.items():
                bad_request.field_violations.add(field=path, description=description)
            details.append(bad_request)
        if self.subjects:
            precondition = error_details_pb2.PreconditionFailure()
            for subject, description in self.subjects.items():
                precondition.violations.add(subject=subject, description=description)
            details.append(precondition)
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(round(self.retry_after * 1000))
            details.append(retry)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()
        await context.abort(self.code, self.message, metadata)


class Hang:
    """The call is never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFault:
    """What becomes of one stream after so many messages."""

    after: int
    then: Literal["end", "hang"] | Fault


class FakeService(BroadcastServiceServicer):
    def __init__(self) -> None:
        self.broadcasts: dict[str, pb.Broadcast] = {}
        self.log: list[rpc.BroadcastChange] = []
        """Every change; its revision is its place, from 1."""
        self.events: dict[str, list[BroadcastEvent]] = defaultdict(list)
        self.received: list[Received] = []
        self.faults: dict[str, deque[Fault | Hang]] = defaultdict(deque)
        """By method, taken one a call."""
        self.stream_faults: deque[StreamFault] = deque()
        """Taken one a stream."""
        self.compacted = 0
        """Tokens below this revision are expired."""
        self.repeats = 0
        """So many changes are sent again after a resumption."""
        self.open_streams = 0
        self.on_start: Callable[[str], Awaitable[None]] = self.become_ready
        self.on_stop: Callable[[str], Awaitable[None]] = self.become_ended
        self._answered: dict[str, tuple[bytes, str]] = {}
        self._moved = asyncio.Event()

    def requests(self, method: str) -> list[Any]:
        return [each.request for each in self.received if each.method == method]

    def fail(self, method: str, code: grpc.StatusCode, *, times: int = 1, **about: Any) -> None:
        self.faults[method].extend([Fault(code=code, **about)] * times)

    def put(
        self,
        broadcast_id: str,
        state: str = "CREATED",
        *,
        reason: str = "",
        met: Iterable[str] = (),
        change: Callable[[pb.Broadcast], None] | None = None,
    ) -> pb.Broadcast:
        """Commit a broadcast in this state, with these conditions met beside those that were."""
        known = broadcast_id in self.broadcasts
        broadcast = pb.Broadcast(id=broadcast_id, generation=1, etag="1")
        if known:
            broadcast.CopyFrom(self.broadcasts[broadcast_id])
        else:
            broadcast.create_time.GetCurrentTime()
        broadcast.status.state = pb.BroadcastState.Value(f"BROADCAST_STATE_{state}")
        broadcast.status.state_reason = reason or f"BECAME_{state}"
        broadcast.status.state_time.GetCurrentTime()
        for each in met:
            condition = broadcast.status.conditions.add(type=pb.ConditionType.Value(f"CONDITION_TYPE_{each}"), met=True)
            condition.transition_time.GetCurrentTime()
        if change:
            change(broadcast)
        self.broadcasts[broadcast_id] = broadcast
        self._commit(rpc.CHANGE_TYPE_UPDATED if known else rpc.CHANGE_TYPE_ADDED, broadcast)
        return broadcast

    def remove(self, broadcast_id: str) -> None:
        self._commit(rpc.CHANGE_TYPE_REMOVED, self.broadcasts.pop(broadcast_id))

    async def become_ready(self, broadcast_id: str) -> None:
        def started(broadcast: pb.Broadcast) -> None:
            broadcast.status.start_time.GetCurrentTime()
            broadcast.status.target_state = pb.BROADCAST_STATE_LIVE

        self.put(broadcast_id, "STARTING", change=started)
        self.put(broadcast_id, "STARTING", met=["ROOM_READY"])
        self.put(broadcast_id, "READY", met=["STREAM_READY"])

    async def become_live(self, broadcast_id: str) -> None:
        for condition in ("HOST_PUBLISHING", "EGRESS_RUNNING", "INGEST_ACTIVE"):
            self.put(broadcast_id, "READY", met=[condition])
        self.put(broadcast_id, "LIVE", met=["PLAYABLE"])

    async def become_ended(self, broadcast_id: str) -> None:
        self.put(broadcast_id, "STOPPING")
        self.put(broadcast_id, "ENDED")

    def _commit(self, kind: rpc.ChangeType.ValueType, broadcast: pb.Broadcast) -> None:
        change = rpc.BroadcastChange(type=kind, broadcast=broadcast, revision=len(self.log) + 1)
        self.log.append(change)
        event = BroadcastEvent(
            revision=change.revision,
            broadcast_id=broadcast.id,
            reason=broadcast.status.state_reason,
            message=f"it is {pb.BroadcastState.Name(broadcast.status.state)}",
            actor=Actor.RECONCILER,
            state=broadcast.status.state,
        )
        event.time.GetCurrentTime()
        self.events[broadcast.id].append(event)
        self._moved.set()
        self._moved = asyncio.Event()

    @contextlib.asynccontextmanager
    async def _rpc(self, method: str, request: Any, context: Context) -> AsyncGenerator[None, None]:
        self.received.append(Received(method=method, request=request, time_remaining=context.time_remaining()))
        fault = self.faults[method].popleft() if self.faults[method] else None
        if isinstance(fault, Hang):
            await asyncio.Event().wait()
        if isinstance(fault, Fault) and not fault.after_effect:
            await fault.abort(context)
        yield
        if isinstance(fault, Fault) and fault.after_effect:
            await fault.abort(context)

    async def _known(self, broadcast_id: str, context: Context) -> pb.Broadcast:
        if broadcast_id not in self.broadcasts:
            await Fault(
                code=grpc.StatusCode.NOT_FOUND,
                reason="BROADCAST_NOT_FOUND",
                message="there is no such broadcast",
                metadata={"broadcast_id": broadcast_id},
            ).abort(context)
        return self.broadcasts[broadcast_id]

    async def _first_answer(self, request: Any, broadcast_id: str, context: Context) -> str | None:
        """The id this request_id was answered with before, None at the first time; aborts when the content differs."""
        content = request.SerializeToString(deterministic=True)
        before = self._answered.get(request.request_id)
        if before is None:
            self._answered[request.request_id] = (content, broadcast_id)
            return None
        if before[0] != content:
            await Fault(
                code=grpc.StatusCode.INVALID_ARGUMENT,
                reason="REQUEST_ID_REUSED",
                metadata={"request_id": request.request_id},
            ).abort(context)
        return before[1]

    async def CreateBroadcast(
        self, request: rpc.CreateBroadcastRequest, context: Context
    ) -> rpc.CreateBroadcastResponse:
        async with self._rpc("CreateBroadcast", request, context):
            broadcast_id = request.broadcast_id or f"made-{len(self.broadcasts) + 1}"
            answered = await self._first_answer(request, broadcast_id, context)
            if answered is None and broadcast_id in self.broadcasts:
                await Fault(
                    code=grpc.StatusCode.ALREADY_EXISTS,
                    reason="BROADCAST_EXISTS",
                    metadata={"broadcast_id": broadcast_id},
                ).abort(context)
            if answered is None:

                def created(broadcast: pb.Broadcast) -> None:
                    broadcast.spec.CopyFrom(request.spec)
                    broadcast.labels.update(request.labels)
                    for destination in broadcast.spec.destinations:
                        destination.stream_key = ""

                self.put(broadcast_id, change=created)
            return rpc.CreateBroadcastResponse(broadcast=self.broadcasts[answered or broadcast_id])

    async def GetBroadcast(self, request: rpc.GetBroadcastRequest, context: Context) -> rpc.GetBroadcastResponse:
        async with self._rpc("GetBroadcast", request, context):
            return rpc.GetBroadcastResponse(broadcast=await self._known(request.broadcast_id, context))

    async def ListBroadcasts(self, request: rpc.ListBroadcastsRequest, context: Context) -> rpc.ListBroadcastsResponse:
        async with self._rpc("ListBroadcasts", request, context):
            found = [each for each in reversed(self.broadcasts.values()) if _matches(request.filter, each)]
            begin, size = int(request.page_token or 0), request.page_size or 50
            return rpc.ListBroadcastsResponse(
                broadcasts=found[begin : begin + size],
                next_page_token=str(begin + size) if begin + size < len(found) else "",
                resume_token=f"r{len(self.log)}",
            )

    async def UpdateBroadcast(
        self, request: rpc.UpdateBroadcastRequest, context: Context
    ) -> rpc.UpdateBroadcastResponse:
        async with self._rpc("UpdateBroadcast", request, context):
            present = await self._known(request.broadcast_id, context)
            if request.etag and request.etag != present.etag:
                await Fault(code=grpc.StatusCode.ABORTED, reason="ETAG_MISMATCH").abort(context)

            def updated(broadcast: pb.Broadcast) -> None:
                for path in request.update_mask.paths:
                    if path == "labels":
                        broadcast.labels.clear()
                        broadcast.labels.update(request.labels)
                        continue
                    name = path.removeprefix("spec.")
                    broadcast.spec.ClearField(name)  # type: ignore[arg-type]
                    broadcast.spec.MergeFrom(pb.BroadcastSpec(**{name: getattr(request.spec, name)}))
                broadcast.generation += 1
                broadcast.etag = str(broadcast.generation)

            state = pb.BroadcastState.Name(present.status.state).removeprefix("BROADCAST_STATE_")
            return rpc.UpdateBroadcastResponse(broadcast=self.put(present.id, state, change=updated))

    async def StartBroadcast(self, request: rpc.StartBroadcastRequest, context: Context) -> rpc.StartBroadcastResponse:
        async with self._rpc("StartBroadcast", request, context):
            await self._known(request.broadcast_id, context)
            if await self._first_answer(request, request.broadcast_id, context) is None:
                await self.on_start(request.broadcast_id)
            answer = rpc.StartBroadcastResponse(broadcast=self.broadcasts[request.broadcast_id])
            if request.host_identity:
                answer.host_access.CopyFrom(_access(request.broadcast_id, request.host_identity))
            return answer

    async def SetOnAir(self, request: rpc.SetOnAirRequest, context: Context) -> rpc.SetOnAirResponse:
        async with self._rpc("SetOnAir", request, context):
            broadcast = await self._known(request.broadcast_id, context)
            broadcast.status.on_air = request.on_air
            return rpc.SetOnAirResponse(broadcast=broadcast)

    async def StopBroadcast(self, request: rpc.StopBroadcastRequest, context: Context) -> rpc.StopBroadcastResponse:
        async with self._rpc("StopBroadcast", request, context):
            await self._known(request.broadcast_id, context)
            if await self._first_answer(request, request.broadcast_id, context) is None:
                await self.on_stop(request.broadcast_id)
            return rpc.StopBroadcastResponse(broadcast=self.broadcasts[request.broadcast_id])

    async def DeleteBroadcast(
        self, request: rpc.DeleteBroadcastRequest, context: Context
    ) -> rpc.DeleteBroadcastResponse:
        async with self._rpc("DeleteBroadcast", request, context):
            if request.broadcast_id in self.broadcasts or not request.allow_missing:
                await self._known(request.broadcast_id, context)
                self.remove(request.broadcast_id)
            return rpc.DeleteBroadcastResponse()

    async def IssueHostAccess(
        self, request: rpc.IssueHostAccessRequest, context: Context
    ) -> rpc.IssueHostAccessResponse:
        async with self._rpc("IssueHostAccess", request, context):
            await self._known(request.broadcast_id, context)
            return rpc.IssueHostAccessResponse(host_access=_access(request.broadcast_id, request.identity))

    async def ListBroadcastEvents(
        self, request: rpc.ListBroadcastEventsRequest, context: Context
    ) -> rpc.ListBroadcastEventsResponse:
        async with self._rpc("ListBroadcastEvents", request, context):
            await self._known(request.broadcast_id, context)
            events = self.events[request.broadcast_id]
            begin, size = int(request.page_token or 0), request.page_size or 50
            return rpc.ListBroadcastEventsResponse(
                events=events[begin : begin + size],
                next_page_token=str(begin + size) if begin + size < len(events) else "",
            )

    async def WatchHealth(
        self, request: rpc.WatchHealthRequest, context: Context
    ) -> AsyncIterator[rpc.WatchHealthResponse]:
        """Empty messages, one an interval."""
        async with self._rpc("WatchHealth", request, context):
            fault = self.stream_faults.popleft() if self.stream_faults else None
            sent = 0
            while not fault or sent < fault.after:
                message = rpc.WatchHealthResponse()
                message.time.GetCurrentTime()
                yield message
                sent += 1
                if not fault:
                    await asyncio.sleep(request.interval.ToTimedelta().total_seconds())
            if isinstance(fault.then, Fault):
                await fault.then.abort(context)

    async def WatchBroadcasts(
        self, request: rpc.WatchBroadcastsRequest, context: Context
    ) -> AsyncIterator[rpc.WatchBroadcastsResponse]:
        async with self._rpc("WatchBroadcasts", request, context):
            fault = self.stream_faults.popleft() if self.stream_faults else None
            self.open_streams += 1
            try:
                sent = 0
                async for message in self._watched(request, context):
                    if fault and sent >= fault.after:
                        break
                    yield message
                    sent += 1
                if fault and fault.then == "hang":
                    await asyncio.Event().wait()
                if fault and isinstance(fault.then, Fault):
                    await fault.then.abort(context)
            finally:
                self.open_streams -= 1

    async def _watched(
        self, request: rpc.WatchBroadcastsRequest, context: Context
    ) -> AsyncIterator[rpc.WatchBroadcastsResponse]:
        if request.resume_token:
            cursor = int(request.resume_token.removeprefix("r"))
            if cursor < self.compacted:
                await Fault(code=grpc.StatusCode.OUT_OF_RANGE, reason="RESUME_TOKEN_EXPIRED").abort(context)
            cursor = max(0, cursor - self.repeats)
        else:
            cursor = len(self.log)
            for broadcast in list(self.broadcasts.values()):
                if _matches(request.filter, broadcast):
                    change = rpc.BroadcastChange(type=rpc.CHANGE_TYPE_SNAPSHOT, broadcast=broadcast)
                    yield rpc.WatchBroadcastsResponse(change=change, resume_token=f"r{cursor}")
            yield rpc.WatchBroadcastsResponse(snapshot_complete=rpc.SnapshotComplete(), resume_token=f"r{cursor}")
        interval = request.heartbeat_interval.ToTimedelta().total_seconds() or 15
        while True:
            moved = self._moved
            while cursor < len(self.log):
                change = self.log[cursor]
                cursor += 1
                if _matches(request.filter, change.broadcast):
                    yield rpc.WatchBroadcastsResponse(change=change, resume_token=f"r{cursor}")
            try:
                async with asyncio.timeout(interval):
                    await moved.wait()
            except TimeoutError:
                heartbeat = rpc.Heartbeat()
                heartbeat.server_time.GetCurrentTime()
                yield rpc.WatchBroadcastsResponse(heartbeat=heartbeat, resume_token=f"r{cursor}")


class FakeServer:
    """A FakeService on a port of 127.0.0.1 that stays the same over restarts."""

    def __init__(self) -> None:
        self.service = FakeService()  # pyright: ignore[reportAbstractUsage] - an RPC that it lacks is UNIMPLEMENTED
        self._server: grpc.aio.Server | None = None
        self._port = free_port()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = grpc.aio.server()
        add_BroadcastServiceServicer_to_server(self.service, self._server)
        self._port = self._server.add_insecure_port(self.target)
        await self._server.start()

    async def stop(self) -> None:
        """Break every connection."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


def _matches(wanted: rpc.BroadcastFilter, broadcast: pb.Broadcast) -> bool:
    return (
        (not wanted.broadcast_ids or broadcast.id in wanted.broadcast_ids)
        and (not wanted.states or broadcast.status.state in wanted.states)
        and all(broadcast.labels.get(key) == value for key, value in wanted.labels.items())
        and wanted.owner_id in ("", broadcast.spec.owner_id)
    )


def _access(broadcast_id: str, identity: str) -> rpc.HostAccess:
    access = rpc.HostAccess(
        livekit_url="ws://127.0.0.1:7880", token=HOST_TOKEN, room_name=broadcast_id, identity=identity
    )
    access.expire_time.GetCurrentTime()
    return access
