"""The tables of the store in memory. It passes the conformance tests that Postgres passes.

A transaction is what happens between `begin` and `commit` of a line, in which nothing is awaited. A transaction that
raises has written nothing: everything is checked and made before the first write.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from service.domain.broadcast import Broadcast, State, Target
from service.domain.cost.entries import Entry
from service.domain.cost.prices import CostKind
from service.domain.lifecycle import Event
from service.domain.measurements import Probe
from service.domain.pool import PoolPhase
from service.domain.ports import Heard
from service.domain.reasons import Actor, EventReason
from service.domain.resources import AnyResource
from service.domain.secret import NO_SECRET, Secret
from service.domain.situation import Outage
from service.store.changes import Before
from service.store.leases import Claim, lane_of

Key = tuple[str, int]
"""Kind and ordinal of a resource."""
_FORWARD = tuple(Target)
_OUTAGE, _LATELY = timedelta(seconds=5), timedelta(seconds=60)
_Of = TypeVar("_Of")

under_way: ContextVar[str] = ContextVar("under_way", default="")
"""The transaction that is open here and in whatever was begun here."""


def transactions(of: type[_Of]) -> type[_Of]:
    """Every public method of the class *of* is one."""
    for name, method in inspect.getmembers(of, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            setattr(of, name, _transaction(method))
    return of


def _transaction(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def within(*args: Any, **kwargs: Any) -> Any:
        before = under_way.set(method.__name__)
        try:
            return await method(*args, **kwargs)
        finally:
            under_way.reset(before)

    return within


class Refused(Exception):
    """A write that a constraint of the schema refuses."""


@dataclass(slots=True, kw_only=True)
class Row:
    broadcast: Broadcast
    resources: dict[Key, AnyResource] = field(default_factory=dict[Key, AnyResource])
    ledger: dict[tuple[CostKind, str], Entry] = field(default_factory=dict[tuple[CostKind, str], Entry])
    due_at: datetime | None = None
    dirty_at: datetime | None = None
    turn_at: datetime | None = None
    retry_from: datetime | None = None
    lease_until: datetime | None = None
    lease_owner: str | None = None
    fence: int = 0
    lane: int = 2
    trace_context: str | None = None
    unverified_since: datetime | None = None

    @property
    def due(self) -> datetime | None:
        return self.lease_until or self.due_at

    def read(self) -> Broadcast:
        return replace(
            self.broadcast,
            due_at=self.due_at,
            dirty_at=self.dirty_at,
            turn_at=self.turn_at,
            retry_from=self.retry_from,
        )

    def sorted_resources(self) -> tuple[AnyResource, ...]:
        return tuple(self.resources[key] for key in sorted(self.resources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    revision: int
    broadcast_id: str
    time: datetime
    reason: EventReason
    message: str
    actor: Actor
    state: State
    snapshot: Broadcast | None
    previous: Before | None


@dataclass(slots=True, kw_only=True)
class Asked:
    method: str
    digest: bytes
    broadcast_id: str
    create_time: datetime


@dataclass(slots=True, kw_only=True)
class Webhook:
    id: int
    provider: str
    event_id: str
    broadcast_id: str
    heard: Heard
    redacted: str = ""
    stored_at: datetime
    applied: bool = False


@dataclass(slots=True, kw_only=True)
class Looked:
    """At a provider, by the observer."""

    unreachable_since: datetime | None
    answering_since: datetime | None
    checked_at: datetime
    code: str
    message: str
    compared_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Viewers that one replica saw in some seconds."""

    sketch: bytes
    viewers: int
    seen_at: datetime


