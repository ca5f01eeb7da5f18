"""Webhooks as they are on the wire, with secrets wherever providers put any, read by the service's own reader."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from service.domain.provider import Provider
from service.domain.resources import EgressStatus, OutputState, RecordingStatus
from service.webhooks.reading import Reader

if TYPE_CHECKING:
    from service.domain.ports import EgressSeen, Heard
    from service.domain.resources import Output, Recording
    from tests.simulation.canaries import Canaries
    from tests.simulation.environment import Hint

Json = dict[str, Any]

_EPOCH = datetime.fromtimestamp(0, UTC)

_SHOWN = "rtmps://global-live.mux.com:443/app/"
_RESULTS = {OutputState.FINISHED: "FINISHED", OutputState.FAILED: "FAILED"}
_RELAYING = {OutputState.ACTIVE: "broadcasting", OutputState.FAILED: "errored", OutputState.CONNECTING: "starting"}


def read(hint: Hint, canaries: Canaries, *, tag: str) -> Hint:
    """*hint*, as the service understands its body."""
    heard = hint.heard
    event = _livekit(heard, hint.broadcast_id, canaries) if hint.provider == "livekit" else _mux(heard, tag, canaries)
    reading = Reader(tag=tag).read(Provider(hint.provider), json.dumps(event).encode())
    assert reading.heard is not None, reading
    assert (reading.event_id, reading.broadcast_id) == (heard.event_id, hint.broadcast_id), (reading, hint)
    return replace(hint, heard=reading.heard, redacted=reading.redacted)


def _livekit(heard: Heard, broadcast_id: str, canaries: Canaries) -> Json:
    assert heard.provider_time is not None
    event: Json = {"event": heard.type, "id": heard.event_id, "createdAt": str(int(heard.provider_time.timestamp()))}
    if heard.egress is None:
        return event | {"room": {"sid": heard.room_sid, "name": broadcast_id}}
    return event | {"egressInfo": _egress(heard.egress, canaries)}


def _egress(seen: EgressSeen, canaries: Canaries) -> Json:
    """Protojson of livekit.EgressInfo, where zero values are absent."""
    wanted: Json = {"streamOutputs": [{"protocol": "RTMP", "urls": [_SHOWN + canaries.any()]}]}
    if seen.file:
        wanted = {
            "fileOutputs": [{"filepath": seen.file, "s3": {"accessKey": canaries.any(), "secret": canaries.any()}}]
        }
    info: Json = {
        "egressId": seen.id,
        "roomName": seen.room_name,
        "updatedAt": str(seen.updated_ns),
        "roomComposite": {"roomName": seen.room_name, **wanted},
        "error": seen.error,
        "streamResults": [
            {
                "url": output.address,
                **({"startedAt": _nanos(output.started_at)} if output.started_at is not None else {}),
                **({"endedAt": _nanos(output.ended_at)} if output.ended_at is not None else {}),
                **({"status": _RESULTS[output.state]} if output.state in _RESULTS else {}),
            }
            for output in seen.outputs
        ],
    }
    if seen.started_at is not None:
        info["startedAt"] = _nanos(seen.started_at)
    if seen.ended_at is not None:
        info["endedAt"] = _nanos(seen.ended_at)
    if seen.status is not EgressStatus.STARTING:
        info["status"] = f"EGRESS_{seen.status}"
    if seen.status is EgressStatus.FAILED:
        info["details"] = canaries.echo("livekit")
    if seen.file:
        info["fileResults"] = [{"filename": seen.file, "size": str(seen.file_bytes)}]
    return info


def _nanos(moment: datetime) -> str:
    return str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def _mux(heard: Heard, tag: str, canaries: Canaries) -> Json:
    assert heard.provider_time is not None
    passthrough = f"{tag}{heard.broadcast_hint}:0"
    if heard.recording is not None:
        data = _asset(heard.recording, canaries) | {"live_stream_id": heard.stream_id, "passthrough": passthrough}
    else:
        data = _stream(heard, canaries) | {"passthrough": passthrough}
    return {
        "type": heard.type,
        "id": heard.event_id,
        "created_at": heard.provider_time.isoformat(),
        "environment": {"name": "simulated", "id": "j29sb4"},
        "data": data,
        "attempts": [],
    }


def _stream(heard: Heard, canaries: Canaries) -> Json:
    seen = heard.stream
    data: Json = {
        "id": heard.stream_id,
        "status": "idle",
        "stream_key": canaries.any(),
        "srt_passphrase": canaries.any(),
        "created_at": 0,
    }
    if heard.connected is not None:
        data["connected"] = heard.connected
    if seen is None:
        return data
    assert seen.created_at is not None
    return data | {
        "status": str(seen.status),
        "playback_ids": [{"id": seen.playback_id, "policy": "public"}],
        "active_asset_id": seen.active_asset_id,
        "simulcast_targets": [_target(relay, canaries) for relay in seen.relays],
        "created_at": int(seen.created_at.timestamp()),
    }


def _target(relay: Output, canaries: Canaries) -> Json:
    return {
        "id": f"target-{relay.name}",
        "passthrough": relay.name,
        "status": _RELAYING.get(relay.state, "idle"),
        "url": "rtmps://tube.example/live",
        "stream_key": canaries.any(),
    }


def _asset(recording: Recording, canaries: Canaries) -> Json:
    data: Json = {
        "id": recording.asset_id,
        "status": str(recording.status),
        "playback_ids": [{"id": recording.playback_id, "policy": "public"}],
        "duration": recording.duration_s,
        "created_at": 0,
    }
    if recording.status is RecordingStatus.ERRORED:
        data["errors"] = {"type": "download_failed", "messages": [canaries.echo("mux")]}
    return data
