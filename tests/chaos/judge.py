"""The history of the callers against what is stored, and against what the providers really did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from tests.chaos.history import History, Kind, Operation, Triage
from tests.chaos.watchers import Logged

if TYPE_CHECKING:
    from broadcast_sandbox.effects import Effect
    from broadcast_sandbox.webhooks import Delivery

_REASONS = {Kind.CREATE: "CREATED", Kind.START: "START_REQUESTED", Kind.STOP: "STOP_REQUESTED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the change log."""

    revision: int
    broadcast_id: str
    reason: str
    time: float
    title: str | None
    """After the transaction; None: not its last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: str
    request: str
    """Of the create: the label that it gave."""
    state: str
    end_reason: str | None
    title: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    rows: list[Row]
    entries: list[Entry]
    head: int
    webhooks: Counter[tuple[str, str]]
    """By provider and event id: how many rows."""
    delivered: Counter[tuple[str, str]]
    """And how often each came."""

    @property
    def log(self) -> list[Logged]:
        begun: set[str] = set()
        logged: list[Logged] = []
        for entry in self.entries:
            if entry.title is None:
                continue
            logged.append(
                Logged(
                    revision=entry.revision,
                    broadcast_id=entry.broadcast_id,
                    title=entry.title,
                    time=entry.time,
                    first=entry.broadcast_id not in begun,
                )
            )
            begun.add(entry.broadcast_id)
        return logged


async def read(database_url: str) -> Stored:
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await connection.fetch("SELECT id, labels, state, end_reason, spec, generation FROM broadcast")
            entries = await connection.fetch(
                "SELECT revision, broadcast_id, reason, extract(epoch FROM time)::float8 AS time, "
                "snapshot -> 'spec' ->> 'title' AS title FROM event ORDER BY revision"
            )
            head = await connection.fetchval("SELECT revision FROM head")
            inbox = await connection.fetch("SELECT provider, event_id, delivery_count FROM webhook")
    finally:
        await connection.close()
    return Stored(
        rows=[_row(row) for row in rows],
        entries=[Entry(**dict(entry)) for entry in entries],
        head=head,
        webhooks=Counter((row["provider"], row["event_id"]) for row in inbox),
        delivered=Counter({(row["provider"], row["event_id"]): row["delivery_count"] for row in inbox}),
    )


def _row(row: asyncpg.Record) -> Row:
    spec, labels = msgspec.json.decode(row["spec"]), msgspec.json.decode(row["labels"])
    return Row(
        id=row["id"],
        request=labels.get("request", ""),
        state=row["state"],
        end_reason=row["end_reason"],
        title=spec["title"],
        generation=row["generation"],
    )


@dataclass
class _Story:
    """What was applied to one broadcast, in order."""

    entries: list[Entry] = field(default_factory=list[Entry])

    @property
    def titles(self) -> list[str]:
        """Each as often as it was written."""
        return [title for title, _ in groupby(entry.title for entry in self.entries if entry.title is not None)]

    def count(self, reason: str) -> int:
        return sum(entry.reason == reason for entry in self.entries)

    def revision_of(self, title: str) -> int:
        return next(entry.revision for entry in self.entries if entry.title == title)


def acknowledged(history: History, stored: Stored) -> list[str]:
    """I-4: whatever was acknowledged is there once, what was refused is not, what nobody told of is there or not; and
    I-7: the log has no gap.
    """
    found: list[str] = []
    stories: defaultdict[str, _Story] = defaultdict(_Story)
    for entry in stored.entries:
        stories[entry.broadcast_id].entries.append(entry)
    made = Counter(row.request for row in stored.rows)
    for operation in history.operations:
        match operation.kind:
            case Kind.CREATE:
                times = made[operation.request_id]
            case Kind.UPDATE:
                times = stories[operation.broadcast_id].titles.count(operation.title)
            case _:
                # A broadcast is started by one and stopped by one, or by a second who finds it stopped.
                times = stories[operation.broadcast_id].count(_REASONS[operation.kind])
        found += _count(operation, times)
    found += _answers(history, stored)
    found += _values(history, stored, stories)
    known = {operation.request_id for operation in history.of(Kind.CREATE)}
    found += [f"{row.id}: nobody asked for it" for row in stored.rows if row.request not in known]
    revisions = [entry.revision for entry in stored.entries]
    if revisions != list(range(1, stored.head + 1)):
        found.append(f"I-7: the log has gaps: {len(revisions)} entries, and its head is {stored.head}")
    return found


def _count(operation: Operation, times: int) -> list[str]:
    if operation.triage is Triage.FAIL and not operation.refusable:
        return [f"refused: {operation}: {operation.error}"]
    if operation.triage is Triage.OK and operation.refusable:
        return [f"not refused: {operation}"]
    least, most = {Triage.OK: (1, 1), Triage.FAIL: (0, 0), Triage.INFO: (0, 1)}[operation.triage]
    if times < least:
        return [f"lost: {operation}"]
    return [f"{times} times: {operation}"] if times > most else []


def _answers(history: History, stored: Stored) -> list[str]:
    """I-5: one request id, one broadcast."""
    owners = {row.request: row.id for row in stored.rows}
    return [
        f"answered {sorted(operation.answers)}: {operation}"
        for operation in history.operations
        if len(operation.answers) > 1
        or (
            operation.kind is Kind.CREATE
            and operation.answers
            and operation.answers != {owners.get(operation.request_id)}
        )
    ]


def _values(history: History, stored: Stored, stories: defaultdict[str, _Story]) -> list[str]:
    """What is stored is what was written last, and nobody's write went back behind one that was acknowledged before."""
    found: list[str] = []
    by_broadcast: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.of(Kind.UPDATE):
        by_broadcast[operation.broadcast_id].append(operation)
    for row in stored.rows:
        story, updates = stories[row.id], by_broadcast[row.id]
        applied = set(story.titles)
        done = [each for each in updates if each.triage is Triage.OK and each.title in applied]
        for earlier, later in pairwise(sorted(done, key=lambda each: each.began)):
            if story.revision_of(earlier.title) > story.revision_of(later.title):
                found.append(f"out of order: {earlier} came after {later}")
        if not story.titles or row.title != story.titles[-1]:
            found.append(f"{row.id}: {row.title!r} is stored, and the log ends with {story.titles[-1:]}")
        if row.generation != len(story.titles):
            found.append(f"{row.id}: generation {row.generation} after {len(story.titles)} titles")
        left = applied - {row.request, *(each.title for each in updates)}
        found += [f"{row.id}: nobody wrote {title!r}" for title in left]
    return found


