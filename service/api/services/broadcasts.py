"""BroadcastService: from a message to a rule of the domain and a row of the store, and back. Thin on purpose."""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.message import Message

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceServicer
from service import telemetry
from service.api.addresses import Resolve, private_hosts
from service.api.admission import Admission
from service.api.messages import tokens
from service.api.messages.broadcast import (
    SPEC_FIELDS,
    GivenSpec,
    broadcast_message,
    duration_of,
    event_message,
    given_filter,
    given_spec,
    host_access_message,
)
from service.api.messages.masks import in_words_of_the_contract, masked_fields, only
from service.api.services.health import HealthApi
from service.api.services.playback import VIEWER_PREFIX
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.streams.stream import Watches
from service.api.streams.waits import Waits
from service.domain import lifecycle
from service.domain.broadcast import Broadcast, State, Target
from service.domain.errors import (
    BroadcastNotFound,
    FieldImmutable,
    InvalidField,
    StateForbids,
    Violation,
)
from service.domain.lifecycle import Change
from service.domain.ports import HostTokens
from service.domain.validation import destination_violations, missing_keys
from service.store.broadcasts import Broadcasts, Request
from service.store.changes import Changes

_Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_TTL = timedelta(minutes=10)
_DEFAULT_HEARTBEAT_S = 15.0
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
        health: HealthApi | None = None,
    ) -> None:
        self._broadcasts = broadcasts
        self._health = health
        self._changes = changes
        self._tokens = tokens
        self._moved = moved
        self._wake = wake
        self._resolve = resolve
        self._playback_base_url = playback_base_url
        self._waits = Waits(broadcasts, tail, admission)
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
        return rpc.CreateBroadcastResponse(broadcast=self._message(_present(broadcast)))

    async def GetBroadcast(self, request: rpc.GetBroadcastRequest, context: _Context) -> rpc.GetBroadcastResponse:
        broadcast = await self._broadcasts.get(request.broadcast_id)
        return rpc.GetBroadcastResponse(broadcast=self._message(broadcast))

    async def ListBroadcasts(self, request: rpc.ListBroadcastsRequest, context: _Context) -> rpc.ListBroadcastsResponse:
        filter_ = given_filter(request.filter)
        filter_is = tokens.filter_hash(filter_)
        page = tokens.read_page_token(request.page_token, filter_is) if request.page_token else None
        size = tokens.page_size(request.page_size)
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
        names = masked_fields(request.update_mask.paths)
        labels = dict(request.labels) if "labels" in request.update_mask.paths else None
        given = given_spec(only(request.spec, names))
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
            raise in_words_of_the_contract(error) from None
        return rpc.UpdateBroadcastResponse(broadcast=self._message(broadcast))

    async def StartBroadcast(self, request: rpc.StartBroadcastRequest, context: _Context) -> rpc.StartBroadcastResponse:
        _check_identity(request.host_identity, "host_identity")
        wait = duration_of(request.wait, "wait")
        since = self._waits.now
        broadcast = await self._change(
            "StartBroadcast", request.broadcast_id, request.request_id, request, lifecycle.start
        )
        broadcast = await self._waits.until(_is_ready_or_later, broadcast, since, wait, context)
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
        since = self._waits.now
        broadcast = await self._change(
            "StopBroadcast",
            request.broadcast_id,
            request.request_id,
            request,
            lambda stored, now: lifecycle.stop(stored, now, request.note),
        )
        broadcast = await self._waits.until(lambda state: state.over, broadcast, since, wait, context)
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
        size = tokens.page_size(request.page_size)
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

    async def GetBroadcastHealth(
        self, request: rpc.GetBroadcastHealthRequest, context: _Context
    ) -> rpc.GetBroadcastHealthResponse:
        return await self._known_health.get(request)

    async def ExplainBroadcast(
        self, request: rpc.ExplainBroadcastRequest, context: _Context
    ) -> rpc.ExplainBroadcastResponse:
        return await self._known_health.explain(request)

    async def ReportHostStats(
        self, request: rpc.ReportHostStatsRequest, context: _Context
    ) -> rpc.ReportHostStatsResponse:
        return await self._known_health.report(request)

    def WatchHealth(  # pyright: ignore[reportIncompatibleMethodOverride] - as WatchBroadcasts
        self, request: rpc.WatchHealthRequest, context: _Context
    ) -> AsyncIterator[bytes]:
        return self._known_health.watch(request)

    @property
    def _known_health(self) -> HealthApi:
        assert self._health is not None  # noqa: S101 - for the type checker: whoever serves it gives it
        return self._health

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
        return broadcast if method == "DeleteBroadcast" else _present(broadcast)

    async def _check_destinations(self, given: GivenSpec, missing: Sequence[Violation]) -> None:
        violations = [*destination_violations(given.spec.destinations, given.keys), *missing]
        if not violations:
            violations = await private_hosts(given.spec.destinations, self._resolve)
        if violations:
            raise InvalidField(*violations)

    def _message(self, broadcast: Broadcast) -> pb.Broadcast:
        return broadcast_message(broadcast, self._playback_base_url)

    def _host_access(self, broadcast: Broadcast, identity: str, display_name: str, ttl: timedelta) -> rpc.HostAccess:
        token = self._tokens.issue(room_name=broadcast.id, identity=identity, display_name=display_name, ttl=ttl)
        return host_access_message(token, room_name=broadcast.id, identity=identity)


def _present(broadcast: Broadcast) -> Broadcast:
    """What a retry answers, unless it was deleted since. Raises BroadcastNotFound."""
    if broadcast.deleted:
        raise BroadcastNotFound(broadcast.id)
    return broadcast


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


def _check_identity(identity: str, field: str) -> None:
    # LiveKit puts out whoever has the same identity: this would be a running egress, or a viewer.
    for taken in ("EG_", VIEWER_PREFIX):
        if identity.startswith(taken):
            raise InvalidField(Violation(field=field, description=f'must not begin with "{taken}"'))


def _is_ready_or_later(state: State) -> bool:
    return state not in (State.CREATED, State.STARTING)