@dataclass(slots=True, kw_only=True)
class Bucket:
    tokens: float
    refilled_at: datetime
    next_turns: list[datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One commit that changed a broadcast, for those who check what is written."""

    claim: Claim | None
    row: Row
    before: Broadcast | None
    after: Broadcast
    events: tuple[Event, ...]
    intended: AnyResource | None = None
    heard: tuple[int, ...] = ()
    """Webhooks that were taken in with it."""


def _nobody(_: Written) -> None:
    pass


def _not_told(_: str) -> None:
    pass


@dataclass(slots=True, kw_only=True)
class Pooled:
    profile: str
    phase: PoolPhase
    intended_at: datetime
    looked_at: datetime
    external_id: str = ""
    playback_id: str = ""
    key: Secret = NO_SECRET


class Tables:
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.now = clock
        self.rows: dict[str, Row] = {}
        self.events: list[Logged] = []
        self.head = 0
        self.floor = 0
        self.history = "1"
        self.fence_base = 0
        self.requests: dict[str, Asked] = {}
        self.buckets: dict[str, Bucket] = {}
        self.pool: dict[str, Pooled] = {}
        self.taken: Callable[[str, str], None] = lambda _stream_id, _broadcast_id: None
        """Told of a live stream of the pool that is a broadcast's from now on."""
        self.duties: dict[str, tuple[str, datetime]] = {}
        self.webhooks: list[Webhook] = []
        """The webhooks that are kept."""
        self.stored: list[Webhook] = []
        """All webhooks that were ever stored."""
        self.delivered: Counter[tuple[str, str]] = Counter()
        """Rows by provider and event id."""
        self.looked: dict[str, Looked] = {}
        self.refused: dict[str, tuple[datetime, datetime]] = {}
        """By provider: since when and until when it refused whoever asked."""
        self.probes: dict[str, Probe] = {}
        self.probe_due: dict[str, tuple[datetime, State | None]] = {}
        """By broadcast id: when the next look is due, and the state at the last claim."""
        self.audience: dict[tuple[str, datetime, str], Slot] = {}
        """By the broadcast, the begin of the slot and the replica."""
        self.counting: dict[str, tuple[datetime, datetime]] = {}
        """By the replica: since when it told without a gap what it saw, and when it did so last."""
        self.external: dict[tuple[str, str], tuple[str, int]] = {}
        self.clock_seen: datetime | None = None
        """The time at the last look at the clock."""
        self.notify: Callable[[str], None] = _not_told
        """Told the channel, at the commit."""
        self.written: Callable[[Written], None] = _nobody
        self.zombies = 0
        """Writes refused because another replica had the row."""
        self.repeated = 0
        """Webhooks that were there already."""
        self.replays = 0
        """Requests that were sent again and had been done."""

    def held(self, claim: Claim) -> Row | None:
        """The row, if *claim* is still the right to write it."""
        row = self.rows.get(claim.broadcast_id)
        if row is not None and row.fence == claim.fence:
            return row
        self.zombies += 1
        return None

    def outages(self) -> dict[str, Outage]:
        """Providers that two looks in a row found away, the last of them lately."""
        now = self.now()
        return {
            name: Outage(since=looked.unreachable_since, code=looked.code, message=looked.message)
            for name, looked in self.looked.items()
            if looked.unreachable_since is not None
            and looked.checked_at - looked.unreachable_since >= _OUTAGE
            and looked.checked_at > now - _LATELY
        }

    def wake(self, broadcast_ids: Sequence[str]) -> None:
        now, woken = self.now(), False
        for broadcast_id in broadcast_ids:
            row = self.rows.get(broadcast_id)
            # A broadcast that is over is still queued while its recordings are awaited.
            if row is None or row.broadcast.target is Target.CREATED or (row.broadcast.state.over and row.due is None):
                continue
            row.due_at = now if row.due_at is None else min(row.due_at, now)
            row.dirty_at = now
            woken = True
        if woken:
            self.notify("broadcast_due")

    def begin_history(self, earlier: str) -> None:
        """After commits were lost, see `service.store.history`."""
        if earlier != self.history:
            return
        self.history = str(int(self.history) + 1)
        self.fence_base += 1_000_000
        self.pool.clear()
        now = self.now()
        for row in self.rows.values():
            if row.broadcast.target is Target.CREATED or (row.broadcast.state.over and row.due is None):
                continue
            row.unverified_since = row.dirty_at = row.due_at = now
            row.lease_until = row.lease_owner = None
            row.fence = max(row.fence, self.fence_base)
        self.notify("broadcast_due")

    def check_resources(self, broadcast_id: str, resources: Sequence[AnyResource]) -> None:
        for resource in resources:
            if resource.external_id and resource.kind != "room":
                owner = self.external.get((resource.kind, resource.external_id))
                if owner is not None and owner != (broadcast_id, resource.ordinal):
                    raise Refused(f"{resource.kind} {resource.external_id} belongs to {owner}")

    def put_resources(self, row: Row, resources: Sequence[AnyResource]) -> None:
        for resource in resources:
            key = (resource.kind, resource.ordinal)
            earlier = row.resources.get(key)
            if earlier is not None and earlier.external_id and earlier.external_id != resource.external_id:
                self.external.pop((resource.kind, earlier.external_id), None)
            if resource.external_id and resource.kind != "room":
                self.external[resource.kind, resource.external_id] = (row.broadcast.id, resource.ordinal)
            row.resources[key] = resource

    @staticmethod
    def check_forward(before: Broadcast, after: Broadcast) -> None:
        if _FORWARD.index(after.target) < _FORWARD.index(before.target):
            raise Refused(f"target of {before.id} moves forward only: {before.target} -> {after.target}")
        if before.state.over and after.state is not before.state:
            raise Refused(f"{before.id} is {before.state} for ever")

    def append(self, row: Row, events: Sequence[Event], *, actor: Actor, before: Broadcast | None) -> None:
        broadcast = row.broadcast
        previous = None
        if before is not None:
            previous = Before(
                state=before.state, labels=before.labels, owner_id=before.spec.owner_id, deleted=before.deleted
            )
        last = len(events) - 1
        snapshot = replace(row.read(), destination_keys={})
        now = self.now()
        for n, event in enumerate(events):
            self.head += 1
            self.events.append(
                Logged(
                    revision=self.head,
                    broadcast_id=broadcast.id,
                    time=now,
                    reason=event.reason,
                    message=event.message,
                    actor=actor,
                    state=broadcast.state,
                    snapshot=snapshot if n == last else None,
                    previous=previous if n == last else None,
                )
            )
        self.notify("broadcast_changed")


class Line:
    """The way of one replica to the database; a faulty one breaks, waits and loses answers."""

    async def begin(self, operation: str) -> None: ...
    async def commit(self, operation: str) -> None: ...


def lane(row: Row) -> int:
    return lane_of(row.broadcast.target, ready=row.broadcast.ready_time is not None)
