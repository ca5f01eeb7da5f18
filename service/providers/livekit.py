"""LiveKit through livekit-api: rooms, egresses, host tokens.

The SDK has no time limit of its own (its session timeout is overridden by an explicit None in twirp_client.py), so
every call is under asyncio.timeout; its failover would send StartEgress again, so it is off. Errors are told apart by
`code`, never by text: those that crossed LiveKit's internal bus carry the prefix "twirp error unknown: "
(livekit/protocol utils/xtwirp).
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from google.protobuf.message import DecodeError
from livekit import api

from service import telemetry
from service.domain.broadcast import EgressStatus, OutputState
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import EgressSeen, EgressWanted, HostToken, OutputSeen, Push, RoomSeen, RoomWanted
from service.domain.secret import Secret
from service.providers.calls import observed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_OUTCOMES = {
    "unavailable": Outcome.UNAVAILABLE,
    "resource_exhausted": Outcome.THROTTLED,
    "not_found": Outcome.MISSING,
    "invalid_argument": Outcome.REFUSED,
    "malformed": Outcome.REFUSED,
    "out_of_range": Outcome.REFUSED,
    "failed_precondition": Outcome.REFUSED,
    "unimplemented": Outcome.REFUSED,
    "bad_route": Outcome.REFUSED,
    "unauthenticated": Outcome.CREDENTIALS,
    "permission_denied": Outcome.CREDENTIALS,
}
_CREATE, _READ, _STOP, _START = 6.0, 5.0, 10.0, 15.0
"""Seconds. LiveKit may go on with a start for 70 s after we have left; that is what intents and fences are for."""

# livekit/egress pkg/config/urls.go: `mux://KEY` is short for Mux's global RTMPS ingest.
_MUX = "rtmps://global-live.mux.com:443/app/"
_RTMP = re.compile(r"^(rtmps?://)(.*/)(.*/)(\S*)( live=1)?$")


class LiveKit:
    """The connection; `rooms`, `egresses` and `tokens` are what it is for."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        api_secret: Secret,
        longest_call: timedelta,
        room_of: Callable[[str], RoomWanted] | None = None,
        public_url: str = "",
    ) -> None:
        """*longest_call* ends inside a lease. *room_of*: the room of a name, see `Tokens`. *public_url*: what browsers
        connect to, where it is not *url*.

        To be built inside a running event loop.
        """
        self._api = api.LiveKitAPI(url, api_key, api_secret.reveal(), failover=False)
        calls = _Calls(longest_call.total_seconds())
        self.rooms = Rooms(self._api, calls)
        self.egresses = Egresses(self._api, calls)
        self.tokens = Tokens(public_url or re.sub("^http", "ws", url), api_key, api_secret, room_of)

    async def close(self) -> None:
        await self._api.aclose()


_T = TypeVar("_T")


class _Calls:
    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s

    async def __call__(self, operation: str, within_s: float, call: Awaitable[_T]) -> _T:
        with observed("livekit", operation, lambda raised: _failure(operation, raised)):
            async with asyncio.timeout(min(within_s, self._longest_s)):
                return await call


def _failure(operation: str, raised: Exception) -> ProviderError | None:
    starts = operation.startswith("Start")
    code, message = type(raised).__name__, str(raised)
    match raised:
        case api.ServerError():
            # Whatever stands in front of LiveKit has JSON of its own, such as {"code": 502}.
            code, message = str(raised.code), str(raised.message)
            outcome = _OUTCOMES.get(code, Outcome.AMBIGUOUS)
            if raised.status in (401, 403):
                # A wrong API key is answered in plain text, which the SDK calls "unknown".
                outcome = Outcome.CREDENTIALS
            if raised.status == 429:  # noqa: PLR2004 - of a proxy, which says it in no words of LiveKit's
                outcome = Outcome.THROTTLED
            if starts and outcome is Outcome.UNAVAILABLE:
                # "no response from servers": a worker may hold the request all the same (livekit/egress#720).
                outcome = Outcome.AMBIGUOUS
        case aiohttp.ClientConnectorError():
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case aiohttp.ClientError() | DecodeError() | OSError() | AttributeError():
            # AttributeError: the SDK takes an error's body for an object when it is a list, a number or null.
            outcome = Outcome.AMBIGUOUS
        case _:
            return None
    return ProviderError(telemetry.redact(message), provider="livekit", operation=operation, outcome=outcome, code=code)


def _not_empty(identifier: str, operation: str) -> None:
    """An empty body is a valid message of every type, and not what LiveKit answers to a write."""
    if not identifier:
        raise ProviderError(
            "an empty answer", provider="livekit", operation=operation, outcome=Outcome.AMBIGUOUS, code="empty"
        )


