"""`livekit.Egress` of the simulated LiveKit (livekit/livekit pkg/service/egress.go and ioservice.go)."""

from collections.abc import Mapping

import aiohttp
from google.protobuf.message import Message
from livekit import api
from livekit.protocol import egress as proto
from livekit.protocol import models

from broadcast_sandbox.livekit.egress.egress import Egress
from broadcast_sandbox.livekit.egress.file import FileOutput, redact
from broadcast_sandbox.livekit.egress.record import ACTIVE, ENDING, STARTING
from broadcast_sandbox.livekit.egress.stream_url import (
    StreamUrl,
    expand,
    invalid_url,
    parse_stream_url,
    redact_request_url,
)
from broadcast_sandbox.livekit.rooms import Room, Rooms
from broadcast_sandbox.livekit.twirp import (
    NO_WORKER_TRIES,
    PSRPC_PREFIX,
    UNANSWERED_S,
    Method,
    TwirpError,
    no_response,
    no_worker_took_it,
    psrpc_error,
)
from broadcast_sandbox.livekit.world import World

_SELECTION_S = 3.0
"""No worker claims the request: 3 selections of 1 s before the server looks at the record (rpc/typed_api.go)."""

_NOT_SIMULATED = (
    ("StartEgress", proto.StartEgressRequest),
    ("StartWebEgress", proto.WebEgressRequest),
    ("StartParticipantEgress", proto.ParticipantEgressRequest),
    ("StartTrackCompositeEgress", proto.TrackCompositeEgressRequest),
    ("StartTrackEgress", proto.TrackEgressRequest),
)


