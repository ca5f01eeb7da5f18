"""Rows to values and back. A snapshot in the change log is read by the same code as a row."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, cast

import asyncpg
import msgspec

from service.domain.broadcast import AnyResource, Broadcast, Egress, Kind, Resource, Room, Stream
from service.domain.secret import Secret
from service.store.sealing import Sealer

Row = Mapping[str, Any] | asyncpg.Record

_CLASSES: dict[str, type[AnyResource]] = {Kind.ROOM: Room, Kind.STREAM: Stream, Kind.EGRESS: Egress}
_COMMON = tuple(field.name for field in fields(Resource))
_SEALED = ("key", "pushes")

BROADCAST_COLUMNS = (
    "id, spec, labels, generation, version, target, on_air, state, status, end_reason, create_time, update_time, "
    "start_time, ready_time, live_time, end_time, dirty_at, due_at, turn_at, deleted"
)
RESOURCE_COLUMNS = (
    "kind, ordinal, phase, external_id, intended_at, observed_at, changed_at, failures, retry_at, acked, refused, "
    "detail, secret"
)


def _no_secret(type_: type, value: Any) -> Any:
    raise NotImplementedError(f"{type_}: secrets are not part of a row's JSON: {type(value)}")


class Rows:
    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def broadcast(self, row: Row, sealed: bytes | None = None) -> Broadcast:
        """*sealed*: the destination keys, for those who push to them."""
        broadcast = msgspec.convert(dict(row), Broadcast, dec_hook=_no_secret)
        if sealed is None:
            return broadcast
        keys = msgspec.json.decode(self._sealer.open(sealed, place=f"broadcast/{broadcast.id}"), type=dict[str, str])
        return replace(broadcast, destination_keys={name: Secret(key) for name, key in keys.items()})

    def seal_keys(self, broadcast_id: str, keys: Mapping[str, Secret]) -> bytes | None:
        if not keys:
            return None
        plain = msgspec.json.encode({name: key.reveal() for name, key in keys.items()}).decode()
        return self._sealer.seal(plain, place=f"broadcast/{broadcast_id}")

    def resource(self, broadcast_id: str, row: Row) -> AnyResource:
        values = {name: row[name] for name in _COMMON} | cast("dict[str, Any]", row["detail"])
        class_ = _CLASSES[row["kind"]]
        resource = msgspec.convert(values, class_, dec_hook=_no_secret)
        sealed: bytes | None = row["secret"]
        if sealed is None or isinstance(resource, Room):
            return resource
        opened = self._sealer.open(sealed, place=_place(broadcast_id, resource))
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
        secret = self._sealer.seal(plain, place=_place(broadcast_id, resource)) if plain else None
        common = {name: getattr(resource, name) for name in _COMMON}
        return (resource.kind, *common.values(), detail, secret)


def _place(broadcast_id: str, resource: Resource) -> str:
    return f"{resource.kind}/{broadcast_id}/{resource.ordinal}"
