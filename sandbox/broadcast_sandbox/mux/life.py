"""The life of a live stream: publishers, recordings, reconnect window, limits.

Sources: mux.com/docs, Stream recordings of live streams (order of events), Handle live stream disconnects (reconnect
window, the 5 minute cut without media), Manage stream keys (complete, disable, reset), Live streaming FAQs (12 h, test
streams).

Invariant: every change is made without an await, so that between two awaits a stream is in one documented state.
"""

from functools import partial

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import Fault, FaultTable, Kind
from broadcast_sandbox.mux.assets import MuxAssets
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.model import LiveStream, new_stream_key, redacted
from broadcast_sandbox.mux.recording import Publisher, PublishRejectedError, Recording, Timers
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.simulcast import Simulcast
from broadcast_sandbox.mux.store import MuxStore


class MuxLife:
    def __init__(
        self,
        *,
        settings: MuxSimulatorSettings,
        clock: ScaledClock,
        effects: EffectLog,
        faults: FaultTable,
        events: MuxEvents,
        store: MuxStore,
        timers: Timers,
        assets: MuxAssets,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._effects = effects
        self._faults = faults
        self._events = events
        self._store = store
        self._timers = timers
        self._assets = assets
        self._simulcast = Simulcast(effects=effects, faults=faults, events=events, timers=timers)
        self._recordings: dict[str, Recording] = {}
        self._publishers: dict[str, list[Publisher]] = {}

    async def close(self) -> None:
        await self._timers.close()
        for publishers in self._publishers.values():
            for publisher in publishers:
                publisher.gone.set()

    def recording(self, stream: LiveStream) -> Recording | None:
        return self._recordings.get(stream.id)

    def publishers(self, stream: LiveStream) -> list[Publisher]:
        return list(self._publishers.get(stream.id, ()))

    def connect(self, key: str) -> Publisher:
        """A publisher with this stream key is accepted. Raises PublishRejectedError with the reason."""
        stream = self._admit(key)
        others = self._publishers.setdefault(stream.id, [])
        stream.connections += 1
        publisher = Publisher(stream=stream, key=key, number=stream.connections)
        publisher.deaf = self._take("publish", stream, "rtmp_no_media") is not None
        self._effects.append("ingest.connected", stream.id, connection=publisher.number, key=redacted(key))
        if others:
            numbers = [other.number for other in others]
            self._effects.append("ingest.double", stream.id, connection=publisher.number, others=numbers)
        others.append(publisher)
        stream.connected = True
        self._timers.stop(stream.id, "window")
        if not self._flowing(stream):
            self._timers.start(
                stream.id, "no_media", self._settings.no_media_cut_s, partial(self._cut_all, stream, "no media")
            )
        if stream.id in self._recordings:
            self._events.emit_stream("connected", stream)
        else:
            self._begin(stream)
        drop = self._faults.take("publish", stream.fault_target, "rtmp_drop")
        if drop is not None:
            name = ("drop", publisher.number)
            self._timers.start(stream.id, name, drop.delay_s, partial(self.leave, publisher, "fault"))
        return publisher

    def media(self, publisher: Publisher, *, flowing: bool) -> None:
        if publisher.deaf or publisher.gone.is_set():
            return
        publisher.media = flowing
        self._media_changed(publisher.stream)

    def leave(self, publisher: Publisher, reason: str = "encoder left") -> None:
        """The connection was closed by either side. Does nothing if the publisher is gone already."""
        stream = publisher.stream
        others = self._publishers.get(stream.id, [])
        if publisher not in others:
            return
        others.remove(publisher)
        publisher.gone.set()
        self._timers.stop(stream.id, ("drop", publisher.number), ("grace", publisher.number))
        self._effects.append("ingest.disconnected", stream.id, connection=publisher.number, reason=reason)
        self._media_changed(stream)
        if not others:
            del self._publishers[stream.id]
            stream.connected = False
            self._effects.append("stream.disconnected", stream.id, reason=reason)
            self._events.emit_stream("disconnected", stream)
        if all(other.finishing for other in others):
            self._timers.stop(stream.id, "no_media", "active")
            self._open_window(stream)

    def complete(self, stream: LiveStream) -> None:
        self._effects.append("stream.completed", stream.id, ended=stream.id in self._recordings)
        for publisher in self.publishers(stream):
            if publisher.finishing:
                continue
            publisher.finishing = True
            name = ("grace", publisher.number)
            self._timers.start(
                stream.id, name, self._settings.complete_grace_s, partial(self.leave, publisher, "completed")
            )
        self._end(stream, "completed")

    def disable(self, stream: LiveStream, reason: str = "requested") -> None:
        if stream.status == "disabled":
            return
        self._effects.append("stream.disabled", stream.id, reason=reason)
        self._stop_now(stream, "disabled")
        stream.status = "disabled"
        self._events.emit_stream("disabled", stream)

    def enable(self, stream: LiveStream) -> None:
        if stream.status != "disabled":
            return
        stream.status = "idle"
        self._effects.append("stream.enabled", stream.id)
        self._events.emit_stream("enabled", stream)

    def delete(self, stream: LiveStream) -> None:
        self._effects.append("stream.deleted", stream.id, passthrough=stream.passthrough)
        self._stop_now(stream, "deleted")
        self._store.remove_stream(stream)
        self._events.emit_stream("deleted", stream)

    def reset_key(self, stream: LiveStream) -> None:
        self._store.retire_key(stream)
        stream.stream_key = new_stream_key()
        self._store.keys[stream.stream_key] = stream.id
        self._effects.append("stream.key_reset", stream.id, key=redacted(stream.stream_key))
        if self._settings.reset_closes_publisher:
            self._cut_all(stream, "key reset")
        self._events.emit_stream("updated", stream)

    def _take(self, operation: str, stream: LiveStream, kind: Kind) -> Fault | None:
        return self._faults.take(operation, stream.fault_target, kind)

    def _admit(self, key: str) -> LiveStream:
        stream = self._store.streams.get(self._store.keys.get(key, ""))
        reason = self._refusal(stream, key)
        if stream is not None and reason is None:
            return stream
        owner = stream.id if stream is not None else self._store.old_keys.get(key, "")
        self._effects.append("ingest.rejected", owner, key=redacted(key), reason=reason)
        raise PublishRejectedError(reason)

    def _refusal(self, stream: LiveStream | None, key: str) -> str | None:
        if stream is None:
            return "old key" if key in self._store.old_keys else "unknown key"
        if stream.status == "disabled":
            return "disabled"
        if self._take("publish", stream, "rtmp_refuse") is not None:
            return "fault"
        others = self._publishers.get(stream.id, [])
        if any(other.finishing for other in others) and self._settings.reconnect_after_complete == "reject":
            return "completing"
        if others and self._settings.second_publisher == "reject":
            return "second publisher"
        return None

    def _flowing(self, stream: LiveStream) -> bool:
        return any(one.media and not one.finishing for one in self._publishers.get(stream.id, ()))

    def _begin(self, stream: LiveStream) -> None:
        asset = self._assets.begin(stream)
        self._recordings[stream.id] = Recording(asset=asset)
        self._events.emit_stream("connected", stream)
        self._events.emit_asset("created", asset)
        if stream.max_continuous_duration_s is not None:
            self._timers.start(
                stream.id,
                "limit",
                stream.max_continuous_duration_s,
                partial(self._stop_now, stream, "max_continuous_duration"),
            )

    def _media_changed(self, stream: LiveStream) -> None:
        recording = self._recordings.get(stream.id)
        flowing = self._flowing(stream)
        if recording is None or recording.flowing == flowing:
            return
        recording.flow(self._clock.now(), flowing=flowing)
        if flowing:
            recording.behind_s = max(one.behind_s for one in self._publishers.get(stream.id, ()) if one.media)
        stream.recording = flowing
        if not flowing:
            self._timers.stop(stream.id, "active")
            self._timers.start(
                stream.id, "no_media", self._settings.no_media_cut_s, partial(self._cut_all, stream, "no media")
            )
            return
        self._timers.stop(stream.id, "no_media")
        if not recording.announced:
            recording.announced = True
            self._events.emit_stream("recording", stream)
        if stream.status == "idle":
            self._timers.start(
                stream.id, "active", self._settings.connect_to_active_s, partial(self._activate, stream, recording)
            )

    def _activate(self, stream: LiveStream, recording: Recording) -> None:
        stream.status = "active"
        recording.was_active = True
        self._effects.append("stream.active", stream.id, asset=recording.asset.id)
        self._events.emit_stream("active", stream)
        self._timers.start(
            stream.id, "asset_ready", self._settings.asset_ready_s, partial(self._assets.ready, recording.asset)
        )
        if stream.test:
            self._timers.start(
                stream.id, "test", self._settings.test_limit_s, partial(self.disable, stream, "test_limit")
            )
        self._simulcast.start(stream)

    def _open_window(self, stream: LiveStream) -> None:
        if stream.id not in self._recordings:
            return
        if stream.reconnect_window_s == 0:
            self._end(stream, "disconnected")
            return
        self._timers.start(
            stream.id, "window", stream.reconnect_window_s, partial(self._end, stream, "reconnect window")
        )

    def _cut_all(self, stream: LiveStream, reason: str) -> None:
        for publisher in self.publishers(stream):
            self.leave(publisher, reason)

    def _stop_now(self, stream: LiveStream, reason: str) -> None:
        self._cut_all(stream, reason)
        self._end(stream, reason)

    def _end(self, stream: LiveStream, reason: str) -> None:
        """End the recording. The next connect makes a new asset."""
        recording = self._recordings.pop(stream.id, None)
        if recording is None:
            return
        now = self._clock.now()
        self._timers.stop(stream.id, "window", "active", "no_media", "limit", "test", "asset_ready")
        stream.status = "idle"
        stream.recording = False
        if recording.was_active:
            stream.ended_at = now
        self._effects.append("stream.idle", stream.id, asset=recording.asset.id, reason=reason)
        self._events.emit_stream("idle", stream)
        # Cleared after the event: Mux still names the asset in `idle`.
        stream.active_asset_id = None
        self._assets.finish(recording, now)
        self._simulcast.stop(stream)
