"""The situations of a broadcast that callers may find it in: one row each, as a pass would have stored it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from service.domain.audience.watching import Watching
from service.domain.broadcast import (
    DeliveryPolicy,
    Destination,
    DestinationState,
    DestinationStatus,
    EndReason,
    Fallback,
    FallbackMode,
    PlaybackPolicy,
    ProviderTrouble,
    Spec,
    Target,
)
from service.domain.delivery import Decided, Delivery, DeliveryReason
from service.domain.errors import Outcome
from service.domain.facts import Facts
from service.domain.measurements import Probe, Quality, Unseen
from service.domain.ports import RoomPeople
from service.domain.provider import Provider
from service.domain.reasons import EventReason, FallbackReason, Fault, Operation
from service.domain.resources import (
    Egress,
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    StreamStatus,
)
from service.domain.situation import Availability
from tests.unit.health_facts import (
    EGRESS,
    EMPTY,
    IDLE,
    MICROPHONE,
    PLAYLIST,
    PROBE,
    ROOM,
    STREAM,
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

NOTHING: Final = Probe()
"""The prober has not looked."""
NOBODY: Final = replace(PROBE, people=RoomPeople())
UNSEEN: Final = Unseen(since=ago(12), at=ago(4), code="503", message="the playback edge answers 503")
STANDING: Final = replace(PROBE, advanced_at=ago(20), standing_since=ago(20))
MANUAL: Final = Spec(delivery_policy=DeliveryPolicy.MANUAL)
ON_DEMAND: Final = Spec(delivery_policy=DeliveryPolicy.ON_DEMAND)
UNWATCHED: Final = Delivery(decided=Decided(since=ago(100)))
WATCHED: Final = Delivery(decided=Decided(wanted=True, reason=DeliveryReason.VIEWERS, since=ago(100)))
NO_VIEWER: Final = Watching(last_seen=ago(160), counted_up_to=ago(1), counted_since=ago(5000))
VIEWERS: Final = replace(NO_VIEWER, last_seen=ago(4))
IDLES: Final[dict[str, Any]] = {"spec": ON_DEMAND, "delivery": UNWATCHED, "watching": NO_VIEWER}
SERVES: Final[dict[str, Any]] = {"spec": ON_DEMAND, "delivery": WATCHED, "watching": VIEWERS}
PLACE: Final = Spec(destinations=(Destination(name="one", url="rtmps://a.example/app"),))
INTERRUPTED: Final = (told(EventReason.STATE_LIVE, 500), told(EventReason.STATE_INTERRUPTED, 20))
SILENT: Final = replace(STREAM, status=StreamStatus.IDLE, status_since=ago(20))
STARTED: Final = replace(
    EGRESS, status=EgressStatus.STARTING, outputs=(), intended_at=ago(10), changed_at=ago(10), delivering_since=None
)
CALLED: Final = replace(STARTED, phase=Phase.INTENDED, external_id="", status=EgressStatus.UNKNOWN, intended_at=ago(1))
UNANSWERED: Final = replace(STARTED, phase=Phase.UNKNOWN, external_id="", status=EgressStatus.UNKNOWN, failures=1)
HANGING: Final = replace(
    EGRESS, outputs=(Output(name="", state=OutputState.CONNECTING),), delivering_since=None, status_since=ago(15)
)
CONNECTED: Final = replace(EGRESS, intended_at=ago(9), changed_at=ago(9), status_since=ago(5), delivering_since=ago(3))
WEBRTC: Final = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=ago(60))
RECORDED: Final = replace(WEBRTC, modes=(FallbackMode.LOCAL_RECORDING,))
FILE: Final = LocalRecording(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="EG_F",
    intended_at=ago(50),
    changed_at=ago(50),
    observed_at=ago(5),
    status_since=ago(45),
    file="show/0.mp4",
    status=EgressStatus.ACTIVE,
)
KEPT: Final = Recording(asset_id="AS1", playback_id="REC1", status=RecordingStatus.READY)


def failed(fault: Fault, n: int = 0, **changes: Any) -> Egress:
    """The n-th egress, which was seen to end, or was stopped, of *fault*."""
    given: dict[str, Any] = {"external_id": f"EG_{n}", "status": EgressStatus.FAILED, "end_seen": True, **changes}
    return gone(EGRESS, ordinal=n, delivering_since=None, fault=fault, **given)


def next_one(egress: Egress, n: int = 1) -> Egress:
    return replace(egress, ordinal=n, external_id=f"EG_{n}" if egress.external_id else "")


def trouble(operation: Operation, outcome: Outcome, code: str, message: str) -> dict[str, Any]:
    """The status with this as its last error."""
    provider = Provider.MUX if operation.islower() else Provider.LIVEKIT
    error = ProviderTrouble(
        provider=provider,
        operation=operation,
        code=code,
        message=message,
        retryable=True,
        time=ago(10),
        outcome=outcome,
    )
    return {"status": {"last_error": error}}


def dark(*resources: Any, **fields: Any) -> Facts:
    """Was live, and is not since 20 s."""
    given: dict[str, Any] = {**WAS_LIVE, "story": INTERRUPTED, **fields}
    return known(*resources, **given)


def over(reason: EndReason, *resources: Any, **fields: Any) -> Facts:
    given: dict[str, Any] = {"story": (told(EventReason.ENDING, 8, reason),), **fields}
    return known(*resources, target=Target.ENDED, end_reason=reason, **given)


def unseen(facts: Facts) -> Facts:
    """Nobody looked at a provider for ten minutes."""
    resources = tuple(replace(each, observed_at=ago(600)) for each in facts.resources)
    probe = replace(facts.probe, people_at=ago(600), playlist_at=ago(600))
    return replace(facts, resources=resources, looked_at={}, probe=probe)


REFUSED_401 = trouble(Operation.CREATE_STREAM, Outcome.CREDENTIALS, "401", "Unauthorized request")
NO_SERVERS = "twirp error unknown: no response from servers"
GHOST_ROOM = replace(ROOM, missing={"EG_1": ago(5)})

SITUATIONS: Final[Mapping[str, Facts]] = {
    # Before the show.
    "created": known(target=Target.CREATED, start_time=None, ready_time=None),
    "starting": known(ready_time=None),
    "starting, the room is called for": known(
        replace(ROOM, phase=Phase.INTENDED, host_publishing=None, changed_at=ago(1)), ready_time=None
    ),
    "starting, the live stream was not answered": known(
        EMPTY,
        replace(IDLE, phase=Phase.UNKNOWN, external_id="", failures=1),
        ready_time=None,
        probe=NOTHING,
        **trouble(Operation.CREATE_STREAM, Outcome.AMBIGUOUS, "timeout", "no answer in time"),
    ),
    "starting, Mux refuses our token": known(
        EMPTY,
        replace(IDLE, phase=Phase.GONE, external_id="", failures=3),
        ready_time=None,
        probe=NOTHING,
        **REFUSED_401,
    ),
    "starting, LiveKit is away": known(ready_time=None, availability=away("livekit")),
    "ready, no host yet": known(EMPTY, IDLE, probe=NOBODY),
    "ready, nobody looked into the room yet": known(replace(ROOM, host_publishing=None), IDLE, probe=NOTHING),
    "ready, off air": known(ROOM, IDLE, spec=MANUAL),
    "ready, nobody watches": known(ROOM, IDLE, **IDLES),
    "ready, nobody watches any more": known(
        ROOM,
        replace(STREAM, connected=False, connected_at=ago(20), heard_at=ago(20)),
        gone(EGRESS, end_seen=True),
        **WAS_LIVE,
        **IDLES,
    ),
    "ready, a viewer came": known(ROOM, IDLE, **SERVES),
    "ready, the egress is about to be started": known(ROOM, IDLE),
    "ready, the egress is being called for": known(ROOM, IDLE, CALLED),
    "ready, the egress starts": known(ROOM, IDLE, STARTED),
    "ready, the egress starts slowly": known(ROOM, IDLE, replace(STARTED, intended_at=ago(40))),
    "ready, the start was not answered": known(
        ROOM,
        IDLE,
        replace(UNANSWERED, error="no answer in time"),
        **trouble(Operation.START_EGRESS, Outcome.AMBIGUOUS, "timeout", "no answer in time"),
    ),
    "ready, no worker": known(
        ROOM,
        IDLE,
        replace(UNANSWERED, error=NO_SERVERS),
        **trouble(Operation.START_EGRESS, Outcome.AMBIGUOUS, "unavailable", NO_SERVERS),
    ),
    "ready, no worker, and the next start is being called": known(
        ROOM,
        IDLE,
        failed(Fault.UNAVAILABLE, external_id="", error=NO_SERVERS, failures=1),
        next_one(CALLED),
        **trouble(Operation.START_EGRESS, Outcome.AMBIGUOUS, "unavailable", NO_SERVERS),
    ),
    "ready, LiveKit refuses our key": known(
        ROOM,
        IDLE,
        failed(Fault.CREDENTIALS, external_id="", failures=1, error="invalid token"),
        **trouble(Operation.START_EGRESS, Outcome.CREDENTIALS, "unauthenticated", "invalid token"),
    ),
    "ready, the egress connects": known(ROOM, IDLE, replace(HANGING, status_since=ago(5))),
    "ready, the egress does not connect": known(ROOM, IDLE, HANGING),
    "ready, the media are on their way": known(ROOM, IDLE, CONNECTED),
    "ready, no media": known(ROOM, IDLE, EGRESS),
    "ready, no media, and the next egress is connected": known(ROOM, IDLE, failed(Fault.NO_MEDIA), next_one(CONNECTED)),
    "ready, the last egress failed and the next one starts": known(ROOM, IDLE, failed(Fault.FAILED), next_one(STARTED)),
    "ready, the last egress failed and the next one connects": known(
        ROOM, IDLE, failed(Fault.FAILED), next_one(CONNECTED)
    ),
    "ready, no egress may be started": known(
        ROOM, IDLE, *(failed(Fault.FAILED, n, intended_at=ago(300 - n)) for n in range(5))
    ),
    # The show.
    "live, seen": live(),
    "live, not seen yet": live(probe=replace(PROBE, playlist=None, playlist_at=None, advanced_at=None)),
    "live, seen once": live(probe=replace(PROBE, advanced_at=None, standing_since=ago(4))),
    "live, nobody looked lately": unseen(live()),
    "live, the prober did not look lately": live(probe=replace(PROBE, playlist_at=ago(60))),
    "live, signed": live(spec=Spec(playback_policy=PlaybackPolicy.SIGNED)),
    "live, signed, and there is a signing key": live(
        spec=Spec(playback_policy=PlaybackPolicy.SIGNED), availability=Availability(signing=True)
    ),
    "live, no picture": live(probe=replace(PROBE, people=ann(MICROPHONE))),
    "live, the uplink is poor": replace(live(), stats=reported(Quality.POOR)),
    "live, LiveKit is away": live(availability=away("livekit")),
    "live, Mux is away": live(availability=away("mux")),
    "live, Mux refuses our token": live(availability=away("mux", "credentials")),
    "live, LiveKit refuses our key": live(availability=away("livekit", "credentials")),
    "live, the egress is not in its room": known(GHOST_ROOM, STREAM, EGRESS, **WAS_LIVE),
    "live, the egress ends by itself": dark(ROOM, STREAM, replace(EGRESS, status=EgressStatus.ENDING)),
    "live, the encoder left": known(
        ROOM, replace(STREAM, connected=False, connected_at=ago(8)), EGRESS, **WAS_LIVE, probe=STANDING
    ),
    "live, the playlist stands": live(probe=STANDING),
    "live, the playback edge fails": known(
        ROOM,
        replace(STREAM, unseen_since=UNSEEN.since, unseen=UNSEEN.message),
        EGRESS,
        **WAS_LIVE,
        probe=replace(PROBE, unseen=UNSEEN),
    ),
    "live, the live stream is not on air": live(probe=replace(PROBE, playlist=replace(PLAYLIST, status=412))),
    "live, the playlist is over": live(probe=replace(PROBE, playlist=replace(PLAYLIST, ended=True))),
    "live, the room is not listed": known(replace(ROOM, absent_since=ago(4)), STREAM, EGRESS, **WAS_LIVE),
    "live, the egress is not listed": known(ROOM, STREAM, replace(EGRESS, absent_since=ago(4)), **WAS_LIVE),
    "live, a destination failed": live(
        spec=PLACE,
        status={"destinations": (DestinationStatus(name="one", state=DestinationState.FAILED, message="refused"),)},
    ),
    "live, a change does not get there": replace(
        live(
            spec=Spec(layout="speaker"),
            **trouble(Operation.SET_LAYOUT, Outcome.UNAVAILABLE, "503", "busy"),
        )
    ),
    "live, a change waits for its turn": live(spec=Spec(layout="speaker"), turn_at=ago(-30)),
    "live, nobody takes it up": replace(live(), claimable_since=ago(11)),
    "live, a fallback is about to be left": live(fallback=WEBRTC),
    # Interrupted.
    "interrupted, the host left": dark(EMPTY, STREAM, EGRESS, probe=NOBODY),
    "interrupted, the room was lost": dark(
        EMPTY,
        STREAM,
        failed(Fault.COMPLETE, status=EgressStatus.COMPLETE),
        probe=NOBODY,
        story=(*INTERRUPTED, told(EventReason.ROOM_LOST, 20), told(EventReason.ROOM_CREATED, 19)),
    ),
    "interrupted, the room is gone": dark(
        gone(ROOM), STREAM, EGRESS, story=(*INTERRUPTED, told(EventReason.ROOM_LOST, 20))
    ),
    "interrupted, the egress failed": dark(ROOM, STREAM, failed(Fault.FAILED, error="encoder crashed")),
    "interrupted, the next egress starts": dark(ROOM, STREAM, failed(Fault.FAILED), next_one(STARTED)),
    "interrupted, the next egress is called for": dark(ROOM, STREAM, failed(Fault.FAILED), next_one(CALLED)),
    "interrupted, the next egress is connected": dark(ROOM, SILENT, failed(Fault.FAILED), next_one(CONNECTED)),
    "interrupted, no media of the second egress either": dark(
        ROOM, SILENT, failed(Fault.NO_MEDIA), next_one(CONNECTED)
    ),
    "interrupted, the egress is not in its room": dark(GHOST_ROOM, SILENT, EGRESS),
    "interrupted, the ghost is being stopped": dark(
        ROOM, SILENT, replace(EGRESS, phase=Phase.DELETING, changed_at=ago(4), fault=Fault.GHOST)
    ),
    "interrupted, the ghost was written off and the next one is connected": dark(
        ROOM, SILENT, failed(Fault.GHOST, end_seen=False, status=EgressStatus.ACTIVE), next_one(CONNECTED)
    ),
    "interrupted, a wedge": dark(ROOM, SILENT, EGRESS),
    "interrupted, the wedged egress is being stopped": dark(
        ROOM, SILENT, replace(EGRESS, phase=Phase.DELETING, changed_at=ago(2), acked=True, fault=Fault.INGEST_LOST)
    ),
    "interrupted, the playlist stands": dark(ROOM, replace(STREAM, stalled_since=ago(20)), EGRESS, probe=STANDING),
    "interrupted, the connection broke": dark(
        ROOM, STREAM, failed(Fault.FAILED, outputs=(Output(name="", state=OutputState.FAILED, message="EOF"),))
    ),
    "interrupted, nobody knows why": dark(ROOM, STREAM, failed(Fault.NONE)),
    "interrupted, off air": dark(ROOM, STREAM, failed(Fault.NONE), spec=MANUAL),
    "interrupted, the live stream is gone": dark(
        ROOM, gone(STREAM), EGRESS, story=(*INTERRUPTED, told(EventReason.STREAM_LOST, 20))
    ),
    "interrupted, the live stream is disabled": dark(ROOM, replace(STREAM, status=StreamStatus.DISABLED), EGRESS),
    "interrupted, Mux is away": dark(ROOM, SILENT, EGRESS, availability=away("mux")),
    "interrupted, watched in the room": dark(ROOM, SILENT, failed(Fault.FAILED), fallback=WEBRTC),
    "interrupted, recorded by us": dark(ROOM, SILENT, failed(Fault.FAILED), FILE, fallback=RECORDED),
    "interrupted, our recording fails": dark(
        ROOM,
        SILENT,
        failed(Fault.FAILED),
        gone(FILE, status=EgressStatus.FAILED, end_seen=True, error="access denied", failures=2),
        fallback=RECORDED,
    ),
    # The end.
    "stopping": over(EndReason.STOPPED, EMPTY, STREAM, probe=NOBODY, status={"state_time": ago(5)}, **WAS_LIVE),
    "stopping, Mux does not delete": over(
        EndReason.STOPPED,
        gone(ROOM),
        replace(STREAM, phase=Phase.DELETING, failures=3),
        **WAS_LIVE,
        **trouble(Operation.DELETE_STREAM, Outcome.UNAVAILABLE, "503", "busy"),
    ),
    "stopping, the egress answers no stop": over(
        EndReason.STOPPED, ROOM, STREAM, replace(EGRESS, phase=Phase.DELETING, failures=2), **WAS_LIVE
    ),
    "ended": over(EndReason.STOPPED, gone(ROOM), gone(STREAM, recordings=(KEPT,)), failed(Fault.NONE), **WAS_LIVE),
    "ended, the recording is being made": over(
        EndReason.STOPPED, gone(ROOM), gone(STREAM, recordings=(Recording(asset_id="AS1"),)), **WAS_LIVE
    ),
    "ended, the recording could not be made": over(
        EndReason.STOPPED,
        gone(STREAM, recordings=(Recording(asset_id="AS1", status=RecordingStatus.ERRORED, message="no content"),)),
        **WAS_LIVE,
    ),
    "ended, the host did not come back": over(EndReason.HOST_LEFT, gone(EMPTY), gone(STREAM), **WAS_LIVE),
    "failed, it could not be started": over(
        EndReason.START_TIMEOUT, gone(IDLE, external_id=""), ready_time=None, probe=NOTHING, **REFUSED_401
    ),
    "failed, the live stream was deleted": over(EndReason.STREAM_LOST, gone(ROOM), gone(STREAM), **WAS_LIVE),
}
