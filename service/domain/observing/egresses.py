"""From the egresses of a room to the rows of them. Pure.

An egress whose start was not answered is recognised by the key that it pushes with, and adopted. Only an egress that
pushes to our live stream is ours: any other one in the room belongs to somebody else, and is left alone. An egress that
no list shows is absent, which is not the same as ended: see `evidence`.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from service.domain.lifecycle import Event
from service.domain.observing.evidence import recorder_absent
from service.domain.observing.learned import Learned
from service.domain.ports import EgressSeen, OutputSeen
from service.domain.reasons import EventReason, Fault
from service.domain.resource_set import next_ordinal
from service.domain.resources import (
    END_FAULTS,
    AnyResource,
    Egress,
    EgressStatus,
    LocalRecording,
    Output,
    OutputState,
    Phase,
)
from service.domain.timing import Timing


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
    updated = replace(
        egress,
        observed_at=now,
        status=seen.status,
        status_since=egress.status_since if seen.status is egress.status and egress.status_since else now,
        outputs=outputs,
        started_at=seen.started_at or egress.started_at,
        ended_at=seen.ended_at or egress.ended_at,
        error=seen.error,
        updated_ns=seen.updated_ns,
        destinations=tuple(sorted(name for name in has if name)) if outputs else egress.destinations,
        end_seen=seen.status.terminal,
        absent_since=None,
    )
    return replace(updated, delivering_since=(egress.delivering_since or now) if updated.delivering else None)


_ORDER = (OutputState.ACTIVE, OutputState.CONNECTING, OutputState.FAILED, OutputState.FINISHED)


def _named(egress: Egress, seen: Sequence[OutputSeen], names: Mapping[str, Sequence[str]]) -> tuple[Output, ...]:
    """The outputs with the names of their destinations, sorted by name.

    Keys with the same first and last characters make one redacted address of several destinations. Then outputs that
    run get a name first, and the names that the egress is known to have are given before the others.
    """
    left = {
        address: sorted(given, key=lambda name: name not in egress.destinations) for address, given in names.items()
    }
    outputs: list[Output] = []
    for output in sorted(seen, key=lambda output: _ORDER.index(output.state)):
        # An address nobody gave it is shown as it is: it is redacted already.
        given = left.get(output.address, [output.address])
        name = given.pop(0) if len(given) > 1 else given[0]
        outputs.append(
            Output(
                name=name,
                state=output.state,
                message=output.message,
                started_at=output.started_at,
                ended_at=output.ended_at,
            )
        )
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
    unknown: AbstractSet[str] = frozenset(),
    feeding: Egress | None = None,
) -> Learned:
    """*listed*: the egresses of the room that LiveKit shows. *address*: what an output to the live stream with its
    present key, of *key_epoch*, looks like. *unknown*: ids that LiveKit was asked for and answered that there is none.
    *feeding*: the egress that brings the media which the live stream gets. None: it gets none, or from none of these.
    """
    listed = [seen for seen in listed if not seen.file]
    by_id = {seen.id: seen for seen in listed}
    resources: list[AnyResource] = []
    events: list[Event] = []
    adopted = 0
    known = {egress.external_id for egress in egresses if egress.external_id}
    strangers = sorted(
        (seen for seen in listed if seen.id not in known), key=lambda seen: seen.updated_ns, reverse=True
    )
    ours = {shown for shown, given in names.items() if "" in given} | {address}
    for egress in egresses:
        if egress.phase is Phase.GONE:
            if (seen := _came_back(egress, by_id)) is not None:
                back = replace(egress, phase=Phase.PRESENT, changed_at=now, acked=False, failures=0, retry_at=None)
                resources.append(with_egress(back, seen, names, now))
                events.append(Event(reason=EventReason.EGRESS_SURPLUS, message=seen.id))
            elif (seen := _ended_since(egress, by_id)) is not None:
                resources.append(with_egress(egress, seen, names, now))
            continue
        seen = by_id.get(egress.external_id) if egress.external_id else None
        if seen is None and egress.unresolved:
            seen = _recognise(strangers, {address} if egress.key_epoch == key_epoch else ours - {address})
            if seen is not None:
                strangers.remove(seen)
                adopted += 1
                events.append(Event(reason=EventReason.EGRESS_ADOPTED, message=seen.id))
                egress = replace(  # noqa: PLW2901 - from here on it is the one that was found
                    egress,
                    external_id=seen.id,
                    phase=Phase.PRESENT,
                    changed_at=now,
                    failures=0,
                    retry_at=None,
                    fault=Fault.NONE,
                    tries_over_at=None,
                )
        if seen is None:
            learned = recorder_absent(
                egress, now, timing, unknown_by_id=egress.external_id in unknown, contradicted=egress is feeding
            )
        else:
            learned = egress_seen(egress, seen, names, now)
        resources.extend(learned.resources)
        events.extend(learned.events)
    surplus = [seen for seen in strangers if not seen.status.terminal and _pushes_to(seen, *ours)]
    for n, seen in enumerate(surplus):
        stranger = Egress(
            ordinal=next_ordinal(egresses) + n,
            phase=Phase.PRESENT,
            external_id=seen.id,
            intended_at=seen.started_at or now,
            changed_at=now,
            key_epoch=key_epoch if _pushes_to(seen, address) else -1,
        )
        resources.append(with_egress(stranger, seen, names, now))
        events.append(Event(reason=EventReason.EGRESS_SURPLUS, message=seen.id))
    return Learned(resources=tuple(resources), events=tuple(events), adopted=adopted)


def _recognise(strangers: Sequence[EgressSeen], addresses: AbstractSet[str]) -> EgressSeen | None:
    """A start without an answer is recognised by its key: LiveKit shows the first and last characters of the key.
    *addresses*: what an output with a key of its time looks like.
    """
    return next((seen for seen in strangers if _pushes_to(seen, *addresses)), None)


def _pushes_to(seen: EgressSeen, *addresses: str) -> bool:
    return any(output.address in addresses for output in seen.outputs)


def found_running(given_up: Sequence[Egress | LocalRecording], now: datetime) -> Learned:
    """*given_up*: egresses that were written off and are in their room, or were starting and never came into it. A
    record alone may stay listed for ever, but only a worker that lives is in the room, and one that still starts may
    live. So each is to be stopped again.
    """
    again = [
        replace(
            each,
            phase=Phase.DELETING,
            changed_at=now,
            acked=False,
            failures=0,
            retry_at=None,
            fault=Fault.NOT_STOPPED,
            returns=each.returns + 1,
        )
        for each in given_up
    ]
    events = tuple(Event(reason=EventReason.EGRESS_STILL_RUNS, message=each.external_id) for each in again)
    return Learned(resources=tuple(again), events=events)


def _came_back(egress: Egress, by_id: Mapping[str, EgressSeen]) -> EgressSeen | None:
    """What LiveKit shows of an egress that was lost, and runs. One that was given up because it answered no stop stays
    listed for ever (livekit/egress#950), and is not meant.
    """
    seen = by_id.get(egress.external_id) if egress.fault is Fault.LOST and not egress.end_seen else None
    return seen if seen is not None and not seen.status.terminal else None


def _ended_since(egress: Egress, by_id: Mapping[str, EgressSeen]) -> EgressSeen | None:
    """What LiveKit shows of an egress that was given up and has ended since. Its row stays GONE and has its end: it
    cannot publish any more, and it is charged to that moment.
    """
    seen = by_id.get(egress.external_id) if egress.external_id and not egress.end_seen else None
    return seen if seen is not None and seen.status.terminal else None


def egress_seen(egress: Egress, seen: EgressSeen, names: Mapping[str, Sequence[str]], now: datetime) -> Learned:
    updated = with_egress(egress, seen, names, now)
    if not updated.status.terminal:
        started = updated.status is EgressStatus.ACTIVE and egress.status is not EgressStatus.ACTIVE
        delivering = updated.delivering and not egress.delivering
        return Learned(
            resources=(updated,),
            events=(
                *((Event(reason=EventReason.EGRESS_ACTIVE),) if started else ()),
                *((Event(reason=EventReason.EGRESS_CONNECTED),) if delivering else ()),
            ),
        )
    asked = egress.phase is Phase.DELETING
    ended = replace(
        updated,
        phase=Phase.GONE,
        changed_at=now,
        retry_at=None,
        fault=egress.fault if asked else END_FAULTS[updated.status],
    )
    # COMPLETE does not mean as intended: a lost room, a shed worker and a killed process all end so.
    reason = EventReason.EGRESS_STOPPED if asked else EventReason.EGRESS_ENDED
    return Learned(
        resources=(ended,), events=(Event(reason=reason, message=f"{updated.status} {updated.error}".strip()),)
    )
