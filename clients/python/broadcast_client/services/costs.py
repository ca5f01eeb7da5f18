"""BroadcastService: the calls about money."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from broadcast.v1.broadcast_service_pb2 import GetBroadcastCostRequest, ListCostsRequest, ListCostsResponse
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from broadcast.v1.cost_pb2 import (
    COST_GROUPING_BROADCAST,
    COST_GROUPING_LABEL,
    COST_GROUPING_OWNER,
    BroadcastCost,
    CostFilter,
    CostGroup,
)
from broadcast_client.caller import Caller
from broadcast_client.connection import Connection
from broadcast_client.retry import Safety

if TYPE_CHECKING:
    # Declared in the stub file alone.
    from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceAsyncStub


class CostCalls:
    """The part of BroadcastService that is about money. Errors, `timeout` and further tries are as in
    BroadcastClient.
    """

    _connection: Connection
    _call: Caller

    @property
    def _stub(self) -> "BroadcastServiceAsyncStub":
        return self._connection.stub(BroadcastServiceStub)

    async def cost(self, broadcast_id: str, *, timeout: float | None = None) -> BroadcastCost:
        """Answer what a broadcast cost up to now, the facts it is made of, and a forecast. One that was deleted is
        answered too, while the service keeps its row. Raises BroadcastNotFound.
        """
        request = GetBroadcastCostRequest(broadcast_id=broadcast_id)
        answer = await self._call(
            self._stub.GetBroadcastCost, request, "GetBroadcastCost", Safety.READ, timeout=timeout
        )
        return answer.cost

    async def costs(
        self,
        *,
        by: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        ids: Iterable[str] = (),
        owner_id: str = "",
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> ListCostsResponse:
        """Answer one page of what broadcasts cost in a period, in the order of the keys of the groups.

        Args:
            by: "owner", or "label:KEY" for the values of that label. Empty: one group for each broadcast.
            start_time: the period begins here, with its zone. None: with the oldest entry of the ledger.
            end_time: the period ends just before this. None: now.
            ids: only these broadcasts. Empty: all.
            owner_id: only of this owner. Empty: of any.
            labels: only with all of these labels.
            page_size: largest number of groups on the page, up to 500. 0: 50.
            page_token: next_page_token of the page before, with the same arguments. Empty: the first page.
            timeout: deadline of one try, in seconds.

        Raises:
            ValueError: `by` is none of these.
            PageTokenInvalid: the token is not one of this request.
        """
        request = ListCostsRequest(
            filter=CostFilter(broadcast_ids=ids, owner_id=owner_id, labels=labels),
            page_size=page_size,
            page_token=page_token,
        )
        match by.partition(":"):
            case ("", "", ""):
                request.group_by = COST_GROUPING_BROADCAST
            case ("owner", "", ""):
                request.group_by = COST_GROUPING_OWNER
            case ("label", ":", key) if key:
                request.group_by, request.group_label = COST_GROUPING_LABEL, key
            case _:
                raise ValueError(f"must be owner or label:KEY, not {by!r}")
        if start_time is not None:
            request.start_time.FromDatetime(start_time)
        if end_time is not None:
            request.end_time.FromDatetime(end_time)
        return await self._call(self._stub.ListCosts, request, "ListCosts", Safety.READ, timeout=timeout)

    async def costs_all(
        self,
        *,
        by: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        ids: Iterable[str] = (),
        owner_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> AsyncIterator[CostGroup]:
        """Iterate over every group, in the order of their keys. One call a page; see `costs`."""
        page_token, wanted = "", list(ids)
        while True:
            page = await self.costs(
                by=by,
                start_time=start_time,
                end_time=end_time,
                ids=wanted,
                owner_id=owner_id,
                labels=labels,
                page_token=page_token,
            )
            for group in page.groups:
                yield group
            page_token = page.next_page_token
            if not page_token:
                return
