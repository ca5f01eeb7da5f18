"""BroadcastService: from a message to a rule of the domain and a row of the store, and back. Thin on purpose."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceServicer
from service import telemetry
from service.api import tokens
from service.api.addresses import Resolve, private_hosts
from service.api.admission import Admission
from service.api.convert import (
    SPEC_FIELDS,
    GivenSpec,
    broadcast_message,
    duration_of,
    event_message,
    given_filter,
    given_spec,
    host_access_message,
)
from service.api.moved import Moved
from service.api.streams import Watches
from service.api.tail import Tail
from service.domain import lifecycle
from service.domain.broadcast import Broadcast, State, Target
from service.domain.errors import (
    BroadcastNotFound,
    FieldImmutable,
    InvalidField,
    StateForbids,
    StoreUnavailable,
    Violation,
)
from service.domain.lifecycle import Change
from service.domain.ports import HostTokens
from service.domain.validation import destination_violations, missing_keys
from service.store.broadcasts import Broadcasts, Request
from service.store.changes import Changes

_Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50
_MAX_PAGE = 500
_DEFAULT_TTL = timedelta(minutes=10)
_DEFAULT_HEARTBEAT_S = 15.0
# The answer is on its way to the caller before the caller's own deadline.
_DEADLINE_MARGIN_S = 0.5
_LOOK_AGAIN_S = 1.0
# How an answer is asked for is no part of what is asked: a retry may wait differently.
_NOT_CONTENT = ("request_id", "wait", "host_identity")


class BroadcastApi(BroadcastServiceServicer):
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        changes: Changes,
        tokens: HostTokens,
        moved: Moved,
        wake: Callable[[str], None],
        resolve: Resolve,
        tail: Tail,
        admission: Admission,
        playback_base_url: str,
    ) -> None:
        self._broadcasts = broadcasts
        self._changes = changes
        self._tokens = tokens
        self._moved = moved
        self._wake = wake
        self._resolve = resolve
        self._tail = tail
        self._admission = admission
        self._playback_base_url = playback_base_url
        self._watches = Watches(broadcasts, changes, tail, playback_base_url=playback_base_url)

    async def CreateBroadcast(
        self, request: rpc.CreateBroadcastRequest, context: _Context
    ) -> rpc.CreateBroadcastResponse:
        given = given_spec(request.spec)
        await self._check_destinations(given, missing_keys(given.spec.destinations, given.keys))
        broadcast = await self._broadcasts.create(
            request.broadcast_id or _new_id(),
            given.spec,
            given.keys,
            dict(request.labels),
            _request("CreateBroadcast", request.request_id, request),
        )
        self._moved.notify()
        return rpc.CreateBroadcastResponse(broadcast=self._message(broadcast))

    async def GetBroadcast(self, request: rpc.GetBroadcastRequest, context: _Context) -> rpc.GetBroadcastResponse:
        broadcast = await self._broadcasts.get(request.broadcast_id)
        return rpc.GetBroadcastResponse(broadcast=self._message(broadcast))

    async def ListBroadcasts(self, request: rpc.ListBroadcastsRequest, context: _Context) -> rpc.ListBroadcastsResponse:
        filter_ = given_filter(request.filter)
        filter_is = tokens.filter_hash(filter_)
        page = tokens.read_page_token(request.page_token, filter_is) if request.page_token else None
        size = _page_size(request.page_size)
        found, revision = await self._broadcasts.list(
            filter_, limit=size + 1, before=page.place.key if page is not None else None
        )
        if page is not None:
            revision = page.revision
        broadcasts = found[:size]
        next_page_token = ""
        if len(found) > size:
            place = tokens.Place.of(broadcasts[-1].create_time, broadcasts[-1].id)
            next_page_token = tokens.page_token(filter_is, place, revision)
        return rpc.ListBroadcastsResponse(
            broadcasts=[self._message(broadcast) for broadcast in broadcasts],
            next_page_token=next_page_token,
            resume_token=tokens.resume_token(filter_is, revision),
        )

    async def UpdateBroadcast(
        self, request: rpc.UpdateBroadcastRequest, context: _Context
    ) -> rpc.UpdateBroadcastResponse:
        names = _masked_fields(request.update_mask.paths)
        labels = dict(request.labels) if "labels" in request.update_mask.paths else None
        given = given_spec(_only(request.spec, names))
        await self._check_destinations(given, ())
        paths = [inner for name in names for inner in SPEC_FIELDS[name]]

        def decide(stored: Broadcast, now: datetime) -> Change | None:
            change = lifecycle.update(
                stored, now, etag=request.etag, spec=given.spec, keys=given.keys, labels=labels, paths=paths
            )
            if change is not None and "destinations" in names:
                missing = missing_keys(change.broadcast.spec.destinations, change.broadcast.destination_keys)
                if missing:
                    raise InvalidField(*missing)
            return change

        try:
            broadcast = await self._change("UpdateBroadcast", request.broadcast_id, request.request_id, request, decide)
        except FieldImmutable as error:
            raise _in_words_of_the_contract(error) from None
        return rpc.UpdateBroadcastResponse(broadcast=self._message(broadcast))

    async def StartBroadcast(self, request: rpc.StartBroadcastRequest, context: _Context) -> rpc.StartBroadcastResponse:
        _check_identity(request.host_identity, "host_identity")
        wait = duration_of(request.wait, "wait")
        since = self._tail.head
        broadcast = await self._change(
            "StartBroadcast", request.broadcast_id, request.request_id, request, lifecycle.start
        )
        broadcast = await self._until(_is_ready_or_later, broadcast, since, wait, context)
        response = rpc.StartBroadcastResponse(broadcast=self._message(broadcast))
        # Not to a room that is being closed: whoever enters it might open it again.
        if request.host_identity and broadcast.target is Target.LIVE:
            response.host_access.CopyFrom(self._host_access(broadcast, request.host_identity, "", _DEFAULT_TTL))
        return response

    async def SetOnAir(self, request: rpc.SetOnAirRequest, context: _Context) -> rpc.SetOnAirResponse:
        broadcast = await self._change(
            "SetOnAir",
            request.broadcast_id,
            request.request_id,
            request,
            lambda stored, now: lifecycle.set_on_air(stored, now, on_air=request.on_air),
        )
        return rpc.SetOnAirResponse(broadcast=self._message(broadcast))

    async def StopBroadcast(self, request: rpc.StopBroadcastRequest, context: _Context) -> rpc.StopBroadcastResponse:
        wait = duration_of(request.wait, "wait")
        since = self._tail.head
        broadcast = await self._change(
            "StopBroadcast",
            request.broadcast_id,
            request.request_id,
            request,
            lambda stored, now: lifecycle.stop(stored, now, request.note),
        )
        broadcast = await self._until(lambda state: state.over, broadcast, since, wait, context)
        return rpc.StopBroadcastResponse(broadcast=self._message(broadcast))

    async def DeleteBroadcast(
        self, request: rpc.DeleteBroadcastRequest, context: _Context
    ) -> rpc.DeleteBroadcastResponse:
        try:
            await self._change(
                "DeleteBroadcast",
                request.broadcast_id,
                "",
                request,
                lambda stored, now: lifecycle.delete(stored, now, etag=request.etag),
            )
        except BroadcastNotFound:
            if not request.allow_missing:
                raise
        return rpc.DeleteBroadcastResponse()

    async def IssueHostAccess(
        self, request: rpc.IssueHostAccessRequest, context: _Context
    ) -> rpc.IssueHostAccessResponse:
        _check_identity(request.identity, "identity")
        ttl = duration_of(request.ttl, "ttl") if request.HasField("ttl") else _DEFAULT_TTL
        broadcast = await self._broadcasts.get(request.broadcast_id)
        if broadcast.target is not Target.LIVE:
            why = "it was not started" if broadcast.target is Target.CREATED else "it was stopped"
            raise StateForbids(
                f"IssueHostAccess of {broadcast.id!r} is not possible: {why}",
                broadcast_id=broadcast.id,
                state=broadcast.state,
                method="IssueHostAccess",
            )
        access = self._host_access(broadcast, request.identity, request.display_name, ttl)
        return rpc.IssueHostAccessResponse(host_access=access)

    async def ListBroadcastEvents(
        self, request: rpc.ListBroadcastEventsRequest, context: _Context
    ) -> rpc.ListBroadcastEventsResponse:
        broadcast_id = request.broadcast_id
        after = tokens.read_story_token(request.page_token, broadcast_id).revision if request.page_token else 0
        await self._broadcasts.get(broadcast_id)
        size = _page_size(request.page_size)
        found = await self._changes.story(broadcast_id, after=after, limit=size + 1)
        events = found[:size]
        return rpc.ListBroadcastEventsResponse(
            events=[event_message(event) for event in events],
            next_page_token=tokens.story_token(broadcast_id, events[-1].revision) if len(found) > size else "",
        )

    def WatchBroadcasts(  # pyright: ignore[reportIncompatibleMethodOverride] - messages come serialised, once for all
        self, request: rpc.WatchBroadcastsRequest, context: _Context
    ) -> AsyncIterator[bytes]:
        heartbeat = duration_of(request.heartbeat_interval, "heartbeat_interval").total_seconds()
        return self._watches.follow(
            given_filter(request.filter), request.resume_token, heartbeat or _DEFAULT_HEARTBEAT_S
        )

    async def _change(
        self,
        method: str,
        broadcast_id: str,
        request_id: str,
        message: Message,
        decide: Callable[[Broadcast, datetime], Change | None],
    ) -> Broadcast:
        broadcast = await self._broadcasts.change(
            broadcast_id,
            decide,
            _request(method, request_id, message),
            trace_context=telemetry.traceparent(),
        )
        self._wake(broadcast.id)
        self._moved.notify()
        return broadcast

    async def _check_destinations(self, given: GivenSpec, missing: Sequence[Violation]) -> None:
        violations = [*destination_violations(given.spec.destinations, given.keys), *missing]
        if not violations:
            violations = await private_hosts(given.spec.destinations, self._resolve)
        if violations:
            raise InvalidField(*violations)

    async def _until(
        self,
        reached: Callable[[State], bool],
        broadcast: Broadcast,
        since: int,
        wait: timedelta,
        context: _Context,
    ) -> Broadcast:
        """The broadcast once its state is *reached*, or as it is when the time is over, the caller's or *wait*, or when
        this replica shuts down. *since* is a revision from before the write. Raises nothing: the write is done.
        """
        loop = asyncio.get_running_loop()
        # None where the caller set no deadline, which the stubs do not say.
        remaining = cast("float | None", context.time_remaining())
        limit = wait.total_seconds()
        if remaining is not None:
            limit = min(limit, remaining - _DEADLINE_MARGIN_S)
        ends_at = loop.time() + limit
        if limit <= 0 or reached(broadcast.state):
            return broadcast
        with self._admission.parked() as may_wait:
            while may_wait and not self._admission.draining and (left := ends_at - loop.time()) > 0:
                seen = self._tail.advanced.count
                if self._tail.changed(broadcast.id, since):
                    since = self._tail.head
                    try:
                        async with asyncio.timeout(left):
                            broadcast = await self._broadcasts.get(broadcast.id)
                    except BroadcastNotFound:
                        return broadcast
                    except (StoreUnavailable, TimeoutError):
                        pass
                    if reached(broadcast.state):
                        return broadcast
                await self._tail.advanced.wait(min(left, _LOOK_AGAIN_S), since=seen)
        return broadcast

    def _message(self, broadcast: Broadcast) -> pb.Broadcast:
        return broadcast_message(broadcast, self._playback_base_url)

    def _host_access(self, broadcast: Broadcast, identity: str, display_name: str, ttl: timedelta) -> rpc.HostAccess:
        token = self._tokens.issue(room_name=broadcast.id, identity=identity, display_name=display_name, ttl=ttl)
        return host_access_message(token, room_name=broadcast.id, identity=identity)


def _new_id() -> str:
    """100 random bits."""
    return "b" + base64.b32encode(os.urandom(13)).decode()[:20].lower()


def _request(method: str, request_id: str, message: Message) -> Request:
    content = type(message)()
    content.CopyFrom(message)
    for name in _NOT_CONTENT:
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    digest = hashlib.sha256(f"{method}\n".encode() + content.SerializeToString(deterministic=True)).digest()
    return Request(id=request_id, method=method, digest=digest)


def _page_size(asked: int) -> int:
    return min(asked or _DEFAULT_PAGE, _MAX_PAGE)


def _masked_fields(paths: Sequence[str]) -> set[str]:
    """Names of fields of the spec. Raises InvalidField."""
    if not paths:
        raise InvalidField(Violation(field="update_mask", description="must name at least one path"))
    names: set[str] = set()
    violations: list[Violation] = []
    for index, path in enumerate(paths):
        name = path.removeprefix("spec.")
        if path == "labels":
            continue
        if path.startswith("spec.") and name in SPEC_FIELDS:
            names.add(name)
        else:
            description = 'is neither "labels" nor "spec." and a field of the spec'
            violations.append(Violation(field=f"update_mask.paths[{index}]", description=description))
    if violations:
        raise InvalidField(*violations)
    return names


def _only(spec: pb.BroadcastSpec, names: set[str]) -> pb.BroadcastSpec:
    """Without what the mask does not name: it may hold anything."""
    only = pb.BroadcastSpec()
    FieldMask(paths=sorted(names)).MergeMessage(spec, only)
    return only


def _in_words_of_the_contract(error: FieldImmutable) -> FieldImmutable:
    field = error.metadata["field"]
    inner = field.removeprefix("spec.")
    outer = next((name for name, parts in SPEC_FIELDS.items() if inner in parts), inner)
    return FieldImmutable(error.message.replace(field, f"spec.{outer}"), field=f"spec.{outer}")


def _check_identity(identity: str, field: str) -> None:
    if identity.startswith("EG_"):
        # LiveKit puts out whoever has the same identity: this would be a running egress.
        raise InvalidField(Violation(field=field, description='must not begin with "EG_"'))


def _is_ready_or_later(state: State) -> bool:
    return state not in (State.CREATED, State.STARTING)
