"""When viewers are served another way, when they are sent back, and when nothing is left to try."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.domain.broadcast import (
    Broadcast,
    DeliveryPolicy,
    EndReason,
    Fallback,
    FallbackMode,
    RecordingPolicy,
    Spec,
    Target,
    seconds,
)
from service.domain.planning.fallback import Decision, decide
from service.domain.planning.plan import plan
from service.domain.planning.steps import EndBroadcast, SetFallback
from service.domain.reasons import FallbackReason, Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Egress, Phase, StreamStatus
from service.domain.situation import Availability, Outage
from service.domain.timing import Timing
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, live, starting

TIMING = Timing()
WEBRTC, RECORDING = FallbackMode.DIRECT_WEBRTC, FallbackMode.LOCAL_RECORDING
BOTH = (WEBRTC, RECORDING)
STORAGE = Availability(storage=True)
DARK = a_stream(status_since=T0 - seconds(30))
FED = a_stream(status=StreamStatus.ACTIVE, fed_at=T0)
DELIVERING = an_egress(delivering_since=LONG_AGO)
PLAYING = (a_room(), FED, DELIVERING)


def decided(
    broadcast: Broadcast, *resources: AnyResource, availability: Availability = STORAGE, after_s: float = 0
) -> Decision:
    return decide(broadcast, ResourceSet(resources), T0 + seconds(after_s), TIMING, availability)


def look_at(decision: Decision) -> datetime | None:
    """When it is decided again, where nothing happens before."""
    return min((wait.until for wait in decision.waits if wait.until is not None), default=None)


def told(decision: Decision) -> tuple[Fallback, datetime | None]:
    """Of one that goes on."""
    assert decision.end is None
    return decision.fallback, look_at(decision)


def failed(ordinal: int, age_s: float = 60, **fields: Any) -> Egress:
    given: dict[str, Any] = {"fault": Fault.FAILED, "end_seen": True, "changed_at": T0 - seconds(age_s), **fields}
    return an_egress(ordinal=ordinal, external_id=f"e{ordinal}", phase=Phase.GONE, **given)


THREE = tuple(failed(n) for n in range(3))


def away(for_s: float, *providers: str, storage: bool = True) -> Availability:
    outage = Outage(since=T0 - seconds(for_s), code="UNAVAILABLE")
    return Availability(outages=dict.fromkeys(providers or ("mux",), outage), storage=storage)


def fallen(*modes: FallbackMode, since_s: float = 600, **fields: Any) -> Broadcast:
    fallback = Fallback(modes=modes or (WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=T0 - seconds(since_s))
    return live(live_time=LONG_AGO, fallback=fallback, **fields)


# Entered.


def test_three_egresses_that_failed_are_enough_and_two_are_not() -> None:
    assert decided(live(), a_room(), DARK, *THREE).fallback == Fallback(
        modes=BOTH, reason=FallbackReason.EGRESS_FAILING, since=T0
    )
    assert decided(live(), a_room(), DARK, *THREE[:2]).fallback == Fallback()


def test_a_start_without_an_answer_has_failed_when_its_key_is_dead() -> None:
    lost = replace(failed(2), phase=Phase.UNKNOWN, external_id="", end_seen=False, fault=Fault.NONE)
    fenced = replace(DARK, key_epoch=1)
    assert decided(live(), a_room(), DARK, *THREE[:2], lost).fallback.modes == ()
    assert decided(live(), a_room(), fenced, *THREE[:2], lost).fallback.modes == BOTH


def test_what_does_not_come_about_for_long_is_trouble_whatever_fails() -> None:
    """A start without an answer, and a key that cannot be reset: no egress fails any more."""
    lost = starting(phase=Phase.UNKNOWN, external_id="", intended_at=T0 - seconds(100))
    dark = replace(DARK, status_since=T0 - seconds(3600), key_stale=True)
    for broadcast in (live(live_time=LONG_AGO), live()):
        until = TIMING.hopeless_s - 100
        early = decided(broadcast, a_room(), dark, lost, after_s=until - 1)
        assert (early.fallback.modes, look_at(early)) == ((), T0 + seconds(until))
        assert decided(broadcast, a_room(), dark, lost, after_s=until).fallback.modes == BOTH
        # From when it went dark, where that is later.
        fell = replace(dark, status_since=T0)
        assert decided(broadcast, a_room(), fell, lost, after_s=until).fallback.modes == ()
    hopeless = decided(live(spec=NO_MODES), a_room(), dark, lost, after_s=until)
    assert hopeless.end is EndReason.EGRESS_FAILED


@pytest.mark.parametrize(
    "egresses",
    [
        (),
        # Stopped when it was not wanted any more, such as off air, and wanted again just now.
        (failed(0, fault=Fault.NONE, intended_at=LONG_AGO), starting(ordinal=1, intended_at=T0)),
        (failed(0, fault=Fault.NOT_STOPPED, intended_at=LONG_AGO), starting(ordinal=1, intended_at=T0)),
    ],
)
def test_what_was_not_wanted_is_not_in_vain(egresses: tuple[Egress, ...]) -> None:
    dark = replace(DARK, status_since=T0 - seconds(7200))
    assert decided(live(), a_room(), dark, *egresses).fallback == Fallback()


def test_failures_of_long_ago_do_not_count() -> None:
    old = failed(0, TIMING.starts_window_s)
    assert decided(live(), a_room(), DARK, old, *THREE[1:]).fallback.modes == ()
    young = failed(0, TIMING.starts_window_s - 1)
    assert decided(live(), a_room(), DARK, young, *THREE[1:]).fallback.modes == BOTH


def test_failures_that_a_fallback_answered_do_not_count_again() -> None:
    returned = live(fallback=Fallback(reason=FallbackReason.RETURNED, since=T0 - seconds(60)))
    assert decided(returned, a_room(), DARK, *THREE).fallback == returned.fallback
    again = tuple(failed(n, 59) for n in range(3))
    assert decided(returned, a_room(), DARK, *again).fallback.modes == BOTH


@pytest.mark.parametrize(
    "innocent",
    [
        failed(2, fault=Fault.NONE),
        # Not wanted any more, as off air, and not seen to end.
        failed(2, fault=Fault.NOT_STOPPED, end_seen=False),
        # Somebody else's, in our room.
        failed(2, key_epoch=-1),
    ],
    ids=["stopped", "not stopped", "stranger"],
)
def test_only_failures_of_what_was_wanted_count(innocent: Egress) -> None:
    assert decided(live(), a_room(), DARK, *THREE[:2], innocent).fallback.modes == ()


@pytest.mark.parametrize(
    ("fields", "resources"),
    [
        ({}, (a_room(host_publishing=False), DARK)),
        ({"ready_time": None}, (a_room(), DARK)),
        ({"spec": Spec(delivery_policy=DeliveryPolicy.MANUAL)}, (a_room(), DARK)),
        ({}, (DARK,)),
        # Somebody sees it: the fourth one holds.
        ({}, (a_room(), FED, replace(DELIVERING, ordinal=3))),
    ],
    ids=["no host", "never ready", "off air", "no room", "playing"],
)
def test_nobody_is_moved_for_nothing(fields: dict[str, Any], resources: tuple[AnyResource, ...]) -> None:
    assert decided(live(**fields), *resources, *THREE) == Decision(fallback=Fallback())


def test_an_outage_of_mux_is_recorded_after_its_time_and_moves_nobody_who_sees_something() -> None:
    before = decided(live(), *PLAYING, availability=away(TIMING.fallback_outage_s - 1))
    assert told(before) == (Fallback(), T0 + seconds(1))
    then = decided(live(), *PLAYING, availability=away(TIMING.fallback_outage_s))
    assert then.fallback == Fallback(modes=(RECORDING,), reason=FallbackReason.STREAMS_UNREACHABLE, since=T0)
    dark = decided(live(), a_room(), DARK, DELIVERING, availability=away(TIMING.fallback_outage_s))
    assert dark.fallback.modes == BOTH


def test_an_outage_of_livekit_is_none_of_mux() -> None:
    assert decided(live(), *PLAYING, availability=away(3600, "livekit")) == Decision(fallback=Fallback())


@pytest.mark.parametrize(
    ("spec", "availability", "modes"),
    [
        (Spec(fallback_modes=(RECORDING,)), STORAGE, (RECORDING,)),
        (Spec(fallback_modes=(WEBRTC,)), STORAGE, (WEBRTC,)),
        (Spec(), Availability(), (WEBRTC,)),
        (Spec(recording_policy=RecordingPolicy.DISCARD), STORAGE, (WEBRTC,)),
        (Spec(fallback_modes=()), STORAGE, ()),
        (Spec(fallback_modes=(RECORDING,)), Availability(), ()),
    ],
)
def test_only_what_is_allowed_and_possible_is_entered(
    spec: Spec, availability: Availability, modes: tuple[FallbackMode, ...]
) -> None:
    assert decided(live(spec=spec), a_room(), DARK, *THREE, availability=availability).fallback.modes == modes


def test_the_other_mode_is_added_when_it_is_needed_and_nothing_begins_anew() -> None:
    recording = fallen(RECORDING, since_s=60)
    wider = decided(recording, a_room(), DARK, DELIVERING, availability=away(300))
    assert wider.fallback == replace(recording.fallback, modes=BOTH)
    # Media that flow again close nothing before their time.
    both = replace(recording, fallback=wider.fallback)
    assert decided(both, *PLAYING, availability=away(300)).fallback == wider.fallback


# Left.


def test_it_returns_when_everything_was_well_for_long_enough() -> None:
    began = T0 - seconds(TIMING.fallback_return_s)
    well = (a_room(), FED, replace(DELIVERING, delivering_since=began))
    assert decided(fallen(), *well).fallback == Fallback(reason=FallbackReason.RETURNED, since=T0)
    early = decided(fallen(), *well, after_s=-1)
    assert told(early) == (fallen().fallback, T0)


@pytest.mark.parametrize(
    "unwell",
    [
        (a_room(host_since=T0 - seconds(1)), FED, DELIVERING),
        (a_room(), replace(FED, status_since=T0 - seconds(1)), DELIVERING),
        (a_room(), FED, replace(DELIVERING, delivering_since=T0 - seconds(1))),
    ],
    ids=["host", "stream", "egress"],
)
def test_the_last_to_be_well_counts(unwell: tuple[AnyResource, ...]) -> None:
    due = T0 + seconds(TIMING.fallback_return_s - 1)
    assert told(decided(fallen(), *unwell)) == (fallen().fallback, due)


def test_it_is_kept_for_its_time_whatever_was_well_before() -> None:
    young = fallen(RECORDING, since_s=10)
    due = T0 + seconds(TIMING.fallback_return_s - 10)
    assert told(decided(young, *PLAYING)) == (young.fallback, due)


@pytest.mark.parametrize(
    "availability",
    [away(60), away(60, "livekit"), replace(STORAGE, answering_since={"mux": None, "livekit": LONG_AGO})],
    ids=["mux away", "livekit away", "the last look failed"],
)
def test_what_nobody_can_confirm_is_not_well(availability: Availability) -> None:
    assert decided(fallen(), *PLAYING, availability=availability).fallback == fallen().fallback


def test_a_provider_that_is_back_has_to_stay() -> None:
    """The egress delivered through the whole outage: without this it would be left at the first answer."""
    back = replace(STORAGE, answering_since={"mux": T0 - seconds(5), "livekit": LONG_AGO})
    due = T0 + seconds(TIMING.fallback_return_s - 5)
    assert told(decided(fallen(RECORDING), *PLAYING, availability=back)) == (fallen(RECORDING).fallback, due)
    stayed = replace(back, answering_since={"mux": T0 - seconds(TIMING.fallback_return_s), "livekit": LONG_AGO})
    assert decided(fallen(RECORDING), *PLAYING, availability=stayed).fallback.modes == ()


def test_an_answer_now_and_then_keeps_it_where_it_is() -> None:
    """Half an hour of an outage that answers one look in five: entered once, never left."""
    broadcast, entered = live(live_time=LONG_AGO), 0
    since, answering = T0, None
    for n in range(180):
        now = T0 + seconds(10 * n)
        if n % 15 == 14:
            answering = answering or now
        else:
            since, answering = (now if answering else since), None
        outages = {} if answering or now - since < seconds(5) else {"mux": Outage(since=since)}
        availability = Availability(outages=outages, answering_since={"mux": answering}, storage=True)
        after = decide(broadcast, ResourceSet(PLAYING), now, TIMING, availability).fallback
        entered += bool(after.modes) and not broadcast.fallback.modes
        assert not (broadcast.fallback.modes and not after.modes), f"left after {n} looks"
        broadcast = replace(broadcast, fallback=after)
    assert entered == 1


def test_off_air_leaves_it() -> None:
    backstage = fallen(spec=Spec(delivery_policy=DeliveryPolicy.MANUAL))
    assert decided(backstage, a_room(), DARK, *THREE).fallback == Fallback(reason=FallbackReason.OFF_AIR, since=T0)
    assert decided(replace(backstage, on_air=True), a_room(), DARK).fallback == backstage.fallback


def test_a_host_who_is_away_ends_no_fallback() -> None:
    assert decided(fallen(), a_room(host_publishing=False), FED, DELIVERING) == Decision(fallback=fallen().fallback)


def test_what_the_caller_took_back_is_left_at_once() -> None:
    one_left = fallen(*BOTH, spec=Spec(fallback_modes=(RECORDING,)))
    assert decided(one_left, a_room(), DARK).fallback == replace(one_left.fallback, modes=(RECORDING,))
    none_left = fallen(*BOTH, spec=Spec(fallback_modes=()))
    assert decided(none_left, a_room(), DARK).fallback == Fallback(reason=FallbackReason.RETURNED, since=T0)


# The end.

NO_MODES = Spec(fallback_modes=())


def test_with_no_mode_left_it_ends_when_nobody_saw_anything_for_long() -> None:
    dark = replace(DARK, status_since=T0 - seconds(TIMING.hopeless_s))
    hopeless = decided(live(spec=NO_MODES), a_room(), dark, *THREE)
    assert hopeless == Decision(fallback=Fallback(), end=EndReason.EGRESS_FAILED)
    early = decided(
        live(spec=NO_MODES), a_room(), replace(dark, status_since=T0 - seconds(TIMING.hopeless_s - 1)), *THREE
    )
    assert told(early) == (Fallback(), T0 + seconds(1))
    assert EndReason.EGRESS_FAILED.failed


def test_the_dark_begins_with_the_host() -> None:
    came = a_room(host_since=T0 - seconds(10))
    dark = replace(DARK, status_since=LONG_AGO)
    due = T0 + seconds(TIMING.hopeless_s - 10)
    assert told(decided(live(spec=NO_MODES), came, dark, *THREE)) == (Fallback(), due)


def test_a_slate_is_not_dark() -> None:
    assert decided(live(spec=NO_MODES), a_room(), FED, *THREE) == Decision(fallback=Fallback())


def test_an_outage_of_mux_ends_it_only_where_nobody_sees_anything() -> None:
    long = away(TIMING.hopeless_s)
    dark = replace(DARK, status_since=LONG_AGO)
    ended = decided(live(spec=NO_MODES), a_room(), dark, DELIVERING, availability=long).end
    assert ended is EndReason.STREAMS_UNREACHABLE
    assert decided(live(spec=NO_MODES), *PLAYING, availability=long).end is None
    short = away(TIMING.hopeless_s - 1)
    short_of_it = decided(live(spec=NO_MODES), a_room(), dark, DELIVERING, availability=short)
    assert told(short_of_it) == (Fallback(), T0 + seconds(1))


def test_a_fallback_that_is_in_use_ends_nothing() -> None:
    dark = replace(DARK, status_since=LONG_AGO)
    assert decided(fallen(), a_room(), dark, *THREE, availability=away(7200)).end is None


# In the plan.


def test_the_plan_sets_it_once_and_goes_on_with_the_egress() -> None:
    broadcast, resources = live(), (a_room(), DARK, *THREE)
    first = plan(broadcast, resources, T0, TIMING, STORAGE)
    [step] = [step for step in first.steps if isinstance(step, SetFallback)]
    assert len(first.steps) == 2, "the next egress is started all the same"
    then = plan(replace(broadcast, fallback=step.fallback), resources, T0, TIMING, STORAGE)
    assert not [step for step in then.steps if isinstance(step, SetFallback)]


def test_the_plan_ends_what_is_hopeless_and_waits_until_then() -> None:
    broadcast, dark = live(spec=NO_MODES), replace(DARK, status_since=T0 - seconds(TIMING.hopeless_s - 4))
    resources = (a_room(), dark, *(failed(n, intended_at=T0 - seconds(90)) for n in range(5)))
    assert plan(broadcast, resources, T0, TIMING, STORAGE).wait_until == T0 + seconds(4)
    then = plan(broadcast, resources, T0 + seconds(4), TIMING, STORAGE)
    assert then.steps == (EndBroadcast(reason=EndReason.EGRESS_FAILED),)


def test_what_was_stopped_falls_back_to_nothing() -> None:
    over = replace(live(), target=Target.ENDED, end_reason=EndReason.STOPPED)
    steps = plan(over, (a_room(), DARK, *THREE), T0, TIMING, away(3600)).steps
    assert not [step for step in steps if isinstance(step, SetFallback | EndBroadcast)]


def test_starts_that_are_refused_count_when_it_lasts() -> None:
    """A throttle of some seconds is nothing to move viewers for; half a minute without a worker is."""
    refused = [
        an_egress(
            ordinal=n,
            external_id="",
            phase=Phase.GONE,
            end_seen=True,
            fault=Fault.THROTTLED,
            intended_at=T0 - seconds(29 - n),
            changed_at=T0 - seconds(29 - n),
        )
        for n in range(3)
    ]
    resource_set = ResourceSet([a_room(), a_stream(), *refused])
    soon = decide(live(), resource_set, T0, Timing(), Availability())
    assert not soon.fallback.modes
    assert look_at(soon) == T0 + seconds(1)
    later = decide(live(), resource_set, T0 + seconds(1), Timing(), Availability())
    assert FallbackMode.DIRECT_WEBRTC in later.fallback.modes