def effects(stored: Stored, done: Iterable[Effect], tag: str) -> list[str]:
    """Of every broadcast at most one room, live stream and egress, and all are gone; no publisher was doubled."""
    found: list[str] = []
    all_effects = list(done)
    born: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for effect in all_effects:
        match effect.kind:
            case "room.created":
                born[effect.id]["rooms"] += 1
            case "stream.created":
                born[effect.detail["passthrough"].removeprefix(tag).partition(":")[0]]["live streams"] += 1
            case "egress.started":
                born[effect.detail["room"]]["egresses"] += 1
            case "ingest.double":
                found.append(f"I-1: two publish to {effect.id}")
            case _:
                pass
    ids = {row.id for row in stored.rows}
    for broadcast_id, counts in born.items():
        if broadcast_id not in ids:
            found.append(f"{broadcast_id}: {dict(counts)} of a broadcast that is not stored")
        found += [f"{broadcast_id}: {times} {what}" for what, times in counts.items() if times > 1]
    pairs = (
        ("room.created", "room.deleted"),
        ("stream.created", "stream.deleted"),
        ("egress.started", "egress.ended"),
        ("ingest.connected", "ingest.disconnected"),
    )
    kinds = Counter(effect.kind for effect in all_effects)
    found += [f"left: {kinds[one] - kinds[other]} of {one}" for one, other in pairs if kinds[one] != kinds[other]]
    found += [
        f"{row.id} is {row.state} ({row.end_reason})"
        for row in stored.rows
        if row.state not in ("CREATED", "ENDED") or (row.state == "ENDED" and row.end_reason not in (None, "STOPPED"))
    ]
    return found


def webhooks(stored: Stored, deliveries: Mapping[str, Sequence[Delivery]]) -> list[str]:
    """I-9: every one that was accepted is in the inbox, once."""
    found: list[str] = []
    sent: set[tuple[str, str]] = set()
    accepted: Counter[tuple[str, str]] = Counter()
    for provider, attempts in deliveries.items():
        for attempt in attempts:
            sent.add((provider, attempt.event_id))
            accepted[provider, attempt.event_id] += attempt.accepted
    for event, times in accepted.items():
        if times and stored.webhooks[event] != 1:
            found.append(f"{event} was accepted, and is stored {stored.webhooks[event]} times")
        if stored.delivered[event] < times:
            found.append(f"{event} was accepted {times} times, and counted {stored.delivered[event]} times")
    found += [f"{event} is stored, and nobody sent it" for event in stored.webhooks if event not in sent]
    return found
