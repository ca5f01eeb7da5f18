"""What each Mux API call does, without HTTP: paths and codes of mux.com/api-spec.json.

Every call is a plain function of the request's parts that changes the world at once or raises `RefusedError`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.model import Asset, Json, LiveStream, PlaybackId
from broadcast_sandbox.mux.rules import (
    MAX_SIMULCAST_TARGETS,
    RefusedError,
    created_asset,
    created_stream,
    invalid,
    playback_id,
    simulcast_target,
    update_stream,
)
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore
from broadcast_sandbox.mux.uploads import MuxUploads

T = TypeVar("T")

DEFAULT_LIMIT = 25
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    path: dict[str, str] = field(default_factory=dict[str, str])
    query: dict[str, str] = field(default_factory=dict[str, str])
    body: Json = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int = 200
    body: Json | None = None
    """None: an empty answer (204)."""


@dataclass(frozen=True, slots=True)
class Route:
    verb: str
    path: str
    operation: str
    """The name that faults use: the method of mux_python, where there is one."""
    run: Callable[[Call], Reply]


def data(value: Any, status: int = 200) -> Reply:
    return Reply(status=status, body={"data": value})


class MuxCalls:
    def __init__(
        self, settings: MuxSimulatorSettings, store: MuxStore, life: MuxLife, uploads: MuxUploads, effects: EffectLog
    ) -> None:
        self._settings = settings
        self._store = store
        self._life = life
        self._uploads = uploads
        self._effects = effects

    def routes(self) -> list[Route]:
        streams, stream = "/video/v1/live-streams", "/video/v1/live-streams/{id}"
        assets, asset = "/video/v1/assets", "/video/v1/assets/{id}"
        return [
            Route("POST", streams, "create_live_stream", self._create),
            Route("GET", streams, "list_live_streams", self._list),
            Route("GET", stream, "get_live_stream", self._get),
            Route("PATCH", stream, "update_live_stream", self._update),
            Route("DELETE", stream, "delete_live_stream", self._delete),
            Route("PUT", f"{stream}/complete", "signal_live_stream_complete", self._complete),
            Route("PUT", f"{stream}/disable", "disable_live_stream", self._disable),
            Route("PUT", f"{stream}/enable", "enable_live_stream", self._enable),
            Route("POST", f"{stream}/reset-stream-key", "reset_stream_key", self._reset_key),
            *self._playback_routes(stream, "live_stream"),
            Route("POST", f"{stream}/simulcast-targets", "create_live_stream_simulcast_target", self._create_target),
            Route("GET", f"{stream}/simulcast-targets/{{sub}}", "get_live_stream_simulcast_target", self._get_target),
            Route(
                "DELETE",
                f"{stream}/simulcast-targets/{{sub}}",
                "delete_live_stream_simulcast_target",
                self._delete_target,
            ),
            Route("POST", assets, "create_asset", self._create_asset),
            Route("GET", assets, "list_assets", self._list_assets),
            Route("GET", asset, "get_asset", self._get_asset),
            Route("DELETE", asset, "delete_asset", self._delete_asset),
            *self._playback_routes(asset, "asset"),
            Route("GET", "/video/v1/playback-ids/{id}", "get_asset_or_livestream_id", self._resolve_playback_id),
            Route("GET", "/system/v1/whoami", "whoami", self._whoami),
        ]

    def fault_target(self, call: Call) -> str:
        """Id and passthrough of what the call is about, as far as they are known before it runs."""
        given = call.path.get("id", "")
        if stream := self._store.streams.get(given):
            return stream.fault_target
        if asset := self._store.assets.get(given):
            return asset.fault_target
        return f"{given} {call.body.get('passthrough') or ''}"

    def _create(self, call: Call) -> Reply:
        stream = created_stream(call.body)
        self._store.add_stream(stream)
        self._effects.append("stream.created", stream.id, passthrough=stream.passthrough, test=stream.test)
        self._life.emit_stream("created", stream)
        for target in stream.simulcast_targets:
            self._life.emit_target("created", stream, target)
        return self._answer(stream, 201)

    def _list(self, call: Call) -> Reply:
        page, limit = _whole(call, "page", 1), _limit(call)
        status, key = call.query.get("status"), call.query.get("stream_key")
        if status not in (None, "idle", "active", "disabled"):
            raise invalid("status must be one of active, idle, disabled")
        found = [
            stream
            for stream in reversed(self._store.streams.values())
            if status in (None, stream.status) and key in (None, stream.stream_key)
        ]
        return data([self._json(stream) for stream in found[(page - 1) * limit : page * limit]])

    def _get(self, call: Call) -> Reply:
        return self._answer(self._stream(call))

    def _update(self, call: Call) -> Reply:
        stream = self._stream(call)
        update_stream(stream, call.body)
        self._effects.append("stream.updated", stream.id, fields=sorted(call.body))
        self._life.emit_stream("updated", stream)
        return self._answer(stream)

    def _delete(self, call: Call) -> Reply:
        self._life.delete(self._stream(call))
        return Reply(status=204)

    def _complete(self, call: Call) -> Reply:
        self._life.complete(self._stream(call))
        return data({})

    def _disable(self, call: Call) -> Reply:
        self._life.disable(self._stream(call))
        return data({})

    def _enable(self, call: Call) -> Reply:
        self._life.enable(self._stream(call))
        return data({})

    def _reset_key(self, call: Call) -> Reply:
        stream = self._stream(call)
        self._life.reset_key(stream)
        return self._answer(stream, 201)

    def _create_target(self, call: Call) -> Reply:
        stream = self._idle_stream(call)
        target = simulcast_target(call.body)
        if len(stream.simulcast_targets) >= MAX_SIMULCAST_TARGETS:
            raise invalid(f"a live stream can have at most {MAX_SIMULCAST_TARGETS} simulcast targets")
        stream.simulcast_targets.append(target)
        self._life.emit_target("created", stream, target)
        return data(target.as_json(), 201)

    def _get_target(self, call: Call) -> Reply:
        targets = self._stream(call).simulcast_targets
        return data(_found([target for target in targets if target.id == call.path["sub"]]).as_json())

    def _delete_target(self, call: Call) -> Reply:
        stream = self._idle_stream(call)
        target = _found([target for target in stream.simulcast_targets if target.id == call.path["sub"]])
        stream.simulcast_targets.remove(target)
        self._life.emit_target("deleted", stream, target)
        return Reply(status=204)

    def _create_asset(self, call: Call) -> Reply:
        url, asset = created_asset(call.body)
        self._uploads.begin(asset, url)
        return data(asset.as_json(), 201)

    def _list_assets(self, call: Call) -> Reply:
        page, limit = _whole(call, "page", 1), _limit(call)
        owner, cursor = call.query.get("live_stream_id"), call.query.get("cursor")
        found = [asset for asset in reversed(self._store.assets.values()) if owner in (None, asset.live_stream_id)]
        first = (page - 1) * limit
        if cursor is not None:
            first = next((index + 1 for index, asset in enumerate(found) if asset.id == cursor), -1)
            if first == -1:
                raise invalid("cursor is invalid")
        shown = found[first : first + limit]
        following = shown[-1].id if first + limit < len(found) else None
        return Reply(body={"data": [asset.as_json() for asset in shown], "next_cursor": following})

    def _get_asset(self, call: Call) -> Reply:
        return data(self._asset(call).as_json())

    def _delete_asset(self, call: Call) -> Reply:
        self._life.delete_asset(self._asset(call))
        return Reply(status=204)

    def _resolve_playback_id(self, call: Call) -> Reply:
        playable = self._store.playables.get(call.path["id"])
        if playable is None:
            raise _missing()
        owner = {"type": playable.type, "id": playable.owner_id}
        return data({"id": playable.playback_id.id, "policy": playable.playback_id.policy, "object": owner})

    def _whoami(self, _: Call) -> Reply:
        return data(
            {
                "permissions": ["video:read", "video:write", "data:read", "system:read", "system:write"],
                "organization_name": "Sandbox",
                "organization_id": "sbxorg",
                "environment_type": "development",
                "environment_name": self._settings.environment_name,
                "environment_id": self._settings.environment_id,
                "access_token_name": "sandbox",
            }
        )

    def _playback_routes(self, owner_path: str, type_: Literal["live_stream", "asset"]) -> list[Route]:
        def owner(call: Call) -> LiveStream | Asset:
            return self._stream(call) if type_ == "live_stream" else self._asset(call)

        def effect(kind: str, of: LiveStream | Asset, one: PlaybackId) -> None:
            self._effects.append(f"playback_id.{kind}", of.id, playback_id=one.id, policy=one.policy)

        def create(call: Call) -> Reply:
            of = owner(call)
            one = playback_id(call.body)
            of.playback_ids.append(one)
            self._store.add_playable(one, type_, of.id)
            effect("created", of, one)
            return data(one.as_json(), 201)

        def get(call: Call) -> Reply:
            return data(_found([one for one in owner(call).playback_ids if one.id == call.path["sub"]]).as_json())

        def delete(call: Call) -> Reply:
            of = owner(call)
            one = _found([one for one in of.playback_ids if one.id == call.path["sub"]])
            of.playback_ids.remove(one)
            self._store.playables.pop(one.id, None)
            effect("deleted", of, one)
            return Reply(status=204)

        all_ids, one_id = f"{owner_path}/playback-ids", f"{owner_path}/playback-ids/{{sub}}"
        return [
            Route("POST", all_ids, f"create_{type_}_playback_id", create),
            Route("GET", one_id, f"get_{type_}_playback_id", get),
            Route("DELETE", one_id, f"delete_{type_}_playback_id", delete),
        ]

    def _json(self, stream: LiveStream) -> Json:
        return stream.as_json(ingest_protocol=self._settings.ingest_protocol)

    def _answer(self, stream: LiveStream, status: int = 200) -> Reply:
        return data(self._json(stream), status)

    def _stream(self, call: Call) -> LiveStream:
        stream = self._store.streams.get(call.path["id"])
        if stream is None:
            raise _missing()
        return stream

    def _idle_stream(self, call: Call) -> LiveStream:
        stream = self._stream(call)
        if stream.status != "idle":
            raise invalid("simulcast targets can only be changed while the live stream is idle")
        return stream

    def _asset(self, call: Call) -> Asset:
        asset = self._store.assets.get(call.path["id"])
        if asset is None:
            raise _missing()
        return asset


def _missing() -> RefusedError:
    return RefusedError(404, "not_found", "The requested resource either doesn't exist or you don't have access to it.")


def _found(matches: Sequence[T]) -> T:
    if not matches:
        raise _missing()
    return matches[0]


def _whole(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise invalid(f"{name} must be a positive integer")
    return int(text)


def _limit(call: Call) -> int:
    """More than the maximum is taken as the maximum; whether Mux refuses it instead is not documented."""
    return min(_whole(call, "limit", DEFAULT_LIMIT), MAX_LIMIT)
