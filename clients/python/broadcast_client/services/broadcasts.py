"""BroadcastService: one method a unary RPC. Its watches are methods of the client."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import AsyncIterator, Iterable, Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from broadcast.v1.broadcast_pb2 import Broadcast, BroadcastSpec
from broadcast.v1.broadcast_service_pb2 import (
    HOST_ROLE_UNSPECIFIED,
    BroadcastFilter,
    CreateBroadcastRequest,
    DeleteBroadcastRequest,
    ExplainBroadcastRequest,
    GetBroadcastHealthRequest,
    GetBroadcastRequest,
    HostAccess,
    HostRole,
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
from broadcast.v1.event_pb2 import BroadcastEvent
from broadcast.v1.health_pb2 import BroadcastHealth, Explanation, HostStats
from broadcast_client.retry import Safety
from broadcast_client.services.costs import CostCalls
from broadcast_client.services.destinations import DestinationCalls
from broadcast_client.values import Seconds, duration, made_request_id


class BroadcastCalls(DestinationCalls, CostCalls):
    """The unary calls of BroadcastService. `BroadcastClient` is one, and says what holds for every call."""

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
        """Store a broadcast. Nothing exists at the providers, and nothing costs anything, until `start`.

        Args:
            spec: the wanted broadcast. None: the defaults.
            broadcast_id: the id of the new broadcast. Empty: the service makes one.
            title: replaces the title in *spec*. Empty: the title in *spec* stays.
            labels: the caller's labels, for filters.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds.

        Raises:
            InvalidField: `violations` name the fields.
            BroadcastExists: the id is taken.
            RequestIdReused: the request id was used with other content.
        """
        wanted = BroadcastSpec()
        wanted.CopyFrom(spec or wanted)
        wanted.title = title or wanted.title
        request = CreateBroadcastRequest(
            request_id=made_request_id(request_id), broadcast_id=broadcast_id, spec=wanted, labels=labels or {}
        )
        answer = await self._call(
            self._stub.CreateBroadcast, request, "CreateBroadcast", Safety.REPEATABLE, timeout=timeout
        )
        return answer.broadcast

    async def get(self, broadcast_id: str, *, timeout: float | None = None) -> Broadcast:
        """Answer one broadcast as it is now. Raises BroadcastNotFound."""
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
        """Answer one page of broadcasts, newest first.

        `watch` with the same filter and the `resume_token` of the page goes on without a gap.

        Args:
            filter: selects the broadcasts, see `broadcast_filter`. None: all.
            page_size: largest number of broadcasts on the page, up to 500. 0: 50.
            page_token: next_page_token of the page before, with the same filter. Empty: the first page.
            timeout: deadline of one try, in seconds.

        Raises:
            PageTokenInvalid: the token is not one of this filter.
        """
        request = ListBroadcastsRequest(filter=filter, page_size=page_size, page_token=page_token)
        return await self._call(self._stub.ListBroadcasts, request, "ListBroadcasts", Safety.READ, timeout=timeout)

    async def list_all(
        self,
        filter: BroadcastFilter | None = None,
        *,
        page_size: int = 0,
    ) -> AsyncIterator[Broadcast]:
        """Iterate over every broadcast that matches, newest first. One call a page; see `list`."""
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
        """Change the fields that *mask* names. Answers the broadcast as it is stored now.

        Args:
            broadcast_id: id of the broadcast.
            mask: "labels", or fields of the spec such as "spec.title".
            spec: the new values of these fields.
            labels: the new labels, whole, if *mask* names "labels".
            etag: the etag of the broadcast that the caller read. Empty: the broadcast is changed whatever its etag is.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            InvalidField: `violations` name the fields.
            FieldImmutable: the field cannot be changed any more.
            EtagMismatch: the broadcast was changed after it was read.
            RequestIdReused: the request id was used with other content.
        """
        request = UpdateBroadcastRequest(
            request_id=made_request_id(request_id),
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
        """Ask for the broadcast to be live. One that is starting or live stays as it is.

        Args:
            broadcast_id: id of the broadcast.
            wait: delays the answer until the broadcast is READY, ENDED or FAILED, but no longer than this, at most
                30 s. Not reaching READY in time is no error: read the state in the answer. None: no delay.
            host_identity: the identity under which a host enters the room; the answer then holds `host_access`, which
                is a secret.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds. *wait* is added to it.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            StateForbids: the broadcast was stopped before.
            RequestIdReused: the request id was used with other content.
        """
        request = StartBroadcastRequest(
            request_id=made_request_id(request_id),
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
        """Take a broadcast of delivery policy MANUAL on air (True), or back to its backstage (False).

        Raises BroadcastNotFound, StateForbids, RequestIdReused.
        """
        request = SetOnAirRequest(request_id=made_request_id(request_id), broadcast_id=broadcast_id, on_air=on_air)
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
        """End a broadcast. It is accepted in every state.

        Args:
            broadcast_id: id of the broadcast.
            note: why the broadcast is ended; it is shown in its events.
            wait: delays the answer until the broadcast is ENDED or FAILED, but no longer than this, at most 60 s. Not
                reaching the end in time is no error: read the state in the answer. None: no delay.
            request_id: makes a retry safe. None: the client makes one.
            timeout: deadline of one try, in seconds. *wait* is added to it.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            RequestIdReused: the request id was used with other content.
        """
        request = StopBroadcastRequest(
            request_id=made_request_id(request_id),
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
        """Forget a broadcast that is CREATED, ENDED or FAILED.

        Without *allow_missing* a lost answer is not tried again, because the second try would find no broadcast and
        raise BroadcastNotFound although the first succeeded.

        Args:
            broadcast_id: id of the broadcast.
            etag: the etag of the broadcast that the caller read. Empty: the broadcast is deleted whatever its etag is.
            allow_missing: a broadcast that does not exist counts as deleted.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast, and *allow_missing* is False.
            StateForbids: the broadcast is in another state.
            EtagMismatch: the broadcast was changed after it was read.
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
        role: HostRole.ValueType = HOST_ROLE_UNSPECIFIED,
        timeout: float | None = None,
    ) -> HostAccess:
        """Mint a token with which a host enters the room. The token is a secret, and the repr of the answer shows it.

        Args:
            broadcast_id: id of the broadcast.
            identity: the host's identity in the room. If it enters a second time, the first one is removed.
            display_name: the name that the other participants see.
            ttl: the time in which the token lets the host enter, 1 min to 6 h. None: 10 min.
            role: what the token lets the host do. HOST_ROLE_CO_HOST: camera and microphone alone. Unset: everything.
            timeout: deadline of one try, in seconds.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            InvalidField: the identity is one that the service keeps for egresses or viewers.
            StateForbids: the broadcast is not wanted live.
        """
        request = IssueHostAccessRequest(
            broadcast_id=broadcast_id,
            identity=identity,
            display_name=display_name,
            ttl=None if ttl is None else duration(ttl),
            role=role,
        )
        # Minting changes nothing at the service: a token whose answer was lost simply expires.
        answer = await self._call(self._stub.IssueHostAccess, request, "IssueHostAccess", Safety.READ, timeout=timeout)
        return answer.host_access

    async def events(
        self, broadcast_id: str, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
    ) -> ListBroadcastEventsResponse:
        """Answer one page of the events of a broadcast, oldest first. Raises BroadcastNotFound, PageTokenInvalid.

        *page_size*: largest number of events on the page, up to 500. 0: 50.
        """
        request = ListBroadcastEventsRequest(broadcast_id=broadcast_id, page_size=page_size, page_token=page_token)
        return await self._call(
            self._stub.ListBroadcastEvents, request, "ListBroadcastEvents", Safety.READ, timeout=timeout
        )

    async def events_all(self, broadcast_id: str, *, page_size: int = 0) -> AsyncIterator[BroadcastEvent]:
        """Iterate over the events of a broadcast, oldest first. One call a page; see `events`."""
        page_token = ""
        while True:
            page = await self.events(broadcast_id, page_size=page_size, page_token=page_token)
            for event in page.events:
                yield event
            page_token = page.next_page_token
            if not page_token:
                return

    async def get_health(self, broadcast_id: str, *, timeout: float | None = None) -> BroadcastHealth:
        """Answer the health of every part of the chain: its state, since when, and the evidence.

        Raises BroadcastNotFound.
        """
        request = GetBroadcastHealthRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.GetBroadcastHealth, request, "GetBroadcastHealth", Safety.READ, timeout=timeout
        )
        return answer.health

    async def explain(self, broadcast_id: str, *, timeout: float | None = None) -> Explanation:
        """Answer why a broadcast is in its state: causes with evidence, the likeliest first, what the service does
        next, and the commands that override it. Raises BroadcastNotFound.
        """
        request = ExplainBroadcastRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.ExplainBroadcast, request, "ExplainBroadcast", Safety.READ, timeout=timeout
        )
        return answer.explanation

    async def report_host_stats(
        self, broadcast_id: str, identity: str, stats: HostStats, *, timeout: float | None = None
    ) -> float:
        """Report the measurements of the host's browser. Only the latest report of an identity is kept.

        Args:
            broadcast_id: id of the broadcast.
            identity: the host's identity in the room.
            stats: the measurements. Leave out a field that was not measured.
            timeout: deadline of one try, in seconds.

        Returns:
            Seconds after which to report again.

        Raises:
            BroadcastNotFound: there is no such broadcast.
            StateForbids: the broadcast is not wanted live.
        """
        request = ReportHostStatsRequest(broadcast_id=broadcast_id, identity=identity, stats=stats)
        # Repeatable: only the latest report counts.
        answer = await self._call(
            self._stub.ReportHostStats, request, "ReportHostStats", Safety.REPEATABLE, timeout=timeout
        )
        return answer.report_interval.ToTimedelta().total_seconds()
