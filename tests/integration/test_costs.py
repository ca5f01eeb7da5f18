"""What broadcasts cost, over a real channel and a real Postgres: amounts, groups, periods, pages, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import cost_pb2 as pb
from service.domain.cost.prices import Prices
from service.store.ledger import Ledger
from tests.integration.api_stage import Stage, api, refused

T0 = datetime(2026, 11, 1, tzinfo=UTC)
_ENTRY = """
INSERT INTO ledger (broadcast_id, broadcast_time, kind, ref, tier, from_time, to_time, quantity_s, basis)
SELECT id, create_time, $2, $3, $4, $5, $6, $7, 'provider' FROM broadcast WHERE id = $1
"""


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


def after(s: float) -> datetime:
    return T0 + timedelta(seconds=s)


async def charge(
    stage: Stage,
    broadcast_id: str,
    kind: str,
    *,
    ref: str = "EG_1",
    tier: str = "720p",
    began: float = 0,
    ended: float | None = 3600,
    quantity_s: float | None = None,
) -> None:
    until = None if ended is None else after(ended)
    await stage.sql(_ENTRY, broadcast_id, kind, ref, tier, after(began), until, quantity_s)


def money(amount: pb.Money) -> float:
    assert amount.currency_code == "USD"
    return amount.units + amount.nanos / 1e9


async def listed(stage: Stage, **fields: Any) -> rpc.ListCostsResponse:
    return await stage.stub.ListCosts(rpc.ListCostsRequest(**fields))


def told(answer: rpc.ListCostsResponse) -> dict[str, float]:
    return {group.key: money(group.total.amount) for group in answer.groups}


async def test_the_cost_of_a_broadcast_is_made_of_its_entries(stage: Stage) -> None:
    await stage.create("show")
    await charge(stage, "show", "egress", ended=3601)
    await charge(stage, "show", "input")
    await charge(stage, "show", "recording", ref="A1", began=3600, quantity_s=3600)
    await charge(stage, "show", "idle", ref="1", began=4000, ended=4600)
    cost = (await stage.stub.GetBroadcastCost(rpc.GetBroadcastCostRequest(broadcast_id="show"))).cost
    lines = {pb.CostKind.Name(line.kind).removeprefix("COST_KIND_"): line for line in cost.total.lines}
    assert {name: money(line.amount) for name, line in lines.items()} == {
        "EGRESS": 1.22,
        "INPUT": 1.5,
        "RECORDING": 0.144,
        "IDLE": 0,
    }
    assert (lines["EGRESS"].quantity.seconds, lines["EGRESS"].billed.seconds) == (3601, 3660)
    assert money(cost.total.amount) == pytest.approx(2.864)
    assert (cost.total.idle.seconds, money(cost.total.saved)) == (600, 0.45)
    assert [entry.external_id for entry in cost.entries] == ["EG_1", "EG_1", "A1", ""]
    assert not cost.audience_measured
    assert not cost.HasField("forecast")


async def test_what_goes_on_is_cut_at_now_and_forecast(stage: Stage) -> None:
    await stage.started("show")
    await stage.sql("UPDATE broadcast SET live_time = now() - interval '1 hour' WHERE id = 'show'")
    await stage.sql(
        "INSERT INTO ledger SELECT id, create_time, 'input', 'EG_1', '720p', now() - interval '1 hour', NULL, NULL, "
        "'provider' FROM broadcast"
    )
    cost = (await stage.stub.GetBroadcastCost(rpc.GetBroadcastCostRequest(broadcast_id="show"))).cost
    assert money(cost.total.amount) == pytest.approx(1.5, abs=0.01)
    assert money(cost.forecast.amount_per_hour) == 1.5
    assert money(cost.forecast.amount) == pytest.approx(18, abs=0.01)
    assert not cost.entries[0].HasField("end_time")


async def test_the_audience_is_charged_as_an_estimate(stage: Stage) -> None:
    await stage.create("show", labels={"team": "a"})
    await charge(stage, "show", "input")
    await stage.sql("UPDATE broadcast SET live_time = $1, end_time = $2", after(0), after(3600))
    await stage.sql("INSERT INTO audience_total (broadcast_id, viewer_s, up_to) VALUES ('show', 60000, now())")
    cost = (await stage.stub.GetBroadcastCost(rpc.GetBroadcastCostRequest(broadcast_id="show"))).cost
    assert cost.audience_measured
    assert money(cost.total.estimated_amount) == 0.8
    assert cost.entries[-1].basis == pb.COST_BASIS_ESTIMATED or cost.entries[0].basis == pb.COST_BASIS_PROVIDER
    # Half of the time on air.
    [group] = (await listed(stage, end_time=stamp(1800))).groups
    assert money(group.total.estimated_amount) == pytest.approx(0.4)
    assert money(group.total.amount) == pytest.approx(0.75 + 0.4)


def stamp(s: float) -> Timestamp:
    return Timestamp(seconds=int(after(s).timestamp()))


async def test_costs_are_added_up_by_owner_label_and_broadcast(stage: Stage) -> None:
    for name, owner, team in (("a", "ann", "x"), ("b", "ann", "y"), ("c", "bob", "x"), ("d", "", "")):
        await stage.create(name, labels={"team": team} if team else {}, owner_id=owner)
        await charge(stage, name, "input", ref=f"EG_{name}")
    assert told(await listed(stage)) == dict.fromkeys("abcd", 1.5)
    assert told(await listed(stage, group_by=pb.COST_GROUPING_OWNER)) == {"": 1.5, "ann": 3, "bob": 1.5}
    by_team = await listed(stage, group_by=pb.COST_GROUPING_LABEL, group_label="team")
    assert told(by_team) == {"": 1.5, "x": 3, "y": 1.5}
    assert [group.broadcasts for group in by_team.groups] == [1, 2, 1]
    only = pb.CostFilter(owner_id="ann", labels={"team": "x"})
    assert told(await listed(stage, filter=only)) == {"a": 1.5}
    assert told(await listed(stage, filter=pb.CostFilter(broadcast_ids=["c", "zz"]))) == {"c": 1.5}


async def test_a_period_cuts_what_lies_across_its_ends(stage: Stage) -> None:
    await stage.create("show")
    await charge(stage, "show", "input")
    await charge(stage, "show", "recording", ref="A1", began=3600, quantity_s=3600)
    whole = [(0, 600), (600, 3600), (3600, 7200)]
    parts = [told(await listed(stage, start_time=stamp(a), end_time=stamp(b))).get("show", 0) for a, b in whole]
    assert parts == [0.25, 1.25, 0.144]
    assert told(await listed(stage, start_time=stamp(7200))) == {}
    assert sum(parts) == pytest.approx(told(await listed(stage))["show"])


async def test_pages_have_every_group_once(stage: Stage) -> None:
    for n in range(5):
        await stage.create(f"show-{n}")
        await charge(stage, f"show-{n}", "input", ref=f"EG_{n}", ended=None if n == 3 else 60)
    seen, token = list[str](), ""
    while True:
        page = await listed(stage, page_size=2, page_token=token)
        seen += [group.key for group in page.groups]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"show-{n}" for n in range(5)]
    first = await listed(stage, page_size=2)
    refusal = await refused(
        listed(stage, page_size=2, page_token=first.next_page_token, group_by=pb.COST_GROUPING_OWNER)
    )
    assert (refusal.reason, refusal.fields) == ("PAGE_TOKEN_INVALID", ["page_token"])


async def test_deleted_broadcasts_keep_their_cost(stage: Stage) -> None:
    await stage.create("show", owner_id="ann", labels={"team": "x"})
    await charge(stage, "show", "input")
    await stage.sql("UPDATE broadcast SET deleted = true, update_time = now() - interval '40 days'")
    cost = (await stage.stub.GetBroadcastCost(rpc.GetBroadcastCostRequest(broadcast_id="show"))).cost
    assert money(cost.total.amount) == 1.5
    assert await stage.broadcasts.forget_deleted(older_than=timedelta(days=30)) == 1
    gone = await refused(stage.stub.GetBroadcastCost(rpc.GetBroadcastCostRequest(broadcast_id="show")))
    assert gone.reason == "BROADCAST_NOT_FOUND"
    assert told(await listed(stage, group_by=pb.COST_GROUPING_OWNER)) == {"ann": 1.5}
    # The id is given out again, and what it cost before stays apart.
    await stage.create("show", owner_id="bob")
    await charge(stage, "show", "input", ended=60)
    assert told(await listed(stage, group_by=pb.COST_GROUPING_OWNER)) == {"ann": 1.5, "bob": 0.025}
    ledger = Ledger(stage.database, stage.rows, prices=Prices())
    assert await ledger.forget(older_than=timedelta(days=1)) == 0
    assert await ledger.forget(older_than=timedelta()) == 1
    assert told(await listed(stage, group_by=pb.COST_GROUPING_OWNER)) == {"bob": 0.025}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"group_by": pb.COST_GROUPING_LABEL}, "group_label"),
        ({"group_by": pb.COST_GROUPING_OWNER, "group_label": "team"}, "group_label"),
        ({"start_time": Timestamp(seconds=9), "end_time": Timestamp(seconds=9)}, "end_time"),
        ({"page_size": -1}, "page_size"),
    ],
)
async def test_a_request_that_means_nothing_is_refused(stage: Stage, fields: dict[str, Any], field: str) -> None:
    refusal = await refused(listed(stage, **fields))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("amount", [pb.Money(), pb.Money(units=-1), pb.Money(currency_code="EUR", units=1), None])
async def test_a_cap_that_means_nothing_is_refused(stage: Stage, amount: pb.Money | None) -> None:
    refusal = await refused(stage.create("show", cost_cap=pb.CostCap(amount=amount)))
    assert refusal.reason == "INVALID_FIELD"
    assert all(field.startswith("spec.cost_cap.amount") for field in refusal.fields)


async def test_a_cap_may_be_changed_while_it_runs(stage: Stage) -> None:
    await stage.started("show", cost_cap=pb.CostCap(amount=pb.Money(units=5)))
    stored = await stage.get("show")
    assert stored.spec.cost_cap == pb.CostCap(
        amount=pb.Money(currency_code="USD", units=5), action=pb.COST_CAP_ACTION_STOP
    )
    stored.spec.cost_cap.amount.nanos = 500_000_000
    request = rpc.UpdateBroadcastRequest(broadcast_id="show", spec=stored.spec)
    request.update_mask.paths.append("spec.cost_cap")
    changed = (await stage.stub.UpdateBroadcast(request)).broadcast
    assert money(changed.spec.cost_cap.amount) == 5.5
