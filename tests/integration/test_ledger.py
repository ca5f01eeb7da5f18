"""The ledger as passes write it, in a real Postgres: each entry once, however often its row is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.domain.broadcast import DeliveryPolicy, Spec
from service.domain.cost.money import CostLevel
from service.domain.delivery import Decided, Delivery
from service.domain.errors import LeaseLost
from service.domain.resources import EgressStatus, Output, OutputState, Phase
from tests.integration.store_stage import T0, Store, egress, room, store

_LEDGER = "SELECT kind, ref, tier, from_time, to_time, basis FROM ledger ORDER BY from_time, kind"


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Store]:
    async with store(database_url) as one:
        yield one


def after(s: float) -> datetime:
    return T0 + timedelta(seconds=s)


def running(**changes: Any) -> Any:
    push = Output(name="", state=OutputState.ACTIVE, started_at=after(4))
    given: dict[str, Any] = {"phase": Phase.PRESENT, "external_id": "EG_1", "started_at": after(1), "outputs": (push,)}
    return egress(**{**given, **changes})


ENDED = {
    "phase": Phase.GONE,
    "end_seen": True,
    "status": EgressStatus.COMPLETE,
    "ended_at": after(70),
    "outputs": (Output(name="", state=OutputState.FINISHED, started_at=after(4), ended_at=after(69)),),
}


async def test_an_egress_is_charged_once_however_often_it_is_recorded(one: Store) -> None:
    await one.started("first", Spec(preset="1080P_30"))
    claim = await one.claimed("first")
    await one.passes.record(claim, [running()])
    going = await one.all(_LEDGER)
    assert [(row["kind"], row["to_time"]) for row in going] == [("egress", None), ("input", None)]
    [written] = await one.all("SELECT DISTINCT xmin::text AS x FROM ledger")
    await one.passes.record(claim, [running(observed_at=after(9))])
    assert await one.all("SELECT DISTINCT xmin::text AS x FROM ledger") == [written], "nothing new, and written again"
    for _ in range(2):
        await one.passes.record(claim, [running(**ENDED)])
    assert await one.all(_LEDGER) == [
        {
            "kind": kind,
            "ref": "EG_1",
            "tier": "1080p",
            "from_time": after(began),
            "to_time": after(ended),
            "basis": "provider",
        }
        for kind, began, ended in (("egress", 1, 70), ("input", 4, 69))
    ]


async def test_a_pass_that_lost_its_lease_charges_nothing(one: Store) -> None:
    await one.started("first")
    old = await one.claimed("first")
    await one.lease_ends("first")
    await one.claimed("first")
    with pytest.raises(LeaseLost):
        await one.passes.record(old, [running()])
    assert await one.all(_LEDGER) == []


async def test_the_level_of_the_cost_is_kept(one: Store) -> None:
    await one.started("first")
    claim = await one.claimed("first")
    await one.passes.record(claim, cost_level=CostLevel.NEAR)
    await one.passes.record(claim, cost_level=CostLevel.NEAR)
    loaded = await one.passes.load(claim, timedelta(seconds=20))
    assert loaded.broadcast.cost_level is CostLevel.NEAR
    assert loaded.costs.viewer_s is None


async def test_idle_times_begin_and_end_with_the_decisions(one: Store) -> None:
    await one.started("first", Spec(delivery_policy=DeliveryPolicy.ON_DEMAND))
    claim = await one.claimed("first")
    present = room(host_publishing=True, host_since=T0)
    nobody = Delivery(decided=Decided(wanted=False, since=after(10)))
    await one.passes.record(claim, [present], delivery=nobody)
    await one.passes.record(claim, [present])
    [idle] = await one.all(_LEDGER)
    assert (idle["kind"], idle["from_time"], idle["to_time"]) == ("idle", after(10), None)
    await one.passes.record(claim, delivery=Delivery(decided=Decided(wanted=True, since=after(90))))
    [idle] = await one.all(_LEDGER)
    assert idle["to_time"] is not None
    await one.passes.record(claim, delivery=Delivery(decided=Decided(wanted=False, since=after(100))))
    assert [row["from_time"] for row in await one.all(_LEDGER)] == [after(10), after(100)]
    # The policy is another one now: nothing is saved any more.
    await one.sql("UPDATE broadcast SET spec = jsonb_set(spec, '{delivery_policy}', '\"on_publish\"')")
    await one.passes.record(claim, delivery=Delivery())
    assert all(row["to_time"] is not None for row in await one.all(_LEDGER))