class Rooms:
    def __init__(self, lk: api.LiveKitAPI, calls: _Calls) -> None:
        self._rooms = lk.room
        self._call = calls

    async def create(self, wanted: RoomWanted) -> RoomSeen:
        room = await self._call(
            "CreateRoom",
            _CREATE,
            self._rooms.create_room(
                api.CreateRoomRequest(
                    name=wanted.name,
                    metadata=wanted.tag,
                    # Zero would mean the server's default, not "none".
                    empty_timeout=max(1, int(wanted.empty_timeout.total_seconds())),
                    departure_timeout=max(1, int(wanted.departure_timeout.total_seconds())),
                )
            ),
        )
        _not_empty(room.name, "CreateRoom")
        return _room(room)

    async def get(self, name: str) -> RoomSeen | None:
        found = await self._call("ListRooms", _READ, self._rooms.list_rooms(api.ListRoomsRequest(names=[name])))
        return next((_room(room) for room in found.rooms if room.name == name), None)

    async def list(self) -> Sequence[RoomSeen]:
        found = await self._call("ListRooms", _READ, self._rooms.list_rooms(api.ListRoomsRequest()))
        return [_room(room) for room in found.rooms]

    async def delete(self, name: str) -> None:
        try:
            await self._call("DeleteRoom", _STOP, self._rooms.delete_room(api.DeleteRoomRequest(room=name)))
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise


class Egresses:
    def __init__(self, lk: api.LiveKitAPI, calls: _Calls) -> None:
        self._egress = lk.egress
        self._call = calls

    async def start(self, wanted: EgressWanted) -> EgressSeen:
        encoding = wanted.encoding
        info = await self._call(
            "StartRoomCompositeEgress",
            _START,
            self._egress.start_room_composite_egress(
                api.RoomCompositeEgressRequest(
                    room_name=wanted.room_name,
                    layout=wanted.layout,
                    audio_only=wanted.audio_only,
                    # Presets cannot carry a key frame interval and leave it at 4 s; Mux asks for 2 s.
                    advanced=api.EncodingOptions(
                        width=encoding.width,
                        height=encoding.height,
                        framerate=encoding.frame_rate,
                        video_codec=api.VideoCodec.H264_MAIN,
                        # LiveKit counts in kilobits; bits would silently become 2048 kb/s.
                        video_bitrate=round(encoding.video_bitrate_bps / 1000),
                        audio_codec=api.AudioCodec.AAC,
                        audio_bitrate=round(encoding.audio_bitrate_bps / 1000),
                        audio_frequency=48_000,
                        key_frame_interval=2.0,
                    ),
                    # At most one StreamOutput is taken, with any number of urls.
                    stream_outputs=[
                        api.StreamOutput(
                            protocol=api.StreamProtocol.RTMP, urls=[push.url.reveal() for push in wanted.pushes]
                        )
                    ],
                )
            ),
        )
        _not_empty(info.egress_id, "StartRoomCompositeEgress")
        return _egress(info)

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        found = await self._call(
            "ListEgress", _READ, self._egress.list_egress(api.ListEgressRequest(room_name=room_name))
        )
        return [_egress(info) for info in found.items]

    async def list_active(self) -> Sequence[EgressSeen]:
        found = await self._call("ListEgress", _READ, self._egress.list_egress(api.ListEgressRequest(active=True)))
        return [_egress(info) for info in found.items]

    async def stop(self, egress_id: str) -> None:
        try:
            await self._call("StopEgress", _STOP, self._egress.stop_egress(api.StopEgressRequest(egress_id=egress_id)))
        except ProviderError as error:
            # 412 "egress with status EGRESS_COMPLETE cannot be stopped", or nothing of that id.
            if error.code not in ("failed_precondition", "not_found"):
                raise

    async def set_layout(self, egress_id: str, layout: str) -> None:
        """No effect on LiveKit's stock template since livekit/egress#806; a custom template takes it."""
        await self._call(
            "UpdateLayout",
            _STOP,
            self._egress.update_layout(api.UpdateLayoutRequest(egress_id=egress_id, layout=layout)),
        )

    async def set_pushes(self, egress_id: str, *, add: Sequence[Push], remove: Sequence[Push]) -> EgressSeen:
        """Partial where it fails: what could be done is done (livekit/egress pkg/pipeline/controller.go)."""
        info = await self._call(
            "UpdateStream",
            _STOP,
            self._egress.update_stream(
                api.UpdateStreamRequest(
                    egress_id=egress_id,
                    add_output_urls=[push.url.reveal() for push in add],
                    remove_output_urls=[push.url.reveal() for push in remove],
                )
            ),
        )
        _not_empty(info.egress_id, "UpdateStream")
        return _egress(info)

    def address_of(self, push: Push) -> str:
        url = push.url.reveal()
        if url.startswith("mux://"):
            url = _MUX + url.removeprefix("mux://")
        parts = _RTMP.match(url)
        if parts is None:
            return ""
        scheme, host, app, key = parts.group(1, 2, 3, 4)
        return f"{scheme}{host}{app}{_shown(key)}"


