"""A small world for the plan: providers that keep the truth, and a reconciler that knows only what it was answered.

Time is explicit, chance is a list of faults that is used up call by call. Nothing here sleeps.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from service.domain.broadcast import State, Target, seconds
from service.domain.planning.plan import plan
from service.domain.planning.steps import (
    Plan,
    Step,
)
from service.domain.reporting.status import state_of, status_of
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    Room,
    Stream,
    Upload,
)
from tests.unit.plan_deeds import Deeds
from tests.unit.plan_looks import Key
from tests.unit.plan_providers import (
    LIST_LAG_S,
    T0,
    Crash,
    Fault,
    Mishap,
    TrueEgress,
    TrueFile,
    TrueStream,
)

__all__ = ["T0", "Fault", "Mishap", "World"]

ROUNDS_AT_ONCE = 10
"""So many rounds of steps at one instant are no loop."""


@dataclass
class World(Deeds):
    webhooks: bool = False
    check: Callable[["World", Plan], None] | None = None
    """Called with every plan."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.done = False
        """Nothing runs any more."""
        self.rests = False
        """And nothing is waited for."""
        self.passes = 0
        self.log: list[tuple[float, Step]] = []
        self.states: list[State] = []
        self.last_plan = Plan()

    # What callers and hosts do.

    def start(self) -> None:
        self.broadcast = replace(self.broadcast, target=Target.LIVE, start_time=self.now)
        self.wake_at = self.now

    def set_host(self, *, publishes: bool) -> None:
        self.host = publishes
        self.hint()

    def set_on_air(self, *, on_air: bool) -> None:
        self.broadcast = replace(self.broadcast, on_air=on_air)
        self.wake_at = self.now

    # Time.

    @property
    def state(self) -> State:
        return state_of(self.broadcast, self.resources)[0]

    def run(self, for_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; whether *until* came true."""
        end = self.now + seconds(for_s)
        while True:
            if self.wake_at is not None and self.wake_at <= self.now and not self.rests:
                self._pass()
            if until is not None and until():
                return True
            if self.rests and until is None:
                return False
            # The observer looks every 10 s, whatever else happens.
            tick = T0 + seconds((self.elapsed // 10 + 1) * 10)
            moments = [end, tick, *(event[0] for event in self.events[:1])]
            if self.wake_at is not None and not self.rests:
                moments.append(self.wake_at)
            step_to = min(moments)
            if step_to >= end:
                self.now = end
                self.settle()
                return False
            self.now = step_to
            while self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()
            self.settle()
            if self.now == tick:
                self._compare()

    def hint(self) -> None:
        """A webhook."""
        if self.webhooks and self.broadcast.target is Target.LIVE:
            self.broadcast = replace(self.broadcast, dirty_at=self.now)
            self.wake_at = self.now

    def _compare(self) -> None:
        """The observer: what the providers list, against what is stored."""
        if self.report() and self.wake_at is not None:
            self.wake_at = self.now
        if self.broadcast.target is not Target.LIVE:
            return
        differ = False
        for row in self.rows.values():
            if row.phase is not Phase.PRESENT:
                continue
            match row:
                case Room() if "livekit" not in self.away:
                    differ |= not self.room or row.host_publishing is not self.host
                case Stream() if "mux" not in self.away:
                    stream = self.streams.get(row.external_id)
                    differ |= stream is None or self.status_of_stream(stream) is not row.status
                case Egress() if "livekit" not in self.away:
                    egress = self.egresses.get(row.external_id)
                    differ |= egress is None or egress.status is not row.status
                case LocalRecording() if "livekit" not in self.away:
                    file = self.files.get(row.external_id)
                    differ |= file is None or file.status is not row.status
                case _:
                    pass
        known = {row.external_id for row in self.rows.values()}
        listed = [*self.egresses.values(), *self.files.values()] if "livekit" not in self.away else []
        differ |= any(not each.status.terminal and each.id not in known for each in listed)
        if differ:
            self.broadcast = replace(self.broadcast, dirty_at=self.now)
            self.wake_at = self.now

    # The reconciler: one pass.

    def _pass(self) -> None:
        rounds = 0
        self.passes += 1
        while True:
            self.observe()
            before = self.resources
            current = plan(self.broadcast, before, self.now, self.timing, self.availability)
            self.last_plan = current
            if self.check is not None:
                self.check(self, current)
            self.wake_at = current.wait_until
            self.done = current.done
            self.rests = current.done and not current.steps and current.wait_until is None
            try:
                for step in current.steps:
                    self.log.append((self.elapsed, step))
                    self.act(step)
            except Crash:
                self.wake_at = self.now + seconds(1)
                return
            finally:
                self._note()
            if not current.steps:
                return
            rounds += 1
            assert rounds <= ROUNDS_AT_ONCE, f"a hot loop: {self.log[-ROUNDS_AT_ONCE:]}"

    def _note(self) -> None:
        """What is told to callers, and the times that depend on it."""
        resource_set, now = ResourceSet(self.resources), self.now
        room, stream = resource_set.room, resource_set.stream
        there = room is not None and stream is not None and room.phase is stream.phase is Phase.PRESENT
        if there and self.broadcast.ready_time is None and self.broadcast.target is Target.LIVE:
            self.broadcast = replace(self.broadcast, ready_time=now)
        state, status = status_of(self.broadcast, self.resources, self.last_plan, now, self.availability)
        if state is State.LIVE and self.broadcast.live_time is None:
            self.broadcast = replace(self.broadcast, live_time=now)
        self.broadcast = replace(self.broadcast, state=state, status=status)
        if not self.states or self.states[-1] is not state:
            self.states.append(state)

    # What tests do to it, and ask of it.

    def steps_of(self, *types: type[Step]) -> list[Step]:
        return [step for _, step in self.log if isinstance(step, types)]

    def adopt(self, rows: Iterable[AnyResource], existing: frozenset[Key]) -> None:
        """Begin with these rows; *existing* are there at the providers."""
        for row in rows:
            key = (row.kind, row.ordinal)
            id_ = row.external_id or f"{row.kind}-{row.ordinal}"
            if row.phase is not Phase.INTENDED and row.phase is not Phase.UNKNOWN:
                self.put(replace(row, external_id=id_))
            else:
                self.put(row)
            if key not in existing:
                continue
            match row:
                case Room():
                    self.room = True
                case Stream():
                    self.streams[id_] = TrueStream(
                        id=id_, ordinal=row.ordinal, landed_at=T0 - seconds(60), key=f"{id_}/key"
                    )
                case Egress():
                    self.egresses[id_] = TrueEgress(
                        id=id_, ordinal=row.ordinal, landed_at=T0 - seconds(60), key="", status=EgressStatus.STARTING
                    )
                case LocalRecording():
                    self.files[id_] = TrueFile(
                        id=id_, ordinal=row.ordinal, landed_at=T0 - seconds(60), status=EgressStatus.ACTIVE
                    )
                case Upload():
                    self.upload(id_, row.ordinal, row.attempt)

    def left(self) -> list[str]:
        """What exists, except what landed later than it was waited for, and workers that nothing stops."""
        left: list[str] = ["room"] if self.room and not self.room_landed_late else []
        grace = {Kind.STREAM: self.timing.stream_grace_s, Kind.EGRESS: self.timing.egress_grace_s}
        for stream in self.streams.values():
            row = self.rows.get((Kind.STREAM, stream.ordinal))
            if row is None or stream.landed_at <= row.intended_at + seconds(grace[Kind.STREAM] - LIST_LAG_S):
                left.append(stream.id)
        for egress in self.egresses.values():
            row = self.rows.get((Kind.EGRESS, egress.ordinal))
            late = row is not None and egress.landed_at > row.intended_at + seconds(grace[Kind.EGRESS] - LIST_LAG_S)
            if egress.running and not egress.deaf and not late:
                left.append(egress.id)
        for file in self.files.values():
            row = self.rows.get((Kind.RECORDING, file.ordinal))
            late = row is not None and file.landed_at > row.intended_at + seconds(grace[Kind.EGRESS] - LIST_LAG_S)
            if file.running and not file.deaf and not late:
                left.append(file.id)
        return left
