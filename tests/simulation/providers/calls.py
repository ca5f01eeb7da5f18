"""The ports that the service calls, in memory. Each method is one call of one replica on its way to a provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import (
    EgressSeen,
    EgressWanted,
    PlaylistSeen,
    Push,
    RecordingWanted,
    RoomInside,
    RoomPeople,
    RoomSeen,
    RoomWanted,
    StreamSeen,
    StreamWanted,
    UploadSeen,
    UploadWanted,
)
from service.domain.ports.pages import NextPage, at_once
from service.domain.ports.playback import PlaybackToken, TokenUse
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.resources import Recording
from service.domain.secret import Secret
from tests.simulation.providers.network import GET_EGRESS, LATE_S, LATE_UPLOAD_S, LIST_EGRESS, Call

if TYPE_CHECKING:
    from tests.simulation.providers.livekit import LiveKit
    from tests.simulation.providers.mux import LiveStream, Mux
    from tests.simulation.providers.network import Network
    from tests.simulation.replica import Replica

_T = TypeVar("_T")
_PAGE = 100
_CREATE_ROOM = Call("livekit", "CreateRoom", 6.0, writes=True, creates=True)
_PEOPLE = Call("livekit", "ListParticipants", 5.0)
_LIST_ROOMS = Call("livekit", "ListRooms", 5.0)
_DELETE_ROOM = Call("livekit", "DeleteRoom", 10.0, writes=True)
_START = Call("livekit", "StartEgress", 28.0, writes=True, creates=True, late=LATE_S)
_RECORD = Call("livekit", "StartFileEgress", 28.0, writes=True, creates=True, late=LATE_S)
_STOP = Call("livekit", "StopEgress", 10.0, writes=True)
_LAYOUT = Call("livekit", "UpdateLayout", 10.0, writes=True)
_PUSHES = Call("livekit", "UpdateStream", 10.0, writes=True)
_CREATE = Call("mux", "create_live_stream", 8.0, writes=True, creates=True, late=LATE_S)
_GET = Call("mux", "get_live_stream", 6.0)
_LIST = Call("mux", "list_live_streams", 6.0)
_DISABLE = Call("mux", "disable_live_stream", 8.0, writes=True)
_ENABLE = Call("mux", "enable_live_stream", 8.0, writes=True)
_TITLE = Call("mux", "update_live_stream", 8.0, writes=True)
_DELETE = Call("mux", "delete_live_stream", 8.0, writes=True)
_RESET = Call("mux", "reset_stream_key", 8.0, writes=True)
_ASSET = Call("mux", "get_asset", 6.0)
_UPLOAD = Call("mux", "create_asset", 8.0, writes=True, creates=True, late=LATE_UPLOAD_S)
_ASSETS = Call("mux", "list_assets", 6.0)
_DELETE_ASSET = Call("mux", "delete_asset", 8.0, writes=True)
_PLAY = Call("playback", "look", 4.0)


class Rooms:
    def __init__(self, replica: Replica, network: Network, livekit: LiveKit) -> None:
        self._replica = replica
        self._network = network
        self._livekit = livekit

    async def create(self, wanted: RoomWanted) -> RoomSeen:
        return await self._call(_CREATE_ROOM, wanted.name, lambda: self._livekit.create_room(wanted))

    async def get(self, name: str) -> RoomSeen | None:
        return await self._call(_LIST_ROOMS, name, lambda: self._seen(name))

    async def list(self, names: Sequence[str] = ()) -> Sequence[RoomSeen]:
        livekit = self._livekit

        def listed() -> Sequence[RoomSeen]:
            return [livekit.seen_room(room) for name, room in livekit.stored.items() if not names or name in names]

        return await self._call(_LIST_ROOMS, "", listed)

    async def delete(self, name: str) -> bool:
        return await self._call(_DELETE_ROOM, name, lambda: self._livekit.delete_stored_room(name, self._replica.doing))

    async def people(self, name: str) -> RoomPeople:
        return await self._call(_PEOPLE, name, lambda: self._livekit.people(name))

    async def inside(self, name: str) -> RoomInside:
        return await self._call(_PEOPLE, name, lambda: self._livekit.inside(name))

    def _seen(self, name: str) -> RoomSeen | None:
        room = self._livekit.stored.get(name)
        return None if room is None else self._livekit.seen_room(room)

    async def _call(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._network, call, subject, effect)


class Egresses:
    def __init__(self, replica: Replica, network: Network, livekit: LiveKit) -> None:
        self._replica = replica
        self._network = network
        self._livekit = livekit

    async def start(self, wanted: EgressWanted) -> EgressSeen:
        return await self._call(_START, wanted.room_name, lambda: self._livekit.start(wanted))

    async def record(self, wanted: RecordingWanted) -> EgressSeen:
        return await self._call(_RECORD, wanted.room_name, lambda: self._livekit.record(wanted))

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        return await self._call(LIST_EGRESS, room_name, lambda: self._livekit.list_room(room_name))

    async def get(self, egress_id: str) -> EgressSeen | None:
        return await self._call(GET_EGRESS, egress_id, lambda: self._livekit.get_egress(egress_id))

    async def list_active(self) -> Sequence[EgressSeen]:
        return await self._call(LIST_EGRESS, "", self._livekit.list_active)

    async def stop(self, egress_id: str) -> None:
        await self._call(_STOP, egress_id, lambda: self._livekit.stop(egress_id))

    async def set_layout(self, egress_id: str, layout: str) -> None:
        await self._call(_LAYOUT, egress_id, lambda: self._livekit.set_layout(egress_id, layout))

    async def set_pushes(self, egress_id: str, *, add: Sequence[Push], remove: Sequence[Push]) -> EgressSeen:
        return await self._call(
            _PUSHES, egress_id, lambda: self._livekit.set_pushes(egress_id, list(add), list(remove))
        )

    def address_of(self, push: Push) -> str:
        return self._livekit.address_of(push)

    async def _call(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._network, call, subject, effect)


class Streams:
    def __init__(self, replica: Replica, network: Network, mux: Mux) -> None:
        self._replica = replica
        self._network = network
        self._mux = mux

    async def create(self, wanted: StreamWanted) -> StreamSeen:
        return await self._call(_CREATE, wanted.tag, lambda: self._mux.create(wanted))

    async def get(self, stream_id: str) -> StreamSeen | None:
        def seen() -> StreamSeen | None:
            stream = self._mux.get(stream_id)
            return None if stream is None else stream.seen()

        return await self._call(_GET, stream_id, seen)

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        del since, next_page
        return await self._call(
            _LIST, tag, lambda: [stream.seen() for stream in self._mux.listed() if stream.tag == tag]
        )

    async def list_active(self, *, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        del next_page
        return await self._call(_LIST, "", lambda: [stream.seen() for stream in self._mux.listed() if stream.active])

    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        def listed() -> tuple[Sequence[StreamSeen], bool]:
            streams = self._mux.listed()[::-1]
            shown = streams[(page - 1) * _PAGE : page * _PAGE]
            return [stream.seen() for stream in shown if stream.tag.startswith(prefix)], len(shown) == _PAGE

        return await self._call(_LIST, "", listed)

    async def disable(self, stream_id: str) -> None:
        await self._call(_DISABLE, stream_id, lambda: self._if_there(stream_id, self._mux.disable))

    async def enable(self, stream_id: str) -> None:
        await self._call(_ENABLE, stream_id, lambda: self._if_there(stream_id, self._mux.enable))

    async def set_title(self, stream_id: str, title: str, *, owner_id: str, broadcast_id: str, tag: str = "") -> None:
        del owner_id, broadcast_id

        def set_title() -> None:
            stream = self._mux.get(stream_id)
            if stream is None:
                raise ProviderError(
                    "simulated",
                    provider=Provider.MUX,
                    operation=Operation.SET_TITLE,
                    outcome=Outcome.MISSING,
                    code="404",
                )
            self._mux.set_title(stream, title, tag)

        await self._call(_TITLE, stream_id, set_title)

    async def delete(self, stream_id: str) -> None:
        by = self._replica.doing
        await self._call(
            _DELETE, stream_id, lambda: self._if_there(stream_id, lambda stream: self._mux.delete(stream, by))
        )

    async def reset_key(self, stream_id: str) -> Secret:
        def reset() -> Secret:
            stream = self._mux.get(stream_id)
            if stream is None:
                raise ProviderError(
                    "simulated",
                    provider=Provider.MUX,
                    operation=Operation.RESET_KEY,
                    outcome=Outcome.MISSING,
                    code="404",
                )
            return self._mux.reset_key(stream)

        return await self._call(_RESET, stream_id, reset)

    async def list_recordings(self, stream_id: str, *, page: int) -> tuple[Sequence[Recording], bool]:
        def listed() -> tuple[Sequence[Recording], bool]:
            shown = self._mux.recordings(stream_id)[::-1][(page - 1) * _PAGE : page * _PAGE]
            return shown[::-1], len(shown) == _PAGE

        return await self._call(_ASSETS, stream_id, listed)

    async def recording(self, asset_id: str) -> Recording | None:
        return await self._call(_ASSET, asset_id, lambda: self._mux.recording(asset_id))

    async def delete_recording(self, asset_id: str) -> None:
        by = self._replica.doing
        await self._call(_DELETE_ASSET, asset_id, lambda: self._mux.delete_recording(asset_id, by))

    def push_url(self, key: Secret) -> Secret:
        return Secret(f"mux://{key.reveal()}")

    def _if_there(self, stream_id: str, then: Callable[[LiveStream], None]) -> None:
        stream = self._mux.get(stream_id)
        if stream is not None:
            then(stream)

    async def _call(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._network, call, subject, effect)


class Uploads:
    def __init__(self, replica: Replica, network: Network, mux: Mux) -> None:
        self._replica = replica
        self._network = network
        self._mux = mux

    async def create(self, wanted: UploadWanted) -> Recording:
        return await self._call(_UPLOAD, wanted.tag, lambda: self._mux.upload(wanted))

    async def find(self, tag: str, *, since: datetime, next_page: NextPage = at_once) -> Sequence[Recording]:
        del since, next_page
        return await self._call(
            _ASSETS, tag, lambda: [asset.recording for asset in self._mux.uploads if asset.tag == tag]
        )

    async def list_tagged(self, prefix: str, *, since: datetime, page: int) -> tuple[Sequence[UploadSeen], bool]:
        def listed() -> tuple[Sequence[UploadSeen], bool]:
            assets = list(self._mux.assets.values())[::-1]
            shown = assets[(page - 1) * _PAGE : page * _PAGE]
            seen = [
                UploadSeen(id=asset.recording.asset_id, tag=asset.tag, created_at=asset.created_at)
                for asset in shown
                if asset.tag.startswith(prefix) and not asset.live_stream_id
            ]
            return seen, len(shown) == _PAGE and shown[-1].created_at >= since

        return await self._call(_ASSETS, "", listed)

    async def get(self, asset_id: str) -> Recording | None:
        return await self._call(_ASSET, asset_id, lambda: self._mux.recording(asset_id))

    async def _call(self, call: Call, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._network, call, subject, effect)


class Storage:
    def __init__(self, signature: str) -> None:
        self._signature = signature

    def url_of(self, file: str) -> Secret:
        return Secret(f"https://storage.example/{file}?X-Amz-Signature={self._signature}")


class PlaybackTokens:
    def sign(self, subject: str, use: TokenUse, *, until: datetime) -> PlaybackToken:
        return PlaybackToken(token=Secret(f"{use}.{subject}"), expire_time=until)


class Playlists:
    def __init__(self, replica: Replica, network: Network, mux: Mux) -> None:
        self._replica = replica
        self._network = network
        self._mux = mux

    async def look(self, url: str) -> PlaylistSeen:
        path, _, token = url.partition("?token=")
        playback_id = path.removeprefix("/").removesuffix(".m3u8")
        assert token in ("", f"{TokenUse.VIDEO}.{playback_id}")
        return await self._replica.call(self._network, _PLAY, playback_id, lambda: self._mux.playlist(playback_id))
