"""Every part of the chain: what it says, and that nothing is said of what nobody looked at."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.domain.broadcast import (
    Carrier,
    ConditionType,
    DeliveryPolicy,
    Destination,
    DestinationState,
    DestinationStatus,
    EndReason,
    Fallback,
    FallbackMode,
    PlaybackPolicy,
    ProviderTrouble,
    RecordingPolicy,
    Spec,
    State,
    Target,
    seconds,
)
from service.domain.facts import Facts
from service.domain.health.health_of import Health, health_of
from service.domain.health.model import ChainPart, HealthState, PartHealth
from service.domain.measurements import Probe, Quality, Unseen
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import FallbackReason, Fault, Operation
from service.domain.resources import (
    AnyResource,
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Stream,
    StreamStatus,
)
from tests.simulation.environment import T0
from tests.unit.health_facts import (
    CAMERA,
    EGRESS,
    EMPTY,
    IDLE,
    MICROPHONE,
    NOW,
    PLAYING,
    PLAYLIST,
    PROBE,
    ROOM,
    STREAM,
    TIMING,
    WAS_LIVE,
    ago,
    ann,
    away,
    gone,
    known,
    live,
    reported,
)
from tests.unit.situations import IDLES, NO_VIEWER, SERVES

NOTHING = Probe()


def health(facts: Facts) -> Health:
    return health_of(facts, TIMING)


def part(facts: Facts, which: ChainPart) -> PartHealth:
    return health(facts).part(which)


def said(facts: Facts, which: ChainPart) -> tuple[HealthState, str]:
    found = part(facts, which)
    return found.state, found.reason


def test_a_healthy_show_is_ok_from_the_host_to_the_viewers() -> None:
    told = health(live())
    assert [(each.part, each.state) for each in told.parts] == [
        (ChainPart.ROOM, HealthState.OK),
        (ChainPart.HOST, HealthState.OK),
        (ChainPart.EGRESS, HealthState.OK),
        (ChainPart.INGEST, HealthState.OK),
        (ChainPart.PLAYBACK, HealthState.OK),
        (ChainPart.RECORDING, HealthState.OK),
        # Nobody counts who plays HLS.
        (ChainPart.VIEWERS, HealthState.UNKNOWN),
    ]
    assert (told.overall, told.state, told.time) == (HealthState.OK, State.LIVE, NOW)
    ids = {each.name: each.value for found in told.parts for each in found.evidence}
    assert (ids["livekit_room_sid"], ids["livekit_egress_id"]) == ("RM_1", "EG_1")
    assert (ids["mux_live_stream_id"], ids["media_sequence"]) == ("LS1", "120")
    assert all(found.since is not None and found.since < NOW for found in told.parts[:6])
    assert all(found.observed_at is not None for found in told.parts[:6])


def unseen(since_s: float, at_s: float) -> Unseen:
    return Unseen(since=ago(since_s), at=ago(at_s), code="500", message="the playback edge answers 500")


@pytest.mark.parametrize(
    ("which", "blind"),
    [
        (ChainPart.ROOM, {"ROOM": ago(31)}),
        (ChainPart.HOST, {"ROOM": ago(31)}),
        (ChainPart.EGRESS, {"EGRESS": ago(31)}),
        (ChainPart.INGEST, {"STREAM": ago(31)}),
        (ChainPart.RECORDING, {"STREAM": ago(31)}),
    ],
)
def test_what_nobody_looked_at_is_unknown(which: ChainPart, blind: dict[str, Any]) -> None:
    resources: dict[str, AnyResource] = {"ROOM": ROOM, "STREAM": STREAM, "EGRESS": EGRESS}
    for name, seen in blind.items():
        resources[name] = replace(resources[name], observed_at=seen)
    old = replace(known(*resources.values(), **WAS_LIVE, probe=NOTHING), looked_at={})
    assert said(old, which) == (HealthState.UNKNOWN, "NOT_OBSERVED")
    assert part(old, which).observed_at == ago(31)
    # The observer compares all with what is stored. That it had nothing to object is a look.
    assert said(replace(old, looked_at={"livekit": ago(3), "mux": ago(3)}), which)[0] is HealthState.OK
    # Unless it had, or a webhook objected meanwhile: both wake the broadcast after the round began.
    dirty = replace(old.broadcast, dirty_at=ago(2))
    objected = replace(old, looked_at={"livekit": ago(3), "mux": ago(3)}, broadcast=dirty)
    assert said(objected, which)[0] is HealthState.UNKNOWN


@pytest.mark.parametrize("which", [ChainPart.ROOM, ChainPart.HOST, ChainPart.EGRESS, ChainPart.INGEST])
def test_a_round_of_the_observer_that_agrees_is_the_look_that_a_pass_missed(which: ChainPart) -> None:
    """But for who publishes, which no list says."""
    resources = [replace(each, observed_at=ago(61)) for each in (ROOM, STREAM, EGRESS)]
    missed = known(*resources, **WAS_LIVE, probe=NOTHING, dirty_at=ago(60))
    assert said(replace(missed, looked_at={}), which) == (HealthState.UNKNOWN, "NOT_OBSERVED")
    seen = part(missed, which)
    if which is ChainPart.HOST:
        assert (seen.state, seen.observed_at) == (HealthState.UNKNOWN, ago(61))
        return
    assert (seen.state, seen.observed_at) == (HealthState.OK, ago(3))
    [by] = [each for each in seen.evidence if each.name == "seen_by"]
    assert (by.value, by.time) == ("observer", ago(3))


@pytest.mark.parametrize("provider", ["livekit", "mux"])
def test_a_provider_that_is_away_makes_unknown_what_is_on_its_side(provider: str) -> None:
    resources = [replace(each, observed_at=ago(61)) for each in (ROOM, STREAM, EGRESS)]
    facts = known(*resources, **WAS_LIVE, availability=away(provider), probe=NOTHING)
    sides = {"livekit": (ChainPart.ROOM, ChainPart.HOST, ChainPart.EGRESS), "mux": (ChainPart.INGEST,)}
    for side, parts in sides.items():
        for which in parts:
            found = part(facts, which)
            if side == provider:
                assert (found.state, found.reason) == (HealthState.UNKNOWN, f"{provider.upper()}_UNREACHABLE")
                assert found.since == ago(60)
                assert "timeout" in found.message
            else:
                assert found.state is HealthState.OK
    assert health(facts).overall is HealthState.UNKNOWN


@pytest.mark.parametrize(
    ("probe", "state", "reason"),
    [
        (PROBE, HealthState.OK, "ADVANCING"),
        (
            replace(PROBE, playlist_at=ago(31), advanced_at=ago(31), standing_since=ago(31)),
            HealthState.UNKNOWN,
            "NOT_OBSERVED",
        ),
        (NOTHING, HealthState.UNKNOWN, "NOT_OBSERVED"),
        # Looked at once: whether it moves nobody knows yet.
        (replace(PROBE, advanced_at=None), HealthState.PENDING, "SEEN_ONCE"),
        (replace(PROBE, advanced_at=None, standing_since=ago(20)), HealthState.DOWN, "STALLED"),
        # Within three target durations of 2 s it may stand still.
        (replace(PROBE, advanced_at=ago(10), standing_since=ago(10)), HealthState.OK, "ADVANCING"),
        (replace(PROBE, advanced_at=ago(10.1), standing_since=ago(10.1)), HealthState.DOWN, "STALLED"),
        (replace(PROBE, playlist=replace(PLAYLIST, status=412)), HealthState.DOWN, "NOT_ON_AIR"),
        # One look that fails says nothing of a playlist that was seen lately. Two do, or one without it.
        (replace(PROBE, unseen=unseen(2, 2)), HealthState.OK, "ADVANCING"),
        (replace(PROBE, unseen=unseen(4, 2)), HealthState.UNKNOWN, "PLAYBACK_UNREACHABLE"),
        (replace(NOTHING, unseen=unseen(2, 2)), HealthState.UNKNOWN, "PLAYBACK_UNREACHABLE"),
        (replace(PROBE, unseen=unseen(90, 31)), HealthState.OK, "ADVANCING"),
        (replace(NOTHING, unseen=unseen(90, 31)), HealthState.UNKNOWN, "NOT_OBSERVED"),
        # As the version before stored it.
        (replace(PROBE, playlist=replace(PLAYLIST, status=404)), HealthState.UNKNOWN, "PLAYBACK_UNREACHABLE"),
        (replace(PROBE, playlist=replace(PLAYLIST, ended=True)), HealthState.DOWN, "ENDED"),
    ],
)
def test_playback_is_ok_only_while_the_playlist_is_seen_to_move(probe: Probe, state: HealthState, reason: str) -> None:
    facts = live(probe=probe)
    assert said(facts, ChainPart.PLAYBACK) == (state, reason)
    assert (health(facts).overall is HealthState.OK) is (state is HealthState.OK)


@pytest.mark.parametrize(
    ("provider", "sides"),
    [
        ("livekit", (ChainPart.ROOM, ChainPart.HOST, ChainPart.EGRESS)),
        ("mux", (ChainPart.INGEST, ChainPart.RECORDING)),
    ],
)
def test_health_and_the_conditions_lose_sight_of_a_provider_at_once(
    provider: str, sides: tuple[ChainPart, ...]
) -> None:
    facts = known(*PLAYING, **WAS_LIVE, availability=away(provider, age_s=1))
    lost = {each.reason for each in facts.broadcast.status.conditions if each.met is None}
    assert lost == {f"{provider.upper()}_UNREACHABLE"}
    assert {said(facts, side) for side in sides} == {(HealthState.UNKNOWN, f"{provider.upper()}_UNREACHABLE")}
    assert bool(health(facts).publishers) is (provider == "mux")


KEPT = Recording(asset_id="AS1", playback_id="REC1", status=RecordingStatus.READY)
STOPPING: dict[str, Any] = {"target": Target.ENDED, "end_reason": EndReason.STOPPED, **WAS_LIVE}
DEAF = replace(EGRESS, phase=Phase.DELETING, failures=3, changed_at=ago(40))


@pytest.mark.parametrize(
    ("stuck", "which", "operation"),
    [
        (replace(ROOM, phase=Phase.DELETING, failures=3), ChainPart.ROOM, Operation.DELETE_ROOM),
        (DEAF, ChainPart.EGRESS, Operation.STOP_EGRESS),
        (replace(STREAM, failures=3), ChainPart.INGEST, Operation.DISABLE_STREAM),
        (replace(STREAM, phase=Phase.DELETING, failures=3), ChainPart.INGEST, Operation.DELETE_STREAM),
    ],
)
def test_what_is_to_end_and_does_not_is_down(stuck: Any, which: ChainPart, operation: Operation) -> None:
    provider = STREAMS if which is ChainPart.INGEST else ROOMS
    trouble = ProviderTrouble(
        provider=provider, operation=operation, code="500", message="so it says", retryable=True, time=ago(9)
    )
    facts = known(stuck, **STOPPING, status={"last_error": trouble})
    assert said(facts, which) == (HealthState.DOWN, "STOP_FAILED")
    assert health(facts).overall is HealthState.DOWN
    found = part(facts, which)
    assert operation in found.message
    assert ("stops_failed", "3") in [(each.name, each.value) for each in found.evidence]
    assert found.evidence[0].value == stuck.external_id
    # Nothing failed yet.
    assert said(known(replace(stuck, failures=0), **STOPPING), which) == (HealthState.IDLE, "STOPPING")
    # What is told of another call is not about this one.
    other = known(stuck, **STOPPING, status={"last_error": replace(trouble, operation=Operation.CREATE_ROOM)})
    assert "so it says" not in str(part(other, which))


def test_an_egress_that_does_not_stop_is_down_where_none_is_wanted() -> None:
    assert said(known(EMPTY, IDLE, DEAF, **WAS_LIVE), ChainPart.EGRESS) == (HealthState.DOWN, "STOP_FAILED")
    assert said(known(ROOM, IDLE, DEAF, **WAS_LIVE), ChainPart.EGRESS) == (HealthState.DOWN, "STOP_FAILED")
    running = replace(EGRESS, ordinal=1, external_id="EG_2")
    assert said(known(ROOM, STREAM, DEAF, running, **WAS_LIVE), ChainPart.EGRESS)[0] is HealthState.OK


def test_the_last_egress_is_told_with_what_it_failed_of() -> None:
    ghost = gone(EGRESS, fault=Fault.GHOST)
    found = part(known(ROOM, IDLE, ghost, **WAS_LIVE), ChainPart.EGRESS)
    assert (found.state, found.reason) == (HealthState.DOWN, "GHOST")
    assert "its worker is gone" in found.message
    both = part(known(ROOM, IDLE, replace(ghost, error="boom"), **WAS_LIVE), ChainPart.EGRESS)
    assert both.message == f"{found.message}: boom"


def test_what_is_over_is_not_ok() -> None:
    assert health(known(gone(STREAM, recordings=(KEPT,)), **STOPPING)).overall is HealthState.IDLE
    failed: dict[str, Any] = {**STOPPING, "end_reason": EndReason.EGRESS_FAILED}
    assert health(known(gone(STREAM, recordings=(KEPT,)), **failed)).overall is HealthState.IDLE


def test_nobody_can_look_at_what_only_viewers_may_play() -> None:
    facts = live(spec=Spec(playback_policy=PlaybackPolicy.SIGNED))
    [playable] = [each for each in facts.broadcast.status.conditions if each.type is ConditionType.PLAYABLE]
    assert (playable.met, playable.reason) == (None, "SIGNED")
    assert facts.broadcast.state is State.LIVE
    assert said(facts, ChainPart.PLAYBACK) == (HealthState.UNKNOWN, "SIGNED")
    assert health(facts).overall is HealthState.OK


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (known(ready_time=None), HealthState.PENDING, "CREATING"),
        (known(replace(ROOM, phase=Phase.INTENDED), ready_time=None), HealthState.PENDING, "CREATING"),
        (known(replace(ROOM, phase=Phase.INTENDED, failures=2)), HealthState.DOWN, "CREATE_FAILED"),
        (known(replace(ROOM, phase=Phase.UNKNOWN)), HealthState.UNKNOWN, "UNANSWERED"),
        (known(gone(ROOM)), HealthState.DOWN, "LOST"),
        (known(ROOM), HealthState.OK, "PRESENT"),
        (known(target=Target.CREATED, start_time=None, ready_time=None), HealthState.IDLE, "NOT_STARTED"),
        (known(ROOM, target=Target.ENDED, end_reason=EndReason.STOPPED), HealthState.IDLE, "STOPPING"),
        (known(gone(ROOM), target=Target.ENDED, end_reason=EndReason.STOPPED), HealthState.IDLE, "OVER"),
    ],
)
def test_the_room(facts: Facts, state: HealthState, reason: str) -> None:
    assert said(facts, ChainPart.ROOM) == (state, reason)


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (known(EMPTY, IDLE, probe=NOTHING), HealthState.IDLE, "WAITING_FOR_HOST"),
        (known(EMPTY, STREAM, EGRESS, **WAS_LIVE, probe=NOTHING), HealthState.DOWN, "HOST_LEFT"),
        (known(replace(ROOM, host_publishing=None), IDLE, probe=NOTHING), HealthState.UNKNOWN, "NOT_OBSERVED"),
        (known(gone(ROOM), STREAM, EGRESS, **WAS_LIVE), HealthState.DOWN, "NO_ROOM"),
        (live(), HealthState.OK, "PUBLISHING"),
        # The later look counts: the prober saw somebody, or nobody, after the pass did.
        (replace(known(EMPTY, IDLE), looked_at={}), HealthState.OK, "PUBLISHING"),
        (
            replace(live(probe=replace(PROBE, people=replace(ann(), publishers=()))), looked_at={}),
            HealthState.DOWN,
            "HOST_LEFT",
        ),
        # Its look was before the host left, and was written down after.
        (
            replace(
                known(
                    replace(EMPTY, observed_at=ago(5), host_since=ago(5)),
                    STREAM,
                    EGRESS,
                    **WAS_LIVE,
                    probe=replace(PROBE, people_at=ago(4)),
                ),
                looked_at={},
            ),
            HealthState.DOWN,
            "HOST_LEFT",
        ),
        (live(probe=replace(PROBE, people=ann(MICROPHONE))), HealthState.DEGRADED, "NO_VIDEO"),
        (
            live(probe=replace(PROBE, people=ann(MICROPHONE)), spec=Spec(audio_only=True)),
            HealthState.OK,
            "PUBLISHING",
        ),
        (
            live(probe=replace(PROBE, people=ann(replace(CAMERA, muted=True), MICROPHONE))),
            HealthState.DEGRADED,
            "HOST_MUTED",
        ),
        (
            live(probe=replace(PROBE, people=ann(CAMERA, replace(MICROPHONE, muted=True)))),
            HealthState.DEGRADED,
            "HOST_MUTED",
        ),
        # What was muted long ago need not be muted now.
        (
            live(probe=replace(PROBE, people=ann(replace(CAMERA, muted=True)), people_at=ago(31))),
            HealthState.OK,
            "PUBLISHING",
        ),
        (replace(live(), stats=reported(Quality.POOR)), HealthState.DEGRADED, "UPLINK_POOR"),
        (replace(live(), stats=reported(Quality.GOOD)), HealthState.OK, "PUBLISHING"),
        (replace(live(), stats=reported(Quality.LOST, age_s=31)), HealthState.OK, "PUBLISHING"),
    ],
)
def test_the_host(facts: Facts, state: HealthState, reason: str) -> None:
    assert said(facts, ChainPart.HOST) == (state, reason)


STARTING = replace(EGRESS, status=EgressStatus.STARTING, outputs=(), intended_at=ago(10), delivering_since=None)
LEFT = replace(STREAM, connected=False, connected_at=ago(8), heard_at=ago(8))
STALLED = replace(PROBE, standing_since=ago(20))
HANGING = replace(EGRESS, outputs=(Output(name="", state=OutputState.CONNECTING),), delivering_since=None)
REFUSED = (Output(name="", state=OutputState.FAILED, message="refused"),)


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (known(EMPTY, IDLE), HealthState.IDLE, "NOT_WANTED"),
        (known(ROOM, IDLE, spec=Spec(delivery_policy=DeliveryPolicy.MANUAL)), HealthState.IDLE, "NOT_ON_AIR"),
        (known(ROOM, IDLE, **IDLES), HealthState.IDLE, "NO_VIEWER"),
        (known(ROOM, IDLE, **SERVES), HealthState.PENDING, "STARTING"),
        (known(ROOM, IDLE), HealthState.PENDING, "STARTING"),
        (known(ROOM, IDLE, STARTING), HealthState.PENDING, "STARTING"),
        (known(ROOM, IDLE, replace(STARTING, intended_at=ago(31))), HealthState.DEGRADED, "STARTING_SLOWLY"),
        (
            known(ROOM, IDLE, replace(STARTING, phase=Phase.UNKNOWN, external_id="")),
            HealthState.UNKNOWN,
            "UNANSWERED",
        ),
        (
            known(ROOM, IDLE, replace(STARTING, phase=Phase.INTENDED, external_id="", intended_at=ago(1))),
            HealthState.PENDING,
            "STARTING",
        ),
        (known(ROOM, IDLE, replace(EGRESS, outputs=())), HealthState.PENDING, "CONNECTING"),
        (known(ROOM, IDLE, replace(HANGING, status_since=ago(9))), HealthState.PENDING, "CONNECTING"),
        (known(ROOM, IDLE, replace(HANGING, status_since=ago(11))), HealthState.DOWN, "NOT_CONNECTED"),
        (known(ROOM, IDLE, replace(EGRESS, outputs=REFUSED)), HealthState.DOWN, "DISCONNECTED"),
        (known(ROOM, STREAM, replace(EGRESS, status=EgressStatus.ENDING)), HealthState.DOWN, "ENDING"),
        (
            known(replace(ROOM, missing={EGRESS.external_id: ago(10)}), STREAM, EGRESS),
            HealthState.DEGRADED,
            "NOT_IN_ROOM",
        ),
        (
            known(ROOM, STREAM, gone(EGRESS, end_seen=True, fault=Fault.FAILED, error="boom")),
            HealthState.DOWN,
            "FAILED",
        ),
        # Stopped because it was not wanted, and wanted again.
        (known(ROOM, IDLE, gone(EGRESS, end_seen=True)), HealthState.PENDING, "STARTING"),
    ],
)
def test_the_egress(facts: Facts, state: HealthState, reason: str) -> None:
    assert said(facts, ChainPart.EGRESS) == (state, reason)


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (known(EMPTY, IDLE), HealthState.IDLE, "IDLE"),
        (known(EMPTY, replace(IDLE, status=StreamStatus.UNKNOWN)), HealthState.UNKNOWN, "NOT_OBSERVED"),
        (known(EMPTY, replace(IDLE, phase=Phase.UNKNOWN)), HealthState.UNKNOWN, "UNANSWERED"),
        (known(EMPTY, gone(IDLE, failures=3), ready_time=None), HealthState.DOWN, "CREATE_FAILED"),
        (known(ROOM, gone(STREAM), EGRESS, **WAS_LIVE), HealthState.DOWN, "LOST"),
        # Its create was not answered, and it was written off: it never was there.
        (known(EMPTY, gone(IDLE, external_id=""), ready_time=None), HealthState.PENDING, "CREATING"),
        (
            known(ROOM, replace(STREAM, status=StreamStatus.DISABLED), EGRESS, **WAS_LIVE),
            HealthState.DOWN,
            "DISABLED",
        ),
        (
            known(ROOM, replace(STREAM, status=StreamStatus.DISABLED, cutting=True), EGRESS, **WAS_LIVE),
            HealthState.PENDING,
            "CUTTING",
        ),
        (
            known(ROOM, LEFT, gone(EGRESS, end_seen=True), **WAS_LIVE),
            HealthState.DOWN,
            "DISCONNECTED",
        ),
        # The egress says otherwise: what viewers get decides.
        (known(ROOM, LEFT, EGRESS, **WAS_LIVE, probe=STALLED), HealthState.DOWN, "DISCONNECTED"),
        (known(ROOM, LEFT, EGRESS, **WAS_LIVE), HealthState.OK, "ACTIVE"),
        # That was before the egress connected, whatever else was heard of since.
        (
            known(ROOM, replace(LEFT, connected_at=T0 + seconds(41)), EGRESS, **WAS_LIVE, probe=STALLED),
            HealthState.OK,
            "ACTIVE",
        ),
        # A look since has seen it silent, and then active again: the word of its return was lost.
        (
            known(ROOM, replace(LEFT, silent_at=ago(7)), gone(EGRESS, end_seen=True), **WAS_LIVE),
            HealthState.OK,
            "ACTIVE",
        ),
        # It would be idle by now: the reconnect window of 120 s is over, and as much as a look may be behind.
        (
            known(ROOM, replace(LEFT, connected_at=ago(154)), gone(EGRESS, end_seen=True), **WAS_LIVE),
            HealthState.OK,
            "ACTIVE",
        ),
        (
            known(ROOM, replace(LEFT, connected_at=ago(152)), gone(EGRESS, end_seen=True), **WAS_LIVE),
            HealthState.DOWN,
            "DISCONNECTED",
        ),
        (known(ROOM, IDLE, STARTING), HealthState.PENDING, "WAITING_FOR_EGRESS"),
        (
            known(ROOM, IDLE, replace(EGRESS, status_since=ago(10), intended_at=ago(15))),
            HealthState.PENDING,
            "WAITING_FOR_MEDIA",
        ),
        (known(ROOM, IDLE, EGRESS), HealthState.DOWN, "NO_MEDIA"),
        (known(ROOM, IDLE, replace(HANGING, status_since=ago(9))), HealthState.PENDING, "WAITING_FOR_MEDIA"),
        (known(ROOM, IDLE, HANGING), HealthState.DOWN, "NOT_CONNECTED"),
        (
            known(ROOM, replace(STREAM, status=StreamStatus.IDLE), gone(EGRESS, end_seen=True), **WAS_LIVE),
            HealthState.DOWN,
            "NO_ENCODER",
        ),
    ],
)
def test_the_ingest(facts: Facts, state: HealthState, reason: str) -> None:
    assert said(facts, ChainPart.INGEST) == (state, reason)


def encoder(stream: Stream) -> list[tuple[str, datetime | None]]:
    part = health(known(ROOM, stream, EGRESS, **WAS_LIVE)).part(ChainPart.INGEST)
    return [(each.value, each.time) for each in part.evidence if each.name == "encoder_connected"]


def test_that_an_encoder_is_connected_is_told_with_its_time_until_a_look_contradicts_it() -> None:
    there = replace(STREAM, connected=True, connected_at=ago(100), heard_at=ago(50))
    assert encoder(there) == [("yes", ago(100))]
    assert encoder(replace(there, silent_at=ago(110))) == [("yes", ago(100))]
    # Mux says that it is idle until media arrive.
    assert encoder(replace(there, fed_at=ago(110), silent_at=ago(90))) == [("yes", ago(100))]
    assert encoder(replace(there, fed_at=ago(60), silent_at=ago(30))) == []
    assert encoder(replace(there, connected=False)) == [("no", ago(100))]
    assert encoder(replace(there, connected=False, connected_at=ago(300))) == []
    assert encoder(replace(there, connected_at=None)) == []


OVER: dict[str, Any] = {"target": Target.ENDED, "end_reason": EndReason.STOPPED, **WAS_LIVE}
LOCAL = LocalRecording(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="EG_F",
    intended_at=ago(60),
    changed_at=ago(60),
    observed_at=ago(5),
    file="show/0.mp4",
    status=EgressStatus.ACTIVE,
)
UNWRITTEN = gone(LOCAL, status=EgressStatus.FAILED, end_seen=True, error="access denied", failures=5)
RECORDED = Fallback(modes=(FallbackMode.LOCAL_RECORDING,), reason=FallbackReason.EGRESS_FAILING, since=ago(70))


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (live(), HealthState.OK, "RECORDING"),
        (live(spec=Spec(recording_policy=RecordingPolicy.DISCARD)), HealthState.IDLE, "DISCARDED"),
        (known(EMPTY, IDLE), HealthState.IDLE, "NONE"),
        (known(gone(STREAM, recordings=(KEPT,)), **OVER), HealthState.OK, "READY"),
        (
            known(gone(STREAM, recordings=(KEPT, Recording(asset_id="AS2"))), **OVER),
            HealthState.PENDING,
            "PREPARING",
        ),
        (
            known(gone(STREAM, recordings=(KEPT, replace(KEPT, status=RecordingStatus.ERRORED))), **OVER),
            HealthState.DOWN,
            "ERRORED",
        ),
        (known(gone(STREAM), **OVER), HealthState.IDLE, "OVER"),
        (known(ROOM, IDLE, LOCAL, **WAS_LIVE), HealthState.OK, "LOCAL_RECORDING"),
        (
            known(ROOM, IDLE, replace(LOCAL, status=EgressStatus.STARTING), **WAS_LIVE),
            HealthState.PENDING,
            "LOCAL_STARTING",
        ),
        (
            known(ROOM, IDLE, replace(LOCAL, status=EgressStatus.FAILED), **WAS_LIVE),
            HealthState.DOWN,
            "LOCAL_FAILED",
        ),
        (
            known(replace(ROOM, missing={LOCAL.external_id: ago(10)}), IDLE, LOCAL, **WAS_LIVE),
            HealthState.DEGRADED,
            "NOT_IN_ROOM",
        ),
        (
            known(ROOM, IDLE, replace(LOCAL, phase=Phase.DELETING, fault=Fault.GHOST), **WAS_LIVE),
            HealthState.DOWN,
            "GHOST",
        ),
        (known(ROOM, IDLE, UNWRITTEN, **WAS_LIVE, fallback=RECORDED), HealthState.DOWN, "LOCAL_FAILED"),
        (known(ROOM, IDLE, UNWRITTEN, **WAS_LIVE), HealthState.IDLE, "NONE"),
        (
            known(ROOM, IDLE, UNWRITTEN, **WAS_LIVE, fallback=replace(RECORDED, since=ago(10))),
            HealthState.IDLE,
            "NONE",
        ),
        (
            known(ROOM, IDLE, replace(UNWRITTEN, status=EgressStatus.COMPLETE), **WAS_LIVE, fallback=RECORDED),
            HealthState.IDLE,
            "NONE",
        ),
        (
            known(ROOM, IDLE, UNWRITTEN, replace(LOCAL, ordinal=1), **WAS_LIVE, fallback=RECORDED),
            HealthState.OK,
            "LOCAL_RECORDING",
        ),
        (known(replace(LOCAL, phase=Phase.DELETING, failures=2), **OVER), HealthState.DOWN, "STOP_FAILED"),
    ],
)
def test_the_recording(facts: Facts, state: HealthState, reason: str) -> None:
    assert said(facts, ChainPart.RECORDING) == (state, reason)


PLACES = Spec(
    destinations=(
        Destination(name="one", url="rtmps://a.example/app"),
        Destination(name="two", url="rtmps://b.example/app", carrier=Carrier.STREAM),
    )
)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (DestinationState.ACTIVE, HealthState.OK),
        (DestinationState.CONNECTING, HealthState.PENDING),
        (DestinationState.FAILED, HealthState.DOWN),
        (DestinationState.STOPPED, HealthState.DOWN),
        (DestinationState.IDLE, HealthState.IDLE),
    ],
)
def test_each_destination(state: DestinationState, told: HealthState) -> None:
    statuses = (
        DestinationStatus(name="one", state=state, message="it says so"),
        DestinationStatus(name="two", state=DestinationState.ACTIVE),
    )
    facts = live(spec=PLACES, status={"destinations": statuses})
    one, two = (each for each in health(facts).parts if each.part is ChainPart.DESTINATION)
    assert (one.name, one.state, one.message) == ("one", told, "it says so")
    assert (two.name, two.state) == ("two", HealthState.OK)
    # The show goes on without it.
    expected = {HealthState.DOWN: HealthState.DEGRADED, HealthState.IDLE: HealthState.OK}
    assert health(facts).overall is expected.get(told, told)


def test_a_destination_by_mux_rests_on_what_was_seen_of_the_live_stream() -> None:
    statuses = tuple(DestinationStatus(name=name, state=DestinationState.ACTIVE) for name in ("one", "two"))
    old = replace(STREAM, observed_at=ago(31))
    facts = known(ROOM, old, EGRESS, **WAS_LIVE, spec=PLACES, status={"destinations": statuses})
    facts = replace(facts, looked_at={"livekit": ago(3)})
    one, two = (each for each in health(facts).parts if each.part is ChainPart.DESTINATION)
    assert (one.state, two.state) == (HealthState.OK, HealthState.UNKNOWN)


def test_viewers_in_the_room_are_counted() -> None:
    fallback = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=ago(60))
    facts = known(ROOM, IDLE, **WAS_LIVE, fallback=fallback, spec=Spec(max_webrtc_viewers=3))
    assert said(replace(facts, viewers=2), ChainPart.VIEWERS) == (HealthState.OK, "IN_THE_ROOM")
    assert said(replace(facts, viewers=3), ChainPart.VIEWERS) == (HealthState.DEGRADED, "ROOM_FULL")
    assert said(facts, ChainPart.PLAYBACK) == (HealthState.DEGRADED, "DIRECT_WEBRTC")


def test_publishers_are_told_with_what_their_browsers_report() -> None:
    [publisher] = health(replace(live(), stats=reported(Quality.POOR))).publishers
    assert (publisher.seen.identity, publisher.quality) == ("ann", Quality.POOR)
    assert publisher.reported is not None
    assert publisher.reported.stats.packet_loss_ratio == 0.2
    # Half a minute later nobody knows.
    [publisher] = health(replace(live(), stats=reported(Quality.POOR, age_s=31))).publishers
    assert (publisher.quality, publisher.reported) == (Quality.UNKNOWN, None)
    assert health(live(probe=replace(PROBE, people_at=ago(31)))).publishers == ()


MANUAL = Spec(delivery_policy=DeliveryPolicy.MANUAL)
JUST_NOW = {"intended_at": ago(60), "changed_at": ago(5)}


@pytest.mark.parametrize(
    ("facts", "action", "time"),
    [
        (known(target=Target.CREATED, start_time=None, ready_time=None), "NONE", None),
        (known(ready_time=None), "CREATE_ROOM", None),
        (known(EMPTY, IDLE, probe=NOTHING), "WAIT_FOR_HOST", ago(20) + seconds(1800)),
        (known(EMPTY, STREAM, EGRESS, **WAS_LIVE), "WAIT_FOR_HOST", ago(20) + seconds(300)),
        (known(ROOM, IDLE), "START_EGRESS", None),
        (known(ROOM, IDLE, STARTING), "WAIT_FOR_EGRESS", ago(10) + seconds(60)),
        (
            known(ROOM, IDLE, replace(EGRESS, status_since=ago(10), intended_at=ago(15))),
            "WAIT_FOR_MEDIA",
            ago(10) + seconds(75),
        ),
        (
            known(ROOM, IDLE, gone(EGRESS, external_id="", end_seen=True, fault=Fault.UNAVAILABLE, retry_at=ago(-7))),
            "RETRY",
            ago(-7),
        ),
        # The second that failed within the window.
        (
            known(
                ROOM, IDLE, *(gone(EGRESS, ordinal=n, end_seen=True, fault=Fault.FAILED, **JUST_NOW) for n in (0, 1))
            ),
            "RETRY",
            ago(5) + seconds(TIMING.starts_backoff_s),
        ),
        (
            known(
                ROOM,
                IDLE,
                *(
                    gone(
                        EGRESS,
                        ordinal=n,
                        end_seen=True,
                        fault=Fault.FAILED,
                        intended_at=ago(64 - n),
                        changed_at=ago(700),
                    )
                    for n in range(5)
                ),
            ),
            "START_EGRESS",
            ago(64) + seconds(600),
        ),
        (live(), "END_BROADCAST", T0 + seconds(60 + 43_200)),
        (known(ROOM, IDLE, spec=MANUAL), "WAIT_FOR_ON_AIR", None),
        (known(ROOM, IDLE, **IDLES), "WAIT_FOR_VIEWER", None),
        (known(ROOM, IDLE, **SERVES), "START_EGRESS", None),
        (live(**SERVES), "STOP_EGRESS", ago(4) + seconds(60)),
        (live(**{**SERVES, "watching": NO_VIEWER}), "SET_DELIVERY", None),
        (
            known(replace(ROOM, phase=Phase.INTENDED, failures=2, retry_at=ago(-4)), IDLE),
            "RETRY",
            ago(-4),
        ),
        (known(EMPTY, IDLE, target=Target.ENDED, end_reason=EndReason.STOPPED), "DELETE_ROOM", None),
        (known(gone(STREAM, recordings_settled=True), **OVER), "NONE", None),
    ],
)
def test_what_happens_next(facts: Facts, action: str, time: Any) -> None:
    told = health(facts).next_action
    assert (told.action, told.time) == (action, time), told
    assert told.message


def test_a_turn_of_the_budget_is_told() -> None:
    facts = known(ROOM, IDLE, turn_at=ago(-9))
    told = health(facts).next_action
    assert (told.action, told.time) == ("START_EGRESS", ago(-9))
    assert "rate limit" in told.message


@pytest.mark.parametrize("make", [live, lambda: known(EMPTY, IDLE), lambda: known(gone(STREAM), **OVER)])
def test_asking_later_tells_the_same_but_for_what_grows_old(make: Callable[[], Facts]) -> None:
    facts = make()
    assert health(facts).next_action == health(replace(facts, now=NOW + seconds(2))).next_action
