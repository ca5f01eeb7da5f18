"""The spec of a broadcast: one row for each field of the contract, with both directions of its conversion.

Invariant: the rows have every field of `BroadcastSpec` and every field of the domain's `Spec`, each once. The update
mask, the conversions and the names in errors are made of the rows, so a field is added here in one place. Stream keys
are the exception: they come in with the destinations and never go out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import cost_pb2 as cost_pb
from service.api.messages import enums
from service.api.messages.enums import EnumTable
from service.api.messages.money import given_money, money_message
from service.api.messages.times import duration_message, given_duration, given_time, time_message
from service.domain import broadcast as domain
from service.domain.broadcast import Spec
from service.domain.cost.money import CapAction, CostCap
from service.domain.errors import FieldImmutable, InvalidField, Violation
from service.domain.secret import Secret

_DEFAULTS: Final = Spec()
_ENCODING_FIELDS: Final = tuple(field.name for field in fields(domain.Encoding))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecField:
    name: str
    """Of the field in the contract. An update mask names it `spec.<name>`."""
    parts: tuple[str, ...]
    """The fields of the domain's spec that hold it."""
    given: Callable[[pb.BroadcastSpec], tuple[Any, ...]]
    """From the contract: a value for each part, the domain's default where the message does not set the field.
    Raises InvalidField.
    """
    told: Callable[[Spec], Any]
    """To the contract."""


def _same(name: str) -> SpecField:
    """A field that is the same in both, and whose default is the zero of its type."""
    return SpecField(
        name=name,
        parts=(name,),
        given=lambda message: (getattr(message, name),),
        told=lambda spec: getattr(spec, name),
    )


def _enum(name: str, table: EnumTable[Any, Any]) -> SpecField:
    return SpecField(
        name=name,
        parts=(name,),
        given=lambda message: (table.member.get(getattr(message, name), getattr(_DEFAULTS, name)),),
        told=lambda spec: table.number[getattr(spec, name)],
    )


def _given_encoding(message: pb.BroadcastSpec) -> tuple[str | None, domain.Encoding | None]:
    if message.encoding.WhichOneof("encoding") != "custom":
        return enums.PRESETS.member.get(message.encoding.preset, domain.DEFAULT_PRESET), None
    custom = message.encoding.custom
    return None, domain.Encoding(**{name: getattr(custom, name) for name in _ENCODING_FIELDS})


def _encoding_message(spec: Spec) -> pb.Encoding:
    custom = spec.custom_encoding
    if custom is None:
        return pb.Encoding(preset=enums.PRESETS.number[spec.preset or domain.DEFAULT_PRESET])
    return pb.Encoding(custom=pb.CustomEncoding(**{name: getattr(custom, name) for name in _ENCODING_FIELDS}))


def _given_reconnect_window(message: pb.BroadcastSpec) -> tuple[float]:
    window = given_duration(message.reconnect_window, "spec.reconnect_window")
    return (window.total_seconds() if message.HasField("reconnect_window") else _DEFAULTS.reconnect_window_s,)


def _given_max_duration(message: pb.BroadcastSpec) -> tuple[int]:
    max_duration = given_duration(message.max_duration, "spec.max_duration")
    if message.max_duration.nanos:
        raise InvalidField(Violation(field="spec.max_duration", description="must be whole seconds"))
    return (int(max_duration.total_seconds()) if message.HasField("max_duration") else _DEFAULTS.max_duration_s,)


def _given_linger(message: pb.BroadcastSpec) -> tuple[float | None]:
    linger = given_duration(message.linger, "spec.linger")
    return (linger.total_seconds() if message.HasField("linger") else None,)


def _given_scheduled(message: pb.BroadcastSpec) -> tuple[datetime | None]:
    if not message.HasField("scheduled_start_time"):
        return (None,)
    return (given_time(message.scheduled_start_time, "spec.scheduled_start_time"),)


def _given_destinations(message: pb.BroadcastSpec) -> tuple[tuple[domain.Destination, ...]]:
    return (
        tuple(
            domain.Destination(
                name=each.name,
                url=each.url,
                carrier=enums.CARRIERS.member.get(each.carrier, domain.Carrier.EGRESS),
            )
            for each in message.destinations
        ),
    )


def _destination_messages(spec: Spec) -> list[pb.Destination]:
    """Without stream keys: nothing that is returned to a caller has one."""
    return [
        pb.Destination(name=each.name, url=each.url, carrier=enums.CARRIERS.number[each.carrier])
        for each in spec.destinations
    ]


def _given_fallback_policy(message: pb.BroadcastSpec) -> tuple[tuple[domain.FallbackMode, ...], int]:
    """Set and without modes: no fallback. Not set: every mode."""
    modes = _DEFAULTS.fallback_modes
    if message.HasField("fallback_policy"):
        named = {enums.FALLBACK_MODES.member[number] for number in message.fallback_policy.modes}
        modes = tuple(mode for mode in domain.FallbackMode if mode in named)
    return modes, message.fallback_policy.max_webrtc_viewers or _DEFAULTS.max_webrtc_viewers


