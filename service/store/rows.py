"""Rows to values and back. A snapshot in the change log is read by the same code as a row.

Secrets are sealed columns of their own: a JSON column never holds one.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, cast

import asyncpg
import msgspec

from service.domain.audience.watching import Watching
from service.domain.broadcast import Broadcast
from service.domain.cost.cap import Costs
from service.domain.cost.prices import Prices
from service.domain.measurements import Probe, Unseen
from service.domain.ports import Heard, PlaylistSeen
from service.domain.resources import AnyResource, Egress, LocalRecording, Resource, Room, Stream, Upload
from service.domain.secret import NO_SECRET, Secret
from service.domain.situation import Availability, Outage
from service.store.audience.slots import COUNTED_SINCE, COUNTED_UP_TO, LAST_SEEN
from service.store.sealing import CannotOpen, Sealer

Row = Mapping[str, Any] | asyncpg.Record

_CLASSES: dict[str, type[AnyResource]] = {
    class_.kind: class_ for class_ in (Room, Stream, Egress, LocalRecording, Upload)
}
_NO_TEXT = dict.fromkeys((0, *range(0xD800, 0xE000)), "\ufffd")
"""NUL and surrogates, which Postgres refuses in a text, become U+FFFD."""
_SEALED = ("key", "pushes")

BROADCAST_COLUMNS = (
    "id, spec, labels, generation, version, target, on_air, fallback, delivery, cost_level, state, status, end_reason, "
    "create_time, update_time, start_time, ready_time, live_time, end_time, dirty_at, due_at, retry_from, "
    "turn_at, deleted, fault"
)
RESOURCE_COLUMNS = (
    "kind, ordinal, phase, external_id, intended_at, observed_at, changed_at, failures, retry_at, acked, refused, "
    "detail, secret"
)
_COMMON = tuple(name for name in RESOURCE_COLUMNS.split(", ") if name not in ("kind", "detail", "secret"))
"""The fields of a resource that have a column of their own. The others are in `detail`."""


# An outage is two failed looks of the observer in a row, the last of them less than a minute ago.
OUTAGES = (
    "(SELECT jsonb_object_agg(name, jsonb_build_object('since', unreachable_since, 'code', code, 'message', message)) "
    "FROM provider WHERE checked_at - unreachable_since >= interval '5 s' AND checked_at > now() - interval '60 s') "
    "AS outages, "
    "(SELECT jsonb_object_agg(name, answering_since) FROM provider) AS answering"
)
# Webhooks that no pass has taken into account yet, oldest first; the rest of more than 50 waits for the next pass.
HEARD = (
    "(SELECT jsonb_agg(jsonb_build_array(id, heard) ORDER BY id) FROM (SELECT w.id, w.heard FROM webhook w "
    "WHERE w.broadcast_id = broadcast.id AND w.apply_time IS NULL AND w.outcome = 'accepted' "
    "ORDER BY w.id LIMIT 50) AS unapplied) AS heard"
)

# The last probe of the playlist.
PLAYED = (
    "(SELECT playlist FROM probe WHERE probe.broadcast_id = broadcast.id) AS playlist, "
    "(SELECT playlist_at FROM probe WHERE probe.broadcast_id = broadcast.id) AS playlist_at, "
    "(SELECT unseen FROM probe WHERE probe.broadcast_id = broadcast.id) AS unseen"
)


# What viewers were sent up to about a minute ago, and how many there were in the last slot that is over. A viewer who
# moved to another replica within the slot counts twice here: it is a rate, which nothing is charged by.
DELIVERED = (
    "(SELECT viewer_s FROM audience_total WHERE audience_total.broadcast_id = broadcast.id AND up_to IS NOT NULL) "
    "AS viewer_s, "
    "(SELECT sum(s.viewers)::int FROM audience_slot s WHERE s.broadcast_id = broadcast.id AND s.slot = ("
    "SELECT max(slot) FROM audience_slot m WHERE m.broadcast_id = broadcast.id "
    "AND m.slot BETWEEN now() - interval '60 s' AND now() - interval '15 s')) AS viewers_lately"
)


def costs_of(row: Row, prices: Prices) -> Costs:
    """Of a row with the columns of DELIVERED."""
    return Costs(prices=prices, viewer_s=row["viewer_s"], viewers=row["viewers_lately"])


# The viewers, asked for where the delivery depends on them.
WATCHED = ", ".join(
    f"CASE WHEN spec ->> 'delivery_policy' = 'on_demand' THEN {sql} END AS {name}"
    for name, sql in (
        ("last_seen", LAST_SEEN),
        ("counted_up_to", COUNTED_UP_TO),
        ("counted_since", COUNTED_SINCE),
    )
)


class _Movement(msgspec.Struct):
    """What is stored in the same column as the playlist: whether it moved."""

    advanced_at: datetime | None = None
    standing_since: datetime | None = None


def outages_of(row: Row) -> dict[str, Outage]:
    return msgspec.convert(row["outages"] or {}, dict[str, Outage])


def availability_of(row: Row, *, storage: bool, signing: bool) -> Availability:
    answering = msgspec.convert(row["answering"] or {}, dict[str, datetime | None])
    return Availability(outages=outages_of(row), answering_since=answering, storage=storage, signing=signing)


def heard_of(row: Row) -> tuple[tuple[int, Heard], ...]:
    return tuple((number, _heard(value)) for number, value in row["heard"] or ())


def played_of(row: Row) -> Probe:
    """The playlist and whether it moves; without the people in the room."""
    playlist, unseen = row["playlist"], row["unseen"]
    movement = msgspec.convert(playlist or {}, _Movement)
    return Probe(
        playlist=None if playlist is None else msgspec.convert(playlist, PlaylistSeen),
        playlist_at=row["playlist_at"],
        advanced_at=movement.advanced_at,
        standing_since=movement.standing_since,
        unseen=None if unseen is None else msgspec.convert(unseen, Unseen),
    )


def watching_of(row: Row) -> Watching:
    """Nothing is known of the viewers unless the delivery policy is ON_DEMAND."""
    names = ("last_seen", "counted_up_to", "counted_since")
    return Watching(**{name: row[name] for name in names})


def _heard(value: object) -> Heard:
    try:
        return msgspec.convert(value, Heard, dec_hook=_without_secret)
    except msgspec.ValidationError:
        # Another version of the service wrote it. A webhook is a hint: a pass must not fail for want of one.
        return Heard(event_id="", type="", provider_time=None)


def _without_secret(type_: type, value: Any) -> Any:
    if type_ is Secret:
        return NO_SECRET
    return _no_secret(type_, value)


def _no_secret(type_: type, value: Any) -> Any:
    raise NotImplementedError(f"{type_}: secrets are not part of a row's JSON: {type(value)}")


class Rows:
    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def broadcast(self, row: Row, sealed: bytes | None = None) -> Broadcast:
        """*sealed*: the column of the destination keys. None: the broadcast is read without them. Raises CannotOpen."""
        broadcast = msgspec.convert(dict(row), Broadcast, dec_hook=_no_secret)
        if sealed is None:
            return broadcast
        keys = msgspec.json.decode(self._sealer.open(sealed, row=f"broadcast/{broadcast.id}"), type=dict[str, str])
        return replace(broadcast, destination_keys={name: Secret(key) for name, key in keys.items()})

    def seal_keys(self, broadcast_id: str, keys: Mapping[str, Secret]) -> bytes | None:
        """For the column of the destination keys. *keys*: by the names of the destinations."""
        if not keys:
            return None
        plain = msgspec.json.encode({name: key.reveal() for name, key in keys.items()}).decode()
        return self._sealer.seal(plain, row=f"broadcast/{broadcast_id}")

    def pooled_key(self, row: Row) -> Secret | None:
        """The stream key of a row of the pool. None: no key of this replica opens it."""
        try:
            return Secret(self._sealer.open(row["secret"], row=f"pool/{row['id']}"))
        except CannotOpen:
            return None

    def resource(self, broadcast_id: str, row: Row, *, needs_secret: bool = True) -> AnyResource:
        """A `secret` that is NULL leaves the resource without its key or push addresses, and so does one that no key
        opens where it is not needed. Raises CannotOpen.
        """
        values = {name: row[name] for name in _COMMON} | cast("dict[str, Any]", row["detail"])
        class_ = _CLASSES[row["kind"]]
        resource = msgspec.convert(values, class_, dec_hook=_no_secret)
        sealed: bytes | None = row["secret"]
        if sealed is None or not isinstance(resource, Stream | Egress):
            return resource
        try:
            opened = self._sealer.open(sealed, row=_identity(broadcast_id, resource))
        except CannotOpen:
            if needs_secret:
                raise
            return resource
        if isinstance(resource, Stream):
            return replace(resource, key=Secret(opened))
        pushes = msgspec.json.decode(opened, type=dict[str, str])
        return replace(resource, pushes={name: Secret(url) for name, url in pushes.items()})

    def resource_values(self, broadcast_id: str, resource: AnyResource) -> tuple[Any, ...]:
        """In the order of RESOURCE_COLUMNS."""
        own = [f.name for f in fields(resource) if f.name not in (*_COMMON, *_SEALED)]
        detail = {name: msgspec.to_builtins(getattr(resource, name)) for name in own}
        plain = ""
        if isinstance(resource, Stream):
            plain = resource.key.reveal()
        elif isinstance(resource, Egress) and resource.pushes:
            plain = msgspec.json.encode({name: url.reveal() for name, url in resource.pushes.items()}).decode()
        secret = self._sealer.seal(plain, row=_identity(broadcast_id, resource)) if plain else None
        common = {name: getattr(resource, name) for name in _COMMON}
        return (resource.kind, *common.values(), detail, secret)


def _identity(broadcast_id: str, resource: Resource) -> str:
    return f"{resource.kind}/{broadcast_id}/{resource.ordinal}"


def heard_column(heard: Heard | None) -> Any:
    """For the column `webhook.heard`: JSON in which every secret is an empty text."""
    return None if heard is None else _plain_json(msgspec.to_builtins(heard, enc_hook=_left_behind))


def postgres_text(text: str, longest: int | None = None) -> str:
    """*text*, cut to *longest* characters, without the signs that Postgres refuses: NUL and lone surrogates."""
    return text[:longest].translate(_NO_TEXT)


def _left_behind(_value: Any) -> str:
    return ""


def _plain_json(value: Any) -> Any:
    match value:
        case str():
            return postgres_text(value)
        case dict():
            return {name: _plain_json(each) for name, each in cast("dict[str, Any]", value).items()}
        case list():
            return [_plain_json(each) for each in cast("list[Any]", value)]
        case _:
            return value
