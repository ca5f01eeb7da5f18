"""The writes of callers. Pure: each function takes the stored broadcast and answers the broadcast to store.

None means that there is nothing to store: the write was done before. Raises EtagMismatch, FieldImmutable, StateForbids.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime

from service.domain.broadcast import (
    Broadcast,
    Carrier,
    DeliveryPolicy,
    Destination,
    EndReason,
    Spec,
    State,
    Status,
    Target,
)
from service.domain.errors import DestinationExists, DestinationNotFound, EtagMismatch, FieldImmutable, StateForbids
from service.domain.reasons import ConditionReason, EventReason
from service.domain.schedule import check_scheduled, provision_at
from service.domain.secret import Secret

LIVE_FIELDS = frozenset(field.name for field in fields(Spec) if field.metadata.get("live"))
"""Fields of the spec that may change after the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    reason: EventReason
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    broadcast: Broadcast
    events: tuple[Event, ...]
    wake: bool = True
    requeue: bool = False
    """Without a wake: the next pass is due at `broadcast.due_at`, and none is where that is None. False: what was due
    stays due.
    """


def scheduled(created: Broadcast, now: datetime) -> Broadcast:
    """*created*, which was not started, as it waits for the time that its spec has by now. Raises InvalidField."""
    check_scheduled(created.spec, now)
    waits = created.spec.scheduled_start_time is not None
    reason = ConditionReason.SCHEDULED.value if waits else ""
    return replace(created, due_at=provision_at(created), status=replace(created.status, state_reason=reason))


def start(stored: Broadcast, now: datetime) -> Change | None:
    match stored.target:
        case Target.LIVE:
            return None
        case Target.ENDED:
            raise _forbidden(stored, "it was stopped, and a broadcast runs once: create another")
        case Target.CREATED:
            return Change(
                broadcast=replace(
                    stored,
                    target=Target.LIVE,
                    state=State.STARTING,
                    start_time=now,
                    status=replace(stored.status, state_reason="", state_time=now),
                ),
                events=(Event(reason=EventReason.START_REQUESTED),),
            )


def stop(stored: Broadcast, now: datetime, note: str) -> Change | None:
    if stored.target is Target.ENDED:
        return None
    ended = stored.target is Target.CREATED
    return Change(
        broadcast=replace(
            stored,
            target=Target.ENDED,
            end_reason=EndReason.STOPPED,
            state=State.ENDED if ended else State.STOPPING,
            end_time=now if ended else None,
            due_at=None,
            status=replace(stored.status, state_reason=EndReason.STOPPED, state_time=now),
        ),
        events=(Event(reason=EventReason.STOP_REQUESTED, message=note),),
        wake=not ended,
        requeue=ended,
    )


def set_on_air(stored: Broadcast, now: datetime, *, on_air: bool) -> Change | None:
    del now
    if stored.spec.delivery_policy is not DeliveryPolicy.MANUAL:
        raise _forbidden(stored, "its delivery policy is not MANUAL")
    if stored.target is Target.ENDED:
        raise _forbidden(stored, "it was stopped")
    if stored.on_air == on_air:
        return None
    return Change(
        broadcast=replace(stored, on_air=on_air),
        events=(Event(reason=EventReason.ON_AIR_REQUESTED if on_air else EventReason.OFF_AIR_REQUESTED),),
        wake=stored.target is Target.LIVE,
    )


def update(
    stored: Broadcast,
    now: datetime,
    *,
    etag: str,
    spec: Spec,
    keys: Mapping[str, Secret],
    labels: dict[str, str] | None,
    paths: Iterable[str],
    called: Mapping[str, str] | None = None,
    fixed: Mapping[str, str] | None = None,
) -> Change | None:
    """*paths* are names of fields of the spec; *labels* None leaves them as they are. *called*: the names that callers
    know the fields by, for the event. None: the fields' own names. *fixed*: fields that this deployment cannot change
    after the start although others can, with the reason. Raises InvalidField for a scheduled time that is not in
    the future.
    """
    check_etag(stored, etag)
    names = set(paths)
    if names and stored.target is not Target.CREATED:
        for name, why in (fixed or {}).items():
            if name in names and getattr(spec, name) != getattr(stored.spec, name):
                raise _immutable(name, f"; {why}, so it is")
        _check_live(stored, spec, keys, names)
    merged = replace(stored.spec, **{name: getattr(spec, name) for name in names})
    kept = _keep_keys(stored, merged, keys) if "destinations" in names else stored.destination_keys
    spec_changed = merged != stored.spec or kept != stored.destination_keys
    labels_changed = labels is not None and labels != stored.labels
    if not spec_changed and not labels_changed:
        return None
    changed = {field.name for field in fields(Spec) if getattr(merged, field.name) != getattr(stored.spec, field.name)}
    if kept != stored.destination_keys:
        changed.add("destinations")
    what = sorted({(called or {}).get(name, name) for name in changed})
    moved = "scheduled_start_time" in changed
    updated = replace(
        stored,
        spec=merged,
        destination_keys=kept,
        status=_without_others(stored.status, merged),
        labels=labels if labels is not None else stored.labels,
        generation=stored.generation + spec_changed,
        version=stored.version + 1,
    )
    return Change(
        broadcast=scheduled(updated, now) if moved else updated,
        events=(
            Event(reason=EventReason.UPDATED, message=", ".join([*what, *(["labels"] if labels_changed else [])])),
        ),
        wake=stored.target is Target.LIVE,
        requeue=moved,
    )


