"""What callers are told."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from service.domain.broadcast import (
    Broadcast,
    Carrier,
    ConditionType,
    Destination,
    DestinationState,
    EndReason,
    Fallback,
    FallbackMode,
    Spec,
    State,
    Status,
    Target,
    seconds,
)
from service.domain.planning.steps import Plan
from service.domain.reasons import Blocked, ConditionReason, FallbackReason
from service.domain.reporting.status import same_but_for_time, state_of, status_of
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Output,
    OutputState,
    Phase,
    Recording,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.secret import Secret
from service.domain.situation import Availability, Outage
from tests.simulation.environment import T0

PLAN = Plan(wait_until=T0 + seconds(5))


def a_broadcast(**fields: Any) -> Broadcast:
    given: dict[str, Any] = {"spec": Spec(), "target": Target.LIVE, **fields}
    return Broadcast(id="b", create_time=T0, update_time=T0, **given)


ROOM = Room(
    ordinal=0, phase=Phase.PRESENT, sid="RM", intended_at=T0, changed_at=T0, host_publishing=True, host_since=T0
)
STREAM = Stream(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="s",
    intended_at=T0,
    changed_at=T0,
    status=StreamStatus.ACTIVE,
    playback_id="play",
    active_asset_id="asset",
)
EGRESS = Egress(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="e",
    intended_at=T0,
    changed_at=T0,
    status=EgressStatus.ACTIVE,
    outputs=(Output(name="", state=OutputState.ACTIVE),),
    layout="grid",
)
PLAYING = (ROOM, STREAM, EGRESS)


def met(status: Status, type_: ConditionType) -> tuple[bool | None, str]:
    [condition] = [each for each in status.conditions if each.type is type_]
    return condition.met, condition.reason


def told(*resources: AnyResource, plan: Plan = PLAN, **fields: Any) -> Status:
    return status_of(a_broadcast(**fields), resources, plan, T0)[1]


def gone(row: AnyResource, **fields: Any) -> AnyResource:
    return replace(row, phase=Phase.GONE, **fields)


WAS_LIVE: dict[str, Any] = {"live_time": T0}
AWAY = replace(ROOM, host_publishing=False)
STOPPED: dict[str, Any] = {"target": Target.ENDED, "end_reason": EndReason.STOPPED}


@pytest.mark.parametrize(
    ("fields", "resources", "state", "reason"),
    [
        ({"target": Target.CREATED}, (), State.CREATED, ""),
        ({}, (), State.STARTING, ""),
        ({}, (ROOM,), State.STARTING, ""),
        ({}, (ROOM, replace(STREAM, phase=Phase.UNKNOWN)), State.STARTING, ""),
        ({}, (AWAY, replace(STREAM, status=StreamStatus.IDLE)), State.READY, "NO_HOST"),
        ({}, (ROOM, replace(STREAM, status=StreamStatus.IDLE)), State.READY, "NOT_RUNNING"),
        ({}, PLAYING, State.LIVE, ""),
        # The live stream itself is still active in its reconnect window.
        (WAS_LIVE, (ROOM, STREAM, gone(EGRESS, end_seen=True)), State.INTERRUPTED, "NOT_RUNNING"),
        (WAS_LIVE, (AWAY, STREAM, EGRESS), State.INTERRUPTED, "NO_HOST"),
        (WAS_LIVE, (ROOM, replace(STREAM, status=StreamStatus.IDLE), EGRESS), State.INTERRUPTED, "IDLE"),
        (WAS_LIVE, (gone(ROOM), STREAM, EGRESS), State.INTERRUPTED, "NO_ROOM"),
        (STOPPED, (gone(ROOM), replace(STREAM, phase=Phase.DELETING)), State.STOPPING, "STOPPED"),
        (STOPPED, (gone(ROOM), gone(STREAM)), State.ENDED, "STOPPED"),
        (STOPPED, (), State.ENDED, "STOPPED"),
        ({**STOPPED, "end_reason": EndReason.STREAM_LOST}, (gone(STREAM),), State.FAILED, "STREAM_LOST"),
        ({**STOPPED, "end_reason": EndReason.STREAM_LOST}, (ROOM,), State.STOPPING, "STREAM_LOST"),
        ({**STOPPED, "end_reason": None}, (), State.ENDED, "STOPPED"),
    ],
)
def test_the_state(fields: dict[str, Any], resources: tuple[AnyResource, ...], state: State, reason: str) -> None:
    assert state_of(a_broadcast(**fields), resources) == (state, reason)


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_reason_ends_somewhere(reason: EndReason) -> None:
    state, told_reason = state_of(a_broadcast(target=Target.ENDED, end_reason=reason), ())
    assert state is (State.FAILED if reason.failed else State.ENDED)
    assert told_reason == reason


def test_a_new_key_keeps_out_who_comes_but_cuts_off_nobody() -> None:
    fenced = replace(STREAM, key_epoch=1)
    assert state_of(a_broadcast(), (ROOM, fenced, replace(EGRESS, phase=Phase.UNKNOWN)))[0] is State.READY
    assert state_of(a_broadcast(), (ROOM, fenced, EGRESS))[0] is State.LIVE


def test_all_conditions_are_met_when_it_plays() -> None:
    status = told(*PLAYING)
    assert {condition.type for condition in status.conditions} == set(ConditionType)
    assert all(condition.met for condition in status.conditions)
    assert (status.room_sid, status.stream_id, status.egress_id) == ("RM", "s", "e")
    assert (status.playback_id, status.asset_id) == ("play", "asset")


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    status = told(
        replace(ROOM, phase=Phase.UNKNOWN),
        replace(STREAM, phase=Phase.INTENDED, status=StreamStatus.UNKNOWN),
        replace(EGRESS, phase=Phase.UNKNOWN),
    )
    assert met(status, ConditionType.ROOM_READY) == (None, "UNKNOWN")
    assert met(status, ConditionType.STREAM_READY) == (None, "UNKNOWN")
    assert met(status, ConditionType.EGRESS_RUNNING) == (None, "UNKNOWN")
    assert met(status, ConditionType.INGEST_ACTIVE) == (None, "NOT_OBSERVED")
    assert met(status, ConditionType.HOST_PUBLISHING) == (False, "NO_ROOM")


def test_a_host_nobody_looked_for_is_unknown_and_so_is_whether_it_plays() -> None:
    status = told(replace(ROOM, host_publishing=None), STREAM, EGRESS)
    assert met(status, ConditionType.HOST_PUBLISHING) == (None, "NOT_OBSERVED")
    assert met(status, ConditionType.PLAYABLE) == (None, "NOT_OBSERVED")


def test_what_is_not_there_is_not_met() -> None:
    status = told()
    assert all(condition.met is False for condition in status.conditions)
    assert met(status, ConditionType.STREAM_READY) == (False, "ABSENT")


def test_why_no_egress_is_started() -> None:
    plan = replace(PLAN, blocked=Blocked.START_LIMIT)
    status = told(ROOM, STREAM, gone(EGRESS, end_seen=True, error="chrome died"), plan=plan)
    [condition] = [each for each in status.conditions if each.type is ConditionType.EGRESS_RUNNING]
    assert (condition.met, condition.reason, condition.message) == (False, "START_LIMIT", "chrome died")


@pytest.mark.parametrize(
    ("egress", "reason"),
    [
        (replace(EGRESS, status=EgressStatus.STARTING, outputs=()), "STARTING"),
        (replace(EGRESS, status=EgressStatus.UNKNOWN, outputs=()), "STARTING"),
        (replace(EGRESS, outputs=()), "CONNECTING"),
        (replace(EGRESS, outputs=(Output(name="", state=OutputState.CONNECTING),)), "CONNECTING"),
        (replace(EGRESS, outputs=(Output(name="", state=OutputState.FAILED),)), "DISCONNECTED"),
        (replace(EGRESS, status=EgressStatus.ENDING), "ENDING"),
    ],
)
def test_an_egress_on_its_way(egress: Egress, reason: str) -> None:
    assert met(told(ROOM, STREAM, egress), ConditionType.EGRESS_RUNNING) == (False, reason)


def test_an_egress_that_is_to_end_is_told_until_it_is_gone() -> None:
    leaving = replace(EGRESS, phase=Phase.DELETING)
    for fields in (STOPPED, WAS_LIVE):
        stopping = told(ROOM, STREAM, leaving, **fields)
        assert met(stopping, ConditionType.EGRESS_RUNNING) == (False, "STOPPING")
        deaf = told(ROOM, STREAM, replace(leaving, failures=2), **fields)
        assert met(deaf, ConditionType.EGRESS_RUNNING) == (None, "STOP_FAILED")
        assert stopping.egress_id == deaf.egress_id == "e"
        assert told(ROOM, STREAM, gone(EGRESS, end_seen=True), **fields).egress_id == ""
    # The one that runs comes before.
    another = replace(EGRESS, ordinal=1, external_id="f")
    both = told(ROOM, STREAM, replace(leaving, failures=2), another, **WAS_LIVE)
    assert both.egress_id == "f"
    assert met(both, ConditionType.EGRESS_RUNNING) == (True, "DELIVERING")
    # Whatever it still sends, it is not what viewers are to see.
    assert met(told(ROOM, STREAM, leaving, **WAS_LIVE), ConditionType.PLAYABLE)[0] is False


def test_a_stream_that_was_disabled_by_us_takes_no_media_whatever_was_seen_before() -> None:
    status = told(ROOM, replace(STREAM, disabled=True), EGRESS, **STOPPED)
    assert met(status, ConditionType.INGEST_ACTIVE) == (False, "DISABLED")
    assert met(status, ConditionType.PLAYABLE) == (False, "DISABLED")


def test_a_transition_time_stays_while_only_the_reason_changes() -> None:
    broadcast = a_broadcast()
    _, first = status_of(broadcast, (ROOM,), PLAN, T0)
    starting = replace(EGRESS, status=EgressStatus.STARTING, outputs=())
    _, second = status_of(replace(broadcast, status=first), (ROOM, STREAM, starting), PLAN, T0 + seconds(7))
    times = {condition.type: condition.transition_time for condition in second.conditions}
    assert met(first, ConditionType.EGRESS_RUNNING) != met(second, ConditionType.EGRESS_RUNNING)
    assert times[ConditionType.EGRESS_RUNNING] == T0
    assert times[ConditionType.STREAM_READY] == T0 + seconds(7)


def test_the_time_of_a_state_is_kept_while_it_lasts() -> None:
    broadcast = a_broadcast(state=State.CREATED)
    state, status = status_of(broadcast, PLAYING, PLAN, T0)
    assert status.state_time == T0
    lasting = replace(broadcast, state=state, status=status, live_time=T0)
    assert status_of(lasting, PLAYING, PLAN, T0 + seconds(9))[1].state_time == T0
    state, status = status_of(lasting, (AWAY, STREAM, EGRESS), PLAN, T0 + seconds(9))
    assert (state, status.state_time) == (State.INTERRUPTED, T0 + seconds(9))


def test_an_outage_of_some_seconds_leaves_the_time_of_the_state() -> None:
    """It is live since it became live, whatever reasons it had meanwhile."""
    broadcast = a_broadcast(live_time=T0)
    state, status = status_of(broadcast, PLAYING, PLAN, T0)
    away = Availability(outages={"livekit": Outage(since=T0 + seconds(3600))})
    for now, availability, reason in ((3600, away, "LIVEKIT_UNREACHABLE"), (3609, Availability(), "")):
        lasting = replace(broadcast, state=state, status=status)
        state, status = status_of(lasting, PLAYING, PLAN, T0 + seconds(now), availability)
        assert (state, status.state_reason, status.state_time) == (State.LIVE, reason, T0)


def test_the_generation_is_observed_when_the_egress_shows_it() -> None:
    spec = Spec(layout="speaker", destinations=(Destination(name="a", url="rtmp://a"),))
    broadcast = a_broadcast(spec=spec, generation=3, status=Status(observed_generation=2))
    shown = replace(EGRESS, layout="speaker", destinations=("a",))
    for egress, observed in ((EGRESS, 2), (replace(EGRESS, layout="speaker"), 2), (shown, 3)):
        assert status_of(broadcast, (ROOM, STREAM, egress), PLAN, T0)[1].observed_generation == observed
    # Nothing runs that could show another.
    assert status_of(broadcast, (ROOM, STREAM), PLAN, T0)[1].observed_generation == 3
    assert status_of(broadcast, (ROOM, STREAM), None, T0)[1].observed_generation == 2
    assert status_of(replace(broadcast, target=Target.CREATED), (), Plan(), T0)[1].observed_generation == 2


def test_destinations_are_told_by_who_carries_them() -> None:
    spec = Spec(
        destinations=(
            Destination(name="a", url="rtmp://a"),
            Destination(name="b", url="rtmp://b", carrier=Carrier.STREAM),
            Destination(name="c", url="rtmp://c"),
        )
    )
    egress = replace(
        EGRESS,
        outputs=(*EGRESS.outputs, Output(name="a", state=OutputState.FAILED, message="refused")),
        destinations=("a", "c"),
    )
    # What the other provider says of the same name is not about it.
    stream = replace(
        STREAM,
        relays=(Output(name="b", state=OutputState.ACTIVE), Output(name="a", state=OutputState.ACTIVE)),
    )
    states = [(each.name, each.state, each.message) for each in told(ROOM, stream, egress, spec=spec).destinations]
    assert states == [
        ("a", DestinationState.FAILED, "refused"),
        ("b", DestinationState.ACTIVE, ""),
        ("c", DestinationState.IDLE, ""),
    ]


def test_of_two_destinations_that_look_alike_it_is_not_known_which_failed() -> None:
    """New ones are refused. A row of an earlier version may have them, and whoever removes the one that is told FAILED
    would cut off the one that lives.
    """
    place = "rtmp://live.example.com/app"
    spec = Spec(destinations=tuple(Destination(name=name, url=place) for name in ("one", "two", "other")))
    keys = {"one": "studio-main-2026-stage", "two": "studio-back-2026-stage", "other": "another-key-of-2026"}
    broadcast = replace(a_broadcast(spec=spec), destination_keys={name: Secret(key) for name, key in keys.items()})
    active = Output(name="two", state=OutputState.ACTIVE)

    def shown(failed: Output) -> list[tuple[str, DestinationState, str]]:
        egress = replace(EGRESS, outputs=(*EGRESS.outputs, failed, active), destinations=("one", "other", "two"))
        status = status_of(broadcast, (ROOM, STREAM, egress), PLAN, T0)[1]
        return [(each.name, each.state, each.message) for each in status.destinations]

    why = "one of one and two failed, and their keys look alike, so it is not known which: refused"
    assert shown(Output(name="one", state=OutputState.FAILED, message="refused")) == [
        ("one", DestinationState.FAILED, why),
        ("two", DestinationState.FAILED, why),
        ("other", DestinationState.IDLE, ""),
    ]
    unsaid = shown(Output(name="one", state=OutputState.FAILED))
    assert unsaid[0][2] == why.removesuffix(": refused")
    # Of another place it is known.
    assert shown(Output(name="other", state=OutputState.FAILED, message="refused")) == [
        ("one", DestinationState.IDLE, ""),
        ("two", DestinationState.ACTIVE, ""),
        ("other", DestinationState.FAILED, "refused"),
    ]


def test_at_rest_nothing_is_promised_but_the_recordings() -> None:
    recording = Recording(asset_id="asset", playback_id="play")
    _, status = status_of(
        a_broadcast(**STOPPED), (gone(ROOM), gone(STREAM, recordings=(recording,))), Plan(done=True), T0
    )
    assert status.recordings == (recording,)
    assert (status.playback_id, status.next_attempt_time, status.stream_id) == ("", None, "")


def test_what_was_never_started_has_no_conditions() -> None:
    assert told(target=Target.CREATED, plan=Plan()).conditions == ()


def test_the_next_attempt_alone_is_no_change() -> None:
    status = told(*PLAYING)
    assert status.next_attempt_time == PLAN.wait_until
    assert same_but_for_time(status, replace(status, next_attempt_time=None))
    assert not same_but_for_time(status, replace(status, egress_id="other"))


# While a provider is away.


def without(*providers: str) -> Availability:
    return Availability(outages={name: Outage(since=T0 - seconds(60), code="503") for name in providers})


def told_without(provider: str, *resources: AnyResource, **fields: Any) -> tuple[State, Status]:
    return status_of(a_broadcast(**fields), resources, PLAN, T0, without(provider))


def test_what_nobody_can_confirm_is_live_as_far_as_anybody_knows() -> None:
    for provider, reason in (("mux", "MUX_UNREACHABLE"), ("livekit", "LIVEKIT_UNREACHABLE")):
        state, status = told_without(provider, *PLAYING)
        assert (state, status.state_reason) == (State.LIVE, reason)
        assert met(status, ConditionType.PLAYABLE) == (None, reason)
    both = status_of(a_broadcast(), PLAYING, PLAN, T0, without("mux", "livekit"))[1]
    assert both.state_reason == "LIVEKIT_UNREACHABLE"
    assert told(*PLAYING).state_reason == ""


def test_only_what_depends_on_it_is_unknown() -> None:
    unknown = {
        "mux": {ConditionType.INGEST_ACTIVE},
        "livekit": {ConditionType.HOST_PUBLISHING, ConditionType.EGRESS_RUNNING},
    }
    for provider, types in unknown.items():
        _, status = told_without(provider, *PLAYING)
        assert {each.type for each in status.conditions if each.met is None} == types | {ConditionType.PLAYABLE}
        [message] = {each.message for each in status.conditions if each.type in types}
        assert message == "no answer since 2026-10-31 23:59:00Z 503"


@pytest.mark.parametrize(
    ("provider", "resources", "type_"),
    [
        # It may have become active since, or a host may have come.
        ("mux", (ROOM, replace(STREAM, status=StreamStatus.IDLE), EGRESS), ConditionType.INGEST_ACTIVE),
        ("livekit", (AWAY, STREAM, EGRESS), ConditionType.HOST_PUBLISHING),
        ("livekit", (ROOM, STREAM, replace(EGRESS, outputs=())), ConditionType.EGRESS_RUNNING),
    ],
)
def test_what_was_not_so_may_be_so_by_now(
    provider: str, resources: tuple[AnyResource, ...], type_: ConditionType
) -> None:
    state, status = told_without(provider, *resources, **WAS_LIVE)
    reason = f"{provider.upper()}_UNREACHABLE"
    assert met(status, type_) == (None, reason)
    assert met(status, ConditionType.PLAYABLE) == (None, reason)
    assert (state, status.state_reason) == (State.INTERRUPTED, reason)


@pytest.mark.parametrize(
    ("provider", "resources", "type_", "reason"),
    [
        ("mux", (ROOM,), ConditionType.INGEST_ACTIVE, "NO_STREAM"),
        ("mux", (ROOM, replace(STREAM, disabled=True), EGRESS), ConditionType.INGEST_ACTIVE, "DISABLED"),
        ("livekit", (gone(ROOM), STREAM), ConditionType.HOST_PUBLISHING, "NO_ROOM"),
        ("livekit", (ROOM, STREAM), ConditionType.EGRESS_RUNNING, "NOT_RUNNING"),
    ],
)
def test_what_is_ours_to_know_is_known_all_the_same(
    provider: str, resources: tuple[AnyResource, ...], type_: ConditionType, reason: str
) -> None:
    _, status = told_without(provider, *resources)
    assert met(status, type_) == (False, reason)
    assert met(status, ConditionType.PLAYABLE)[0] is False


def test_an_outage_that_goes_on_is_told_once() -> None:
    state, first = told_without("mux", *PLAYING)
    later = replace(a_broadcast(), state=state, status=first)
    _, second = status_of(later, PLAYING, PLAN, T0 + seconds(60), without("mux"))
    assert same_but_for_time(first, second)


# In a fallback.

IN_THE_ROOM = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=T0)


def test_viewers_in_the_room_are_interrupted_and_live_when_the_normal_way_is() -> None:
    broken = (ROOM, STREAM, gone(EGRESS, end_seen=True))
    for fields in ({}, WAS_LIVE):
        assert state_of(a_broadcast(fallback=IN_THE_ROOM, **fields), broken) == (State.INTERRUPTED, "DIRECT_WEBRTC")
    assert state_of(a_broadcast(fallback=IN_THE_ROOM), PLAYING) == (State.LIVE, "")
    recorded = replace(IN_THE_ROOM, modes=(FallbackMode.LOCAL_RECORDING,))
    assert state_of(a_broadcast(fallback=recorded, **WAS_LIVE), broken) == (State.INTERRUPTED, "NOT_RUNNING")
    assert state_of(a_broadcast(fallback=recorded), broken) == (State.READY, "NOT_RUNNING")


def test_the_end_is_the_end_of_a_fallback_too() -> None:
    assert state_of(a_broadcast(fallback=IN_THE_ROOM, **STOPPED), (gone(ROOM), gone(STREAM))) == (
        State.ENDED,
        "STOPPED",
    )
    hopeless = {**STOPPED, "end_reason": EndReason.EGRESS_FAILED}
    assert state_of(a_broadcast(**hopeless), (gone(ROOM),)) == (State.FAILED, "EGRESS_FAILED")


def test_a_reason_of_another_version_is_read_and_shown_as_it_was_written() -> None:
    """What is stored has a text of any of the three enumerations, or one that only another version declares."""
    written = [ConditionReason.NO_HOST, EgressStatus.ENDING, Blocked.FENCING, "OF_ANOTHER_VERSION"]
    stored = {
        "conditions": [
            {"type": "PLAYABLE", "met": False, "reason": str(reason), "transition_time": T0} for reason in written
        ]
    }
    read = [condition.reason for condition in msgspec.convert(stored, Status).conditions]
    assert read == written
    assert read[0] is ConditionReason.NO_HOST
    assert read[3] not in set(ConditionReason)
    assert msgspec.to_builtins(read) == written
