"""What broadcasts cost, computed from the ledger and the price table. No provider is called."""

from datetime import datetime

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import cost_pb2 as pb
from service.api.messages import tokens
from service.api.messages.cost import cost_message, given_cost_query, total_message
from service.api.messages.pages import fitting
from service.api.messages.times import time_message
from service.domain.broadcast import Target, seconds
from service.domain.cost.bill import Forecast, bill, forecast
from service.domain.cost.cap import Spent, spent_of
from service.domain.cost.prices import Prices
from service.store.ledger import Account, Ledger


class CostApi:
    def __init__(self, ledger: Ledger, prices: Prices) -> None:
        self._ledger = ledger
        self._prices = prices

    async def get(self, request: rpc.GetBroadcastCostRequest) -> rpc.GetBroadcastCostResponse:
        account = await self._ledger.of(request.broadcast_id)
        found = spent_of(account.broadcast, account.entries, account.now, account.costs)
        cost = cost_message(account, found.entries, found.bill, _forecast(account, found))
        return rpc.GetBroadcastCostResponse(cost=cost)

    async def list(self, request: rpc.ListCostsRequest) -> rpc.ListCostsResponse:
        query = given_cost_query(request)
        digest = tokens.cost_hash(query)
        page = tokens.read_cost_token(request.page_token, digest) if request.page_token else None
        size = tokens.page_size(request.page_size)
        after = None
        if page is not None:
            # Every page of one list has the same end of its period.
            query, after = tokens.until(query, page), page.key
        found, until = await self._ledger.groups(query, limit=size + 1, after=after)
        groups = fitting(
            pb.CostGroup(
                key=each.key,
                broadcasts=each.broadcasts,
                total=total_message(bill(each.quantities, self._prices)),
            )
            for each in found[:size]
        )
        more = len(found) > len(groups)
        return rpc.ListCostsResponse(
            groups=groups,
            time=time_message(until),
            next_page_token=tokens.cost_token(digest, groups[-1].key, until) if more else "",
        )


def _forecast(account: Account, found: Spent) -> Forecast | None:
    """None: nothing runs any more, or it was never live."""
    end = _planned_end(account)
    if end is None:
        return None
    cap = account.broadcast.spec.cost_cap
    return forecast(found.bill.nanos, found.nanos_per_hour, end=end, now=account.now, cap=cap)


def _planned_end(account: Account) -> datetime | None:
    broadcast = account.broadcast
    if broadcast.live_time is None or broadcast.target is not Target.LIVE:
        return None
    return broadcast.live_time + seconds(broadcast.spec.max_duration_s)
