"""A small world for the plan: providers that keep the truth, and a reconciler that knows only what it was answered.

Time is explicit, chance is a list of faults that is used up call by call. Nothing here sleeps.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.broadcast import (
    AnyResource,
    Carrier,
    Egress,
    EgressStatus,
    EndReason,
    Kind,
    Phase,
    Room,
    State,
    Stream,
    StreamStatus,
    Target,
    seconds,
)
from service.domain.plan import plan
from service.domain.secret import Secret
from service.domain.status import state_of, status_of
from service.domain.step import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DisableStream,
    EndBroadcast,
    Plan,
    ResetKey,
    SetDestinations,
    SetLayout,
    SettleRecordings,
    StartEgress,
    Step,
    StopEgress,
    WriteOff,
    target_of,
)
from service.domain.view import View
from tests.unit.plan_looks import Key, Looks
from tests.unit.plan_providers import (
    LIST_LAG_S,
    T0,
    Crash,
    Fault,
    Mishap,
    NotDone,
    TrueEgress,
    TrueStream,
)

__all__ = ["T0", "Fault", "Mishap", "World"]

CREATES = (CreateRoom, CreateStream, StartEgress)
ROUNDS_AT_ONCE = 10
"""So many rounds of steps at one instant are no loop."""


@dataclass
class World(Looks):
    webhooks: bool = False
    check: Callable[["World", Plan], None] | None = None
    """Called with every plan."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wake_at: datetime | None = None
        self.done = False
        self.log: list[tuple[float, Step]] = []
        self.states: list[State] = []
        self.last_plan = Plan()

    # What callers and hosts do.

    def start(self) -> None:
        self.broadcast = replace(self.broadcast, target=Target.LIVE, start_time=self.now)
        self.wake_at = self.now

    def stop(self, reason: EndReason = EndReason.STOPPED) -> None:
        if self.broadcast.target is not Target.ENDED:
            self.broadcast = replace(self.broadcast, target=Target.ENDED, end_reason=reason)
        self.wake_at = self.now

    def set_host(self, *, publishes: bool) -> None:
        self.host = publishes
        self.hint()

    # Time.

    @property
    def state(self) -> State:
        return state_of(self.broadcast, self.resources)[0]

    def run(self, for_s: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; whether *until* came true."""
        end = self.now + seconds(for_s)
        while True:
            if self.wake_at is not None and self.wake_at <= self.now and not self.done:
                self._pass()
            if until is not None and until():
                return True
            if self.done and until is None:
                return False
            # The observer looks every 10 s, whatever else happens.
            tick = T0 + seconds((self.elapsed // 10 + 1) * 10)
            moments = [end, tick, *(event[0] for event in self.events[:1])]
            if self.wake_at is not None and not self.done:
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
        if self.broadcast.target is not Target.LIVE:
            return
        differ = False
        for row in self.rows.values():
            if row.phase is not Phase.PRESENT:
                continue
            match row:
                case Room():
                    differ |= not self.room or row.host_publishing is not self.host
                case Stream():
                    stream = self.streams.get(row.external_id)
                    differ |= stream is None or self.status_of_stream(stream) is not row.status
                case Egress():
                    egress = self.egresses.get(row.external_id)
                    differ |= egress is None or egress.status is not row.status
        known = {row.external_id for row in self.rows.values()}
        differ |= any(not e.status.terminal and e.id not in known for e in self.egresses.values())
        if differ:
            self.broadcast = replace(self.broadcast, dirty_at=self.now)
            self.wake_at = self.now

    # The reconciler: one pass.

    def _pass(self) -> None:
        rounds = 0
        while True:
            self.observe()
            before = self.resources
            current = plan(self.broadcast, before, self.now, self.timing)
            self.last_plan = current
            if self.check is not None:
                self.check(self, current)
            self.wake_at = current.wait_until
            if current.done:
                self.done = True
            try:
                for step in current.steps:
                    self.log.append((self.elapsed, step))
                    self._act(step)
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
        view, now = View(self.resources), self.now
        room, stream = view.room, view.stream
        there = room is not None and stream is not None and room.phase is stream.phase is Phase.PRESENT
        if there and self.broadcast.ready_time is None and self.broadcast.target is Target.LIVE:
            self.broadcast = replace(self.broadcast, ready_time=now)
        state, status = status_of(self.broadcast, self.resources, self.last_plan, now)
        if state is State.LIVE and self.broadcast.live_time is None:
            self.broadcast = replace(self.broadcast, live_time=now)
        self.broadcast = replace(self.broadcast, state=state, status=status)
        if not self.states or self.states[-1] is not state:
            self.states.append(state)

    # Steps.

    def _act(self, step: Step) -> None:
        key = target_of(step)
        match step:
            case EndBroadcast():
                self.stop(step.reason)
                return
            case WriteOff():
                self.put(replace(self.rows[step.kind, step.ordinal], phase=Phase.GONE, changed_at=self.now))
                return
            case _:
                assert key is not None
        self._before(step, key)
        try:
            answer = self._call(step)
        except NotDone as trouble:
            self._failed(step, key, trouble)
        else:
            self.put(replace(self.rows[key], failures=0, retry_at=None))
            self._after(step, key, answer)

    def _before(self, step: Step, key: Key) -> None:
        row, now = self.rows.get(key), self.now
        match step:
            case CreateRoom():
                self.put(
                    Room(ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=now, changed_at=now)
                    if row is None
                    else replace(row, phase=Phase.INTENDED, changed_at=now)
                )
            case CreateStream():
                assert row is None
                self.put(Stream(ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=now, changed_at=now))
            case StartEgress():
                assert row is None
                stream = View(self.resources).stream
                assert stream is not None
                self.put(
                    Egress(
                        ordinal=step.ordinal,
                        phase=Phase.INTENDED,
                        intended_at=now,
                        changed_at=now,
                        key_epoch=stream.key_epoch,
                        layout=self.broadcast.spec.layout,
                        destinations=tuple(d.name for d in self.broadcast.spec.carried_by(Carrier.EGRESS)),
                    )
                )
            case DeleteRoom() | DeleteStream():
                assert row is not None
                self.put(replace(row, phase=Phase.DELETING, changed_at=now))
            case StopEgress():
                assert row is not None
                if row.phase is not Phase.DELETING:
                    self.put(replace(row, phase=Phase.DELETING, changed_at=now, failures=0, retry_at=None))
                elif not row.acked and row.failures == 0:
                    # The call before was never made, or its process died in it.
                    self.put(replace(row, changed_at=now))
            case ResetKey():
                assert isinstance(row, Stream)
                self.put(replace(row, key_stale=True))
            case CutStream():
                assert isinstance(row, Stream)
                self.put(replace(row, cutting=True))
            case _:
                pass

    def _failed(self, step: Step, key: Key, trouble: NotDone) -> None:
        row = self.rows[key]
        failures = row.failures + 1
        phase, changed_at = row.phase, row.changed_at
        if isinstance(step, CREATES):
            changed_at = self.now
            if trouble.ambiguous:
                phase = Phase.UNKNOWN
            elif not isinstance(step, CreateRoom):
                before = self.rows.get((row.kind, row.ordinal - 1))
                failures = (before.failures if before is not None else 0) + 1
                phase = Phase.GONE
        retry_at = self.now + seconds(min(30.0, 2.0 ** min(failures - 1, 10)))
        self.put(
            replace(
                row, phase=phase, changed_at=changed_at, failures=failures, retry_at=retry_at, refused=trouble.refused
            )
        )

    def _after(self, step: Step, key: Key, answer: str) -> None:  # noqa: C901 - one case per step
        row, now = self.rows[key], self.now
        match step, row:
            case CreateRoom(), Room():
                self.put(replace(row, phase=Phase.PRESENT, changed_at=now, host_publishing=self.host, host_since=now))
            case CreateStream(), Stream():
                new_key = Secret(self.streams[answer].key)
                self.put(replace(row, phase=Phase.PRESENT, changed_at=now, external_id=answer, key=new_key))
            case StartEgress(), Egress():
                self.put(
                    replace(row, phase=Phase.PRESENT, changed_at=now, external_id=answer, status=EgressStatus.STARTING)
                )
            case ((DeleteRoom() | DeleteStream() | StopEgress()), _):
                self.put(replace(row, acked=True))
            case ResetKey(), Stream():
                self.put(replace(row, key_epoch=row.key_epoch + 1, key_stale=False, key=Secret(answer)))
            case DisableStream(), Stream():
                self.put(replace(row, disabled=True))
            case CutStream(), Stream():
                self.put(
                    replace(
                        row,
                        cutting=False,
                        cut_epoch=row.key_epoch,
                        status=StreamStatus.IDLE,
                        status_since=now,
                        silent_at=now,
                    )
                )
            case SettleRecordings(), Stream():
                self.put(replace(row, recordings_settled=True))
            case SetLayout(), Egress():
                self.put(replace(row, layout=self.broadcast.spec.layout))
            case SetDestinations(), Egress():
                kept = tuple(name for name in row.destinations if name not in step.remove)
                self.put(replace(row, destinations=(*kept, *step.add)))
            case _:
                raise AssertionError(step)

    def _call(self, step: Step) -> str:
        mishap = self.mishaps.pop(0) if self.mishaps else Mishap(fault=Fault.NONE)
        # The effect is bound now: what lands late has the key of its own time.
        effect = self._effect(step, mishap)
        if mishap.fault is not Fault.NONE:
            self.last_fault_at = self.now
        match mishap.fault:
            case Fault.FAIL:
                raise NotDone
            case Fault.REFUSE:
                raise NotDone(refused=isinstance(step, CREATES))
            case Fault.VANISH:
                raise NotDone(ambiguous=True)
            case Fault.LOST_REPLY:
                effect()
                raise NotDone(ambiguous=True)
            case Fault.LATE:
                self.at(mishap.delay_s, lambda: self.land(effect))
                self.last_fault_at = self.now + seconds(mishap.delay_s)
                raise NotDone(ambiguous=True)
            case Fault.CRASH_BEFORE:
                raise Crash
            case Fault.CRASH_AFTER:
                effect()
                raise Crash
            case Fault.NONE | Fault.DEAD_WORKER | Fault.DEAF_WORKER:
                return effect()

    def _effect(self, step: Step, mishap: Mishap) -> Callable[[], str]:  # noqa: C901 - one case per step
        key = target_of(step)
        assert key is not None
        row = self.rows[key]
        asked_at = self.now

        def effect() -> str:
            try:
                return carry_out()
            finally:
                self.settle()

        def carry_out() -> str:  # noqa: C901 - one case per step
            number = next(self.numbers)
            match step:
                case CreateRoom():
                    self.room_landed_late = self.now > asked_at
                    self.room = True
                case DeleteRoom():
                    self.lose_room()
                case CreateStream():
                    stream = TrueStream(
                        id=f"s{number}", ordinal=step.ordinal, landed_at=self.now, key=f"s{number}/key0"
                    )
                    self.streams[stream.id] = stream
                    return stream.id
                case StartEgress():
                    return self.launch(f"e{number}", step.ordinal, stream_key, mishap)
                case StopEgress():
                    return self.end(row.external_id)
                case ResetKey():
                    found = self.streams.get(row.external_id)
                    if found is None:
                        raise NotDone
                    found.key = f"{found.id}/key{number}"
                    return found.key
                case DisableStream():
                    if row.external_id not in self.streams:
                        raise NotDone
                    self.streams[row.external_id].disabled = True
                case CutStream():
                    self.cut(row.external_id)
                case DeleteStream():
                    self.streams.pop(row.external_id, None)
                case _:
                    pass
            return ""

        in_use = View(self.resources).stream
        stream_key = in_use.key.reveal() if in_use is not None else ""
        return effect

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
        return left
