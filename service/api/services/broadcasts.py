"""BroadcastService: reads, watches and the access of hosts here, writes in `Writes`, health in `HealthApi`, the people
in the room in `StageApi`, costs in `CostApi`.
"""
# ruff: noqa: ARG002, N802
# Names and arguments of the methods are the contract's.

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceServicer
from service.api.addresses import Resolve
from service.api.admission import Admission
from service.api.audience.reader import AudienceReader
from service.api.identities import check_host_identity
from service.api.messages import tokens
from service.api.messages.audience import audience_message
from service.api.messages.broadcast import broadcast_message, event_message, given_filter, host_access_message
from service.api.messages.enums import HOST_ROLES
from service.api.messages.pages import fitting
from service.api.messages.times import given_duration
from service.api.services.costs import CostApi
from service.api.services.health import HealthApi
from service.api.services.stage import StageApi
from service.api.services.writes import Writes
from service.api.streams.broadcasts import BroadcastWatches
from service.api.streams.change_log import Tail
from service.api.streams.moved import Moved
from service.api.streams.waits import Waits
from service.domain import lifecycle
from service.domain.broadcast import Broadcast, State, Target
from service.domain.errors import BroadcastNotFound
from service.domain.ports import HostRole, HostTokens
from service.store.broadcasts import Broadcasts
from service.store.changes import Changes

_Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_TTL = timedelta(minutes=10)
_DEFAULT_HEARTBEAT_S = 15.0


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
        unsigned: str,
        live_layouts: bool,
        health: HealthApi,
        costs: CostApi,
        audience: AudienceReader,
        stage: StageApi,
    ) -> None:
        """*moved* and *wake*: as of `ApiServer`. *unsigned*, *live_layouts*: as of
        `ApiOptions`.
        """
        self._broadcasts = broadcasts
        self._changes = changes
        self._tokens = tokens
        self._playback_base_url = playback_base_url
        self._health = health
        self._costs = costs
        self._audience = audience
        self._stage = stage
        self._writes = Writes(
            broadcasts=broadcasts,
            moved=moved,
            wake=wake,
            resolve=resolve,
            unsigned=unsigned,
            live_layouts=live_layouts,
        )
        self._tail = tail
        self._waits = Waits(broadcasts, tail, admission)
        self._watches = BroadcastWatches(broadcasts, changes, tail, playback_base_url=playback_base_url)

    async def CreateBroadcast(
        self, request: rpc.CreateBroadcastRequest, context: _Context
    ) -> rpc.CreateBroadcastResponse:
        broadcast = await self._writes.create(request)
        return rpc.CreateBroadcastResponse(broadcast=self._message(broadcast))

    async def GetBroadcast(self, request: rpc.GetBroadcastRequest, context: _Context) -> rpc.GetBroadcastResponse:
        broadcast = await self._broadcasts.get(request.broadcast_id)
        [message] = await self._counted([broadcast])
        return rpc.GetBroadcastResponse(broadcast=message)

    async def ListBroadcasts(self, request: rpc.ListBroadcastsRequest, context: _Context) -> rpc.ListBroadcastsResponse:
        filter_ = given_filter(request.filter)
        digest = tokens.filter_hash(filter_)
        page = tokens.read_page_token(request.page_token, digest) if request.page_token else None
        size = tokens.page_size(request.page_size)
        history = await self._tail.history()
        found, revision = await self._broadcasts.list(
            filter_, limit=size + 1, before=page.last.key if page is not None else None
        )
        if page is not None:
            revision, history = page.revision, page.history
        broadcasts = fitting(iter(await self._counted(found[:size])))
        next_page_token = ""
        if len(found) > len(broadcasts):
            end = found[len(broadcasts) - 1]
            next_page_token = tokens.page_token(
                digest, tokens.Position.of(end.create_time, end.id), revision, history=history
            )
        return rpc.ListBroadcastsResponse(
            broadcasts=broadcasts,
            next_page_token=next_page_token,
            resume_token=tokens.resume_token(digest, revision, history=history),
        )

    async def UpdateBroadcast(
        self, request: rpc.UpdateBroadcastRequest, context: _Context
    ) -> rpc.UpdateBroadcastResponse:
        broadcast = await self._writes.update(request)
        return rpc.UpdateBroadcastResponse(broadcast=self._message(broadcast))

    async def StartBroadcast(self, request: rpc.StartBroadcastRequest, context: _Context) -> rpc.StartBroadcastResponse:
        check_host_identity(request.host_identity, "host_identity")
        wait = given_duration(request.wait, "wait")
        since = self._waits.now
        broadcast = await self._writes.change(request, lifecycle.start)
        broadcast = await self._waits.until(_is_ready_or_later, broadcast, since, wait, context)
        response = rpc.StartBroadcastResponse(broadcast=self._message(broadcast))
        # Not while the room is being deleted: a host that enters might create it again.
        if request.host_identity and broadcast.target is Target.LIVE:
            response.host_access.CopyFrom(self._host_access(broadcast, request.host_identity))
        return response

    async def SetOnAir(self, request: rpc.SetOnAirRequest, context: _Context) -> rpc.SetOnAirResponse:
        broadcast = await self._writes.change(
            request, lambda stored, now: lifecycle.set_on_air(stored, now, on_air=request.on_air)
        )
        return rpc.SetOnAirResponse(broadcast=self._message(broadcast))

    async def StopBroadcast(self, request: rpc.StopBroadcastRequest, context: _Context) -> rpc.StopBroadcastResponse:
        wait = given_duration(request.wait, "wait")
        since = self._waits.now
        broadcast = await self._writes.change(request, lambda stored, now: lifecycle.stop(stored, now, request.note))
        broadcast = await self._waits.until(lambda state: state.over, broadcast, since, wait, context)
        return rpc.StopBroadcastResponse(broadcast=self._message(broadcast))

    async def DeleteBroadcast(
        self, request: rpc.DeleteBroadcastRequest, context: _Context
    ) -> rpc.DeleteBroadcastResponse:
        try:
            await self._writes.change(request, lambda stored, now: lifecycle.delete(stored, now, etag=request.etag))
        except BroadcastNotFound:
            if not request.allow_missing:
                raise
        return rpc.DeleteBroadcastResponse()

    async def AddDestination(self, request: rpc.AddDestinationRequest, context: _Context) -> rpc.AddDestinationResponse:
        broadcast = await self._writes.add_destination(request)
        return rpc.AddDestinationResponse(broadcast=self._message(broadcast))

    async def RemoveDestination(
        self, request: rpc.RemoveDestinationRequest, context: _Context
    ) -> rpc.RemoveDestinationResponse:
        broadcast = await self._writes.remove_destination(request)
        return rpc.RemoveDestinationResponse(broadcast=self._message(broadcast))

    async def IssueHostAccess(
        self, request: rpc.IssueHostAccessRequest, context: _Context
    ) -> rpc.IssueHostAccessResponse:
        check_host_identity(request.identity, "identity")
        ttl = given_duration(request.ttl, "ttl") if request.HasField("ttl") else _DEFAULT_TTL
        broadcast = await self._broadcasts.get(request.broadcast_id)
        lifecycle.check_wanted_live(broadcast)
        role = HOST_ROLES.member.get(request.role, HostRole.HOST)
        access = self._host_access(broadcast, request.identity, request.display_name, ttl, role)
        return rpc.IssueHostAccessResponse(host_access=access)

    async def ListParticipants(
        self, request: rpc.ListParticipantsRequest, context: _Context
    ) -> rpc.ListParticipantsResponse:
        return await self._stage.participants(request)

    async def RemoveParticipant(
        self, request: rpc.RemoveParticipantRequest, context: _Context
    ) -> rpc.RemoveParticipantResponse:
        return await self._stage.remove(request)

    async def MuteParticipant(
        self, request: rpc.MuteParticipantRequest, context: _Context
    ) -> rpc.MuteParticipantResponse:
        return await self._stage.mute(request)

    async def ListBroadcastEvents(
        self, request: rpc.ListBroadcastEventsRequest, context: _Context
    ) -> rpc.ListBroadcastEventsResponse:
        broadcast_id = request.broadcast_id
        after = tokens.read_story_token(request.page_token, broadcast_id).revision if request.page_token else 0
        await self._broadcasts.get(broadcast_id)
        size = tokens.page_size(request.page_size)
        found = await self._changes.story(broadcast_id, after=after, limit=size + 1)
        events = fitting(event_message(event) for event in found[:size])
        next_page_token = ""
        if len(found) > len(events):
            next_page_token = tokens.story_token(broadcast_id, found[len(events) - 1].revision)
        return rpc.ListBroadcastEventsResponse(events=events, next_page_token=next_page_token)

    def WatchBroadcasts(  # pyright: ignore[reportIncompatibleMethodOverride] - messages come serialised, once for all
        self, request: rpc.WatchBroadcastsRequest, context: _Context
    ) -> AsyncIterator[bytes]:
        heartbeat = given_duration(request.heartbeat_interval, "heartbeat_interval").total_seconds()
        return self._watches.follow(
            given_filter(request.filter), request.resume_token, heartbeat or _DEFAULT_HEARTBEAT_S
        )

    async def GetBroadcastHealth(
        self, request: rpc.GetBroadcastHealthRequest, context: _Context
    ) -> rpc.GetBroadcastHealthResponse:
        return await self._health.get(request)

    async def ExplainBroadcast(
        self, request: rpc.ExplainBroadcastRequest, context: _Context
    ) -> rpc.ExplainBroadcastResponse:
        return await self._health.explain(request)

    async def ReportHostStats(
        self, request: rpc.ReportHostStatsRequest, context: _Context
    ) -> rpc.ReportHostStatsResponse:
        return await self._health.report(request)

    def WatchHealth(  # pyright: ignore[reportIncompatibleMethodOverride] - as WatchBroadcasts
        self, request: rpc.WatchHealthRequest, context: _Context
    ) -> AsyncIterator[bytes]:
        return self._health.watch(request)

    async def GetBroadcastCost(
        self, request: rpc.GetBroadcastCostRequest, context: _Context
    ) -> rpc.GetBroadcastCostResponse:
        return await self._costs.get(request)

    async def ListCosts(self, request: rpc.ListCostsRequest, context: _Context) -> rpc.ListCostsResponse:
        return await self._costs.list(request)

    async def _counted(self, broadcasts: Sequence[Broadcast]) -> list[pb.Broadcast]:
        """With the audience, which is read beside the row: it changes all the time, and a change in the log for each
        would go to all who watch.
        """
        audiences = await self._audience.of(broadcasts)
        messages = [self._message(broadcast) for broadcast in broadcasts]
        for message in messages:
            if (audience := audiences.get(message.id)) is not None:
                message.status.audience.CopyFrom(audience_message(audience))
        return messages

    def _message(self, broadcast: Broadcast) -> pb.Broadcast:
        return broadcast_message(broadcast, self._playback_base_url)

    def _host_access(
        self,
        broadcast: Broadcast,
        identity: str,
        display_name: str = "",
        ttl: timedelta = _DEFAULT_TTL,
        role: HostRole = HostRole.HOST,
    ) -> rpc.HostAccess:
        token = self._tokens.issue(
            room_name=broadcast.id, identity=identity, display_name=display_name, ttl=ttl, role=role
        )
        return host_access_message(token, room_name=broadcast.id, identity=identity)


def _is_ready_or_later(state: State) -> bool:
    return state not in (State.CREATED, State.STARTING)