def _fallback_policy_message(spec: Spec) -> pb.FallbackPolicy:
    return pb.FallbackPolicy(
        modes=[enums.FALLBACK_MODES.number[mode] for mode in spec.fallback_modes],
        max_webrtc_viewers=spec.max_webrtc_viewers,
    )


def _given_cost_cap(message: pb.BroadcastSpec) -> tuple[CostCap | None]:
    if not message.HasField("cost_cap"):
        return (None,)
    action = enums.CAP_ACTIONS.member.get(message.cost_cap.action, CapAction.STOP)
    return (CostCap(nanos=given_money(message.cost_cap.amount), action=action),)


def _cost_cap_message(spec: Spec) -> cost_pb.CostCap | None:
    cap = spec.cost_cap
    if cap is None:
        return None
    return cost_pb.CostCap(amount=money_message(cap.nanos), action=enums.CAP_ACTIONS.number[cap.action])


SPEC_FIELDS: Final[Mapping[str, SpecField]] = {
    row.name: row
    for row in (
        _same("title"),
        _same("owner_id"),
        SpecField(name="encoding", parts=("preset", "custom_encoding"), given=_given_encoding, told=_encoding_message),
        _same("audio_only"),
        SpecField(
            name="layout",
            parts=("layout",),
            given=lambda message: (message.layout or _DEFAULTS.layout,),
            told=lambda spec: spec.layout,
        ),
        _enum("latency_mode", enums.LATENCY_MODES),
        SpecField(
            name="reconnect_window",
            parts=("reconnect_window_s",),
            given=_given_reconnect_window,
            told=lambda spec: duration_message(spec.reconnect_window_s),
        ),
        SpecField(
            name="max_duration",
            parts=("max_duration_s",),
            given=_given_max_duration,
            told=lambda spec: Duration(seconds=spec.max_duration_s),
        ),
        _enum("playback_policy", enums.PLAYBACK_POLICIES),
        _enum("recording_policy", enums.RECORDING_POLICIES),
        _enum("delivery_policy", enums.DELIVERY_POLICIES),
        SpecField(
            name="linger",
            parts=("linger_s",),
            given=_given_linger,
            told=lambda spec: None if spec.linger_s is None else duration_message(spec.linger_s),
        ),
        _enum("idle_policy", enums.IDLE_POLICIES),
        SpecField(
            name="destinations",
            parts=("destinations",),
            given=_given_destinations,
            told=_destination_messages,
        ),
        _same("test"),
        SpecField(
            name="fallback_policy",
            parts=("fallback_modes", "max_webrtc_viewers"),
            given=_given_fallback_policy,
            told=_fallback_policy_message,
        ),
        SpecField(name="cost_cap", parts=("cost_cap",), given=_given_cost_cap, told=_cost_cap_message),
        SpecField(
            name="scheduled_start_time",
            parts=("scheduled_start_time",),
            given=_given_scheduled,
            told=lambda spec: time_message(spec.scheduled_start_time),
        ),
        SpecField(
            name="static_rendition",
            parts=("static_rendition",),
            given=lambda message: (enums.STATIC_RENDITIONS.member.get(message.static_rendition),),
            told=lambda spec: spec.static_rendition and enums.STATIC_RENDITIONS.number[spec.static_rendition],
        ),
        _same("captions_language"),
        _same("slate_url"),
    )
}
"""By the name in the contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSpec:
    """The spec that a caller sent, with the defaults filled in."""

    spec: Spec
    keys: dict[str, Secret]
    """Stream keys by the name of the destination. An empty key was not sent."""


def given_spec(message: pb.BroadcastSpec) -> GivenSpec:
    """*message* satisfies the rules of the contract. Raises InvalidField for what those rules cannot express."""
    values: dict[str, Any] = {}
    for row in SPEC_FIELDS.values():
        values.update(zip(row.parts, row.given(message), strict=True))
    return GivenSpec(spec=Spec(**values), keys={each.name: Secret(each.stream_key) for each in message.destinations})


def spec_message(spec: Spec) -> pb.BroadcastSpec:
    """Without stream keys."""
    return pb.BroadcastSpec(**{name: row.told(spec) for name, row in SPEC_FIELDS.items()})


NAMES_OF_PARTS: Final[Mapping[str, str]] = {part: row.name for row in SPEC_FIELDS.values() for part in row.parts}
"""The field of the contract that holds a field of the domain's spec."""


def in_words_of_the_contract(error: FieldImmutable) -> FieldImmutable:
    """*error* names a field of the domain's spec; the answer names the field of the contract that holds it."""
    field = error.metadata["field"]
    part = field.removeprefix("spec.")
    name = NAMES_OF_PARTS.get(part, part)
    return FieldImmutable(error.message.replace(field, f"spec.{name}"), field=f"spec.{name}")
