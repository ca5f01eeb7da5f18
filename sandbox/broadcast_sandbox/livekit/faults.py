"""The operations at which the simulated LiveKit takes faults."""

from collections.abc import Iterable

from broadcast_sandbox.faults import WEBHOOK_KINDS, Kind, Site
from broadcast_sandbox.livekit.webhooks import EVENTS

ROOM_METHODS = (
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "SendData",
    "UpdateRoomMetadata",
    "ForwardParticipant",
    "MoveParticipant",
    "PerformRpc",
)
EGRESS_METHODS = (
    "StartRoomCompositeEgress",
    "UpdateLayout",
    "UpdateStream",
    "ListEgress",
    "StopEgress",
    "StartEgress",
    "StartWebEgress",
    "StartParticipantEgress",
    "StartTrackCompositeEgress",
    "StartTrackEgress",
)


def sites(outage: Site) -> dict[Kind, Site]:
    calls, egress, publish = _at(*ROOM_METHODS, *EGRESS_METHODS), _at("egress"), _at("publish")
    return {
        "latency": calls,
        "error": _at(*calls.operations, details=("text",)),
        "hang": calls,
        "reset": calls,
        "lost_reply": calls,
        "late_effect": calls,
        "outage": outage,
        **dict.fromkeys(WEBHOOK_KINDS, _at(*EVENTS)),
        "rtmp_refuse": publish,
        "rtmp_drop": publish,
        "rtmp_hang": publish,
        "rtmp_no_media": publish,
        "rtmp_wedge": _at("publish", details=("monitor",)),
        "egress_fail": egress,
        "egress_abort": egress,
        "egress_complete": egress,
        "egress_limit": egress,
        "egress_stuck": egress,
        "egress_ghost": egress,
        "worker_loss": _at("StartRoomCompositeEgress"),
    }


def _at(*operations: str, details: Iterable[str] = ()) -> Site:
    return Site(operations=frozenset(operations), details=frozenset(details))
