"""What must hold, checked against what is really there: safety at every effect, commit and call, the rest after calm.

I-1  At no moment can two egresses publish to one live stream (running, and connected or with the key that is valid).
I-2  At last everything with our mark at the providers has an owner, and everything of a broadcast that is over is gone;
     what landed within its grace is adopted, and never left to the sweeper. What a row says is there is there.
I-3  A broadcast that ends publishes no more: 15 s after its stop without faults, 120 s after the last fault otherwise;
     nothing connects once it is over. Its live stream was disabled before it was deleted, if anybody had a key of it.
I-4  No write that was answered is lost or done twice: what changed a row is in its story as often as it was done.
I-5  A request that is sent again is the same request: it has one effect at most, its answer is of the same broadcast,
     and nobody is refused for what he did himself.
I-6  What is over stays so, its end does not move, targets move forward only, and no create is intended once the target
     is ENDED.
I-7  Every change is logged with its commit: revisions have no gaps, each snapshot is the row as it was committed, what
     it says was before is the snapshot before, `version` moves by one where spec or labels do, the last is the row.
I-8  Every write of a pass carries the fence of the row, and no call that creates, resets or deletes is begun by one
     whose row is another's.
I-9  A webhook that was answered with success is stored exactly once, and taken in by exactly one record, 60 s later at
     most (or nobody looks at its broadcast any more); what it tells is told once, whoever else tells it.
I-10 No secret of a world shows in what is logged, traced, told or stored unsealed: in every tenth world.
I-11 No provider is called while a transaction is open, and (I-8) nothing is written without a look at the fence.
I-12 With the providers well, what is wanted and has a host is published, and LIVE is said of nothing else; what is to
     be recorded is recorded.
I-13 (of cost) Manual delivery that is off air has no egress. That viewers are few stops none yet.
I-14 At most 5 egress starts in 10 minutes of a broadcast; at most 20 removals by the sweeper in a minute, which a world
     is too small to reach (tests/integration/test_admin_orphans.py does); no more calls to Mux than its limits.

Beside the simulation: that the final state is the same with every webhook, some or none of them (I-9) is
test_webhook_chaos.py; secrets in the real logs, traces, answers and tables (I-10) are tests/e2e/test_secrets.py; what
watchers are told (I-W1 to I-W6) is checked of real streams by tests/chaos/watchers.py under restarts of Postgres.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import DeliveryPolicy, FallbackMode, State, Target
from service.domain.reasons import EventReason, Fault
from service.domain.resource_set import ResourceSet, backoff_s, never_ran
from service.domain.resources import Egress, Kind, LocalRecording, Phase, Stream, Upload
from service.reconciler.act.requests import upload_tag
from service.reconciler.background.orphans import PER_CALL
from tests.simulation import history
from tests.simulation.calls import LATE_S
from tests.simulation.replica import SWEEP_EVERY, SWEEPER, TAG
from tests.simulation.store import under_way

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from service.domain.resources import AnyResource
    from tests.simulation.callers import Callers
    from tests.simulation.calls import Operation
    from tests.simulation.effects import Effect
    from tests.simulation.environment import Hint
    from tests.simulation.livekit import TrueEgress
    from tests.simulation.mux import LiveStream
    from tests.simulation.replica import Availability, Replica
    from tests.simulation.showing import Shown
    from tests.simulation.store import Row, Written

GRACE_S = 28.0
"""What a live stream's create may take and still be found by its own pass (`Timing.stream_grace_s`, less the lag)."""
STARTS, STARTS_WINDOW_S, STARTS_SLACK_S = 5, 600.0, 15.0
"""What the window is longer by for who waits: an intent is older than its commit."""
_POSTS = frozenset({"create_live_stream", "reset_stream_key", "create_asset"})
_OTHERS = frozenset(
    {
        "get_live_stream",
        "list_live_streams",
        "disable_live_stream",
        "enable_live_stream",
        "delete_live_stream",
        "get_asset",
        "list_assets",
        "delete_asset",
    }
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
_TARGETS = tuple(Target)
HEARD_S = 60.0
"""From the storing of a webhook in calm until a pass has taken it in: leases of the dead run out, and it is retried."""
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
    def __init__(self, shared: Availability, callers: Callers) -> None:
        self._shared = shared
        self._callers = callers
        self._env = shared.env
        self.violations: list[Violation] = []
        self.seen: Counter[str] = Counter()
        """How often what must not be vacuous happened."""
        self.stopped_at: dict[str, float] = {}
        self._intents: dict[tuple[str, int], float] = {}
        self._uploads: dict[str, float] = {}
        """When each was intended, by its mark."""
        self._starts: defaultdict[str, deque[float]] = defaultdict(deque)
        self._committed: dict[int, Broadcast] = {}
        self._latest: dict[str, Broadcast] = {}
        self._taken_in: set[int] = set()
        self._ghosts: set[tuple[str, int]] = set()
        self._removed: deque[float] = deque()
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
        if effect.detail == SWEEPER:
            self._by_sweeper(effect)
            return
        match effect.kind:
            case "egress.started":
                self._one_publisher(effect.broadcast_id)
                self._count_start(effect)
            case "rtmp.connected":
                self._one_publisher(effect.broadcast_id)
                self._not_over(effect)
            case "stream.enabled":
                self._one_publisher(effect.broadcast_id)
            case "key.reset":
                self._one_publisher(effect.broadcast_id)
                self.seen["fenced"] += 1
            case "rtmp.refused":
                self.seen["late effect neutralised"] += 1
            case "stream.deleted" if effect.detail == "us":
                self._disabled_before(effect)
            case "egress.hidden":
                self.seen["ghost beside another egress"] += 1
            case _:
                pass

    def _by_sweeper(self, effect: Effect) -> None:
        self._removes(effect)
        match effect.kind:
            case "stream.deleted":
                self._swept(effect)
            case "room.deleted":
                self.seen["orphan swept"] += 1
            case "asset.deleted":
                self._upload_swept(effect)
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

    def _not_over(self, effect: Effect) -> None:
        row = self._shared.tables.rows.get(effect.broadcast_id)
        if row is not None and row.broadcast.state.over:
            self.violate("I-3", f"{effect.detail} publishes to {effect.id}, and {effect.broadcast_id} is over")

    def _removes(self, effect: Effect) -> None:
        removed = self._removed
        removed.append(effect.time)
        while removed[0] <= effect.time - SWEEP_EVERY.total_seconds():
            removed.popleft()
        if len(removed) > PER_CALL:
            self.violate("I-14", f"{len(removed)} orphans removed within {SWEEP_EVERY.total_seconds():.0f} s")

    def _swept(self, effect: Effect) -> None:
        self.seen["orphan swept"] += 1
        stream = self._shared.mux.streams[effect.id]
        ordinal = int(stream.tag.rpartition(":")[2])
        intended = self._intents.get((stream.broadcast_id, ordinal))
        landed = next(e.time for e in self._env.effects.log if e.kind == "stream.created" and e.id == effect.id)
        if intended is None or landed - intended <= GRACE_S:
            self.violate("I-2", f"{effect.id} of {stream.broadcast_id} landed in time and was left to the sweeper")

    def _upload_swept(self, effect: Effect) -> None:
        self.seen["upload swept"] += 1
        made = next(e for e in self._env.effects.log if e.kind == "upload.created" and e.id == effect.id)
        row = self._shared.tables.rows[made.broadcast_id]
        in_time = made.time - self._uploads[made.detail] <= self._shared.timing.upload_grace_s
        if in_time and not row.broadcast.deleted:
            self.violate("I-2", f"{effect.id} of {made.broadcast_id} landed in time and was left to the sweeper")

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
        for number in written.heard:
            if number in self._taken_in:
                self.violate("I-9", f"webhook {number} of {after.id} is taken in twice")
            self._taken_in.add(number)
        self._logged(written, after)
        if before is not None and before is not after:
            self._moved(before, after)

    def _moved(self, before: Broadcast, after: Broadcast) -> None:
        if _TARGETS.index(after.target) < _TARGETS.index(before.target):
            self.violate("I-6", f"target of {after.id}: {before.target} -> {after.target}")
        if after.state.over is not (after.end_time is not None):
            self.violate("I-6", f"{after.id} is {after.state}, ended {after.end_time}")
        if before.state.over and (after.state is not before.state or after.end_time != before.end_time):
            self.violate("I-6", f"{after.id} was {before.state} and is {after.state}, ended {after.end_time}")
        if after.target is Target.ENDED and before.target is not Target.ENDED:
            self.stopped_at[after.id] = self._env.loop.time()
        if after.version - before.version not in (0, 1):
            self.violate("I-7", f"version of {after.id}: {before.version} -> {after.version}")
        if after.state is not before.state:
            self._env.trace.add("state", after.id, str(after.state), after.status.state_reason)

    def _logged(self, written: Written, after: Broadcast) -> None:
        """I-7: what is changed is logged with the change."""
        for event in written.events:
            if event.reason.endswith("_ADOPTED"):
                self.seen["adopted"] += 1
            if event.reason is EventReason.UPLOAD_ERRORED:
                self.seen["upload made again"] += 1
        if written.events:
            self._committed[self._shared.tables.head] = after
        elif self._latest.get(after.id) is not after:
            self.violate("I-7", f"{after.id} is changed without an event")
        self._latest[after.id] = after

    def _intended(self, written: Written, broadcast: Broadcast) -> None:
        resource = written.intended
        assert resource is not None
        self._env.trace.add("intend", broadcast.id, resource.kind, resource.ordinal, resource.phase)
        if isinstance(resource, Egress) and resource.fault is Fault.GHOST:
            self._ghosts.add((broadcast.id, resource.ordinal))
            self.seen["ghost handled"] = len(self._ghosts)
        if resource.phase is not Phase.INTENDED:
            return
        if broadcast.target is Target.ENDED and resource.kind is not Kind.UPLOAD:
            self.violate("I-6", f"a create of {resource.kind} of {broadcast.id} is intended after its end")
        if isinstance(resource, Upload):
            self._uploads[upload_tag(TAG, broadcast.id, resource)] = self._env.loop.time()
        if isinstance(resource, Stream):
            self._intents[broadcast.id, resource.ordinal] = self._env.loop.time()

    # Safety, at every call.

    def _called(self, replica: Replica, operation: Operation, subject: str) -> None:
        now = self._env.loop.time()
        if transaction := under_way.get():
            self.violate(
                "I-11", f"{replica.name} calls {operation.name} {subject} inside the transaction {transaction}"
            )
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
        return self._recent_starts(broadcast_id) >= STARTS

    def next_start_waits_s(self, broadcast_id: str) -> float:
        """How long the back-off would hold up the next start, if what runs now failed."""
        return backoff_s(self._recent_starts(broadcast_id), self._shared.timing)

    def _recent_starts(self, broadcast_id: str) -> int:
        oldest = self._env.now() - timedelta(seconds=STARTS_WINDOW_S + STARTS_SLACK_S)
        resources = self._shared.tables.rows[broadcast_id].resources.values()
        ran = [each for each in resources if isinstance(each, Egress) and not never_ran(each)]
        return sum(each.intended_at > oldest for each in ran)

    def records_nothing(self, row: Row) -> bool:
        """Whether a file is to be written, and none is although nothing holds it up."""
        broadcast = row.broadcast
        if broadcast.target is not Target.LIVE or FallbackMode.LOCAL_RECORDING not in broadcast.fallback.modes:
            return False
        oldest = self._env.now() - timedelta(seconds=STARTS_WINDOW_S)
        rows = [each for each in row.resources.values() if isinstance(each, LocalRecording)]
        spent = sum(each.intended_at > oldest for each in rows) >= STARTS
        writing = any(e.runs and e.file and e.room.name == broadcast.id for e in self._shared.livekit.egresses.values())
        return not spent and not writing

    # Safety, at every webhook that was answered with success.

    def accepted(self, hint: Hint) -> None:
        rows = self._shared.tables.delivered[hint.provider, hint.heard.event_id]
        if rows != 1:
            self.violate("I-9", f"{hint.heard.type} {hint.heard.event_id} was answered and is stored {rows} times")

    # What must come to be.

    def publishes(self, broadcast_id: str) -> bool:
        """Whether a viewer would see moving pictures."""
        room = self._shared.livekit.rooms.get(broadcast_id)
        if room is None or not room.hosts:
            return False
        return any(
            stream.broadcast_id == broadcast_id and stream.active and stream.has_media and not stream.stalled
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
            elif host and self.records_nothing(row):
                found[broadcast.id] = f"it is to be recorded and nothing is: {_told(row)}"
            elif (broadcast.state is State.LIVE) is not publishes:
                found[broadcast.id] = f"it is said to be {broadcast.state}, published: {publishes}: {_told(row)}"
            elif missing := [each for each in row.resources.values() if not self._is_there(broadcast.id, each)]:
                found[broadcast.id] = f"it has {missing[0].kind} {missing[0].external_id}, which is not there"
        return found

    def _is_there(self, broadcast_id: str, resource: AnyResource) -> bool:
        """I-2, the other way round."""
        if resource.phase is not Phase.PRESENT:
            return True
        match resource.kind:
            case Kind.ROOM:
                return broadcast_id in self._shared.livekit.rooms
            case Kind.STREAM:
                return self._shared.mux.get(resource.external_id) is not None
            case Kind.UPLOAD:
                return resource.external_id in self._shared.mux.assets
            case _:
                egress = self._shared.livekit.egresses.get(resource.external_id)
                return egress is not None and egress.runs

    def check_over(self) -> None:
        """Everything was stopped, and there was time."""
        for row in self._shared.tables.rows.values():
            broadcast = row.broadcast
            if broadcast.target is Target.ENDED and not broadcast.state.over:
                self.violate("I-3", f"{broadcast.id} does not come to its end: {_told(row)}")
            running = ResourceSet(tuple(row.resources.values())).running
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
        left += [
            f"upload {each.recording.asset_id}"
            for each in self._shared.mux.uploads
            if each.recording.asset_id not in owned
        ]
        left += [f"room {name}" for name in self._shared.livekit.rooms if name in over]
        left += [
            f"egress {each.id}"
            for each in self._shared.livekit.egresses.values()
            if each.runs and (each.room.name in over or each.id not in owned)
        ]
        return left

    def check_history(self) -> None:
        """Over the whole run."""
        tables = self._shared.tables
        for invariant, found in (
            ("I-4", history.lost_or_doubled(self._callers, tables)),
            ("I-5", history.taken_for_another(self._callers)),
            ("I-7", history.not_as_logged(tables, self._committed)),
            ("I-9", history.told_twice(tables)),
        ):
            for what in found:
                self.violate(invariant, what)

    def check_heard(self) -> None:
        for what in history.unheard(self._shared.tables, HEARD_S):
            self.violate("I-9", what)

    def check_secrets(self, shown: Shown) -> None:
        shown.read(self._shared.tables)
        self.seen["secret redacted"] += shown.redacted
        for what in shown.secrets(self._env.canaries):
            self.violate("I-10", what)


def _told(row: Row) -> str:
    status = row.broadcast.status
    conditions = ", ".join(f"{each.type} {each.reason}" for each in status.conditions)
    kept = [
        f"{each.kind} {each.ordinal} {each.phase} failures {each.failures}"
        for each in row.sorted_resources()
        if each.phase is not Phase.GONE
    ]
    return f"{row.broadcast.state} {status.state_reason} [{conditions}] {kept} due {row.due}"