def add_destination(stored: Broadcast, now: datetime, *, etag: str, destination: Destination, key: Secret) -> Change:
    """Raises DestinationExists too."""
    check_etag(stored, etag)
    if any(each.name == destination.name for each in stored.spec.destinations):
        raise DestinationExists(stored.id, destination.name)
    return _with_destinations(
        stored,
        now,
        (*stored.spec.destinations, destination),
        {destination.name: key},
        Event(reason=EventReason.DESTINATION_ADD_REQUESTED, message=destination.name),
    )


def remove_destination(stored: Broadcast, now: datetime, *, etag: str, name: str) -> Change:
    """Raises DestinationNotFound too."""
    check_etag(stored, etag)
    left = tuple(each for each in stored.spec.destinations if each.name != name)
    if left == stored.spec.destinations:
        raise DestinationNotFound(stored.id, name)
    event = Event(reason=EventReason.DESTINATION_REMOVE_REQUESTED, message=name)
    return _with_destinations(stored, now, left, {}, event)


def _with_destinations(
    stored: Broadcast, now: datetime, wanted: tuple[Destination, ...], keys: Mapping[str, Secret], event: Event
) -> Change:
    if stored.target is Target.ENDED:
        raise _forbidden(stored, "it was stopped")
    spec = replace(stored.spec, destinations=wanted)
    change = update(stored, now, etag="", spec=spec, keys=keys, labels=None, paths=("destinations",))
    assert change is not None  # noqa: S101 - the callers changed the destinations
    return replace(change, events=(event,))


def delete(stored: Broadcast, now: datetime, *, etag: str) -> Change | None:
    del now
    check_etag(stored, etag)
    if not stored.state.at_rest:
        raise _forbidden(stored, "it is not at rest: stop it first")
    waits = stored.target is Target.CREATED
    return Change(
        broadcast=replace(stored, deleted=True, destination_keys={}, due_at=None if waits else stored.due_at),
        events=(Event(reason=EventReason.DELETED),),
        wake=False,
        requeue=waits,
    )


def tell(stored: Broadcast, event: Event) -> Change:
    """Only the event: something is about to be done at a provider that is no state of ours. Raises StateForbids."""
    check_running(stored)
    return Change(broadcast=stored, events=(event,), wake=False)


def check_running(stored: Broadcast) -> None:
    """Raises StateForbids for a broadcast without a room."""
    if stored.state.at_rest:
        why = "it was not started" if stored.state is State.CREATED else "it is over"
        raise _forbidden(stored, f"{why}, so it has no room")


def check_wanted_live(stored: Broadcast) -> None:
    """Raises StateForbids."""
    if stored.target is not Target.LIVE:
        raise not_wanted_live(stored.id, stored.state, stored.target)


def not_wanted_live(broadcast_id: str, state: State, target: Target) -> StateForbids:
    """For callers that do not hold the whole broadcast. *target* is not LIVE."""
    why = "it was not started" if target is Target.CREATED else "it was stopped"
    return StateForbids(why, broadcast_id=broadcast_id, state=state)


def check_etag(stored: Broadcast, etag: str) -> None:
    if etag and etag != stored.etag:
        raise EtagMismatch(
            f"the etag of {stored.id!r} is {stored.etag!r} by now, not {etag!r}",
            broadcast_id=stored.id,
            etag=stored.etag,
        )


def _check_live(stored: Broadcast, spec: Spec, keys: Mapping[str, Secret], names: set[str]) -> None:
    for name in sorted(names - LIVE_FIELDS):
        if getattr(spec, name) != getattr(stored.spec, name):
            raise _immutable(name)
    if "destinations" in names and spec.carried_by(Carrier.STREAM) != stored.spec.carried_by(Carrier.STREAM):
        raise _immutable(
            "destinations", f"; those by {Carrier.STREAM.upper()}, which changes them only while it is idle, are"
        )
    if "destinations" in names:
        urls = {destination.name: destination.url for destination in stored.spec.destinations}
        for destination in spec.destinations:
            name, key = destination.name, keys.get(destination.name)
            moved = name in urls and destination.url != urls[name]
            if moved or (name in urls and key and key != stored.destination_keys.get(name)):
                # An egress knows its outputs by url: the same name for another one would be neither.
                raise _immutable(
                    "destinations", f": url and key of {name!r}, which can be removed and added by another name, are"
                )


def _without_others(status: Status, spec: Spec) -> Status:
    """*status* without destinations that *spec* has not: the memory of its failures goes with a destination."""
    names = {each.name for each in spec.destinations}
    return replace(status, destinations=tuple(each for each in status.destinations if each.name in names))


def _immutable(name: str, which: str = "; it is") -> FieldImmutable:
    return FieldImmutable(f"spec.{name}{which} fixed since the start", field=f"spec.{name}")


def _keep_keys(stored: Broadcast, spec: Spec, keys: Mapping[str, Secret]) -> dict[str, Secret]:
    """An empty key keeps the stored one of the same name and url."""
    urls = {destination.name: destination.url for destination in stored.spec.destinations}
    kept: dict[str, Secret] = {}
    for destination in spec.destinations:
        key = keys.get(destination.name, Secret(""))
        if not key and urls.get(destination.name) == destination.url:
            key = stored.destination_keys.get(destination.name, key)
        kept[destination.name] = key
    return kept


def _forbidden(stored: Broadcast, why: str) -> StateForbids:
    return StateForbids(why, broadcast_id=stored.id, state=stored.state)
