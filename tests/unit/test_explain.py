"""Why a broadcast is in its state: every code is the first cause of facts that show it, and of none that do not."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broadcast_client.ctl.program import parse
from service.api.messages.commands import override_command
from service.domain.broadcast import (
    Carrier,
    Destination,
    DestinationState,
    DestinationStatus,
    EndReason,
    Fallback,
    FallbackMode,
    PassFault,
    PlaybackPolicy,
    ProviderTrouble,
    Spec,
    State,
    Target,
    seconds,
)
from service.domain.cost.money import CostCap, CostLevel
from service.domain.errors import Outcome
from service.domain.explain.causes import Blame, CauseCode
from service.domain.explain.consequences import CONSEQUENCES
from service.domain.explain.explain import Explanation, explain
from service.domain.facts import Facts
from service.domain.measurements import Quality, Unseen
from service.domain.provider import Provider
from service.domain.reasons import EventReason, FallbackReason, Fault, Operation
from service.domain.resources import (
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    StreamStatus,
    Upload,
)
from tests.unit.health_facts import (
    CAMERA,
    EGRESS,
    EMPTY,
    IDLE,
    MICROPHONE,
    NOW,
    PLAYING,
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
    told,
)
from tests.unit.situations import IDLES, INTERRUPTED, MANUAL, NOBODY, NOTHING, SERVES, STARTED, UNANSWERED

NOT_STARTED = replace(UNANSWERED, phase=Phase.GONE, end_seen=True)


def trouble(provider: str, operation: str, outcome: Outcome, code: str = "", message: str = "so it says") -> Any:
    return {
        "last_error": ProviderTrouble(
            provider=Provider(provider),
            operation=Operation(operation),
            code=code or outcome,
            message=message,
            retryable=True,
            time=ago(10),
            outcome=outcome,
        )
    }


def dark(*resources: Any, story: Any = (), **fields: Any) -> Facts:
    """Was live, and viewers see nothing any more since 20 s."""
    return known(*resources, **WAS_LIVE, story=(*INTERRUPTED, *story), **fields)


def ended(fault: Fault, **changes: Any) -> Any:
    return gone(EGRESS, **{"end_seen": True, "fault": fault, "error": "so it says", **changes})


def over(reason: EndReason, *resources: Any, **fields: Any) -> Facts:
    stopped = told(EventReason.ENDING, 8, reason)
    given: dict[str, Any] = {"target": Target.ENDED, "end_reason": reason, "story": (stopped,), **fields}
    return known(*resources, **given)


def at_rest(*resources: Any) -> tuple[Any, ...]:
    return tuple(gone(resource, end_seen=True) if resource is EGRESS else gone(resource) for resource in resources)


@dataclass(frozen=True)
class Case:
    code: str
    facts: Facts
    without: Facts
    """The same but for what the cause rests on: it is not named then."""
    below: tuple[str, ...] = ()
    """Causes that are found too, in this order."""


CAPPED = Spec(cost_cap=CostCap(nanos=5_000_000_000))
LEAVING_ROOM = replace(EMPTY, phase=Phase.DELETING, failures=3)
PLACE = Destination(name="one", url="rtmps://a.example/app")
OTHER = Destination(name="two", url="rtmps://b.example/app", carrier=Carrier.STREAM)
FALLBACK = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=ago(60))
RECORDED = replace(FALLBACK, modes=(FallbackMode.LOCAL_RECORDING,))
DEAD = LocalRecording(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="EG_3",
    intended_at=ago(50),
    changed_at=ago(20),
    observed_at=ago(2),
    file="show/0.mp4",
    status=EgressStatus.ACTIVE,
    fault=Fault.GHOST,
)
FILES = tuple(
    gone(
        DEAD,
        ordinal=n,
        fault=Fault.NONE,
        status=EgressStatus.FAILED,
        end_seen=True,
        error="upload failed: access denied",
        failures=n + 1,
    )
    for n in range(2)
)
ERRORED = Recording(asset_id="AS1", status=RecordingStatus.ERRORED, message="no content")
REFUSED_PUSH = (Output(name="", state=OutputState.FAILED, message="connection refused"),)
HANGING = replace(
    EGRESS, outputs=(Output(name="", state=OutputState.CONNECTING),), delivering_since=None, status_since=ago(5)
)
WEDGED = (Output(name="", state=OutputState.FAILED, message="no outbound progress for 30s"),)
FIVE = tuple(
    gone(
        EGRESS,
        ordinal=n,
        external_id=f"EG_{n}",
        end_seen=True,
        fault=Fault.FAILED,
        intended_at=ago(300 - n),
        changed_at=ago(5000),
    )
    for n in range(5)
)
CREDENTIALS = Outcome.CREDENTIALS
EDGE = Unseen(since=ago(20), at=ago(2), code="500", message="the playback edge answers 500")


def failed_place(state: DestinationState) -> Facts:
    told_of = (DestinationStatus(name="one", state=state, message="refused"),)
    return live(spec=Spec(destinations=(PLACE, OTHER)), status={"destinations": told_of})


CASES = (
    # The host.
    Case("WAITING_FOR_HOST", known(EMPTY, IDLE, probe=NOTHING), known(ROOM, IDLE, probe=NOTHING)),
    # There is no live stream yet.
    Case("WAITING_FOR_HOST", known(EMPTY, IDLE, probe=NOTHING), known(EMPTY, probe=NOTHING, ready_time=None)),
    Case("WAITING_FOR_HOST", known(EMPTY, IDLE, spec=MANUAL, probe=NOBODY), known(ROOM, IDLE), ("NOT_ON_AIR",)),
    Case(
        "HOST_LEFT",
        dark(EMPTY, STREAM, EGRESS, probe=NOBODY, story=(told(EventReason.HOST_STOPPED, 20),)),
        dark(ROOM, replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20)), EGRESS),
    ),
    # A look of the prober that was on its way when the host left is stored after the pass that found nobody.
    Case("HOST_LEFT", replace(dark(EMPTY, STREAM, EGRESS), looked_at={}), live()),
    Case("HOST_LEFT", over(EndReason.HOST_LEFT, *at_rest(EMPTY, STREAM, EGRESS), **WAS_LIVE), known(ROOM, IDLE)),
    Case(
        "HOST_MUTED",
        live(probe=replace(PROBE, people=ann(replace(CAMERA, muted=True), MICROPHONE))),
        live(probe=replace(PROBE, people=ann(replace(CAMERA, muted=True), CAMERA, MICROPHONE))),
    ),
    Case("NO_VIDEO", live(probe=replace(PROBE, people=ann(MICROPHONE))), live()),
    Case(
        "HOST_UPLINK_POOR", replace(live(), stats=reported(Quality.POOR)), replace(live(), stats=reported(Quality.GOOD))
    ),
    Case(
        "HOST_UPLINK_POOR",
        replace(live(probe=replace(PROBE, advanced_at=ago(20), standing_since=ago(20))), stats=reported(Quality.LOST)),
        replace(
            live(probe=replace(PROBE, advanced_at=ago(20), standing_since=ago(20))),
            stats=reported(Quality.LOST, age_s=31),
        ),
        ("PLAYLIST_STALLED", "INGEST_STALLED"),
    ),
    # What callers want.
    Case("NOT_ON_AIR", known(ROOM, IDLE, spec=MANUAL), known(ROOM, IDLE, spec=MANUAL, on_air=True)),
    Case(
        "NOT_ON_AIR",
        dark(ROOM, STREAM, gone(EGRESS, end_seen=True), spec=MANUAL, story=(told(EventReason.OFF_AIR_REQUESTED, 25),)),
        dark(ROOM, STREAM, gone(EGRESS, end_seen=True), spec=MANUAL, on_air=True),
    ),
    Case("NO_VIEWER", known(ROOM, IDLE, **IDLES), known(ROOM, IDLE, **SERVES)),
    Case(
        "NO_VIEWER",
        known(ROOM, IDLE, gone(EGRESS, end_seen=True), **WAS_LIVE, **IDLES),
        known(ROOM, IDLE, gone(EGRESS, end_seen=True), **WAS_LIVE, **SERVES),
    ),
    Case("WAITING_FOR_HOST", known(EMPTY, IDLE, probe=NOBODY, **IDLES), known(ROOM, IDLE, **IDLES), ("NO_VIEWER",)),
    Case("STOPPED_BY_CALLER", over(EndReason.STOPPED, *at_rest(ROOM)), known(ROOM, IDLE)),
    # That its host is gone by now has nothing to do with it.
    Case(
        "STOPPED_BY_CALLER",
        over(EndReason.STOPPED, EMPTY, STREAM, probe=NOBODY, status={"state_time": ago(5)}, **WAS_LIVE),
        live(),
    ),
    Case("MAX_DURATION", over(EndReason.MAX_DURATION, *at_rest(ROOM), **WAS_LIVE), over(EndReason.STOPPED)),
    Case("COST_CAP", over(EndReason.COST_CAP, *at_rest(ROOM), **WAS_LIVE), over(EndReason.STOPPED)),
    Case("COST_NEAR_CAP", live(cost_level=CostLevel.NEAR, spec=CAPPED), live(spec=CAPPED)),
    Case("TEST_LIMIT", over(EndReason.TEST_LIMIT, spec=Spec(test=True)), over(EndReason.STOPPED, spec=Spec(test=True))),
    Case("NO_HOST", over(EndReason.NO_HOST, *at_rest(EMPTY)), over(EndReason.HOST_LEFT)),
    # Somebody else's hand.
    Case(
        "ROOM_LOST",
        dark(
            EMPTY,
            STREAM,
            ended(Fault.COMPLETE),
            probe=NOBODY,
            story=(told(EventReason.ROOM_LOST, 20), told(EventReason.ROOM_CREATED, 19)),
        ),
        dark(EMPTY, STREAM, ended(Fault.COMPLETE), probe=NOBODY),
        ("HOST_LEFT", "EGRESS_ENDED_UNASKED"),
    ),
    Case(
        "ROOM_FORGOTTEN",
        dark(replace(EMPTY, host_publishing=None, forgotten_at=ago(15), absent_since=ago(20)), STREAM, probe=NOBODY),
        dark(replace(EMPTY, host_publishing=None, absent_since=ago(20)), STREAM, probe=NOBODY),
        ("ROOM_LOST",),
    ),
    Case(
        "ROOM_FORGOTTEN",
        over(EndReason.STOPPED, replace(LEAVING_ROOM, forgotten_at=ago(15)), state=State.STOPPING),
        over(EndReason.STOPPED, LEAVING_ROOM, state=State.STOPPING),
        ("TAKE_DOWN_BLOCKED", "STOPPED_BY_CALLER"),
    ),
    Case(
        "STREAM_DISABLED_OUTSIDE",
        over(EndReason.STREAM_DISABLED, *at_rest(ROOM, STREAM, EGRESS), **WAS_LIVE),
        over(EndReason.STREAM_LOST, *at_rest(ROOM, STREAM, EGRESS), **WAS_LIVE),
    ),
    Case(
        "STREAM_DISABLED_OUTSIDE",
        dark(ROOM, replace(STREAM, status=StreamStatus.DISABLED), ended(Fault.FAILED, outputs=REFUSED_PUSH)),
        dark(
            ROOM, replace(STREAM, status=StreamStatus.DISABLED, cutting=True), ended(Fault.FAILED, outputs=REFUSED_PUSH)
        ),
        ("RTMP_REFUSED",),
    ),
    Case(
        "STREAM_DELETED_OUTSIDE",
        over(EndReason.STREAM_LOST, *at_rest(ROOM, STREAM, EGRESS), **WAS_LIVE),
        over(EndReason.STREAM_DISABLED, *at_rest(ROOM, STREAM, EGRESS), **WAS_LIVE),
    ),
    Case(
        "KEY_RESET_OUTSIDE",
        dark(
            ROOM,
            replace(STREAM, key_epoch=1, key_reset_at=ago(30)),
            ended(Fault.FAILED, outputs=REFUSED_PUSH),
            story=(told(EventReason.KEY_RESET_OUTSIDE, 30), told(EventReason.EGRESS_ENDED, 10)),
        ),
        dark(
            ROOM,
            replace(STREAM, key_epoch=1, key_reset_at=ago(30)),
            ended(Fault.FAILED, outputs=REFUSED_PUSH),
            story=(told(EventReason.KEY_RESET, 29), told(EventReason.EGRESS_ENDED, 10)),
        ),
        ("RTMP_REFUSED",),
    ),
    # The egress.
    Case(
        "EGRESS_REFUSED",
        known(
            ROOM,
            IDLE,
            replace(NOT_STARTED, refused=True, error="invalid layout"),
            status=trouble("livekit", "StartRoomCompositeEgress", Outcome.REFUSED),
        ),
        known(ROOM, IDLE, STARTED),
    ),
    Case(
        "EGRESS_QUOTA",
        known(ROOM, IDLE, NOT_STARTED, status=trouble("livekit", "StartRoomCompositeEgress", Outcome.THROTTLED)),
        known(ROOM, IDLE, STARTED, status=trouble("livekit", "ListEgress", Outcome.THROTTLED)),
    ),
    Case(
        "EGRESS_NO_WORKER",
        known(
            ROOM,
            IDLE,
            replace(UNANSWERED, error="twirp error unknown: no response from servers"),
            status=trouble("livekit", "StartRoomCompositeEgress", Outcome.AMBIGUOUS, "unavailable"),
        ),
        known(ROOM, IDLE, replace(UNANSWERED, error="no answer in time")),
    ),
    Case(
        # By its code: LiveKit has other words for the same.
        "EGRESS_NO_WORKER",
        known(
            ROOM,
            IDLE,
            replace(UNANSWERED, fault=Fault.UNAVAILABLE, error="no servers available (received 2 responses)"),
            status=trouble("livekit", "StartRoomCompositeEgress", Outcome.UNAVAILABLE, "unavailable"),
        ),
        known(
            ROOM,
            IDLE,
            replace(UNANSWERED, error="no response from servers"),
            status=trouble("livekit", "StartRoomCompositeEgress", Outcome.AMBIGUOUS, "internal"),
        ),
    ),
    Case(
        # While LiveKit looks for one, for 22 s and longer.
        "EGRESS_NO_WORKER",
        known(ROOM, IDLE, replace(UNANSWERED, phase=Phase.INTENDED, failures=0, intended_at=ago(6))),
        known(ROOM, IDLE, replace(UNANSWERED, phase=Phase.INTENDED, failures=0, intended_at=ago(3))),
    ),
    Case(
        # And the next is being called.
        "EGRESS_NO_WORKER",
        known(
            ROOM,
            IDLE,
            replace(NOT_STARTED, fault=Fault.UNAVAILABLE),
            replace(UNANSWERED, ordinal=1, phase=Phase.INTENDED, failures=0, intended_at=ago(4)),
        ),
        known(
            ROOM,
            IDLE,
            replace(NOT_STARTED, fault=Fault.UNAVAILABLE),
            replace(STARTED, ordinal=1),
        ),
    ),
    Case(
        "EGRESS_START_LOST",
        known(
            ROOM,
            IDLE,
            replace(UNANSWERED, error="no answer in time"),
            status=trouble("livekit", "StartRoomCompositeEgress", Outcome.AMBIGUOUS, "timeout"),
        ),
        known(ROOM, IDLE, STARTED),
    ),
    Case(
        # The process died between the intent and its record.
        "EGRESS_START_LOST",
        known(ROOM, IDLE, replace(UNANSWERED, phase=Phase.INTENDED, failures=0, intended_at=ago(31))),
        known(ROOM, IDLE, replace(UNANSWERED, phase=Phase.INTENDED, failures=0, intended_at=ago(1))),
    ),
    Case(
        # It was written off: no list ever showed it.
        "EGRESS_START_LOST",
        known(ROOM, IDLE, replace(NOT_STARTED, failures=0, end_seen=False, fault=Fault.START_LOST)),
        known(ROOM, IDLE, replace(NOT_STARTED, failures=0, end_seen=True, fault=Fault.NONE)),
    ),
    Case("EGRESS_START_STUCK", known(ROOM, IDLE, replace(STARTED, intended_at=ago(31))), known(ROOM, IDLE, STARTED)),
    Case(
        "EGRESS_START_STUCK",
        known(ROOM, IDLE, ended(Fault.START_TIMEOUT, status=EgressStatus.ABORTED)),
        known(ROOM, IDLE, ended(Fault.NONE, status=EgressStatus.ABORTED)),
    ),
    Case("EGRESS_FAILED", dark(ROOM, STREAM, ended(Fault.FAILED)), dark(ROOM, STREAM, ended(Fault.NONE))),
    Case(
        # The next one is on its way.
        "EGRESS_FAILED",
        dark(ROOM, STREAM, ended(Fault.FAILED), replace(STARTED, ordinal=1)),
        dark(ROOM, IDLE, ended(Fault.FAILED, changed_at=ago(300)), replace(STARTED, ordinal=1)),
    ),
    Case(
        # The room was lost before, and is there again: that one started in it.
        "EGRESS_FAILED",
        dark(
            ROOM,
            STREAM,
            ended(Fault.FAILED, intended_at=ago(12)),
            story=(told(EventReason.ROOM_LOST, 20), told(EventReason.ROOM_CREATED, 19)),
        ),
        dark(
            ROOM,
            STREAM,
            ended(Fault.NONE, intended_at=ago(12)),
            story=(told(EventReason.ROOM_LOST, 20), told(EventReason.ROOM_CREATED, 19)),
        ),
    ),
    Case("EGRESS_FAILED", over(EndReason.EGRESS_FAILED, *at_rest(ROOM, STREAM), ended(Fault.FAILED)), live()),
    Case("EGRESS_ABORTED", known(ROOM, IDLE, ended(Fault.ABORTED)), known(ROOM, IDLE, ended(Fault.NONE))),
    Case("EGRESS_ENDED_UNASKED", dark(ROOM, STREAM, ended(Fault.COMPLETE)), dark(ROOM, STREAM, ended(Fault.NONE))),
    Case(
        "EGRESS_LIMIT_REACHED", dark(ROOM, STREAM, ended(Fault.LIMIT_REACHED)), dark(ROOM, STREAM, ended(Fault.FAILED))
    ),
    Case("EGRESS_LOST", dark(ROOM, STREAM, ended(Fault.LOST)), dark(ROOM, STREAM, ended(Fault.FAILED))),
    Case(
        "EGRESS_GHOST",
        dark(
            ROOM,
            replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20)),
            replace(EGRESS, phase=Phase.DELETING, changed_at=ago(15), failures=2, fault=Fault.INGEST_LOST),
        ),
        dark(
            ROOM,
            replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20)),
            replace(EGRESS, phase=Phase.DELETING, changed_at=ago(15), acked=True, fault=Fault.INGEST_LOST),
        ),
        ("INGEST_STALLED",),
    ),
    Case(
        "EGRESS_GHOST",
        dark(ROOM, STREAM, gone(EGRESS, fault=Fault.INGEST_LOST, end_seen=False), replace(STARTED, ordinal=1)),
        dark(ROOM, STREAM, gone(EGRESS, fault=Fault.INGEST_LOST, end_seen=True), replace(STARTED, ordinal=1)),
        ("INGEST_STALLED",),
    ),
    Case(
        "EGRESS_GHOST",
        dark(ROOM, STREAM, replace(EGRESS, phase=Phase.DELETING, changed_at=ago(15), fault=Fault.GHOST)),
        dark(ROOM, STREAM, replace(EGRESS, phase=Phase.DELETING, changed_at=ago(15), fault=Fault.DISCONNECTED)),
    ),
    Case(
        "LOCAL_RECORDING_LOST",
        known(
            *PLAYING,
            gone(DEAD),
            replace(DEAD, ordinal=1, external_id="EG_4", fault=Fault.NONE),
            fallback=RECORDED,
            **WAS_LIVE,
        ),
        known(*PLAYING, gone(DEAD, end_seen=True, status=EgressStatus.COMPLETE), fallback=RECORDED, **WAS_LIVE),
        ("FALLBACK_ACTIVE",),
    ),
    Case(
        "LOCAL_RECORDING_LOST",
        known(*PLAYING, replace(DEAD, phase=Phase.DELETING), fallback=RECORDED, **WAS_LIVE),
        # Of a fallback before this one.
        known(*PLAYING, replace(DEAD, phase=Phase.DELETING, intended_at=ago(500)), fallback=RECORDED, **WAS_LIVE),
        ("FALLBACK_ACTIVE",),
    ),
    Case(
        "RTMP_REFUSED",
        known(ROOM, IDLE, ended(Fault.FAILED, outputs=REFUSED_PUSH)),
        known(ROOM, IDLE, ended(Fault.FAILED)),
    ),
    Case(
        "RTMP_REFUSED",
        known(ROOM, IDLE, replace(EGRESS, outputs=REFUSED_PUSH, delivering_since=None, intended_at=ago(20))),
        known(ROOM, IDLE, replace(EGRESS, delivering_since=ago(5), intended_at=ago(20), status_since=ago(10))),
    ),
    Case(
        "RTMP_LOST",
        dark(ROOM, STREAM, ended(Fault.FAILED, outputs=REFUSED_PUSH), story=(told(EventReason.EGRESS_CONNECTED, 400),)),
        dark(ROOM, STREAM, ended(Fault.FAILED, outputs=REFUSED_PUSH)),
    ),
    Case(
        "RTMP_NOT_CONNECTED",
        known(ROOM, IDLE, replace(HANGING, status_since=ago(11))),
        known(ROOM, IDLE, replace(HANGING, status_since=ago(9))),
    ),
    Case(
        "RTMP_NOT_CONNECTED",
        known(ROOM, IDLE, ended(Fault.NOT_CONNECTED, outputs=REFUSED_PUSH), replace(HANGING, ordinal=1)),
        known(ROOM, IDLE, ended(Fault.NO_MEDIA), replace(HANGING, ordinal=1, status_since=ago(1))),
    ),
    Case("NO_MEDIA", known(ROOM, IDLE, ended(Fault.NO_MEDIA)), known(ROOM, IDLE, ended(Fault.FAILED))),
    Case("NO_MEDIA", known(ROOM, IDLE, EGRESS), known(ROOM, IDLE, replace(EGRESS, status_since=ago(10)))),
    Case("INGEST_STALLED", dark(ROOM, STREAM, ended(Fault.INGEST_LOST)), dark(ROOM, STREAM, ended(Fault.NO_MEDIA))),
    Case(
        "INGEST_STALLED",
        dark(
            ROOM,
            replace(STREAM, connected=False, connected_at=ago(20)),
            EGRESS,
            probe=replace(PROBE, advanced_at=ago(20), standing_since=ago(20)),
        ),
        dark(ROOM, replace(STREAM, connected=True, heard_at=ago(20)), ended(Fault.FAILED)),
        ("PLAYLIST_STALLED",),
    ),
    Case(
        "INGEST_STALLED",
        dark(ROOM, STREAM, ended(Fault.FAILED, outputs=WEDGED)),
        dark(ROOM, STREAM, ended(Fault.FAILED, outputs=REFUSED_PUSH)),
    ),
    Case(
        "PLAYLIST_STALLED",
        live(probe=replace(PROBE, advanced_at=ago(20), standing_since=ago(20))),
        live(probe=replace(PROBE, advanced_at=ago(8), standing_since=ago(8))),
        # Until Mux's reconnect window is over nobody can tell the two apart.
        ("INGEST_STALLED",),
    ),
    Case(
        "PLAYBACK_UNREACHABLE",
        live(probe=replace(PROBE, unseen=EDGE)),
        live(probe=replace(PROBE, unseen=replace(EDGE, since=EDGE.at))),
    ),
    Case("PLAYLIST_STALLED", live(probe=replace(PROBE, advanced_at=ago(200), standing_since=ago(200))), live()),
    Case(
        # Listed as active, and two looks did not find it in the room: told before it is given up.
        "EGRESS_GHOST",
        known(replace(ROOM, missing={"EG_1": ago(5)}), STREAM, EGRESS, **WAS_LIVE),
        known(replace(ROOM, missing={"EG_1": ago(2)}), STREAM, EGRESS, **WAS_LIVE),
    ),
    Case(
        # No other rule says why: the worst part of its health is told.
        "UNEXPLAINED",
        dark(ROOM, STREAM, replace(EGRESS, status=EgressStatus.ENDING)),
        dark(ROOM, STREAM, ended(Fault.FAILED)),
    ),
    Case("UNEXPLAINED", over(EndReason.PROVIDER_REFUSED, gone(ROOM)), over(EndReason.STOPPED, gone(ROOM))),
    Case("START_LIMIT", known(ROOM, IDLE, *FIVE), known(ROOM, IDLE, *FIVE[:4])),
    Case("DESTINATION_FAILED", failed_place(DestinationState.FAILED), failed_place(DestinationState.CONNECTING)),
    Case("DESTINATION_STOPPED", failed_place(DestinationState.STOPPED), failed_place(DestinationState.FAILED)),
    Case(
        "FALLBACK_ACTIVE",
        live(fallback=FALLBACK),
        live(fallback=Fallback(reason=FallbackReason.RETURNED, since=ago(60))),
    ),
    Case("RECORDING_ERRORED", live(status={"recordings": (ERRORED,)}), live()),
    # What is over ended of something else.
    *(
        Case(
            code,
            over(reason, gone(STREAM, recordings=(ERRORED,)), **WAS_LIVE),
            over(other, gone(STREAM, recordings=(ERRORED,)), **WAS_LIVE),
            ("RECORDING_ERRORED",),
        )
        for code, reason, other in (
            ("STOPPED_BY_CALLER", EndReason.STOPPED, EndReason.EGRESS_FAILED),
            ("EGRESS_FAILED", EndReason.EGRESS_FAILED, EndReason.STOPPED),
            ("START_TIMEOUT", EndReason.START_TIMEOUT, EndReason.STOPPED),
            ("HOST_LEFT", EndReason.HOST_LEFT, EndReason.STOPPED),
        )
    ),
    Case(
        "LOCAL_RECORDING_FAILED",
        known(ROOM, IDLE, *FILES, fallback=RECORDED),
        known(ROOM, IDLE, *FILES, replace(DEAD, ordinal=2, external_id="EG_6", fault=Fault.NONE), fallback=RECORDED),
        ("FALLBACK_ACTIVE",),
    ),
    Case(
        # The next one is on its way.
        "LOCAL_RECORDING_FAILED",
        known(
            ROOM,
            IDLE,
            *FILES,
            replace(DEAD, ordinal=2, fault=Fault.NONE, status=EgressStatus.STARTING),
            fallback=RECORDED,
        ),
        # Of a fallback before this one.
        known(ROOM, IDLE, *FILES, fallback=replace(RECORDED, since=ago(5))),
        ("FALLBACK_ACTIVE",),
    ),
    # The providers.
    Case("LIVEKIT_UNREACHABLE", live(availability=away("livekit")), live(availability=away("mux"))),
    Case(
        "LIVEKIT_UNREACHABLE",
        known(
            replace(ROOM, phase=Phase.UNKNOWN, failures=1),
            IDLE,
            ready_time=None,
            status=trouble("livekit", "CreateRoom", Outcome.AMBIGUOUS, "timeout"),
        ),
        known(replace(ROOM, phase=Phase.UNKNOWN, failures=1), IDLE, ready_time=None),
    ),
    Case(
        "LIVEKIT_CREDENTIALS",
        known(ready_time=None, status=trouble("livekit", "CreateRoom", CREDENTIALS, "unknown")),
        known(ready_time=None, status=trouble("livekit", "CreateRoom", Outcome.AMBIGUOUS, "unknown")),
    ),
    Case(
        "LIVEKIT_CREDENTIALS",
        known(
            ROOM,
            IDLE,
            NOT_STARTED,
            status=trouble("livekit", "StartRoomCompositeEgress", CREDENTIALS, "unauthenticated"),
        ),
        known(ROOM, IDLE, NOT_STARTED, status=trouble("livekit", "StartRoomCompositeEgress", Outcome.THROTTLED)),
    ),
    Case(
        "LIVEKIT_THROTTLED",
        known(ready_time=None, status=trouble("livekit", "CreateRoom", Outcome.THROTTLED, "resource_exhausted")),
        known(ready_time=None),
    ),
    Case(
        "LIVEKIT_REFUSED",
        over(
            EndReason.PROVIDER_REFUSED,
            gone(ROOM, refused=True),
            ready_time=None,
            status=trouble("livekit", "CreateRoom", Outcome.REFUSED),
        ),
        over(EndReason.STOPPED, gone(ROOM, refused=True), status=trouble("livekit", "CreateRoom", Outcome.REFUSED)),
    ),
    Case("MUX_UNREACHABLE", live(availability=away("mux")), live(availability=away("livekit"))),
    Case(
        "MUX_UNREACHABLE",
        over(EndReason.START_TIMEOUT, ready_time=None, status=trouble("mux", "create", Outcome.UNAVAILABLE, "503")),
        over(EndReason.START_TIMEOUT, ready_time=None),
        ("START_TIMEOUT",),
    ),
    Case(
        "MUX_UNREACHABLE",
        over(EndReason.STREAMS_UNREACHABLE, *at_rest(ROOM), **WAS_LIVE),
        over(EndReason.EGRESS_FAILED, *at_rest(ROOM), **WAS_LIVE),
    ),
    Case(
        "MUX_UNREACHABLE",
        live(availability=away("mux"), fallback=replace(FALLBACK, reason=FallbackReason.STREAMS_UNREACHABLE)),
        live(),
        ("FALLBACK_ACTIVE",),
    ),
    Case(
        "MUX_CREDENTIALS",
        known(ready_time=None, availability=away("mux", "401")),
        known(ready_time=None, availability=away("mux")),
    ),
    Case(
        "MUX_CREDENTIALS",
        known(ready_time=None, status=trouble("mux", "create", CREDENTIALS, "403")),
        known(ready_time=None, status=trouble("mux", "create", Outcome.AMBIGUOUS, "502")),
    ),
    Case(
        "MUX_THROTTLED",
        known(ready_time=None, status=trouble("mux", "create", Outcome.THROTTLED, "429")),
        known(ready_time=None, status=trouble("mux", "create", Outcome.AMBIGUOUS, "500")),
    ),
    Case(
        "MUX_REFUSED",
        over(
            EndReason.PROVIDER_REFUSED,
            gone(IDLE, refused=True, external_id=""),
            ready_time=None,
            status=trouble("mux", "create", Outcome.REFUSED, "400"),
        ),
        over(EndReason.START_TIMEOUT, ready_time=None),
    ),
    # Ourselves.
    Case(
        "START_TIMEOUT",
        over(EndReason.START_TIMEOUT, gone(IDLE, external_id=""), ready_time=None),
        over(EndReason.STOPPED, gone(IDLE, external_id=""), ready_time=None),
    ),
    Case(
        "WAITING_FOR_BUDGET",
        known(replace(ROOM, changed_at=ago(3)), ready_time=None, turn_at=ago(-30)),
        known(replace(ROOM, changed_at=ago(3)), ready_time=None, turn_at=ago(1)),
    ),
    Case(
        "TAKE_DOWN_BLOCKED",
        over(EndReason.STOPPED, replace(STREAM, failures=3, retry_at=ago(-10)), **WAS_LIVE),
        over(EndReason.STOPPED, STREAM, status={"state_time": ago(5)}, **WAS_LIVE),
        ("STOPPED_BY_CALLER",),
    ),
    Case(
        "TAKE_DOWN_BLOCKED",
        over(EndReason.STOPPED, replace(STREAM, failures=3, retry_at=ago(-10)), **WAS_LIVE, availability=away("mux")),
        over(EndReason.STOPPED, gone(STREAM, failures=3), **WAS_LIVE, availability=away("mux")),
        ("MUX_UNREACHABLE", "STOPPED_BY_CALLER"),
    ),
    Case(
        "TAKE_DOWN_BLOCKED",
        over(
            EndReason.STOPPED,
            replace(STREAM, failures=3, retry_at=ago(-10)),
            **WAS_LIVE,
            status=trouble("mux", "delete", Outcome.AMBIGUOUS, "500"),
        ),
        over(
            EndReason.STOPPED,
            STREAM,
            **WAS_LIVE,
            status={"state_time": ago(5), **trouble("livekit", "UpdateStream", Outcome.AMBIGUOUS, "500")},
        ),
        ("MUX_UNREACHABLE", "STOPPED_BY_CALLER"),
    ),
    Case(
        "SERVICE_FAULT",
        live(fault=PassFault(code="CANNOT_OPEN", message="no key opens it", since=ago(9), count=2)),
        live(),
    ),
    Case(
        "SERVICE_BEHIND",
        replace(known(ready_time=None), claimable_since=ago(11)),
        replace(known(ready_time=None), claimable_since=ago(3)),
    ),
)


def explained(facts: Facts) -> Explanation:
    return explain(facts, TIMING)


def override_commands(facts: Facts) -> list[str]:
    """As the API writes them."""
    explanation = explained(facts)
    return [override_command(explanation.broadcast_id, each.intervention) for each in explanation.overrides]


def codes(facts: Facts) -> list[str]:
    return [cause.code for cause in explained(facts).causes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_the_true_cause_comes_first_and_what_follows_from_it_below(case: Case) -> None:
    assert codes(case.facts) == [case.code, *case.below]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_no_cause_without_what_it_rests_on(case: Case) -> None:
    assert case.code not in codes(case.without)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_a_cause_has_evidence_and_says_who_is_to_look_and_what_to_do(case: Case) -> None:
    [first, *_] = explained(case.facts).causes
    assert first.evidence
    assert all(each.name and each.value for each in first.evidence)
    assert first.blame in set(Blame) == {"service", "livekit", "mux", "host", "caller", "storage"}
    assert first.message[-1] not in " :"
    assert first.remedy
    summary = explained(case.facts).summary
    assert summary == f"{case.facts.broadcast.state}: {first.message}"


def test_every_code_is_shown() -> None:
    assert {case.code for case in CASES} == set(CauseCode)


def test_what_follows_from_a_cause_is_never_its_cause() -> None:
    reached: dict[CauseCode, set[CauseCode]] = {}

    def follow(code: CauseCode, path: tuple[CauseCode, ...]) -> set[CauseCode]:
        assert code not in path, (*path, code)
        if code not in reached:
            follows = CONSEQUENCES.get(code, frozenset())
            reached[code] = set[CauseCode]().union(*({each} | follow(each, (*path, code)) for each in follows))
        return reached[code]

    for code in CauseCode:
        assert code not in follow(code, ())


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (known(target=Target.CREATED, start_time=None, ready_time=None), State.CREATED),
        (known(ready_time=None), State.STARTING),
        (known(ROOM, IDLE, STARTED), State.READY),
        (live(), State.LIVE),
        # All of that is over: it plays again.
        (
            live(
                story=(
                    *INTERRUPTED,
                    told(EventReason.ROOM_LOST, 20),
                    told(EventReason.EGRESS_ENDED, 18),
                    told(EventReason.STATE_LIVE, 3),
                ),
                status=trouble("livekit", "StartRoomCompositeEgress", Outcome.AMBIGUOUS),
            ),
            State.LIVE,
        ),
        (known(ROOM, STREAM, ended(Fault.FAILED), replace(EGRESS, ordinal=1), **WAS_LIVE), State.LIVE),
        # One too many, which is no loss.
        (known(ROOM, STREAM, EGRESS, ended(Fault.FAILED, ordinal=1, external_id="EG_2"), **WAS_LIVE), State.LIVE),
        # Nobody looked yet.
        (known(replace(ROOM, host_publishing=None), IDLE, probe=NOTHING), State.READY),
    ],
)
def test_no_cause_where_nothing_is_wrong(facts: Facts, state: State) -> None:
    explanation = explained(facts)
    assert (explanation.state, explanation.causes) == (state, ())
    assert explanation.summary.startswith(f"{state}: ")


def test_viewers_see_the_show_is_said_only_of_what_was_seen() -> None:
    assert explained(live()).summary == "LIVE: Viewers see the show."
    old = replace(PROBE, playlist_at=ago(31), advanced_at=ago(31), standing_since=ago(31))
    signed = Spec(playback_policy=PlaybackPolicy.SIGNED)
    for facts in (
        live(probe=NOTHING),
        live(probe=old),
        live(probe=replace(PROBE, advanced_at=None)),
        live(probe=replace(PROBE, unseen=EDGE)),
        live(spec=signed),
    ):
        assert "Viewers see" not in explained(facts).summary
        assert "not known: " in explained(facts).summary
    assert "answers 500" in explained(live(probe=replace(PROBE, unseen=EDGE))).summary


def test_a_change_that_does_not_get_there_is_told_while_live() -> None:
    status = trouble("livekit", "UpdateStream", Outcome.UNAVAILABLE, "unavailable")
    assert codes(live(status=status)) == []
    # The egress has another layout than is wanted: what failed is not overcome.
    behind = known(ROOM, STREAM, replace(EGRESS, layout="speaker"), **WAS_LIVE, status=status, generation=2)
    assert codes(behind) == ["LIVEKIT_UNREACHABLE"]


@pytest.mark.parametrize(
    ("facts", "commands"),
    [
        (known(target=Target.CREATED, start_time=None, ready_time=None), ["start"]),
        (known(EMPTY, IDLE, probe=NOTHING), ["host-access", "wake", "stop"]),
        (known(ROOM, IDLE, spec=MANUAL), ["on-air", "wake", "stop"]),
        (live(), ["wake", "stop"]),
        (over(EndReason.STOPPED, STREAM, **WAS_LIVE), ["reap", "wake"]),
        (over(EndReason.STOPPED), []),
    ],
)
def test_the_commands_that_override(facts: Facts, commands: list[str]) -> None:
    overrides = explained(facts).overrides
    assert all(each.description for each in overrides)
    written = override_commands(facts)
    assert [shlex.split(command)[3] for command in written] == commands
    for command in written:
        program, *arguments = shlex.split(command.replace("$ADDRESS", "service:1"))
        assert program == "broadcastctl"
        # It is a command line that broadcastctl accepts.
        assert parse(arguments).target == "service:1"


def test_what_failed_is_removed_and_nothing_else() -> None:
    [command, *others] = override_commands(failed_place(DestinationState.FAILED))
    assert command == "broadcastctl --target $ADDRESS update show --remove-destination one"
    assert [shlex.split(each)[3] for each in others] == ["wake", "stop"]
    assert not any("remove" in command for command in override_commands(failed_place(DestinationState.ACTIVE)))


STUCK = (
    replace(STREAM, failures=4),
    replace(EGRESS, phase=Phase.DELETING, changed_at=ago(60), failures=2),
)


@pytest.mark.parametrize(
    ("provider", "operation", "about"), [("mux", "disable_live_stream", "LS1"), ("livekit", "StopEgress", "EG_1")]
)
def test_a_take_down_that_is_blocked_says_what_fails_whichever_call_failed_last(
    provider: str, operation: str, about: str
) -> None:
    status = trouble(provider, operation, Outcome.AMBIGUOUS, "500")
    [first, *_] = explained(over(EndReason.STOPPED, *STUCK, **WAS_LIVE, status=status)).causes
    assert first.code == "TAKE_DOWN_BLOCKED"
    assert "stream LS1 does not go, 4 calls failed" in first.message
    assert "egress EG_1 does not go, 2 calls failed" in first.message
    [said] = [each for each in first.message.split("; ") if operation in each]
    assert about in said
    assert "500 so it says" in said
    named = Provider(provider).display_name
    assert f"{named} {operation}: 500 so it says" in [each.value for each in first.evidence]


def test_what_was_uploaded_is_not_in_the_way_of_the_end() -> None:
    upload = Upload(
        ordinal=0, phase=Phase.PRESENT, external_id="AS9", intended_at=ago(50), changed_at=ago(50), failures=1
    )
    [first, *_] = explained(over(EndReason.STOPPED, *STUCK, upload, **WAS_LIVE)).causes
    assert "AS9" not in str(first)


def test_a_fallback_does_not_make_its_cause_be_forgotten() -> None:
    failed = replace(ended(Fault.FAILED), changed_at=ago(90), intended_at=ago(200))
    story = (
        told(EventReason.STATE_READY, 500),
        told(EventReason.EGRESS_ENDED, 90),
        told(EventReason.STATE_INTERRUPTED, 60),
    )
    assert codes(known(ROOM, IDLE, failed, fallback=FALLBACK, story=story)) == ["EGRESS_FAILED", "FALLBACK_ACTIVE"]
    # That one was replaced, and viewers saw the show after it.
    played = (*story, told(EventReason.STATE_LIVE, 50), told(EventReason.STATE_INTERRUPTED, 20))
    assert codes(known(ROOM, IDLE, failed, fallback=FALLBACK, story=played, **WAS_LIVE)) == ["FALLBACK_ACTIVE"]


FAILS_ONCE: list[tuple[str, Any]] = [
    ("it was seen to end", ended(Fault.FAILED)),
    ("it was stopped, for no media of it arrived", replace(EGRESS, phase=Phase.DELETING, fault=Fault.NO_MEDIA)),
    ("it was stopped, for media did not arrive any more", ended(Fault.INGEST_LOST)),
    ("it was written off", gone(EGRESS, fault=Fault.GHOST, end_seen=False)),
]
CALLED = replace(UNANSWERED, ordinal=1, phase=Phase.INTENDED, failures=0, intended_at=ago(1))
CONNECTED = replace(EGRESS, ordinal=1, external_id="EG_2", intended_at=ago(9), status_since=ago(5))
STAGES: list[tuple[Any, ...]] = [
    (),
    (CALLED,),
    (replace(STARTED, ordinal=1, external_id="EG_2"),),
    (replace(HANGING, ordinal=1, external_id="EG_2", intended_at=ago(9)),),
    (replace(CONNECTED, delivering_since=ago(3)),),
]


@pytest.mark.parametrize(("how", "failed"), FAILS_ONCE, ids=lambda value: value if isinstance(value, str) else "")
def test_the_cause_stays_through_every_stage_of_the_next_attempt(how: str, failed: Any) -> None:
    """A loop of egresses that fail is told as one trouble: the cause does not go and come with each of them."""
    del how
    silent = replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20))
    told_first = {codes(dark(ROOM, silent, failed, *stage))[0] for stage in STAGES}
    never_live = {codes(known(ROOM, IDLE, failed, *stage))[0] for stage in STAGES}
    assert len(told_first) == len(never_live) == 1
    # Media of the next one arrive: the trouble is over.
    fed = replace(STREAM, status_since=ago(1))
    assert codes(known(ROOM, fed, failed, CONNECTED, **WAS_LIVE)) == []


def test_a_wedge_names_both_until_they_can_be_told_apart() -> None:
    standing = replace(PROBE, advanced_at=ago(20), standing_since=ago(20))
    stands, sends = explained(live(probe=standing)).causes
    assert (stands.blame, sends.blame) == (Blame.STREAM_PROVIDER, Blame.ROOM_PROVIDER)
    assert "LiveKit" in stands.remedy
    assert "Mux" in stands.remedy
    silent = replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20))
    [wedge] = explained(dark(ROOM, silent, EGRESS)).causes
    assert "LiveKit" in wedge.remedy
    assert "Mux" in wedge.remedy


def test_what_is_being_stopped_is_named_before_the_call_is_answered() -> None:
    ghost = replace(EGRESS, phase=Phase.DELETING, changed_at=ago(1), fault=Fault.GHOST)
    facts = known(ROOM, STREAM, *FIVE[:4], replace(ghost, ordinal=5, intended_at=ago(100)), **WAS_LIVE)
    assert "EGRESS_GHOST" in codes(facts)
    intended = replace(facts, broadcast=replace(facts.broadcast, state=State.LIVE))
    assert codes(intended)[0] == "EGRESS_GHOST"


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (FallbackMode.DIRECT_WEBRTC, "Viewers watch in the room."),
        (FallbackMode.LOCAL_RECORDING, "The room is to be recorded to our own storage."),
    ],
)
def test_each_mode_of_a_fallback_says_what_it_does(mode: FallbackMode, text: str) -> None:
    [cause] = explained(live(fallback=replace(FALLBACK, modes=(mode,)))).causes
    assert cause.message == f"{text} The reason is EGRESS_FAILING."


@pytest.mark.parametrize("make", [live, lambda: known(ROOM, IDLE, STARTED)])
def test_nothing_is_told_twice_or_by_chance(make: Callable[[], Facts]) -> None:
    facts = make()
    assert explained(facts) == explained(facts)
    later = explained(replace(facts, now=NOW + seconds(1)))
    assert later.time == NOW + seconds(1)


def test_the_codes_are_written_down() -> None:
    listed = re.findall(
        r"^\| `([A-Z_]+)` \| .* \| (\w+) \| .* \|$",
        (Path(__file__).parents[2] / "docs/explain.md").read_text(),
        re.MULTILINE,
    )
    assert listed == [(code, code.blame) for code in CauseCode]
