"""One simulated room composite egress: STARTING -> ACTIVE -> ENDING -> COMPLETE, or FAILED, ABORTED, LIMIT_REACHED.

Sources: livekit/egress pkg/pipeline/controller.go, livekit/protocol livekit/livekit_egress.go.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import aiohttp
from livekit.protocol import egress as proto
from livekit.protocol import models

from broadcast_sandbox.faults import Fault, Kind
from broadcast_sandbox.livekit.egress.file import FileOutput
from broadcast_sandbox.livekit.egress.record import ACTIVE, ENDING, STARTING, EgressRecord
from broadcast_sandbox.livekit.egress.rtmp_outputs import RtmpOutputs
from broadcast_sandbox.livekit.egress.stream_url import StreamUrl
from broadcast_sandbox.livekit.rooms import Room, Rooms
from broadcast_sandbox.livekit.world import World, new_id

_WORKER_EXITS = 500
"""A worker that reported this error_code takes no more work and exits (measured, egress 1.14.1)."""


class Egress:
    def __init__(
        self,
        world: World,
        rooms: Rooms,
        session: aiohttp.ClientSession,
        *,
        room: Room,
        request: proto.RoomCompositeEgressRequest,
        urls: Sequence[StreamUrl],
        file: FileOutput | None = None,
    ) -> None:
        """*request*: redacted."""
        self._world = world
        self._rooms = rooms
        self._session = session
        self.room = room
        self._tasks: set[asyncio.Task[Any]] = set()
        self._participant: models.ParticipantInfo | None = None
        self.ghost = False
        """True: the worker is dead, and nothing answers for this egress any more."""
        self._file = file
        now = time.time_ns()
        sdk_source = request.audio_only and not request.layout and not request.custom_base_url
        base = proto.EgressInfo(
            egress_id=new_id("EG_"),
            room_id=room.base.sid,
            room_name=room.name,
            source_type=proto.EGRESS_SOURCE_TYPE_SDK if sdk_source else proto.EGRESS_SOURCE_TYPE_WEB,
            status=STARTING,
            started_at=now,
            updated_at=now,
            room_composite=request,
        )
        self._record = EgressRecord(world, base, file)
        self.outputs = RtmpOutputs(world, session, self._record, spawn=self._spawn, stop=self.stop, fail=self.fail)
        for url in urls:
            self.outputs.add(url)
        self._record.created()

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def room_name(self) -> str:
        return self._record.room_name

    @property
    def status(self) -> proto.EgressStatus:
        return self._record.base.status

    @property
    def ended(self) -> bool:
        return self._record.ended

    @property
    def target(self) -> str:
        return self._record.target

    def info(self) -> proto.EgressInfo:
        return self._record.info()

    def listed(self) -> proto.EgressInfo | None:
        """As the API shows it, `list_lag_s` behind. None: the store lost it."""
        return self._record.listed()

    def forget(self) -> None:
        """The store loses its record. It runs on."""
        self._record.forget()

    def start(self) -> None:
        request = self._record.base.room_composite
        file = {"file": self._file.key} if self._file is not None else {}
        self._record.log(
            "egress.started", urls=[output.info.url for output in self._record.outputs], layout=request.layout, **file
        )
        self._world.webhooks.egress("egress_started", self.info())
        self._spawn(self._start())

    def stop(self, reason: str) -> None:
        """As the real SendEOS: ABORTED before ACTIVE, else it ends in `egress_stop_s`, or in `drain_cap_s` where it is
        wedged. No effect while it ends.
        """
        if self.ended or self.ghost or self.status == ENDING:
            return
        self._record.base.details = f"End reason: {reason}"
        if self.status == STARTING:
            started = self.room.media.is_set() and self._participant is not None
            text = "Stop called before pipeline could start" if started else "Start signal not received"
            self._end(proto.EgressStatus.EGRESS_ABORTED, error=text, code=412)
            return
        self._record.base.status = ENDING
        self._end_file()
        self._record.updated()
        self._spawn(self._finish(proto.EgressStatus.EGRESS_COMPLETE))

    def fail(self, error: str, code: int) -> None:
        if self.ended or self.ghost:
            return
        if not self._record.base.details:
            self._record.base.details = "End reason: Failure"
        if code == _WORKER_EXITS and self._world.workers > 0:
            self._world.workers -= 1
        self._end(proto.EgressStatus.EGRESS_FAILED, error=error, code=code)

    def limit_reached(self) -> None:
        """LIMIT_REACHED is final and told when the stream has ended, without an update before."""
        if self.status == ACTIVE and not self.ghost:
            self._record.base.details = "End reason: Session limit reached"
            self._end_file()
            self._spawn(self._finish(proto.EgressStatus.EGRESS_LIMIT_REACHED, "Session limit reached", 413))

    def become_ghost(self) -> None:
        """The worker dies: its pushes are cut and its participant leaves, but the record stays ACTIVE for ever
        (livekit/livekit issue 1717).
        """
        if self.status != ACTIVE or self.ghost:
            return
        self.ghost = True
        self._record.log("egress.ghost")
        self._cancel_tasks()
        self._leave(models.DisconnectReason.CONNECTION_TIMEOUT)

    def source_lost(self) -> None:
        """The recorder was removed from the room. With an SDK source nothing is told and the record stays ACTIVE."""
        if self._record.base.source_type == proto.EGRESS_SOURCE_TYPE_SDK and self.status == ACTIVE:
            self.become_ghost()
        else:
            self.stop("Source closed")

    def abort(self, error: str) -> None:
        if self.status == STARTING and not self.ghost:
            self._record.base.details = "End reason: Failure"
            self._end(proto.EgressStatus.EGRESS_ABORTED, error=error, code=412)

    def take_faults(self) -> None:
        """Take the faults of a running egress, whether they were added before or after it started."""
        if self.status != ACTIVE or self.ghost:
            return
        faults = self._world.faults
        ends: dict[Kind, Callable[[Fault], None]] = {
            "egress_fail": lambda fault: self.fail(fault.message or "Internal error", fault.status),
            "egress_complete": lambda fault: self.stop(fault.message or "Source closed"),
            "egress_limit": lambda _: self.limit_reached(),
            "egress_ghost": lambda _: self.become_ghost(),
        }
        for kind, end in ends.items():
            if fault := faults.take("egress", self.target, kind):
                self._spawn(self._after(fault.delay_s, partial(end, fault)))
        self.outputs.take_faults()

    async def _start(self) -> None:
        """Chrome opens the page and joins, then waits for a track without any limit (template-default/Room.tsx)."""
        clock, half = self._world.clock, self._world.settings.egress_start_s / 2
        if self._world.faults.take("egress", self.target, "egress_stuck") is not None:
            return
        await clock.sleep(half)
        self._join()
        if fault := self._world.faults.take("egress", self.target, "egress_abort"):
            await clock.sleep(fault.delay_s)
            self.abort(fault.message or "Session limit reached before start signal")
            return
        await clock.sleep(half)
        await self.room.media.wait()
        self._record.base.status = ACTIVE
        if self._file is not None:
            self._file.begin(clock.now())
        self._record.log("egress.active")
        self._record.updated()
        self.outputs.push()
        self.take_faults()
        if (limit := self._world.settings.session_limit_s) is not None:
            self._spawn(self._after(limit, self.limit_reached))

    async def _finish(self, status: proto.EgressStatus, error: str = "", code: int = 0) -> None:
        settings = self._world.settings
        await self._world.clock.sleep(settings.drain_cap_s if self.outputs.wedged else settings.egress_stop_s)
        await self.outputs.end_pushes()
        if self._file is not None:
            if trouble := await self._file.upload(self._session):
                self._record.log("egress.upload_failed", file=self._file.key)
                status, error, code = proto.EgressStatus.EGRESS_FAILED, trouble, 500
            else:
                self._record.log("egress.uploaded", file=self._file.key, bytes=self._file.info.size)
        self._end(status, error=error, code=code)

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.end(self._world.clock.now())

    async def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        await self._world.clock.sleep(delay_s)
        act()

    def _end(self, status: proto.EgressStatus, *, error: str, code: int) -> None:
        if self.ended:
            return
        self._cancel_tasks()
        self._leave(models.DisconnectReason.CLIENT_INITIATED)
        self.outputs.finish()
        self._record.base.status = status
        self._record.base.error = error
        self._record.base.error_code = code
        self._record.touch()
        self._record.base.ended_at = self._record.base.updated_at
        reason = self._record.base.details.removeprefix("End reason: ")
        self._record.log("egress.ended", status=proto.EgressStatus.Name(status), reason=reason, error=error)
        self._record.store()
        self._world.webhooks.egress("egress_ended", self.info())

    def _join(self) -> None:
        """Its participant is hidden, not counted, and keeps no room open (livekit/protocol egress/token.go)."""
        self._participant = models.ParticipantInfo(
            identity=self.id,
            kind=models.ParticipantInfo.EGRESS,
            permission=models.ParticipantPermission(can_subscribe=True, hidden=True, recorder=True),
        )
        self._rooms.join(self.room, self._participant)

    def _leave(self, reason: models.DisconnectReason) -> None:
        if self._participant is not None and not self.room.closed:
            self._rooms.leave(self.room, self._participant, reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._world.background.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
