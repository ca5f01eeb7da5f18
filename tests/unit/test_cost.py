"""The ledger's entries, the money made of them, and what a cap says: the domain alone."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.broadcast import (
    PRESETS,
    Broadcast,
    DeliveryPolicy,
    EndReason,
    RecordingPolicy,
    Spec,
    Target,
    seconds,
)
from service.domain.cost.bill import bill, billed, forecast, quantities, reached_at
from service.domain.cost.cap import Costs, judge, spent_of
from service.domain.cost.entries import Basis, Entry, charged_tier, entries_of
from service.domain.cost.idle import idle_since
from service.domain.cost.money import DOLLAR, CapAction, CostCap, CostLevel, dollars, priced
from service.domain.cost.prices import CostKind, Prices, Tier
from service.domain.delivery import Decided, Delivery
from service.domain.planning.plan import plan
from service.domain.planning.steps import EndBroadcast, SetCostLevel
from service.domain.reasons import Action
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    Egress,
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.timing import Timing
from tests.simulation.environment import T0

PRICES = Prices()
SHOW = Broadcast(
    id="show", spec=Spec(), target=Target.LIVE, create_time=T0, update_time=T0, ready_time=T0, live_time=T0
)


def egress(**changes: Any) -> Egress:
    push = Output(name="", state=OutputState.ACTIVE, started_at=T0 + seconds(4))
    given: dict[str, Any] = {
        "ordinal": 0,
        "phase": Phase.PRESENT,
        "external_id": "EG_1",
        "intended_at": T0,
        "changed_at": T0,
        "status": EgressStatus.ACTIVE,
        "started_at": T0 + seconds(1),
        "outputs": (push,),
        **changes,
    }
    return Egress(**given)


def after(s: float) -> datetime:
    return T0 + seconds(s)


ENDED = egress(
    phase=Phase.GONE,
    end_seen=True,
    status=EgressStatus.COMPLETE,
    changed_at=after(75),
    ended_at=after(70.25),
    outputs=(Output(name="", state=OutputState.FINISHED, started_at=after(4), ended_at=after(70)),),
)


def test_an_egress_and_its_connection_are_charged_by_the_providers_times() -> None:
    assert entries_of(SHOW, [ENDED]) == (
        Entry(kind=CostKind.EGRESS, ref="EG_1", tier=Tier.HD, from_time=after(1), to_time=after(70.25)),
        Entry(kind=CostKind.INPUT, ref="EG_1", tier=Tier.HD, from_time=after(4), to_time=after(70)),
    )


def test_one_that_runs_goes_on() -> None:
    assert [each.to_time for each in entries_of(SHOW, [egress()])] == [None, None]
    assert [each.micros(after(10)) for each in entries_of(SHOW, [egress()])] == [9_000_000, 6_000_000]
    # The provider's clock may be ahead of the database's.
    assert [each.micros(T0) for each in entries_of(SHOW, [egress()])] == [0, 0]


@pytest.mark.parametrize("phase", [Phase.INTENDED, Phase.UNKNOWN, Phase.GONE])
def test_a_start_that_no_worker_took_costs_nothing(phase: Phase) -> None:
    assert entries_of(SHOW, [egress(external_id="", started_at=None, phase=phase)]) == ()


def test_one_that_never_connected_has_no_input() -> None:
    waiting = egress(outputs=(Output(name="", state=OutputState.CONNECTING),))
    # LiveKit gives it the time of its end as that of its start.
    failed = egress(outputs=(Output(name="", state=OutputState.FAILED, started_at=after(9), ended_at=after(9)),))
    for each in (waiting, failed):
        assert [entry.kind for entry in entries_of(SHOW, [each])] == [CostKind.EGRESS]


def test_one_that_was_given_up_is_charged_until_it_was_missed() -> None:
    lost = egress(phase=Phase.GONE, changed_at=after(60))
    missed = Room(ordinal=0, phase=Phase.PRESENT, intended_at=T0, changed_at=T0, missing={"EG_1": after(42)})
    for room, end in ((replace(missed, missing={}), 60), (missed, 42)):
        found = entries_of(SHOW, [room, lost])
        assert [(each.to_time, each.basis) for each in found] == [(after(end), Basis.SEEN)] * 2
    # It is found running, and told to stop again.
    again = replace(lost, phase=Phase.DELETING)
    assert [each.to_time for each in entries_of(SHOW, [missed, again])] == [None, None]


def test_nothing_ends_before_it_begins() -> None:
    skewed = replace(ENDED, ended_at=T0, outputs=())
    assert entries_of(SHOW, [skewed])[0].micros(after(99)) == 0


RECORDED = Recording(asset_id="A1", status=RecordingStatus.READY, duration_s=66.5)
STREAM = Stream(
    ordinal=0, phase=Phase.GONE, intended_at=T0, changed_at=after(200), disabled_at=after(80), recordings=(RECORDED,)
)


def test_recordings_that_are_kept_are_charged_by_their_length() -> None:
    [entry] = entries_of(SHOW, [STREAM])
    assert (entry.kind, entry.ref, entry.from_time, entry.micros(after(9999))) == (
        CostKind.RECORDING,
        "A1",
        after(80),
        66_500_000,
    )
    upload = Upload(ordinal=0, phase=Phase.PRESENT, intended_at=T0, changed_at=after(5), recording=RECORDED)
    assert [each.ref for each in entries_of(SHOW, [upload])] == ["A1"]
    discarded = replace(SHOW, spec=Spec(recording_policy=RecordingPolicy.DISCARD))
    assert entries_of(discarded, [STREAM]) == ()
    for unknown in (replace(RECORDED, duration_s=None), replace(RECORDED, status=RecordingStatus.ERRORED)):
        assert entries_of(SHOW, [replace(STREAM, recordings=(unknown,))]) == ()


def test_a_file_egress_has_no_input() -> None:
    file = LocalRecording(
        ordinal=0, phase=Phase.PRESENT, external_id="EG_2", intended_at=T0, changed_at=T0, started_at=T0
    )
    assert [each.kind for each in entries_of(SHOW, [file])] == [CostKind.FILE_EGRESS]


@pytest.mark.parametrize(
    ("spec", "tier", "charged"),
    [
        (Spec(), Tier.HD, Tier.HD),
        (Spec(preset="PORTRAIT_720P_30"), Tier.HD, Tier.HD),
        (Spec(preset="PORTRAIT_1080P_30"), Tier.FULL_HD, Tier.FULL_HD),
        (Spec(preset=None, custom_encoding=replace(PRESETS["720P_30"], width=1282)), Tier.FULL_HD, Tier.FULL_HD),
        (Spec(audio_only=True, preset="1080P_30"), Tier.AUDIO, Tier.AUDIO),
        (Spec(test=True), Tier.HD, Tier.TEST),
    ],
)
def test_the_tier_follows_from_the_picture_and_a_test_costs_its_egress_alone(
    spec: Spec, tier: Tier, charged: Tier
) -> None:
    found = entries_of(replace(SHOW, spec=spec), [ENDED])
    assert [each.tier for each in found] == [tier, charged]
    assert charged_tier(spec) is charged
    assert (PRICES.per_minute(CostKind.INPUT, charged) == 0) is (charged is Tier.TEST)


def test_a_show_of_an_hour_costs_what_the_price_list_says() -> None:
    hour = replace(
        ENDED,
        started_at=T0,
        ended_at=after(3600),
        outputs=(Output(name="", state=OutputState.FINISHED, started_at=T0, ended_at=after(3600)),),
    )
    broadcast = replace(SHOW, spec=Spec(preset="1080P_30"), end_time=after(3600))
    costs = Costs(viewer_s=1000 * 3600.0)
    found = spent_of(broadcast, entries_of(broadcast, [hour]), after(4000), costs)
    # 60 minutes of egress at 0.02, of input at 0.03125, and 60,000 delivered minutes at 0.001.
    assert {line.quantity.kind: line.nanos for line in found.bill.lines} == {
        CostKind.EGRESS: 1_200_000_000,
        CostKind.INPUT: 1_875_000_000,
        CostKind.DELIVERY: 60_000_000_000,
    }
    assert found.bill.estimated_nanos == 60 * DOLLAR
    assert found.nanos_per_hour == 0
    assert dollars(found.bill.nanos) == "63.08 USD"


def test_what_was_not_measured_is_not_0() -> None:
    found = spent_of(SHOW, entries_of(SHOW, [ENDED]), after(99), Costs())
    assert CostKind.DELIVERY not in {line.quantity.kind for line in found.bill.lines}


def test_idle_time_is_saved_and_not_charged() -> None:
    idle = Entry(kind=CostKind.IDLE, ref="1", tier=Tier.HD, from_time=T0, to_time=after(600))
    found = bill(quantities([idle], after(900)), PRICES)
    assert (found.nanos, found.idle_micros) == (0, 600_000_000)
    assert found.saved_nanos == 10 * (20_000_000 + 25_000_000)


def test_every_egress_is_rounded_up_and_nothing_else() -> None:
    assert [billed(CostKind.EGRESS, n) for n in (0, 1, 60_000_000, 60_000_001)] == [0, 60e6, 60e6, 120e6]
    assert billed(CostKind.FILE_EGRESS, 1) == 60_000_000
    assert billed(CostKind.INPUT, 61_000_001) == 61_000_001
    two = [Entry(kind=CostKind.EGRESS, ref=ref, tier=Tier.HD, from_time=T0, to_time=after(70)) for ref in "ab"]
    assert quantities(two, T0)[0].billed == 4 * 60_000_000


ON_DEMAND = replace(
    SHOW,
    spec=Spec(delivery_policy=DeliveryPolicy.ON_DEMAND),
    delivery=Delivery(decided=Decided(wanted=False, since=after(50))),
)
PUBLISHED = Room(
    ordinal=0, phase=Phase.PRESENT, intended_at=T0, changed_at=T0, host_publishing=True, host_since=after(60)
)


def test_a_broadcast_is_idle_while_a_host_publishes_to_nobody() -> None:
    assert idle_since(ON_DEMAND, ResourceSet([PUBLISHED])) == after(60)
    # The egress of the last viewer ran until then.
    assert idle_since(ON_DEMAND, ResourceSet([PUBLISHED, ENDED])) == after(75)
    wanted = replace(ON_DEMAND, delivery=Delivery(decided=Decided(wanted=True, since=after(50))))
    for broadcast in (wanted, SHOW, replace(ON_DEMAND, target=Target.ENDED)):
        assert idle_since(broadcast, ResourceSet([PUBLISHED])) is None
    for rows in ([], [replace(PUBLISHED, host_publishing=False)], [PUBLISHED, egress()]):
        assert idle_since(ON_DEMAND, ResourceSet(rows)) is None


kinds, tiers = st.sampled_from(CostKind), st.sampled_from(Tier)
offsets = st.integers(0, 10**12).map(lambda micros: T0 + timedelta(microseconds=micros))


@st.composite
def some_entries(draw: st.DrawFn) -> list[Entry]:
    found: list[Entry] = []
    for n in range(draw(st.integers(0, 6))):
        began = draw(offsets)
        ended = draw(st.none() | offsets)
        ended = None if ended is None else max(began, ended)
        found.append(Entry(kind=draw(kinds), ref=str(n), tier=draw(tiers), from_time=began, to_time=ended))
    return found


@given(some_entries(), offsets, offsets)
def test_cost_never_falls_and_is_the_sum_of_its_lines(entries: list[Entry], one: datetime, other: datetime) -> None:
    early, late = (bill(quantities(entries, moment), PRICES) for moment in sorted((one, other)))
    assert 0 <= early.nanos <= late.nanos
    assert early.saved_nanos <= late.saved_nanos
    for each in (early, late):
        assert each.nanos == sum(line.nanos for line in each.lines)
        assert each.estimated_nanos <= each.nanos


@given(some_entries(), offsets)
def test_the_order_of_the_entries_does_not_matter(entries: list[Entry], now: datetime) -> None:
    assert quantities(entries, now) == quantities(entries[::-1], now)


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10**10))
def test_two_parts_cost_what_the_whole_costs(one: int, other: int, price: int) -> None:
    assert abs(priced(one, price) + priced(other, price) - priced(one + other, price)) <= 1


@given(st.integers(0, 10**13), st.integers(1, 10**12), st.integers(1, 10**13))
def test_the_time_at_which_a_limit_is_reached_is_no_guess(nanos: int, rate: int, limit: int) -> None:
    moment = reached_at(nanos, rate, limit, T0)
    if moment is None:
        return
    micros = (moment - T0) // timedelta(microseconds=1)
    assert nanos + micros * rate // 3_600_000_000 >= limit
    if nanos < limit:
        assert nanos + (micros - 1) * rate / 3_600_000_000 < limit


def test_nothing_that_stands_still_reaches_its_limit() -> None:
    assert reached_at(1, 0, 2, T0) is None
    assert reached_at(0, 1, 10**18, T0) is None


def test_the_forecast_goes_on_as_now_to_the_planned_end() -> None:
    found = forecast(DOLLAR, 3 * DOLLAR, end=after(7200), now=T0, cap=CostCap(nanos=4 * DOLLAR))
    assert (found.nanos, found.cap_time) == (7 * DOLLAR, after(3600))
    assert forecast(DOLLAR, 3 * DOLLAR, end=after(1800), now=T0, cap=CostCap(nanos=4 * DOLLAR)).cap_time is None
    assert forecast(DOLLAR, 3 * DOLLAR, end=T0 - seconds(9), now=T0, cap=None).nanos == DOLLAR


def with_cap(dollars_: float, action: CapAction = CapAction.STOP, level: CostLevel = CostLevel.UNDER) -> Broadcast:
    cap = CostCap(nanos=int(dollars_ * DOLLAR), action=action)
    return replace(SHOW, spec=Spec(cost_cap=cap), cost_level=level)


RUNNING = (
    Room(
        ordinal=0, phase=Phase.PRESENT, external_id="show", intended_at=T0, changed_at=T0, host_publishing=True,
        host_since=T0, observed_at=after(3600),
    ),
    Stream(
        ordinal=0, phase=Phase.PRESENT, external_id="LS", intended_at=T0, changed_at=T0, status=StreamStatus.ACTIVE,
        status_since=T0, observed_at=after(3600),
    ),
    egress(started_at=T0, layout="grid", delivering_since=T0, observed_at=after(3600), outputs=(
        Output(name="", state=OutputState.ACTIVE, started_at=T0),
    )),
)  # fmt: skip
"""One hour of egress and input at 720p costs 2.70 USD."""


def test_the_cap_ends_a_broadcast_at_its_amount_and_not_before() -> None:
    ends = EndBroadcast(reason=EndReason.COST_CAP)
    assert plan(with_cap(2.7), RUNNING, after(3600), Timing()).steps == (ends,)
    near = plan(with_cap(2.71, level=CostLevel.NEAR), RUNNING, after(3600), Timing())
    assert ends not in near.steps
    full = [wait for wait in near.waits if wait.action is Action.END_BROADCAST and "cost cap" in wait.message]
    assert [wait.until for wait in full] == [after(3600 + 0.01 / 2.7 * 3600 + 1e-6)]


def test_a_cap_that_warns_ends_nothing() -> None:
    told = plan(with_cap(2.7, CapAction.WARN), RUNNING, after(3600), Timing()).steps
    assert told == (SetCostLevel(level=CostLevel.REACHED, message="2.70 USD of 2.70 USD (100 %)"),)
    assert plan(with_cap(2.7, CapAction.WARN, CostLevel.REACHED), RUNNING, after(3600), Timing()).steps == ()


def test_80_percent_is_told_once_and_a_greater_cap_takes_it_back() -> None:
    told = SetCostLevel(level=CostLevel.NEAR, message="2.70 USD of 3.00 USD (90 %)")
    assert plan(with_cap(3), RUNNING, after(3600), Timing()).steps == (told,)
    assert plan(with_cap(3, level=CostLevel.NEAR), RUNNING, after(3600), Timing()).steps == ()
    [back] = plan(with_cap(30, level=CostLevel.NEAR), RUNNING, after(3600), Timing()).steps
    assert isinstance(back, SetCostLevel)
    assert back.level is CostLevel.UNDER
    [none] = plan(replace(SHOW, cost_level=CostLevel.NEAR), RUNNING, after(3600), Timing()).steps
    assert isinstance(none, SetCostLevel)


def test_the_cost_is_computed_again_within_a_minute_while_something_runs() -> None:
    waits = plan(with_cap(1000), RUNNING, after(3600), Timing()).wait_until
    assert waits is not None
    assert waits <= after(3660)


def test_the_audience_counts_against_the_cap_and_is_said_to_be_an_estimate() -> None:
    costs = Costs(viewer_s=60 * 60_000.0, viewers=1000)
    verdict = judge(with_cap(100), RUNNING, after(3600), costs)
    assert verdict is not None
    assert verdict.message == "50.70 USD of 100.00 USD (50 %), of it 48.00 USD estimated"
    assert verdict.full_at == after(3600) + (after(3600) - T0) * 49.3 / 50.7


def test_a_broadcast_without_a_cap_is_not_judged() -> None:
    assert judge(SHOW, RUNNING, after(3600), Costs()) is None
