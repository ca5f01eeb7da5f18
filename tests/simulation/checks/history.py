"""Checks of a whole run: of everything that was asked, logged and stored. Each yields a sentence for what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import Target
from service.domain.reasons import EventReason
from service.domain.resources import Kind

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from tests.simulation.callers import Callers
    from tests.simulation.store.tables import Logged, Row, Tables

_REASONS: dict[str, tuple[EventReason, ...]] = {
    "StartBroadcast": (EventReason.START_REQUESTED,),
    "StopBroadcast": (EventReason.STOP_REQUESTED,),
    "SetOnAir": (EventReason.ON_AIR_REQUESTED, EventReason.OFF_AIR_REQUESTED),
    "UpdateBroadcast": (EventReason.UPDATED,),
    "Label": (EventReason.UPDATED,),
    "DeleteBroadcast": (EventReason.DELETED,),
}
_COMES = {
    "STREAM": (EventReason.STREAM_CREATED, EventReason.STREAM_ADOPTED, EventReason.STREAM_SURPLUS),
    "EGRESS": (EventReason.EGRESS_STARTED, EventReason.EGRESS_ADOPTED, EventReason.EGRESS_SURPLUS),
    # One that was written off may come all the same, and is adopted then.
    "RECORDING": (EventReason.RECORDING_STARTED,),
    "UPLOAD": (EventReason.UPLOAD_CREATED, EventReason.UPLOAD_ADOPTED),
    "ASSET": (EventReason.RECORDING_READY,),
}
"""Events that tell of one thing at a provider, by its id, and can be true of it once."""
_FAMILY = {reason: family for family, reasons in _COMES.items() for reason in reasons}
_ENDS = (EventReason.EGRESS_ENDED, EventReason.EGRESS_STOPPED, EventReason.EGRESS_LOST)


def lost_or_doubled(callers: Callers, tables: Tables) -> Iterator[str]:
    """I-4: what changed something is in the story once; what changed it and was not answered may have been done."""
    told = Counter((event.broadcast_id, event.reason) for event in tables.events)
    asked: Counter[tuple[str, tuple[EventReason, ...]]] = Counter()
    for each in callers.history:
        if each.method == "CreateBroadcast":
            continue
        asked[each.broadcast_id, _REASONS[each.method]] += each.done
    for (broadcast_id, reasons), done in asked.items():
        seen = sum(told[broadcast_id, reason] for reason in reasons)
        if seen != done:
            yield f"{broadcast_id}: {' or '.join(reasons)} is told {seen} times, and was done {done} times"
    for row in tables.rows.values():
        if told[row.broadcast.id, EventReason.CREATED] != 1:
            yield f"{row.broadcast.id} was created {told[row.broadcast.id, EventReason.CREATED]} times"
    for each in callers.history:
        row = tables.rows.get(each.broadcast_id)
        if each.answered_at is not None and not each.refused and (row is None or not _has(each.method, row)):
            yield f"{each.method} of {each.broadcast_id} was answered and is lost"


def taken_for_another(callers: Callers) -> Iterator[str]:
    """I-5."""
    for each in callers.taken_for_another:
        yield f"{each.method} of {each.broadcast_id}: {each.refused or each.answered_with}, sent {each.sent} times"
    for each in callers.history:
        if each.done > 1:
            yield f"{each.method} of {each.broadcast_id} was done {each.done} times, sent {each.sent} times"


def not_as_logged(tables: Tables, committed: Mapping[int, Broadcast]) -> Iterator[str]:
    """I-7. *committed*: the row as it was with each revision."""
    if [event.revision for event in tables.events] != list(range(tables.floor + 1, tables.head + 1)):
        yield "the revisions have gaps"
    events: defaultdict[str, list[Logged]] = defaultdict(list)
    for event in tables.events:
        events[event.broadcast_id].append(event)
    for broadcast_id, row in tables.rows.items():
        yield from _not_folded(events[broadcast_id], committed)
        last = events[broadcast_id][-1].snapshot
        if last is None or _shown(last) != _shown(row.broadcast):
            yield f"the last snapshot of {broadcast_id} is not its row"


def _not_folded(events: Sequence[Logged], committed: Mapping[int, Broadcast]) -> Iterator[str]:
    before: Broadcast | None = None
    for event in events:
        now = event.snapshot
        if now is None:
            # One of several of one commit, of which the last has it.
            if event.revision in committed:
                yield f"revision {event.revision} of {event.broadcast_id} has no snapshot"
            continue
        where = f"revision {event.revision} of {event.broadcast_id}"
        if event.revision not in committed or _shown(now) != _shown(committed[event.revision]):
            yield f"{where}: the snapshot is not what was committed"
        if event.state is not now.state:
            yield f"{where} says {event.state}, its snapshot {now.state}"
        if before is not None:
            yield from (f"{where}: {what}" for what in _not_next(before, now))
        told = event.previous
        if (told is None) is not (before is None) or (
            told is not None
            and before is not None
            and (told.state, told.labels, told.owner_id, told.deleted)
            != (before.state, before.labels, before.spec.owner_id, before.deleted)
        ):
            yield f"{where}: what it was before is not the snapshot before"
        before = now


def _not_next(before: Broadcast, now: Broadcast) -> Iterator[str]:
    changed = before.spec != now.spec or before.labels != now.labels
    step, generation = now.version - before.version, now.generation - before.generation
    if step not in (0, 1) or (changed and step == 0):
        yield f"version {before.version} -> {now.version}, changed: {changed}"
    if generation not in (0, step) or (before.spec != now.spec and generation == 0):
        yield f"generation {before.generation} -> {now.generation}, version {before.version} -> {now.version}"


def told_twice(tables: Tables) -> Iterator[str]:
    """I-9: that a webhook and a look tell the same, or two webhooks, is told once. An egress that was lost may come
    back, once for each time that it is told to be lost.
    """
    lost = Counter(
        (event.broadcast_id, event.message) for event in tables.events if event.reason is EventReason.EGRESS_LOST
    )
    comes = Counter(
        (event.broadcast_id, _FAMILY[event.reason], event.message) for event in tables.events if event.reason in _FAMILY
    )
    for (broadcast_id, family, external_id), count in comes.items():
        if count > 1 + lost[broadcast_id, external_id]:
            yield f"{broadcast_id}: {family} {external_id} comes {count} times in its story"
    ends = Counter(event.broadcast_id for event in tables.events if event.reason in _ENDS)
    for broadcast_id, count in ends.items():
        egresses = sum(each.kind is Kind.EGRESS for each in tables.rows[broadcast_id].resources.values())
        egresses += sum(times for (name, _), times in lost.items() if name == broadcast_id)
        if count > egresses:
            yield f"{broadcast_id}: {egresses} egresses end {count} times in its story"


def unheard(tables: Tables, within_s: float) -> Iterator[str]:
    """I-9: webhooks that no pass has taken in, and one should have."""
    before = tables.now() - timedelta(seconds=within_s)
    for webhook in tables.webhooks:
        row = tables.rows.get(webhook.broadcast_id)
        if webhook.applied or webhook.stored_at > before or row is None or _rests(row):
            continue
        yield f"{webhook.heard.type} {webhook.event_id} of {webhook.broadcast_id} is not taken in after {within_s:g} s"


def _rests(row: Row) -> bool:
    """Nobody will look at it any more, or yet: what is heard of it is for nobody."""
    return row.broadcast.target is Target.CREATED or (row.broadcast.state.over and row.due is None)


def _shown(broadcast: Broadcast) -> Broadcast:
    """Without what the log does not keep."""
    return replace(broadcast, destination_keys={}, due_at=None, dirty_at=None, turn_at=None, retry_from=None)


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
