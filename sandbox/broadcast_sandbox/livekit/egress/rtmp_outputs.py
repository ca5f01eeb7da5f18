"""The RTMP outputs of one egress: added, removed, pushed, retried, failed, each on its own.

Source: livekit/egress pkg/pipeline/controller.go.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from livekit.protocol import egress as proto

from broadcast_sandbox.livekit.egress.push import Push, PushEvents, RtmpOutput
from broadcast_sandbox.livekit.egress.record import ACTIVE, ENDING, EgressRecord
from broadcast_sandbox.livekit.egress.stream_url import StreamUrl
from broadcast_sandbox.livekit.world import World

_RETRY_UPDATE_EVERY_S = 60.0
"""Provider's time (pkg/pipeline/controller.go, streamRetryUpdateInterval)."""


class RtmpOutputs:
    def __init__(
        self,
        world: World,
        session: aiohttp.ClientSession,
        record: EgressRecord,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        stop: Callable[[str], None],
        fail: Callable[[str, int], None],
    ) -> None:
        """*stop* (reason) is called when the last output was removed, *fail* (error, code) when the last one failed."""
        self._world = world
        self._session = session
        self._record = record
        self._spawn = spawn
        self._stop = stop
        self._fail = fail
        self.living: dict[str, RtmpOutput] = {}
        """By expanded url."""

    @property
    def wedged(self) -> bool:
        """Whether one of them carries nothing although its connection stands."""
        return any(output.push is not None and output.push.wedged for output in self.living.values())

    def add(self, url: StreamUrl) -> None:
        output = RtmpOutput(url=url, info=proto.StreamInfo(url=url.redacted))
        self._record.outputs.append(output)
        self.living[url.expanded] = output
        if self._record.base.status == ACTIVE:
            self._push(output)

    def remove(self, expanded: str) -> bool:
        """False if there is no such output. The last output ends the egress."""
        output = self.living.get(expanded)
        if output is None:
            return False
        if len(self.living) == 1:
            # It goes on pushing until the egress has ended.
            output.finish(proto.StreamInfo.FINISHED)
            self._stop("All streams stopped")
            return True
        self._close(output, proto.StreamInfo.FINISHED)
        return True

    def push(self) -> None:
        """The egress is ACTIVE."""
        for output in list(self.living.values()):
            self._push(output)

    def take_faults(self) -> None:
        for output in self.living.values():
            if output.push is not None and output.push.connected:
                output.push.take_faults()

    async def end_pushes(self) -> None:
        pushes = [output.task for output in self.living.values() if output.task is not None]
        for push in pushes:
            push.cancel()
        if pushes:
            await asyncio.wait(pushes, timeout=1.0)

    def finish(self) -> None:
        """The egress has ended."""
        for output in list(self.living.values()):
            self._close(output, proto.StreamInfo.FINISHED)

    def updated(self) -> None:
        """Tell of it, but only when every stream has either started or failed (controller.go, streamUpdated)."""
        self._record.touch()
        if not any(output.connecting for output in self.living.values()) and not self._record.ended:
            self._record.updated()

    def _push(self, output: RtmpOutput) -> None:
        events = PushEvents(
            connected=lambda: self._connected(output),
            retried=lambda: self._retried(output),
            lost=lambda: self._record.log("egress.stream_lost", url=output.info.url),
            failed=lambda error: self._stream_failed(output, error),
        )
        output.push = Push(self._world, self._session, output.url, owner=self._record.target, events=events)
        output.task = self._spawn(output.push.run())

    def _connected(self, output: RtmpOutput) -> None:
        self._record.log("egress.stream_connected", url=output.info.url)
        if output.info.started_at == 0:
            output.info.started_at = time.time_ns()
            self.updated()

    def _retried(self, output: RtmpOutput) -> None:
        output.info.last_retry_at = time.time_ns()
        output.info.retries += 1
        if not output.retry_told:
            output.retry_told = True
            self._spawn(self._tell_again(output))
            self.updated()

    async def _tell_again(self, output: RtmpOutput) -> None:
        await self._world.clock.sleep(_RETRY_UPDATE_EVERY_S)
        output.retry_told = False

    def _stream_failed(self, output: RtmpOutput, error: str) -> None:
        output.info.error = error
        self._close(output, proto.StreamInfo.FAILED)
        self._record.log("egress.stream_failed", url=output.info.url, error=error)
        if self._record.base.status == ENDING:
            return
        if self.living:
            self.updated()
        else:
            self._fail(error, 503)

    def _close(self, output: RtmpOutput, status: proto.StreamInfo.Status) -> None:
        if self.living.get(output.url.expanded) is output:
            del self.living[output.url.expanded]
        output.finish(status)
        if output.task is not None and output.task is not asyncio.current_task():
            output.task.cancel()
