"""The interfaces of the providers that the reconciler uses, in the words of the domain.

Every method raises ProviderError and nothing else. Each ends within its own timeout, which is shorter than a lease.
`...Wanted` is what a call asks for, `...Seen` what an answer showed.
"""

from service.domain.ports.egresses import Egresses, EgressSeen, EgressWanted, OutputSeen, Push, RecordingWanted
from service.domain.ports.playback import PlaybackToken, PlaybackTokens, TokenUse
from service.domain.ports.playlists import Playlists, PlaylistSeen
from service.domain.ports.rooms import (
    HostRole,
    HostToken,
    HostTokens,
    LayerSeen,
    Moderation,
    ParticipantKind,
    ParticipantSeen,
    PublisherSeen,
    RoomInside,
    RoomPeople,
    Rooms,
    RoomSeen,
    RoomWanted,
    TrackKind,
    TrackSeen,
    ViewerTokens,
)
from service.domain.ports.streams import Relay, Streams, StreamSeen, StreamWanted
from service.domain.ports.uploads import Storage, Uploads, UploadSeen, UploadWanted
from service.domain.ports.webhooks import Heard, Unreadable

__all__ = [
    "EgressSeen",
    "EgressWanted",
    "Egresses",
    "Heard",
    "HostRole",
    "HostToken",
    "HostTokens",
    "LayerSeen",
    "Moderation",
    "OutputSeen",
    "ParticipantKind",
    "ParticipantSeen",
    "PlaybackToken",
    "PlaybackTokens",
    "PlaylistSeen",
    "Playlists",
    "PublisherSeen",
    "Push",
    "RecordingWanted",
    "Relay",
    "RoomInside",
    "RoomPeople",
    "RoomSeen",
    "RoomWanted",
    "Rooms",
    "Storage",
    "StreamSeen",
    "StreamWanted",
    "Streams",
    "TokenUse",
    "TrackKind",
    "TrackSeen",
    "Unreadable",
    "UploadSeen",
    "UploadWanted",
    "Uploads",
    "ViewerTokens",
]
