"""The record of one egress: changed by its worker, told by webhooks, and read over the API `list_lag_s` later."""

import random
from typing import Any

from livekit.protocol import egress as proto

from broadcast_sandbox.livekit.egress.file import FileOutput
from broadcast_sandbox.livekit.egress.push import RtmpOutput
from broadcast_sandbox.livekit.world import World, later_than

STARTING = proto.EgressStatus.EGRESS_STARTING
ACTIVE = proto.EgressStatus.EGRESS_ACTIVE
ENDING = proto.EgressStatus.EGRESS_ENDING


class EgressRecord:
    """Invariant: `updated_at` grows with every change that is stored."""

    def __init__(self, world: World, base: proto.EgressInfo, file: FileOutput | None) -> None:
        """*base*: everything but the results."""
        self._world = world
        self.base = base
        self.outputs: list[RtmpOutput] = []
        """Ended ones too."""
        self._file = file
        self._stored: proto.EgressInfo | None = self.info()

    @property
    def id(self) -> str:
        return self.base.egress_id

    @property
    def room_name(self) -> str:
        return self.base.room_name

    @property
    def target(self) -> str:
        """The text that a fault's `match` has to occur in."""
        return f"{self.id} {self.room_name}"

    @property
    def ended(self) -> bool:
        return self.base.status not in (STARTING, ACTIVE, ENDING)

    def info(self) -> proto.EgressInfo:
        """A copy. The order of the results is random, as that of the real map is (pkg/config/output_stream.go)."""
        info = proto.EgressInfo()
        info.CopyFrom(self.base)
        results = [output.info for output in self.outputs]
        random.shuffle(results)
        info.stream_results.extend(results)
        if self._file is not None:
            info.file_results.append(self._file.info)
            info.file.CopyFrom(self._file.info)
        else:
            info.stream.info.extend(results)
        return info

    def listed(self) -> proto.EgressInfo | None:
        """As the store has it, `list_lag_s` behind. None: the store lost it."""
        if self._stored is None:
            return None
        shown = proto.EgressInfo()
        shown.CopyFrom(self._stored)
        results = list(shown.stream_results)
        random.shuffle(results)
        del shown.stream_results[:]
        shown.stream_results.extend(results)
        if shown.HasField("stream"):
            del shown.stream.info[:]
            shown.stream.info.extend(results)
        return shown

    def touch(self) -> None:
        self.base.updated_at = later_than(self.base.updated_at)

    def updated(self) -> None:
        self.touch()
        self.store()
        self._world.webhooks.egress("egress_updated", self.info())

    def created(self) -> None:
        """The first state is in the store when StartEgress is answered."""
        self._stored = self.info()

    def store(self) -> None:
        lag = self._world.settings.list_lag_s
        if lag > 0:
            # A task of the world, not of the egress: its last state has to be shown after its end too.
            self._world.background.spawn(self._store_late(self.info(), lag))
        else:
            self._stored = self.info()

    def forget(self) -> None:
        """The store loses it, until its worker writes the next state."""
        self._stored = None

    def log(self, kind: str, **detail: Any) -> None:
        self._world.effects.append(kind, self.id, room=self.room_name, **detail)

    async def _store_late(self, info: proto.EgressInfo, lag_s: float) -> None:
        await self._world.clock.sleep(lag_s)
        if self._stored is None or info.updated_at > self._stored.updated_at:
            self._stored = info