class EgressService:
    def __init__(self, world: World, rooms: Rooms, session: aiohttp.ClientSession) -> None:
        self._world = world
        self._rooms = rooms
        self._session = session
        self.egresses: dict[str, Egress] = {}
        rooms.on_closed.append(self._room_closed)
        rooms.on_left.append(self._participant_left)

    def methods(self) -> Mapping[str, Method]:
        table = {
            "StartRoomCompositeEgress": (proto.RoomCompositeEgressRequest, self.start),
            "UpdateLayout": (proto.UpdateLayoutRequest, self._update_layout),
            "UpdateStream": (proto.UpdateStreamRequest, self._update_stream),
            "ListEgress": (proto.ListEgressRequest, self._list),
            "StopEgress": (proto.StopEgressRequest, self._stop),
        }
        methods = {
            name: Method(request=request, allowed=_may_record, call=call, target=self._target)
            for name, (request, call) in table.items()
        }
        for name, request in _NOT_SIMULATED:
            methods[name] = Method(request=request, allowed=_may_record, call=_not_simulated, target=self._target)
        return {f"livekit.Egress/{name}": method for name, method in methods.items()}

    def take_faults(self) -> None:
        for egress in list(self.egresses.values()):
            egress.take_faults()

    async def start(self, request: proto.RoomCompositeEgressRequest) -> proto.EgressInfo:
        room = self._rooms.stored.get(request.room_name)
        if room is None:
            raise psrpc_error("not_found", "requested room does not exist")
        await self._worker()
        urls, file = _validated(request)
        egress = Egress(
            self._world, self._rooms, self._session, room=room, request=_redacted(request), urls=urls, file=file
        )
        self.egresses[egress.id] = egress
        egress.start()
        return egress.info()

    def forget(self) -> None:
        """The store loses the records of all egresses."""
        for egress in self.egresses.values():
            egress.forget()

    async def _worker(self) -> None:
        """Find a worker that is free, also one that becomes free between two tries. Raises TwirpError."""
        for _ in range(NO_WORKER_TRIES):
            busy = sum(not egress.ended and not egress.ghost for egress in self.egresses.values())
            if not 0 <= self._world.workers <= busy:
                return
            await no_worker_took_it(self._world)
        raise no_response()

    async def _list(self, request: proto.ListEgressRequest) -> proto.ListEgressResponse:
        """Records as stored. An unknown id is 404, not an empty list; with an id the other filters are ignored."""
        if request.egress_id:
            return proto.ListEgressResponse(items=[self._known(request.egress_id)[1]])
        shown = [info for egress in self.egresses.values() if (info := egress.listed()) is not None]
        return proto.ListEgressResponse(
            items=[
                info
                for info in shown
                if (not request.room_name or info.room_name == request.room_name)
                and (not request.active or info.status in (STARTING, ACTIVE, ENDING))
            ]
        )

    async def _stop(self, request: proto.StopEgressRequest) -> proto.EgressInfo:
        egress = await self._running(request.egress_id, "stopped")
        self._world.effects.append("egress.stopped", egress.id, room=egress.room_name)
        egress.stop("StopEgress API")
        return egress.info()

    async def _update_stream(self, request: proto.UpdateStreamRequest) -> proto.EgressInfo:
        """Valid urls are added and removed even if an error is answered (pkg/pipeline/controller.go, UpdateStream)."""
        egress = await self._running(request.egress_id, "updated")
        errors: list[TwirpError] = []
        added = [url for raw in request.add_output_urls if (url := _parsed(raw, errors)) is not None]
        for url in added:
            egress.outputs.add(url)
        removed: list[str] = []
        for raw in request.remove_output_urls:
            output = egress.outputs.living.get(expand(raw))
            if output is None or not egress.outputs.remove(output.url.expanded):
                errors.append(psrpc_error("not_found", f"stream {raw} not found"))
            else:
                removed.append(output.url.redacted)
        self._log_urls(egress, "egress.urls_added", [url.redacted for url in added])
        self._log_urls(egress, "egress.urls_removed", removed)
        if egress.status == ACTIVE:
            egress.outputs.updated()
        if errors:
            lines = "\n".join(error.message.removeprefix(PSRPC_PREFIX) for error in errors)
            raise psrpc_error(errors[0].code, lines)
        return egress.info()

    async def _update_layout(self, request: proto.UpdateLayoutRequest) -> proto.EgressInfo:
        """Only sets the metadata of the egress participant; the stock template does not look at it."""
        egress, _ = self._known(request.egress_id)
        room = self._rooms.living.get(egress.room_name)
        person = room.participants.get(egress.id) if room is not None else None
        if room is None or person is None:
            raise psrpc_error("not_found", "participant does not exist")
        person.metadata = f'{{"layout":"{request.layout}"}}'
        self._world.effects.append("egress.layout", egress.id, room=egress.room_name, layout=request.layout)
        return egress.info()

    def _known(self, egress_id: str) -> tuple[Egress, proto.EgressInfo]:
        """The egress, and its record in the store. Raises TwirpError."""
        egress = self.egresses.get(egress_id)
        if egress is None or (stored := egress.listed()) is None:
            raise psrpc_error("not_found", "egress does not exist")
        return egress, stored

    async def _running(self, egress_id: str, verb: str) -> Egress:
        """The egress, if its worker answers; *verb* is for the error text. Raises TwirpError."""
        egress = self.egresses.get(egress_id)
        if egress is None or egress.ended:
            await self._world.clock.sleep(_SELECTION_S)
            egress, _ = self._known(egress_id)
            name = proto.EgressStatus.Name(egress.status)
            raise TwirpError("failed_precondition", f"egress with status {name} cannot be {verb}")
        if egress.ghost:
            await self._world.clock.sleep(UNANSWERED_S)
            raise psrpc_error("deadline_exceeded", "request timed out")
        if egress.status == ENDING and verb == "updated":
            raise TwirpError("failed_precondition", "egress with status EGRESS_ENDING cannot be updated")
        return egress

    def _log_urls(self, egress: Egress, kind: str, urls: list[str]) -> None:
        if urls:
            self._world.effects.append(kind, egress.id, room=egress.room_name, urls=urls)

    def _room_closed(self, room: Room) -> None:
        for egress in self._in_room(room):
            egress.stop("Source closed")

    def _participant_left(self, _: Room, person: models.ParticipantInfo, reason: models.DisconnectReason) -> None:
        thrown_out = (models.DisconnectReason.DUPLICATE_IDENTITY, models.DisconnectReason.PARTICIPANT_REMOVED)
        egress = self.egresses.get(person.identity)
        if egress is not None and person.kind == models.ParticipantInfo.EGRESS and reason in thrown_out:
            egress.source_lost()

    def _in_room(self, room: Room) -> list[Egress]:
        return [egress for egress in self.egresses.values() if egress.room is room]

    def _target(self, request: Message) -> str:
        egress_id = str(getattr(request, "egress_id", ""))
        room_name = str(getattr(request, "room_name", ""))
        if egress_id in self.egresses:
            room_name = self.egresses[egress_id].room_name
        return f"{egress_id} {room_name}".strip()


