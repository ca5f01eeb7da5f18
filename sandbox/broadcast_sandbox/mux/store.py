"""The objects of a Mux environment, found by id, stream key and playback id."""

from dataclasses import dataclass, field
from typing import Literal

from broadcast_sandbox.mux.model import Asset, LiveStream, PlaybackId


@dataclass(frozen=True, slots=True, kw_only=True)
class Playable:
    """The live stream or asset that a playback id belongs to."""

    playback_id: PlaybackId
    type: Literal["live_stream", "asset"]
    owner_id: str


@dataclass(slots=True, kw_only=True)
class MuxStore:
    streams: dict[str, LiveStream] = field(default_factory=dict[str, LiveStream])
    """By id, oldest first."""
    assets: dict[str, Asset] = field(default_factory=dict[str, Asset])
    playables: dict[str, Playable] = field(default_factory=dict[str, Playable])
    keys: dict[str, str] = field(default_factory=dict[str, str])
    """Stream key -> stream id."""
    signing_keys: dict[str, str] = field(default_factory=dict[str, str])
    """Key id -> RSA public key (PEM). Empty: the signature of a playback token is not checked."""
    viewers: dict[str, int] = field(default_factory=dict[str, int])
    """Stream id -> viewers whose player reports. Without an entry no player does."""
    old_keys: dict[str, str] = field(default_factory=dict[str, str])
    """Keys that were reset or whose stream was deleted -> stream id."""

    def add_stream(self, stream: LiveStream) -> None:
        self.streams[stream.id] = stream
        self.keys[stream.stream_key] = stream.id
        for playback_id in stream.playback_ids:
            self.add_playable(playback_id, "live_stream", stream.id)

    def remove_stream(self, stream: LiveStream) -> None:
        del self.streams[stream.id]
        self.retire_key(stream)
        for playback_id in stream.playback_ids:
            self.playables.pop(playback_id.id, None)

    def retire_key(self, stream: LiveStream) -> None:
        del self.keys[stream.stream_key]
        self.old_keys[stream.stream_key] = stream.id

    def add_asset(self, asset: Asset) -> None:
        self.assets[asset.id] = asset
        for playback_id in asset.playback_ids:
            self.add_playable(playback_id, "asset", asset.id)

    def remove_asset(self, asset: Asset) -> None:
        del self.assets[asset.id]
        for playback_id in asset.playback_ids:
            self.playables.pop(playback_id.id, None)

    def add_playable(self, playback_id: PlaybackId, type_: Literal["live_stream", "asset"], owner_id: str) -> None:
        self.playables[playback_id.id] = Playable(playback_id=playback_id, type=type_, owner_id=owner_id)
