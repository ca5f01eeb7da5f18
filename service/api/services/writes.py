"""The writes of callers: from the request of a write to one transaction of the store.

Invariant: every write is safe to repeat under its `request_id`, and after every write the reconciler of this process
is woken and the watches of this process look at the change log.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeAlias

from google.protobuf.message import Message

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from service import telemetry
from service.api.addresses import Resolve, private_hosts
from service.api.messages.masks import domain_fields, masked_fields, only
from service.api.messages.spec import NAMES_OF_PARTS, GivenSpec, given_spec, in_words_of_the_contract
from service.api.streams.moved import Moved
from service.domain import lifecycle
from service.domain.broadcast import Broadcast, Carrier, PlaybackPolicy
from service.domain.errors import BroadcastNotFound, DestinationNotFound, FieldImmutable, InvalidField, Violation
from service.domain.lifecycle import Change
from service.domain.provider import ROOMS
from service.domain.reporting.handle import with_handle
from service.domain.validation import (
    combination_violations,
    destination_violations,
    look_alikes,
    missing_keys,
    slate_violations,
)
from service.store.broadcasts import Broadcasts, Request

_NOT_CONTENT = ("request_id", "wait", "host_identity")
"""Fields that say how the caller wants the answer: a retry may have others."""
_FAILPOINTS = {
    "StartBroadcast": "api.start",
    "StopBroadcast": "api.stop",
    "UpdateBroadcast": "api.update",
    "AddDestination": "api.update",
    "RemoveDestination": "api.update",
    "SetOnAir": "api.on_air",
    "DeleteBroadcast": "api.delete",
}
"""What the names of a write's failpoints begin with; CreateBroadcast has its own in the store."""

_FIXED_LAYOUT: Final = {
    "layout": f"{ROOMS.display_name}'s own template ignores a new layout, and EGRESS_TEMPLATE_URL names no other one"
}
"""Of the domain's spec. LiveKit's template has ignored UpdateLayout since livekit/egress#806, and the call is answered
as if it had been done.
"""
_MOST: Final = 8
_MOST_RELAYED: Final = 6
"""Destinations of a broadcast, as the contract's rules for a whole spec have it."""

_Change: TypeAlias = (
    rpc.UpdateBroadcastRequest
    | rpc.AddDestinationRequest
    | rpc.RemoveDestinationRequest
    | rpc.StartBroadcastRequest
    | rpc.SetOnAirRequest
    | rpc.StopBroadcastRequest
    | rpc.DeleteBroadcastRequest
)
Decide: TypeAlias = Callable[[Broadcast, datetime], Change | None]
"""From the stored broadcast and the time of the database to the change to store. None: it was made before."""


