"""What must hold, checked against what is really there: safety at every effect and every commit, the rest after calm.

I-1  At no moment can two egresses publish to one live stream (running, and connected or with the key that is valid).
I-2  At last everything with our mark at the providers has an owner, and everything of a broadcast that is over is gone;
     what landed within its grace is adopted, and never left to the sweeper.
I-3  A broadcast that ends publishes no more: 15 s after its stop without faults, 120 s after the last fault otherwise.
     Its live stream was disabled before it was deleted, if anybody had a key of it.
I-4  No write that was answered is lost or done twice.
I-5  A request that is sent again is the same request: nobody is refused for what he made himself.
I-6  What is over stays so, its end does not move, and no create is intended once the target is ENDED.
I-7  Revisions have no gaps, `version` moves by one, the last snapshot of a broadcast is its row.
I-8  Every write of a pass carries the fence of the row, and no call that creates, resets or deletes is begun by one
     whose row is another's.
I-12 With the providers well, what is wanted and has a host is published, and LIVE is said of nothing else.
I-13 (of cost) Manual delivery that is off air has no egress.
I-14 At most 5 egress starts in 10 minutes of a broadcast; no more calls to Mux than its limits.

Not here, and why: I-9 (the same end with every webhook, some or none of them is what I-12 and I-2 say of all three; the
signatures and the stored inbox are real elsewhere), I-10 (secrets are searched for in the real logs and the real
database), I-11 (no call inside a transaction: transactions here contain no await, so it cannot be broken).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import DeliveryPolicy, State, Target
from service.domain.resources import Egress, Kind, Phase, Stream
from service.domain.view import View, never_ran
from tests.simulation.calls import LATE_S
from tests.simulation.replica import SWEEPER, TAG

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from tests.simulation.callers import Callers
    from tests.simulation.calls import Operation
    from tests.simulation.effects import Effect
    from tests.simulation.livekit import TrueEgress
    from tests.simulation.mux import LiveStream
    from tests.simulation.replica import Replica, Surroundings
    from tests.simulation.store import Row, Written

GRACE_S = 28.0
"""What a live stream's create may take and still be found by its own pass (`Timing.stream_grace_s`, less the lag)."""
STARTS, STARTS_WINDOW_S, STARTS_SLACK_S = 5, 600.0, 15.0
"""What the window is longer by for who waits: an intent is older than its commit."""
_POSTS = frozenset({"create_live_stream", "reset_stream_key", "create_asset"})
# Not `delete_asset`: a step that discards recordings takes one token for all of them.
_OTHERS = frozenset(
    {"get_live_stream", "list_live_streams", "disable_live_stream", "delete_live_stream", "list_assets"}
)
_INTENDED = frozenset(
    {
        "CreateRoom",
        "StartEgress",
        "StopEgress",
        "DeleteRoom",
        "UpdateStream",
        "create_live_stream",
        "reset_stream_key",
        "delete_live_stream",
    }
)
_BUNCHED = 6
"""Calls whose token was taken by replicas that stood still until now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    time: float
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.time:.1f} s: {self.text}"


@dataclass(slots=True)
class _Quota:
    rate: float
    burst: float
    tokens: float
    at: float = 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - 1
        self.at = now
        return self.tokens >= 0


class Invariants:
    def __init__(self, shared: Surroundings, callers: Callers) -> None:
        self._shared = shared
        self._callers = callers
        self._env = shared.env
        self.violations: list[Violation] = []
        self.seen: Counter[str] = Counter()
        """How often what must not be vacuous happened."""
        self.stopped_at: dict[str, float] = {}
        self._intents: dict[tuple[str, int], float] = {}
        self._starts: defaultdict[str, deque[float]] = defaultdict(deque)
        self._requested: defaultdict[str, Counter[str]] = defaultdict(Counter)
        limits = shared.limits
        self._posts = _Quota(limits.mux_post.rate, limits.mux_post.burst + _BUNCHED, limits.mux_post.burst + _BUNCHED)
        self._others = _Quota(
            limits.mux_other.rate, limits.mux_other.burst + _BUNCHED, limits.mux_other.burst + _BUNCHED
        )
        shared.env.effects.watchers.append(self._effect)
        shared.tables.written = self._written
        shared.called = self._called

    def violate(self, invariant: str, text: str) -> None:
        violation = Violation(time=self._env.loop.time(), invariant=invariant, text=text)
        self._env.trace.add("VIOLATION", invariant, text)
        self.violations.append(violation)

    # Safety, at every effect.

    def _effect(self, effect: Effect) -> None:
        match effect.kind:
            case "egress.started" | "rtmp.connected" | "key.reset":
                self._one_publisher(effect.broadcast_id)
                if effect.kind == "key.reset":
                    self.seen["fenced"] += 1
                if effect.kind == "egress.started":
                    self._count_start(effect)
            case "rtmp.refused":
                self.seen["late effect neutralised"] += 1
            case "stream.deleted" if effect.detail == "sweeper":
                self._swept(effect)
            case "stream.deleted" if effect.detail == "us":
                self._disabled_before(effect)
            case "room.deleted" if effect.detail == "sweeper":
                self.seen["orphan swept"] += 1
            case _:
                pass

    def can_publish(self, egress: TrueEgress, stream: LiveStream) -> bool:
        if not egress.runs or egress.gave_up or stream.disabled or stream.deleted:
            return False
        return egress.stream is stream or egress.key == stream.key

    def _count_start(self, effect: Effect) -> None:
        """One that was refused costs nothing, and one that lands late was asked for long before."""
        starts = self._starts[effect.broadcast_id]
        starts.append(effect.time)
        while starts[0] <= effect.time - STARTS_WINDOW_S + LATE_S[1]:
            starts.popleft()
        if len(starts) > STARTS:
            self.violate("I-14", f"{len(starts)} egress starts of {effect.broadcast_id} in {STARTS_WINDOW_S:.0f} s")

    def _one_publisher(self, broadcast_id: str) -> None:
        egresses = [e for e in self._shared.livekit.egresses.values() if e.room.name == broadcast_id and e.runs]
        if len(egresses) <= 1:
            return
        for stream in self._shared.mux.living:
            if stream.broadcast_id == broadcast_id:
                able = [egress.id for egress in egresses if self.can_publish(egress, stream)]
                if len(able) > 1:
                    self.violate("I-1", f"{' and '.join(able)} can publish to {stream.id} of {broadcast_id}")

    def _swept(self, effect: Effect) -> None:
        self.seen["orphan swept"] += 1
        stream = self._shared.mux.streams[effect.id]
        ordinal = int(stream.tag.rpartition(":")[2])
        intended = self._intents.get((stream.broadcast_id, ordinal))
        landed = next(e.time for e in self._env.effects.log if e.kind == "stream.created" and e.id == effect.id)
        if intended is None or landed - intended <= GRACE_S:
            self.violate("I-2", f"{effect.id} of {stream.broadcast_id} landed in time and was left to the sweeper")

    def _disabled_before(self, effect: Effect) -> None:
        row = self._shared.tables.rows.get(effect.broadcast_id)
        stream = self._shared.mux.streams[effect.id]
        if row is not None and row.broadcast.target is Target.ENDED and stream.used and not stream.disabled:
            self.violate("I-3", f"{effect.id} was deleted and never disabled, with keys of it about")

    # Safety, at every commit.

    def _written(self, written: Written) -> None:
        before, after, claim = written.before, written.after, written.claim
        if claim is not None and claim.fence != written.row.fence:
            self.violate("I-8", f"{after.id} is written with fence {claim.fence}, and the row's is {written.row.fence}")
        if written.intended is not None:
            self._intended(written, after)
        for event in written.events:
            self._requested[after.id][event.reason] += 1
            if event.reason.endswith("_ADOPTED"):
                self.seen["adopted"] += 1
        if before is None or before is after:
            return
        if before.state.over and (after.state is not before.state or after.end_time != before.end_time):
            self.violate("I-6", f"{after.id} was {before.state} and is {after.state}, ended {after.end_time}")
        if after.target is Target.ENDED and before.target is not Target.ENDED:
            self.stopped_at[after.id] = self._env.loop.time()
        if after.version - before.version not in (0, 1):
            self.violate("I-7", f"version of {after.id}: {before.version} -> {after.version}")
        if after.state is not before.state:
            self._env.trace.add("state", after.id, str(after.state), after.status.state_reason)

    def _intended(self, written: Written, broadcast: Broadcast) -> None:
        resource = written.intended
        assert resource is not None
        self._env.trace.add("intend", broadcast.id, resource.kind, resource.ordinal, resource.phase)
        if resource.phase is not Phase.INTENDED:
            return
        if broadcast.target is Target.ENDED and resource.kind is not Kind.UPLOAD:
            self.violate("I-6", f"a create of {resource.kind} of {broadcast.id} is intended after its end")
        if isinstance(resource, Stream):
            self._intents[broadcast.id, resource.ordinal] = self._env.loop.time()

    # Safety, at every call.

    def _called(self, replica: Replica, operation: Operation, subject: str) -> None:
        now = self._env.loop.time()
        if operation.writes:
            self._env.trace.add("call", replica.name, operation.name, subject)
        if operation.name in _INTENDED and replica.doing != SWEEPER:
            row = self._shared.tables.rows.get(self._broadcast_of(subject))
            if row is not None and row.lease_owner != replica.name:
                self.violate("I-8", f"{replica.name} calls {operation.name} {subject}, leased to {row.lease_owner}")
        if operation.name in _POSTS and not self._posts.take(now):
            self.violate("I-14", "more POSTs than Mux takes")
        if operation.name in _OTHERS and not self._others.take(now):
            self.violate("I-14", "more requests than Mux takes")

    def _broadcast_of(self, subject: str) -> str:
        if (stream := self._shared.mux.streams.get(subject)) is not None:
            return stream.broadcast_id
        if (egress := self._shared.livekit.egresses.get(subject)) is not None:
            return egress.room.name
        return subject.removeprefix(TAG).partition(":")[0]

    def starts_used_up(self, broadcast_id: str) -> bool:
        """Whether the spend guard holds up the next start."""
        oldest = self._env.now() - timedelta(seconds=STARTS_WINDOW_S + STARTS_SLACK_S)
        resources = self._shared.tables.rows[broadcast_id].resources.values()
        ran = [each for each in resources if isinstance(each, Egress) and not never_ran(each)]
        return sum(each.intended_at > oldest for each in ran) >= STARTS

    # What must come to be.

    def publishes(self, broadcast_id: str) -> bool:
        """Whether a viewer would see moving pictures."""
        room = self._shared.livekit.rooms.get(broadcast_id)
        if room is None or not room.hosts:
            return False
        return any(
            stream.broadcast_id == broadcast_id and stream.active and stream.has_media
            for stream in self._shared.mux.living
        )

    def check_ended(self, within_s: float) -> None:
        """I-3, while nothing is wrong."""
        now = self._env.loop.time()
        for stream in self._shared.mux.living:
            stopped = self.stopped_at.get(stream.broadcast_id)
            if stopped is not None and stream.sessions and now - stopped > within_s:
                self.violate("I-3", f"{stream.broadcast_id} publishes {now - stopped:.0f} s after its end")

    def amiss(self) -> dict[str, str]:
        """I-12 and I-13: broadcasts that are not as they are wanted, or not as is said of them."""
        found: dict[str, str] = {}
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if broadcast.target is not Target.LIVE:
                continue
            room = self._shared.livekit.rooms.get(broadcast.id)
            host = room is not None and bool(room.hosts)
            off_air = broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL and not broadcast.on_air
            publishes = self.publishes(broadcast.id)
            if off_air and any(e.runs and e.room.name == broadcast.id for e in self._shared.livekit.egresses.values()):
                found[broadcast.id] = "it is off air and has an egress"
            elif self.starts_used_up(broadcast.id):
                continue
            elif host and not off_air and not publishes:
                found[broadcast.id] = f"it is wanted, has a host and is not published: {_told(row)}"
            elif (broadcast.state is State.LIVE) is not publishes:
                found[broadcast.id] = f"it is said to be {broadcast.state}, published: {publishes}: {_told(row)}"
        return found

    def check_over(self) -> None:
        """Everything was stopped, and there was time."""
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if broadcast.target is Target.ENDED and not broadcast.state.over:
                self.violate("I-3", f"{broadcast.id} does not come to its end: {_told(row)}")
            running = View(tuple(row.resources.values())).running
            if broadcast.state.over and any(each.phase is not Phase.GONE for each in running):
                self.violate("I-2", f"{broadcast.id} is {broadcast.state} and has something left")

    def leftovers(self) -> list[str]:
        """What is at the providers and has no owner that needs it."""
        over = {row.broadcast.id for row in self._shared.tables.rows.values() if row.broadcast.target is Target.ENDED}
        left: list[str] = []
        owned = {
            resource.external_id
            for row in self._shared.tables.rows.values()
            for resource in row.resources.values()
            if resource.phase is not Phase.GONE and resource.kind is not Kind.ROOM
        }
        left += [f"live stream {each.id}" for each in self._shared.mux.living if each.id not in owned]
        left += [f"room {name}" for name in self._shared.livekit.rooms if name in over]
        left += [
            f"egress {each.id}"
            for each in self._shared.livekit.egresses.values()
            if each.runs and (each.room.name in over or each.id not in owned)
        ]
        return left

    def check_history(self) -> None:
        """I-4 and I-5, over the whole run."""
        for asked in self._callers.taken_for_another:
            self.violate("I-5", f"{asked.broadcast_id} was refused to the one who made it, sent {asked.sent} times")
        for broadcast_id, counted in self._requested.items():
            for reason, methods in _ONCE.items():
                asked = sum(
                    each.method in methods and each.broadcast_id == broadcast_id and not each.refused
                    for each in self._callers.history
                )
                if counted[reason] > asked:
                    self.violate("I-4", f"{broadcast_id}: {reason} {counted[reason]} times, asked {asked} times")
        for asked in self._callers.history:
            row = self._shared.tables.rows.get(asked.broadcast_id)
            if asked.answered_at is not None and not asked.refused and (row is None or not _has(asked.method, row)):
                self.violate("I-4", f"{asked.method} of {asked.broadcast_id} was answered and is lost")

    def check_log(self) -> None:
        """I-7."""
        tables = self._shared.tables
        if [event.revision for event in tables.events] != list(range(tables.floor + 1, tables.head + 1)):
            self.violate("I-7", "the revisions have gaps")
        for row in tables.rows.values():
            last = next(e for e in reversed(tables.events) if e.broadcast_id == row.broadcast.id)
            now = replace(row.broadcast, destination_keys={}, due_at=None, dirty_at=None, turn_at=None)
            then = last.snapshot
            if then is None or replace(then, due_at=None, dirty_at=None, turn_at=None) != now:
                self.violate("I-7", f"the last snapshot of {row.broadcast.id} is not its row")


_ONCE = {
    "CREATED": ("CreateBroadcast",),
    "START_REQUESTED": ("StartBroadcast",),
    "STOP_REQUESTED": ("StopBroadcast",),
    "ON_AIR_REQUESTED": ("SetOnAir",),
    "OFF_AIR_REQUESTED": ("SetOnAir",),
    "UPDATED": ("UpdateBroadcast", "Label"),
    "DELETED": ("DeleteBroadcast",),
}


def _has(method: str, row: Row) -> bool:
    match method:
        case "StartBroadcast":
            return row.broadcast.start_time is not None
        case "StopBroadcast":
            return row.broadcast.target is Target.ENDED
        case "DeleteBroadcast":
            return row.broadcast.deleted
        case _:
            return True


def _told(row: Row) -> str:
    status = row.broadcast.status
    conditions = ", ".join(f"{each.type} {each.reason}" for each in status.conditions)
    kept = [
        f"{each.kind} {each.ordinal} {each.phase} failures {each.failures}"
        for each in row.sorted_resources()
        if each.phase is not Phase.GONE
    ]
    return f"{row.broadcast.state} {status.state_reason} [{conditions}] {kept} due {row.due}"
