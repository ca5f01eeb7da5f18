"""Facts for health and explanation, with the state and status that the service itself would write of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import Broadcast, Spec, Target, seconds
from service.domain.facts import Facts, Told
from service.domain.lifecycle import Event
from service.domain.measurements import HostStats, Probe, Quality, ReportedStats
from service.domain.planning.plan import plan
from service.domain.ports import LayerSeen, PlaylistSeen, PublisherSeen, RoomPeople, TrackKind, TrackSeen
from service.domain.reasons import Actor, EventReason
from service.domain.reporting.status import status_of
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Output,
    OutputState,
    Phase,
    Room,
    Stream,
    StreamStatus,
)
from service.domain.situation import Availability, Outage
from service.domain.timing import Timing
from tests.simulation.environment import T0

TIMING = Timing()
NOW = T0 + seconds(600)
BEGAN = T0 + seconds(30)


def ago(value: float) -> datetime:
    return NOW - seconds(value)


ROOM = Room(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="show",
    sid="RM_1",
    intended_at=T0,
    changed_at=T0,
    observed_at=ago(5),
    host_publishing=True,
    host_since=BEGAN,
)
EMPTY = replace(ROOM, host_publishing=False, host_since=ago(20))
STREAM = Stream(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="LS1",
    intended_at=T0,
    changed_at=T0,
    observed_at=ago(5),
    status=StreamStatus.ACTIVE,
    status_since=T0 + seconds(50),
    fed_at=ago(5),
    playback_id="PB1",
    active_asset_id="AS1",
)
IDLE = replace(STREAM, status=StreamStatus.IDLE, status_since=T0, fed_at=None, active_asset_id="")
EGRESS = Egress(
    ordinal=0,
    phase=Phase.PRESENT,
    external_id="EG_1",
    intended_at=BEGAN,
    changed_at=BEGAN,
    observed_at=ago(5),
    status=EgressStatus.ACTIVE,
    status_since=T0 + seconds(40),
    delivering_since=T0 + seconds(42),
    outputs=(Output(name="", state=OutputState.ACTIVE),),
    layout="grid",
)
PLAYING: tuple[AnyResource, ...] = (ROOM, STREAM, EGRESS)
WAS_LIVE: dict[str, Any] = {"live_time": T0 + seconds(60)}

CAMERA = TrackSeen(
    sid="TR_V",
    source="camera",
    kind=TrackKind.VIDEO,
    muted=False,
    simulcast=True,
    width=1280,
    height=720,
    mime_type="video/VP8",
    layers=(
        LayerSeen(quality="high", width=1280, height=720, bitrate_bps=1_700_000),
        LayerSeen(quality="low", width=320, height=180, bitrate_bps=160_000),
    ),
)
MICROPHONE = TrackSeen(
    sid="TR_A",
    source="microphone",
    kind=TrackKind.AUDIO,
    muted=False,
    simulcast=False,
    width=0,
    height=0,
    mime_type="audio/opus",
)


def ann(*tracks: TrackSeen) -> RoomPeople:
    """One who publishes *tracks*, or a picture and sound."""
    seen = PublisherSeen(identity="ann", name="Ann", joined_at=BEGAN, tracks=tracks or (CAMERA, MICROPHONE))
    return RoomPeople(publishers=(seen,), viewers=0)


PLAYLIST = PlaylistSeen(status=200, media_sequence=120, last_segment="seg-126.ts", segments=6, target_duration_s=2.0)
PROBE = Probe(
    people=ann(), people_at=ago(4), playlist=PLAYLIST, playlist_at=ago(4), advanced_at=ago(4), standing_since=ago(4)
)


def reported(quality: Quality, *, age_s: float = 3) -> Mapping[str, ReportedStats]:
    stats = HostStats(quality=quality, packet_loss_ratio=0.2)
    return {"ann": ReportedStats(stats=stats, time=ago(age_s))}


def told(reason: EventReason, age_s: float, message: str = "", actor: Actor = Actor.RECONCILER) -> Told:
    return Told(event=Event(reason=reason, message=message), time=ago(age_s), actor=actor)


def gone(resource: Any, **changes: Any) -> Any:
    return replace(resource, phase=Phase.GONE, **{"changed_at": ago(10), "observed_at": ago(10), **changes})


def away(provider: str, code: str = "timeout", age_s: float = 60) -> Availability:
    return Availability(outages={provider: Outage(since=ago(age_s), code=code, message="no answer in time")})


def known(
    *resources: AnyResource,
    story: Sequence[Told] = (),
    availability: Availability | None = None,
    probe: Probe = PROBE,
    status: Mapping[str, Any] | None = None,
    timing: Timing = TIMING,
    watching: Watching = NOBODY_KNOWS,
    **fields: Any,
) -> Facts:
    """*fields* of the broadcast, *status* of its status. State and conditions are those that a pass would write."""
    availability = availability or Availability()
    given: dict[str, Any] = {
        "spec": Spec(),
        "target": Target.LIVE,
        "start_time": T0,
        "ready_time": T0 + seconds(5),
        **fields,
    }
    broadcast = Broadcast(id="show", create_time=T0, update_time=T0, **given)
    broadcast = replace(broadcast, status=replace(broadcast.status, **(status or {})))
    decided = plan(broadcast, resources, NOW, timing, availability, watching=watching)
    state, derived = status_of(broadcast, resources, decided, ago(20), availability)
    kept = {
        name: value for name, value in (status or {}).items() if name in ("destinations", "recordings", "state_time")
    }
    broadcast = replace(broadcast, state=state, status=replace(derived, **kept))
    return Facts(
        broadcast=broadcast,
        resources=resources,
        now=NOW,
        availability=availability,
        looked_at={"livekit": ago(3), "mux": ago(3)},
        probe=probe,
        watching=watching,
        story=tuple(story),
    )


def live(**changes: Any) -> Facts:
    """Everything works."""
    return known(*PLAYING, **{**WAS_LIVE, **changes})
