"""The assets that Mux records from live streams: made at the first connect, ready while live, complete at the end.

Order of events: mux.com/docs, Stream recordings of live streams.
"""

from functools import partial

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.mux.api.rules import playback_ids
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.model import Asset, LiveStream
from broadcast_sandbox.mux.recording import Recording, Timers
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore


class MuxAssets:
    def __init__(
        self,
        *,
        settings: MuxSimulatorSettings,
        effects: EffectLog,
        events: MuxEvents,
        store: MuxStore,
        timers: Timers,
    ) -> None:
        self._settings = settings
        self._effects = effects
        self._events = events
        self._store = store
        self._timers = timers

    def begin(self, stream: LiveStream) -> Asset:
        """The asset of a recording that begins. Its event is sent by the caller, after the stream's."""
        asset = Asset(
            live_stream_id=stream.id,
            settings=dict(stream.new_asset_settings),
            playback_ids=playback_ids(stream.new_asset_settings),
            test=stream.test,
        )
        self._store.add_asset(asset)
        stream.active_asset_id = asset.id
        stream.recent_asset_ids.append(asset.id)
        self._effects.append("asset.created", stream.id, asset=asset.id)
        return asset

    def ready(self, asset: Asset) -> None:
        asset.status = "ready"
        self._effects.append("asset.ready", asset.live_stream_id, asset=asset.id)
        self._events.emit_asset("ready", asset)

    def finish(self, recording: Recording, now: float) -> None:
        """*now* in the provider's time."""
        asset = recording.asset
        if asset.id not in self._store.assets:
            return
        asset.is_live = False
        asset.ended_at = now
        if recording.flowing:
            recording.flow(now, flowing=False)
        if not recording.was_active:
            # Undocumented: what becomes of a placeholder that never got content.
            asset.status = "errored"
            self._effects.append("asset.errored", asset.live_stream_id, asset=asset.id)
            self._events.emit_asset("errored", asset)
            return
        if asset.status == "preparing":
            self.ready(asset)
        asset.duration_s = round(recording.media_s(now), 3)
        self._effects.append(
            "asset.completed",
            asset.live_stream_id,
            asset=asset.id,
            duration_s=asset.duration_s,
            last_frame_s_ago=round(now - recording.last_frame_at, 3),
        )
        self._events.emit_asset("live_stream_completed", asset)
        if asset.test:
            self._timers.start(asset.id, "expire", self._settings.test_asset_life_s, partial(self.delete, asset))

    def delete(self, asset: Asset) -> None:
        self._store.remove_asset(asset)
        self._timers.stop(asset.id, "expire")
        self._effects.append("asset.deleted", asset.live_stream_id, asset=asset.id)
        self._events.emit_asset("deleted", asset)
