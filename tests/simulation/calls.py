"""How a replica reaches the providers: every call may fail in each of the ways of `Outcome`, may be answered late or
never, and may have its effect long after its caller gave up. Within the time limits of the real adapters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import (
    EgressSeen,
    EgressWanted,
    PlaylistSeen,
    Push,
    RecordingWanted,
    RoomPeople,
    RoomSeen,
    RoomWanted,
    StreamSeen,
    StreamWanted,
    UploadSeen,
    UploadWanted,
)
from service.domain.resources import Recording
from service.domain.secret import Secret
from service.providers.text.bodies import readable
from tests.simulation.faults import Kind

if TYPE_CHECKING:
    from tests.simulation.environment import Environment
    from tests.simulation.livekit import LiveKit
    from tests.simulation.mux import LiveStream, Mux
    from tests.simulation.replica import Replica

_T = TypeVar("_T")
LATE_S = (9.0, 88.0)
"""From the call of a create to its late effect: LiveKit tries for 70 s (livekit/protocol rpc/egress_client.go)."""
LATE_UPLOAD_S = (9.0, 900.0)
"""The same of an upload, of which nobody knows: beyond the time that it is looked for."""
LATE_WRITE_S = (1.0, 15.0)
"""The same of other writes: a request that waited in a proxy."""
_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    until: float
    mode: str
    """refused, unavailable, silent (nothing is done), mute (what is asked is done, and not answered)."""


@dataclass(frozen=True, slots=True)
class Operation:
    provider: str
    name: str
    within_s: float
    writes: bool = False
    creates: bool = False
    late: tuple[float, float] | None = None
    """Of creates that LiveKit or Mux go on with after the caller has left: when they land."""


class _Late:
    """An effect that comes when its caller has long given up: once."""

    def __init__(self, provider: Provider, operation: str, effect: Callable[[], object]) -> None:
        self._provider = provider
        self._operation = operation
        self._effect: Callable[[], object] | None = effect

    def land(self) -> None:
        effect, self._effect = self._effect, None
        if effect is not None:
            self._provider.env.trace.add("late effect", self._operation)
            self._provider.land(effect)


class Provider:
    """One provider, as the network shows it."""

    def __init__(self, name: str, env: Environment) -> None:
        self.name = name
        self.env = env
        self.outage: Outage | None = None
        self._late: dict[str, list[_Late]] = {}
        """What is yet to land, by what it is about."""

    async def ask(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        env = self.env
        where = f"{operation.provider}.{operation.name}"
        if self.outage is not None and env.loop.time() < self.outage.until:
            env.faults.count(Kind.OUTAGE, where)
            return await self._in_outage(operation, effect, self.outage.mode)
        match env.faults.of_call(where, writes=operation.writes, creates=operation.creates):
            case None:
                await asyncio.sleep(env.rng.uniform(0.02, 1.5 if operation.writes and self.name == "mux" else 0.25))
                return self._answer(operation, subject, effect)
            case Kind.SLOW:
                await asyncio.sleep(env.rng.uniform(1.0, operation.within_s * 0.95))
                return self._answer(operation, subject, effect)
            case Kind.NO_EFFECT | Kind.LOST_REPLY | Kind.LATE_EFFECT as fault:
                await self._unanswered(fault, operation, subject, effect)
                raise self._error(operation, Outcome.AMBIGUOUS)
            case fault:
                raise await self._refusal(fault, operation)

    def _answer(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        answer = effect()
        if operation is _LIST_EGRESS:
            # Of all moments at which a start may land, the one right after somebody looked is the worst.
            for late in self._late.pop(subject, ()):
                if self.env.rng.random() < 0.9:
                    self.env.after(0, 0.05, late.land)
        return answer

    async def _refusal(self, fault: Kind, operation: Operation) -> ProviderError:
        rng = self.env.rng
        match fault:
            case Kind.NOT_SENT:
                await asyncio.sleep(rng.uniform(0.01, 2.0))
                return self._error(operation, Outcome.NOT_SENT)
            case Kind.THROTTLED:
                await asyncio.sleep(rng.uniform(0.02, 0.1))
                return self._error(operation, Outcome.THROTTLED, rng.choice([None, 1.0, 5.0]))
            case Kind.REFUSED:
                await asyncio.sleep(0.1)
                return self._error(operation, Outcome.REFUSED)
            case _:
                await asyncio.sleep(rng.uniform(0.02, 0.5))
                # Of a start: a worker may hold the request all the same (livekit/egress#720).
                ambiguous = operation.late is not None or operation.provider == "mux"
                return self._error(operation, Outcome.AMBIGUOUS if ambiguous else Outcome.UNAVAILABLE)

    async def _unanswered(self, fault: Kind, operation: Operation, subject: str, effect: Callable[[], object]) -> None:
        rng, within_s = self.env.rng, operation.within_s
        # A connection breaks at any time, or nothing comes until the time is up.
        patience = rng.choice((within_s, rng.uniform(0.1, within_s)))
        if fault is Kind.LOST_REPLY:
            spent = rng.uniform(0.02, patience)
            await asyncio.sleep(spent)
            self.land(effect)
            await asyncio.sleep(patience - spent)
            return
        if fault is Kind.LATE_EFFECT:
            late = _Late(self, operation.name, effect)
            self._late.setdefault(subject, []).append(late)
            self.env.after(*(operation.late or LATE_WRITE_S), late.land)
        await asyncio.sleep(patience)

    async def _in_outage(self, operation: Operation, effect: Callable[[], _T], mode: str) -> _T:
        if mode == "refused":
            await asyncio.sleep(0.02)
            raise self._error(operation, Outcome.NOT_SENT)
        if mode == "unavailable":
            await asyncio.sleep(0.05)
            raise self._error(operation, Outcome.AMBIGUOUS if operation.provider == "mux" else Outcome.UNAVAILABLE)
        if mode == "mute" and operation.writes:
            self.land(effect)
        await asyncio.sleep(operation.within_s)
        raise self._error(operation, Outcome.AMBIGUOUS)

    def land(self, effect: Callable[[], object]) -> None:
        try:
            effect()
        except ProviderError as error:
            self.env.trace.add("unanswered", error.operation, error.outcome)

    def _error(self, operation: Operation, outcome: Outcome, retry_after: float | None = None) -> ProviderError:
        return ProviderError(
            # As the adapters do, of what providers echo.
            readable(self.env.canaries.echo(self.name)),
            provider=self.name,
            operation=operation.name,
            outcome=outcome,
            code=outcome.value,
            retry_after=None if retry_after is None else timedelta(seconds=retry_after),
        )


_CREATE_ROOM = Operation("livekit", "CreateRoom", 6.0, writes=True, creates=True)
_PEOPLE = Operation("livekit", "ListParticipants", 5.0)
_LIST_ROOMS = Operation("livekit", "ListRooms", 5.0)
_DELETE_ROOM = Operation("livekit", "DeleteRoom", 10.0, writes=True)
_START = Operation("livekit", "StartEgress", 15.0, writes=True, creates=True, late=LATE_S)
_RECORD = Operation("livekit", "StartFileEgress", 15.0, writes=True, creates=True, late=LATE_S)
_LIST_EGRESS = Operation("livekit", "ListEgress", 5.0)
_STOP = Operation("livekit", "StopEgress", 10.0, writes=True)
_LAYOUT = Operation("livekit", "UpdateLayout", 10.0, writes=True)
_PUSHES = Operation("livekit", "UpdateStream", 10.0, writes=True)
_CREATE = Operation("mux", "create_live_stream", 8.0, writes=True, creates=True, late=LATE_S)
_GET = Operation("mux", "get_live_stream", 6.0)
_LIST = Operation("mux", "list_live_streams", 6.0)
_DISABLE = Operation("mux", "disable_live_stream", 8.0, writes=True)
_ENABLE = Operation("mux", "enable_live_stream", 8.0, writes=True)
_DELETE = Operation("mux", "delete_live_stream", 8.0, writes=True)
_RESET = Operation("mux", "reset_stream_key", 8.0, writes=True)
_ASSET = Operation("mux", "get_asset", 6.0)
_UPLOAD = Operation("mux", "create_asset", 8.0, writes=True, creates=True, late=LATE_UPLOAD_S)
_ASSETS = Operation("mux", "list_assets", 6.0)
_DELETE_ASSET = Operation("mux", "delete_asset", 8.0, writes=True)
_PLAY = Operation("playback", "look", 4.0)


class Rooms:
    def __init__(self, replica: Replica, provider: Provider, livekit: LiveKit) -> None:
        self._replica = replica
        self._provider = provider
        self._livekit = livekit

    async def create(self, wanted: RoomWanted) -> RoomSeen:
        return await self._call(_CREATE_ROOM, wanted.name, lambda: self._livekit.create_room(wanted))

    async def get(self, name: str) -> RoomSeen | None:
        return await self._call(_LIST_ROOMS, name, lambda: self._seen(name))

    async def list(self) -> Sequence[RoomSeen]:
        livekit = self._livekit
        return await self._call(_LIST_ROOMS, "", lambda: [livekit.seen_room(room) for room in livekit.rooms.values()])

    async def delete(self, name: str) -> None:
        await self._call(_DELETE_ROOM, name, lambda: self._livekit.delete_room(name, self._replica.doing))

    async def people(self, name: str) -> RoomPeople:
        return await self._call(_PEOPLE, name, lambda: self._livekit.people(name))

    async def recorders(self, name: str) -> frozenset[str]:
        return await self._call(_PEOPLE, name, lambda: self._livekit.recorders(name))

    def _seen(self, name: str) -> RoomSeen | None:
        room = self._livekit.rooms.get(name)
        return None if room is None else self._livekit.seen_room(room)

    async def _call(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._provider, operation, subject, effect)


class Egresses:
    def __init__(self, replica: Replica, provider: Provider, livekit: LiveKit) -> None:
        self._replica = replica
        self._provider = provider
        self._livekit = livekit

    async def start(self, wanted: EgressWanted) -> EgressSeen:
        return await self._call(_START, wanted.room_name, lambda: self._livekit.start(wanted))

    async def record(self, wanted: RecordingWanted) -> EgressSeen:
        return await self._call(_RECORD, wanted.room_name, lambda: self._livekit.record(wanted))

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        return await self._call(_LIST_EGRESS, room_name, lambda: self._livekit.list_room(room_name))

    async def list_active(self) -> Sequence[EgressSeen]:
        return await self._call(_LIST_EGRESS, "", self._livekit.list_active)

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

    async def _call(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._provider, operation, subject, effect)


class Streams:
    def __init__(self, replica: Replica, provider: Provider, mux: Mux) -> None:
        self._replica = replica
        self._provider = provider
        self._mux = mux

    async def create(self, wanted: StreamWanted) -> StreamSeen:
        return await self._call(_CREATE, wanted.tag, lambda: self._mux.create(wanted))

    async def get(self, stream_id: str) -> StreamSeen | None:
        def seen() -> StreamSeen | None:
            stream = self._mux.get(stream_id)
            return None if stream is None else stream.seen()

        return await self._call(_GET, stream_id, seen)

    async def find(self, tag: str, *, since: datetime) -> Sequence[StreamSeen]:
        del since
        return await self._call(
            _LIST, tag, lambda: [stream.seen() for stream in self._mux.listed() if stream.tag == tag]
        )

    async def list_active(self) -> Sequence[StreamSeen]:
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
                    "simulated", provider="mux", operation="reset_stream_key", outcome=Outcome.MISSING, code="404"
                )
            return self._mux.reset_key(stream)

        return await self._call(_RESET, stream_id, reset)

    async def list_recordings(self, stream_id: str) -> Sequence[Recording]:
        return await self._call(_ASSETS, stream_id, lambda: self._mux.recordings(stream_id))

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

    async def _call(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._provider, operation, subject, effect)


class Uploads:
    def __init__(self, replica: Replica, provider: Provider, mux: Mux) -> None:
        self._replica = replica
        self._provider = provider
        self._mux = mux

    async def create(self, wanted: UploadWanted) -> Recording:
        return await self._call(_UPLOAD, wanted.tag, lambda: self._mux.upload(wanted))

    async def find(self, tag: str, *, since: datetime) -> Sequence[Recording]:
        del since
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

    async def _call(self, operation: Operation, subject: str, effect: Callable[[], _T]) -> _T:
        return await self._replica.call(self._provider, operation, subject, effect)


class Storage:
    def __init__(self, signature: str) -> None:
        self._signature = signature

    def url_of(self, file: str) -> Secret:
        return Secret(f"https://storage.example/{file}?X-Amz-Signature={self._signature}")


class Playlists:
    def __init__(self, replica: Replica, provider: Provider, mux: Mux) -> None:
        self._replica = replica
        self._provider = provider
        self._mux = mux

    async def look(self, url: str) -> PlaylistSeen:
        playback_id = url.removeprefix("/").removesuffix(".m3u8")
        return await self._replica.call(self._provider, _PLAY, playback_id, lambda: self._mux.playlist(playback_id))