class Tokens:
    def __init__(
        self, url: str, api_key: str, api_secret: Secret, room_of: Callable[[str], RoomWanted] | None = None
    ) -> None:
        """*room_of*: a host who enters before the room was made makes it, with the server's defaults; a token can
        carry ours instead (livekit/livekit pkg/service/utils.go). Nothing secret may be in it: browsers can read it.
        """
        self._url = url
        self._room_of = room_of
        self._key = api_key
        self._secret = api_secret

    def issue(self, *, room_name: str, identity: str, display_name: str, ttl: timedelta) -> HostToken:
        expires = datetime.now(UTC) + ttl
        # Every grant is said: the SDK's defaults let everybody publish, subscribe and send data. Never `recorder` or
        # `agent`: such a participant does not keep its room open (livekit/livekit#4052).
        grants = api.VideoGrants(
            room_join=True,
            room=room_name,
            can_publish=True,
            can_publish_sources=["camera", "microphone", "screen_share", "screen_share_audio"],
            can_subscribe=True,
            can_publish_data=True,
            can_update_own_metadata=False,
            room_create=False,
            room_list=False,
            room_record=False,
            room_admin=False,
            ingress_admin=False,
            hidden=False,
        )
        token = (
            self._token(room_name)
            .with_identity(identity)
            .with_name(display_name)
            .with_ttl(ttl)
            .with_grants(grants)
            .to_jwt()
        )
        return HostToken(livekit_url=self._url, token=Secret(token), expire_time=expires)

    def _token(self, room_name: str) -> api.AccessToken:
        token = api.AccessToken(self._key, self._secret.reveal())
        if self._room_of is None:
            return token
        room = self._room_of(room_name)
        return token.with_room_config(
            api.RoomConfiguration(
                name=room.name,
                metadata=room.tag,
                empty_timeout=max(1, int(room.empty_timeout.total_seconds())),
                departure_timeout=max(1, int(room.departure_timeout.total_seconds())),
            )
        )


def _room(room: api.Room) -> RoomSeen:
    return RoomSeen(
        name=room.name,
        sid=room.sid,
        tag=room.metadata,
        publishers=room.num_publishers,
        created_at=datetime.fromtimestamp(room.creation_time, UTC) if room.creation_time else None,
    )


_STATUSES = {
    api.EgressStatus.EGRESS_STARTING: EgressStatus.STARTING,
    api.EgressStatus.EGRESS_ACTIVE: EgressStatus.ACTIVE,
    api.EgressStatus.EGRESS_ENDING: EgressStatus.ENDING,
    api.EgressStatus.EGRESS_COMPLETE: EgressStatus.COMPLETE,
    api.EgressStatus.EGRESS_FAILED: EgressStatus.FAILED,
    api.EgressStatus.EGRESS_ABORTED: EgressStatus.ABORTED,
    api.EgressStatus.EGRESS_LIMIT_REACHED: EgressStatus.LIMIT_REACHED,
}


def _egress(info: api.EgressInfo) -> EgressSeen:
    text = ": ".join(part for part in (info.error, info.details) if part)
    return EgressSeen(
        id=info.egress_id,
        room_name=info.room_name,
        status=_STATUSES.get(info.status, EgressStatus.UNKNOWN),
        started_at=datetime.fromtimestamp(info.started_at / 1e9, UTC) if info.started_at else None,
        updated_ns=info.updated_at,
        outputs=tuple(_output(result) for result in info.stream_results),
        error=telemetry.redact(text),
    )


def _output(result: api.StreamInfo) -> OutputSeen:
    match result.status:
        case api.StreamInfo.Status.FAILED:
            state = OutputState.FAILED
        case api.StreamInfo.Status.FINISHED:
            state = OutputState.FINISHED
        case _:
            # ACTIVE (0) from its creation; only started_at says that the connection stands.
            state = OutputState.ACTIVE if result.started_at else OutputState.CONNECTING
    return OutputSeen(address=result.url, state=state, message=telemetry.redact(result.error))


def _shown(key: str) -> str:
    """What LiveKit leaves of a key (livekit/protocol utils/redact.go)."""
    for length, shown in ((9, 3), (6, 2), (3, 1)):
        if len(key) >= length:
            return f"{{{key[:shown]}...{key[-shown:]}}}"
    return "{...}"
