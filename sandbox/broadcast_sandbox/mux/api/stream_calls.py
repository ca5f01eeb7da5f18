"""The calls of live streams and their simulcast targets: paths and codes of mux.com/api-spec.json."""

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.mux.api.calls import Call, Reply, Route, data, found, page
from broadcast_sandbox.mux.api.fields import invalid
from broadcast_sandbox.mux.api.rules import MAX_SIMULCAST_TARGETS, created_stream, simulcast_target, update_stream
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.life import MuxLife
from broadcast_sandbox.mux.model import Json, LiveStream, SimulcastTarget
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore


class LiveStreamCalls:
    def __init__(
        self, settings: MuxSimulatorSettings, store: MuxStore, life: MuxLife, events: MuxEvents, effects: EffectLog
    ) -> None:
        self._settings = settings
        self._store = store
        self._life = life
        self._events = events
        self._effects = effects

    def routes(self) -> list[Route]:
        streams, stream = "/video/v1/live-streams", "/video/v1/live-streams/{id}"
        targets, target = f"{stream}/simulcast-targets", f"{stream}/simulcast-targets/{{sub}}"
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
            Route("POST", targets, "create_live_stream_simulcast_target", self._create_target),
            Route("GET", target, "get_live_stream_simulcast_target", self._get_target),
            Route("DELETE", target, "delete_live_stream_simulcast_target", self._delete_target),
        ]

    def _create(self, call: Call) -> Reply:
        stream = created_stream(call.body)
        self._store.add_stream(stream)
        self._effects.append("stream.created", stream.id, passthrough=stream.passthrough, test=stream.test)
        self._events.emit_stream("created", stream)
        for target in stream.simulcast_targets:
            self._tell_target("created", stream, target)
        return self._answer(stream, 201)

    def _list(self, call: Call) -> Reply:
        first, limit = page(call)
        status, key = call.query.get("status"), call.query.get("stream_key")
        if status not in (None, "idle", "active", "disabled"):
            raise invalid("status must be one of active, idle, disabled")
        matching = [
            stream
            for stream in reversed(self._store.streams.values())
            if status in (None, stream.status) and key in (None, stream.stream_key)
        ]
        return data([self._json(stream) for stream in matching[first : first + limit]])

    def _get(self, call: Call) -> Reply:
        return self._answer(self._stream(call))

    def _update(self, call: Call) -> Reply:
        stream = self._stream(call)
        update_stream(stream, call.body)
        self._effects.append("stream.updated", stream.id, fields=sorted(call.body))
        self._events.emit_stream("updated", stream)
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
        self._tell_target("created", stream, target)
        return data(target.as_json(), 201)

    def _get_target(self, call: Call) -> Reply:
        return data(_target(self._stream(call), call).as_json())

    def _delete_target(self, call: Call) -> Reply:
        stream = self._idle_stream(call)
        target = _target(stream, call)
        stream.simulcast_targets.remove(target)
        self._tell_target("deleted", stream, target)
        return Reply(status=204)

    def _tell_target(self, name: str, stream: LiveStream, target: SimulcastTarget) -> None:
        self._effects.append(f"simulcast.{name}", stream.id, target=target.id)
        self._events.emit_target(name, stream, target)

    def _answer(self, stream: LiveStream, status: int = 200) -> Reply:
        return data(self._json(stream), status)

    def _json(self, stream: LiveStream) -> Json:
        return stream.as_json(ingest_protocol=self._settings.ingest_protocol)

    def _stream(self, call: Call) -> LiveStream:
        return found(self._store.streams.get(call.path["id"]))

    def _idle_stream(self, call: Call) -> LiveStream:
        stream = self._stream(call)
        if stream.status != "idle":
            raise invalid("simulcast targets can only be changed while the live stream is idle")
        return stream


def _target(stream: LiveStream, call: Call) -> SimulcastTarget:
    return found(next((target for target in stream.simulcast_targets if target.id == call.path["sub"]), None))