class Writes:
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        moved: Moved,
        wake: Callable[[str], None],
        resolve: Resolve,
        unsigned: str,
        live_layouts: bool,
    ) -> None:
        """*moved* and *wake*: as of `ApiServer`. *unsigned*, *live_layouts*: as of `ApiOptions`."""
        self._broadcasts = broadcasts
        self._moved = moved
        self._wake = wake
        self._resolve = resolve
        self._unsigned = unsigned
        self._live_layouts = live_layouts

    async def create(self, request: rpc.CreateBroadcastRequest) -> Broadcast:
        """Raises InvalidField, BroadcastExists, RequestIdReused, StoreUnavailable, and BroadcastNotFound for a
        repeated request whose broadcast was deleted meanwhile.
        """
        given = given_spec(request.spec)
        self._check_playback(given)
        destinations, keys = given.spec.destinations, given.keys
        await self._check(
            given,
            [
                *missing_keys(destinations, keys),
                *look_alikes(destinations, keys),
                *combination_violations(given.spec),
            ],
        )
        broadcast = await self._broadcasts.create(
            request.broadcast_id or _new_id(), given.spec, given.keys, dict(request.labels), _request(request)
        )
        # Nothing exists at the providers yet, so there is nothing to wake for.
        self._moved.notify()
        return _present(broadcast)

    async def update(self, request: rpc.UpdateBroadcastRequest) -> Broadcast:
        """Raises InvalidField, FieldImmutable, EtagMismatch, and what `change` raises."""
        names = masked_fields(request.update_mask.paths)
        labels = dict(request.labels) if "labels" in request.update_mask.paths else None
        given = given_spec(only(request.spec, names))
        self._check_playback(given)
        await self._check(given, ())
        paths = domain_fields(names)

        def decide(stored: Broadcast, now: datetime) -> Change | None:
            change = lifecycle.update(
                stored,
                now,
                etag=request.etag,
                spec=given.spec,
                keys=given.keys,
                labels=labels,
                paths=paths,
                called=NAMES_OF_PARTS,
                fixed={} if self._live_layouts else _FIXED_LAYOUT,
            )
            if change is None:
                return None
            violations = combination_violations(change.broadcast.spec) if names else []
            if "destinations" in names:
                destinations, keys = change.broadcast.spec.destinations, change.broadcast.destination_keys
                violations += [*missing_keys(destinations, keys), *look_alikes(destinations, keys)]
            if violations:
                raise InvalidField(*violations)
            return change

        try:
            return await self.change(request, decide)
        except FieldImmutable as error:
            raise in_words_of_the_contract(error) from None

    async def add_destination(self, request: rpc.AddDestinationRequest) -> Broadcast:
        """As `update`, and raises DestinationExists, StateForbids."""
        given = given_spec(pb.BroadcastSpec(destinations=[request.destination]))
        [destination] = given.spec.destinations
        try:
            await self._check(given, missing_keys(given.spec.destinations, given.keys))
        except InvalidField as error:
            raise InvalidField(*(_of_one(violation) for violation in error.violations)) from None

        def decide(stored: Broadcast, now: datetime) -> Change:
            change = lifecycle.add_destination(
                stored, now, etag=request.etag, destination=destination, key=given.keys[destination.name]
            )
            _check_whole(change.broadcast)
            return change

        return await self.change(request, decide)

    async def remove_destination(self, request: rpc.RemoveDestinationRequest) -> Broadcast:
        """Raises DestinationNotFound, FieldImmutable, StateForbids, EtagMismatch, and what `change` raises."""

        def decide(stored: Broadcast, now: datetime) -> Change | None:
            try:
                return lifecycle.remove_destination(stored, now, etag=request.etag, name=request.name)
            except DestinationNotFound:
                if request.allow_missing:
                    return None
                raise

        return await self.change(request, decide)

    async def change(self, request: _Change, decide: Decide) -> Broadcast:
        """The broadcast after the write. A repeated request is answered with the broadcast as it is now.

        Raises what *decide* raises, BroadcastNotFound, RequestIdReused, StoreUnavailable.
        """
        given = _request(request)
        point = _FAILPOINTS[given.method]

        def handled(stored: Broadcast, now: datetime) -> Change | None:
            change = decide(stored, now)
            return change and replace(change, broadcast=with_handle(stored, change.broadcast, now))

        broadcast = await self._broadcasts.change(
            request.broadcast_id, handled, given, point, trace_context=telemetry.traceparent()
        )
        self._wake(broadcast.id)
        self._moved.notify()
        return broadcast if isinstance(request, rpc.DeleteBroadcastRequest) else _present(broadcast)

    def _check_playback(self, given: GivenSpec) -> None:
        """Raises InvalidField."""
        if given.spec.playback_policy is PlaybackPolicy.SIGNED and self._unsigned:
            why = f"SIGNED needs a signing key of the service: {self._unsigned}"
            raise InvalidField(Violation(field="spec.playback_policy", description=why))

    async def _check(self, given: GivenSpec, more: Sequence[Violation]) -> None:
        """*more*: violations that are told with those of urls and keys."""
        spec = given.spec
        violations = [
            *destination_violations(spec.destinations, given.keys),
            *slate_violations(spec.slate_url),
            *more,
        ]
        if not violations:
            urls = {f"spec.destinations[{index}].url": each.url for index, each in enumerate(spec.destinations)}
            if spec.slate_url:
                urls["spec.slate_url"] = spec.slate_url
            violations = await private_hosts(urls, self._resolve)
        if violations:
            raise InvalidField(*violations)


def _of_one(violation: Violation) -> Violation:
    """*violation* of the only destination of a spec, in the request that has it alone."""
    return replace(violation, field=violation.field.replace("spec.destinations[0]", "destination"))


def _check_whole(broadcast: Broadcast) -> None:
    """The rules for all destinations together, after the last of them was added. Raises InvalidField."""
    destinations = broadcast.spec.destinations
    if len(destinations) > _MOST:
        raise InvalidField(Violation(field="destination", description=f"there may be {_MOST} destinations"))
    if len(broadcast.spec.carried_by(Carrier.STREAM)) > _MOST_RELAYED:
        raise InvalidField(
            Violation(
                field="destination.carrier", description=f"there may be {_MOST_RELAYED} by {Carrier.STREAM.upper()}"
            )
        )
    if look_alikes(destinations, broadcast.destination_keys):
        why = "begins and ends like the key of another one with the same url: the two could not be told apart"
        raise InvalidField(Violation(field="destination.stream_key", description=why))


def _present(broadcast: Broadcast) -> Broadcast:
    """Raises BroadcastNotFound: a repeated request may be about a broadcast that was deleted since."""
    if broadcast.deleted:
        raise BroadcastNotFound(broadcast.id)
    return broadcast


def _new_id() -> str:
    """100 random bits."""
    return "b" + base64.b32encode(os.urandom(13)).decode()[:20].lower()


def _request(message: Message) -> Request:
    """The key by which a retry of the write is recognised: its id, the RPC and a digest of its content. The digest is
    stored, so a new version of the service has to compute the same.
    """
    method = message.DESCRIPTOR.name.removesuffix("Request")
    content = type(message)()
    content.CopyFrom(message)
    for name in _NOT_CONTENT:
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    digest = hashlib.sha256(f"{method}\n".encode() + content.SerializeToString(deterministic=True)).digest()
    return Request(id=getattr(message, "request_id", ""), method=method, digest=digest)
