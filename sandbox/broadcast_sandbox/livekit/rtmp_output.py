"""One RTMP output of an egress: its url, its part of the record, and the push that serves it."""

import asyncio
import time
from dataclasses import dataclass

from livekit.protocol import egress as proto

from broadcast_sandbox.livekit.push import Push
from broadcast_sandbox.livekit.stream_url import StreamUrl


@dataclass(slots=True, kw_only=True)
class RtmpOutput:
    url: StreamUrl
    info: proto.StreamInfo
    push: Push | None = None
    """None before the egress is ACTIVE."""
    task: asyncio.Task[None] | None = None
    """Runs the push."""
    retry_told: bool = False
    """A retry was told within the last minute."""

    @property
    def connecting(self) -> bool:
        return self.info.status == proto.StreamInfo.ACTIVE and self.info.started_at == 0

    def finish(self, status: proto.StreamInfo.Status) -> None:
        """An output that never started is said to have started when it ended (pkg/config/output_stream.go)."""
        if self.info.ended_at:
            return
        self.info.status = status
        self.info.ended_at = time.time_ns()
        if self.info.started_at == 0:
            self.info.started_at = self.info.ended_at
        else:
            self.info.duration = self.info.ended_at - self.info.started_at
