"""From what a provider shows to what we hold of it. Pure.

Adoption lives here: a resource whose creation nobody answered is recognised by our mark and becomes ours again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.domain.broadcast import (
    AnyResource,
    Egress,
    EgressStatus,
    Output,
    OutputState,
    Phase,
    Room,
    Stream,
    seconds,
)
from service.domain.lifecycle import Event
from service.domain.plan import Timing, next_ordinal
from service.domain.ports import EgressSeen, OutputSeen, RoomSeen, StreamSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    resources: tuple[AnyResource, ...] = ()
    events: tuple[Event, ...] = ()
    adopted: int = 0


def room_seen(room: Room, seen: RoomSeen | None, now: datetime) -> Learned:
    if seen is None:
        gone = replace(room, phase=Phase.GONE, observed_at=now, changed_at=now, host_publishing=False, host_since=now)
        reason = "ROOM_DELETED" if room.phase is Phase.DELETING else "ROOM_LOST"
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if room.phase is Phase.DELETING:
        return Learned(resources=(replace(room, observed_at=now),))
    publishing = seen.publishers > 0
    changed = publishing is not room.host_publishing
    events: tuple[Event, ...] = ()
    if changed and (publishing or room.host_publishing):
        events = (Event(reason="HOST_PUBLISHING" if publishing else "HOST_STOPPED"),)
    return Learned(
        resources=(
            replace(
                room,
                phase=Phase.PRESENT,
                observed_at=now,
                changed_at=room.changed_at if room.phase is Phase.PRESENT else now,
                external_id=seen.name,
                sid=seen.sid,
                host_publishing=publishing,
                host_since=now if changed or room.host_since is None else room.host_since,
            ),
        ),
        events=events,
    )


def created_stream(stream: Stream, seen: StreamSeen, now: datetime) -> Stream:
    return replace(
        with_status(stream, seen, now),
        phase=Phase.PRESENT,
        external_id=seen.id,
        changed_at=now,
        failures=0,
        retry_at=None,
        key=seen.key,
        playback_id=seen.playback_id,
    )


def with_status(stream: Stream, seen: StreamSeen, now: datetime) -> Stream:
    return replace(
        stream,
        observed_at=now,
        status=seen.status,
        status_since=stream.status_since if seen.status is stream.status else now,
        active_asset_id=seen.active_asset_id or stream.active_asset_id,
        relays=seen.relays,
    )


def stream_seen(stream: Stream, seen: StreamSeen | None, now: datetime) -> Learned:
    if seen is None:
        gone = replace(stream, phase=Phase.GONE, observed_at=now, changed_at=now)
        reason = "STREAM_DELETED" if stream.phase is Phase.DELETING else "STREAM_LOST"
        return Learned(resources=(gone,), events=(Event(reason=reason),))
    if stream.phase is Phase.DELETING:
        return Learned(resources=(replace(stream, observed_at=now),))
    now_seen = with_status(stream, seen, now)
    if not stream.key_stale and seen.key and seen.key != stream.key:
        # Reset by somebody else. What runs with the old key cannot come back with it.
        now_seen = replace(now_seen, key=seen.key, key_epoch=stream.key_epoch + 1, key_reset_at=now)
    events = ()
    if seen.status is not stream.status:
        events = (Event(reason=f"STREAM_{seen.status.upper() or 'UNKNOWN'}"),)
    return Learned(resources=(now_seen,), events=events)


def streams_found(stream: Stream, found: Sequence[StreamSeen], streams: Sequence[Stream], now: datetime) -> Learned:
    """*found*: everything with the mark of *stream*, oldest first. One is adopted, more become rows to be deleted."""
    known = {each.external_id for each in streams if each.external_id}
    fresh = [each for each in found if each.id not in known]
    if not fresh:
        return Learned(resources=(replace(stream, observed_at=now),))
    adopted = created_stream(stream, fresh[0], now)
    extras = [
        created_stream(
            replace(stream, ordinal=next_ordinal(streams) + n, key_epoch=0, failures=0, retry_at=None), each, now
        )
        for n, each in enumerate(fresh[1:])
    ]
    return Learned(
        resources=(adopted, *extras),
        events=(
            Event(reason="STREAM_ADOPTED", message=adopted.external_id),
            *(Event(reason="STREAM_SURPLUS", message=extra.external_id) for extra in extras),
        ),
        adopted=1,
    )


def with_egress(egress: Egress, seen: EgressSeen, names: Mapping[str, Sequence[str]], now: datetime) -> Egress:
    """*names*: redacted address to the destinations it may be. Reports may come late: an older one changes nothing."""
    if seen.updated_ns and seen.updated_ns < egress.updated_ns:
        return replace(egress, observed_at=now)
    outputs = _named(egress, seen.outputs, names)
    has = {
        output.name
        for output in outputs
        # One that failed stays in the report after it was removed.
        if output.state in (OutputState.CONNECTING, OutputState.ACTIVE)
        or (output.state is OutputState.FAILED and output.name in egress.destinations)
    }
    terminal = seen.status.terminal
    return replace(
        egress,
        observed_at=now,
        status=seen.status,
        status_since=egress.status_since if seen.status is egress.status and egress.status_since else now,
        outputs=outputs,
        error=seen.error,
        updated_ns=seen.updated_ns,
        destinations=tuple(sorted(name for name in has if name)) if outputs else egress.destinations,
        end_seen=terminal,
    )


_ORDER = (OutputState.ACTIVE, OutputState.CONNECTING, OutputState.FAILED, OutputState.FINISHED)


def _named(egress: Egress, seen: Sequence[OutputSeen], names: Mapping[str, Sequence[str]]) -> tuple[Output, ...]:
    """By name, and of one name the living first. Keys that are alike at both ends make one address of several
    destinations: what lives gets the names first, those it is known to have before the others.
    """
    left = {
        address: sorted(given, key=lambda name: name not in egress.destinations) for address, given in names.items()
    }
    outputs: list[Output] = []
    for output in sorted(seen, key=lambda output: _ORDER.index(output.state)):
        # An address nobody gave it is shown as it is: it is redacted already.
        given = left.get(output.address, [output.address])
        name = given.pop(0) if len(given) > 1 else given[0]
        outputs.append(Output(name=name, state=output.state, message=output.message))
    return tuple(sorted(outputs, key=lambda output: output.name))


def egresses_seen(
    egresses: Sequence[Egress],
    listed: Sequence[EgressSeen],
    *,
    names: Mapping[str, Sequence[str]],
    address: str,
    key_epoch: int,
    now: datetime,
    timing: Timing,
) -> Learned:
    """*listed*: all egresses of the room. *address*: what an output to the live stream with its present key, of
    *key_epoch*, looks like.
    """
    by_id = {seen.id: seen for seen in listed}
    resources: list[AnyResource] = []
    events: list[Event] = []
    adopted = 0
    known = {egress.external_id for egress in egresses if egress.external_id}
    strangers = sorted(
        (seen for seen in listed if seen.id not in known), key=lambda seen: seen.updated_ns, reverse=True
    )
    for egress in egresses:
        if egress.phase is Phase.GONE:
            continue
        seen = by_id.get(egress.external_id) if egress.external_id else None
        if seen is None and egress.unresolved:
            seen = _recognise(egress, strangers, address, key_epoch)
            if seen is not None:
                strangers.remove(seen)
                adopted += 1
                events.append(Event(reason="EGRESS_ADOPTED", message=seen.id))
                egress = replace(  # noqa: PLW2901 - from here on it is the one that was found
                    egress, external_id=seen.id, phase=Phase.PRESENT, changed_at=now, failures=0
                )
        learned = _one_egress(egress, seen, names, now, timing, starts=_recent(egresses, now, timing))
        resources.extend(learned.resources)
        events.extend(learned.events)
    for n, seen in enumerate(seen for seen in strangers if not seen.status.terminal):
        stranger = Egress(
            ordinal=next_ordinal(egresses) + n,
            phase=Phase.PRESENT,
            external_id=seen.id,
            intended_at=seen.started_at or now,
            changed_at=now,
            key_epoch=key_epoch if _pushes_to(seen, address) else -1,
        )
        resources.append(with_egress(stranger, seen, names, now))
        events.append(Event(reason="EGRESS_SURPLUS", message=seen.id))
    return Learned(resources=tuple(resources), events=tuple(events), adopted=adopted)


def _recognise(egress: Egress, strangers: Sequence[EgressSeen], address: str, key_epoch: int) -> EgressSeen | None:
    """A start without an answer is told by the key it pushes with, of which LiveKit shows both ends."""
    for seen in strangers:
        ours = _pushes_to(seen, address)
        if ours if egress.key_epoch == key_epoch else not ours:
            return seen
    return None


def _pushes_to(seen: EgressSeen, address: str) -> bool:
    return any(output.address == address for output in seen.outputs)


def _one_egress(
    egress: Egress,
    seen: EgressSeen | None,
    names: Mapping[str, Sequence[str]],
    now: datetime,
    timing: Timing,
    *,
    starts: int,
) -> Learned:
    if seen is None:
        # A list may lag behind a start; records of what has ended vanish after a day.
        young = now < egress.changed_at + seconds(timing.list_lag_s)
        if egress.unresolved or young:
            return Learned(resources=(replace(egress, observed_at=now),))
        gone = replace(egress, phase=Phase.GONE, observed_at=now, changed_at=now, end_seen=True)
        return Learned(resources=(gone,), events=(Event(reason="EGRESS_LOST", message=egress.external_id),))
    updated = with_egress(egress, seen, names, now)
    if not updated.status.terminal:
        started = updated.status is EgressStatus.ACTIVE and egress.status is not EgressStatus.ACTIVE
        delivering = updated.delivering and not egress.delivering
        return Learned(
            resources=(updated,),
            events=(
                *((Event(reason="EGRESS_ACTIVE"),) if started else ()),
                *((Event(reason="EGRESS_CONNECTED"),) if delivering else ()),
            ),
        )
    asked = egress.phase is Phase.DELETING
    wait = 0.0 if asked or starts <= 1 else min(2.0 * 2 ** (starts - 2), 60.0)
    ended = replace(updated, phase=Phase.GONE, changed_at=now, retry_at=now + seconds(wait) if wait else None)
    # COMPLETE does not mean as intended: a lost room, a shed worker and a killed process all end so.
    reason = "EGRESS_STOPPED" if asked else "EGRESS_ENDED"
    return Learned(
        resources=(ended,), events=(Event(reason=reason, message=f"{updated.status} {updated.error}".strip()),)
    )


def _recent(egresses: Sequence[Egress], now: datetime, timing: Timing) -> int:
    return sum(egress.intended_at > now - seconds(timing.starts_window_s) for egress in egresses)
