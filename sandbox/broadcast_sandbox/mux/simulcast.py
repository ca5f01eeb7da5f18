"""The simulcast targets of a live stream: started when it becomes active, idle again when it ends."""

from functools import partial
from typing import Literal

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.mux.events import MuxEvents
from broadcast_sandbox.mux.model import LiveStream, SimulcastTarget
from broadcast_sandbox.mux.recording import Timers

_START_S = 1.0


class Simulcast:
    def __init__(self, *, effects: EffectLog, faults: FaultTable, events: MuxEvents, timers: Timers) -> None:
        self._effects = effects
        self._faults = faults
        self._events = events
        self._timers = timers

    def start(self, stream: LiveStream) -> None:
        for target in stream.simulcast_targets:
            if self._faults.take("simulcast", f"{stream.fault_target} {target.id} {target.url}", "rtmp_refuse"):
                self._set(stream, target, "errored")
                continue
            self._set(stream, target, "starting")
            broadcasting = partial(self._set, stream, target, "broadcasting")
            self._timers.start(stream.id, ("simulcast", target.id), _START_S, broadcasting)

    def stop(self, stream: LiveStream) -> None:
        for target in stream.simulcast_targets:
            self._timers.stop(stream.id, ("simulcast", target.id))
            if target.status != "idle":
                self._set(stream, target, "idle")

    def _set(
        self,
        stream: LiveStream,
        target: SimulcastTarget,
        status: Literal["idle", "starting", "broadcasting", "errored"],
    ) -> None:
        target.status = status
        self._effects.append(f"simulcast.{status}", stream.id, target=target.id)
        self._events.emit_target(status, stream, target)