def _may_record(grants: api.VideoGrants, _: Message) -> bool:
    return bool(grants.room_record)


async def _not_simulated(_: Message) -> Message:
    raise TwirpError("unimplemented", "only room composite egresses are simulated")


def _parsed(raw: str, errors: list[TwirpError]) -> StreamUrl | None:
    try:
        return parse_stream_url(raw)
    except TwirpError as error:
        errors.append(error)
        return None


def _invalid(field: str) -> TwirpError:
    return psrpc_error("invalid_argument", f"request has missing or invalid field: {field}")


def _validated(request: proto.RoomCompositeEgressRequest) -> tuple[list[StreamUrl], FileOutput | None]:
    """In the worker's order: source, encoding, outputs (livekit/egress pkg/config)."""
    if request.audio_only and request.video_only:
        raise _invalid("audio_only and video_only")
    if request.WhichOneof("options") == "advanced":
        _check_encoding(request.advanced)
    if len(request.stream_outputs) > 1:
        raise _invalid("multiple stream outputs")
    if len(request.file_outputs) > 1:
        raise _invalid("multiple file outputs")
    file = FileOutput(request.file_outputs[0]) if request.file_outputs else None
    output = _stream_output(request)
    if output is not None:
        return _urls(output), file
    if file is not None:
        return [], file
    if request.segment_outputs or request.image_outputs or request.WhichOneof("output"):
        raise TwirpError("unimplemented", "only stream and file outputs are simulated")
    raise _invalid("output")


def _urls(output: proto.StreamOutput) -> list[StreamUrl]:
    if not output.urls:
        raise _invalid("stream protocol" if output.protocol == proto.DEFAULT_PROTOCOL else "stream url")
    if output.protocol not in (proto.DEFAULT_PROTOCOL, proto.RTMP):
        raise invalid_url(output.urls[0], "invalid scheme")
    # Two equal urls are one output, because the worker keeps outputs by url.
    return list({url.expanded: url for url in map(parse_stream_url, output.urls)}.values())


def _check_encoding(options: proto.EncodingOptions) -> None:
    """Bit rates out of range are not refused, they silently become defaults (livekit/egress pkg/config/encoding.go)."""
    for name, size in (("width", options.width), ("height", options.height)):
        if size > 0 and (size < 16 or size % 2 == 1):
            raise _invalid(name)
    if options.depth not in (0, 8, 16, 24):
        raise _invalid("depth")


def _stream_output(request: proto.RoomCompositeEgressRequest) -> proto.StreamOutput | None:
    if request.stream_outputs:
        return request.stream_outputs[0]
    return request.stream if request.WhichOneof("output") == "stream" else None


def _redacted(request: proto.RoomCompositeEgressRequest) -> proto.RoomCompositeEgressRequest:
    copy = proto.RoomCompositeEgressRequest()
    copy.CopyFrom(request)
    if (output := _stream_output(copy)) is not None:
        output.urls[:] = [redact_request_url(url) for url in output.urls]
        # The field is newer than the simulated server, which neither uses nor shows it.
        del output.destinations[:]
    for file in copy.file_outputs:
        redact(file)
    return copy
