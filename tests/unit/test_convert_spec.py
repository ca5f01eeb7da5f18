"""Every field of a spec survives the conversion, in both directions.

The strategies are made of the dataclasses and of the descriptors of the contract, so a field that is new on either side
is in them without a change here: a field that the conversions forget is lost on the way, and a test is red.
"""

import dataclasses
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from broadcast.v1 import broadcast_pb2 as pb
from service.api.messages.masks import domain_fields, masked_fields, only
from service.api.messages.spec import NAMES_OF_PARTS, SPEC_FIELDS, given_spec, spec_message
from service.api.messages.times import time_message
from service.domain import broadcast as domain
from service.domain.broadcast import (
    PRESETS,
    Broadcast,
    DeliveryPolicy,
    Destination,
    IdlePolicy,
    LatencyMode,
    PlaybackPolicy,
    RecordingPolicy,
    Spec,
)
from service.domain.cost.money import CostCap
from service.domain.errors import InvalidField
from service.domain.lifecycle import LIVE_FIELDS, update
from service.domain.secret import Secret

DURATIONS = st.integers(0, 1_800_000_000).map(lambda micros: micros / 1_000_000)
MODES = st.sets(st.sampled_from(domain.FallbackMode)).map(
    lambda modes: tuple(mode for mode in domain.FallbackMode if mode in modes)
)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as hypothesis wants it
RESTRICTED: Final[Mapping[tuple[type, str], st.SearchStrategy[Any]]] = {
    # The contract has "" for the default.
    (Spec, "layout"): st.text(min_size=1, max_size=20),
    (Spec, "max_duration_s"): st.integers(60, 43_200),
    # A set, in the order of the enum.
    (Spec, "fallback_modes"): MODES,
}
"""Fields of the domain whose type has values that a spec never has."""

WRITE_ONLY: Final = {"broadcast.v1.Destination.stream_key"}
RESTRICTED_IN_THE_CONTRACT: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "broadcast.v1.Money.currency_code": st.just("USD"),
    "broadcast.v1.Money.units": st.integers(0, 10**9),
    "broadcast.v1.Money.nanos": st.integers(1, 999_999_999),
    "broadcast.v1.BroadcastSpec.max_duration": st.builds(Duration, seconds=st.integers(60, 43_200)),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that a field of the domain's spec may have. No zero where the contract has it for "not set"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin in (Union, UnionType):
        return st.one_of(*(st.none() if each is type(None) else values_of(each) for each in arguments))
    if dataclasses.is_dataclass(hint):
        return st.builds(cast("type[Any]", hint), **fields_of(hint))
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    if hint is datetime:
        return MOMENTS
    known = {bool: st.booleans(), str: st.text(max_size=20), int: st.integers(1, 2**31 - 1), float: DURATIONS}
    return known[hint]


def fields_of(class_: Any) -> dict[str, st.SearchStrategy[Any]]:
    hints = get_type_hints(class_)
    return {
        field.name: RESTRICTED[class_, field.name]
        if (class_, field.name) in RESTRICTED
        else values_of(hints[field.name])
        for field in dataclasses.fields(class_)
    }


def a_spec(encoding: str | domain.Encoding, **fields: Any) -> Spec:
    if isinstance(encoding, str):
        return Spec(preset=encoding, custom_encoding=None, **fields)
    return Spec(preset=None, custom_encoding=encoding, **fields)


specs = st.builds(
    a_spec,
    encoding=st.one_of(st.sampled_from(sorted(domain.PRESETS)), values_of(domain.Encoding)),
    **{name: each for name, each in fields_of(Spec).items() if name not in ("preset", "custom_encoding")},
)


def messages_of(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages in which every field is set that is not in a oneof with another."""
    choices: list[st.SearchStrategy[dict[str, Any]]] = [
        st.one_of(*(st.fixed_dictionaries({field.name: values_in(field)}) for field in oneof.fields))
        for oneof in descriptor.oneofs
    ]
    plain = {
        field.name: values_in(field)
        for field in descriptor.fields
        if field.containing_oneof is None and field.full_name not in WRITE_ONLY
    }
    together = st.tuples(st.fixed_dictionaries(plain), *choices)
    class_ = GetMessageClass(descriptor)
    return together.map(lambda parts: class_(**{name: value for part in parts for name, value in part.items()}))


def values_in(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if (known := RESTRICTED_IN_THE_CONTRACT.get(field.full_name)) is not None:
        return known
    one: st.SearchStrategy[Any]
    if field.enum_type is not None:
        numbers = [value.number for value in field.enum_type.values if value.number]
        if field.is_repeated:
            return st.sets(st.sampled_from(numbers)).map(sorted)
        return st.sampled_from(numbers)
    if field.message_type is not None and field.message_type.full_name == Duration.DESCRIPTOR.full_name:
        micros = st.integers(0, 1_800_000_000)
        one = micros.map(lambda n: Duration(seconds=n // 1_000_000, nanos=n % 1_000_000 * 1000))
    elif field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        one = MOMENTS.map(time_message)
    elif field.message_type is not None:
        one = messages_of(field.message_type)
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = st.text(min_size=1, max_size=20)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        one = st.booleans()
    else:
        one = st.integers(1, 2**31 - 1)
    return st.lists(one, max_size=3) if field.is_repeated else one


@given(specs)
def test_a_spec_survives_the_way_there_and_back(spec: Spec) -> None:
    assert given_spec(spec_message(spec)).spec == spec


@given(messages_of(pb.BroadcastSpec.DESCRIPTOR))
def test_a_message_survives_the_way_there_and_back(message: pb.BroadcastSpec) -> None:
    assert spec_message(given_spec(message).spec) == message


@pytest.mark.parametrize(
    ("class_", "name"),
    [
        (class_, field.name)
        for class_ in (Spec, domain.Encoding, domain.Destination, CostCap)
        for field in dataclasses.fields(class_)
    ],
)
def test_the_strategy_sets_every_field(class_: Any, name: str) -> None:
    """A field that is the same in all examples could be forgotten unseen."""
    strategy = specs if class_ is Spec else st.builds(class_, **fields_of(class_))
    quick = settings(phases=[Phase.generate], database=None)
    one, other = find(
        st.tuples(strategy, strategy), lambda pair: getattr(pair[0], name) != getattr(pair[1], name), settings=quick
    )
    assert getattr(one, name) != getattr(other, name)


def test_what_is_not_set_is_the_default() -> None:
    assert given_spec(pb.BroadcastSpec()).spec == Spec()
    assert given_spec(pb.BroadcastSpec(encoding=pb.Encoding(preset=pb.ENCODING_PRESET_UNSPECIFIED))).spec == Spec()
    assert given_spec(pb.BroadcastSpec(reconnect_window=Duration())).spec.reconnect_window_s == 0


def test_every_field_of_the_contract_is_converted() -> None:
    assert set(SPEC_FIELDS) == set(pb.BroadcastSpec.DESCRIPTOR.fields_by_name)
    inner = [name for row in SPEC_FIELDS.values() for name in row.parts]
    assert sorted(inner) == sorted(field.name for field in dataclasses.fields(Spec))


@given(messages_of(pb.BroadcastSpec.DESCRIPTOR), st.sets(st.sampled_from(sorted(SPEC_FIELDS)), min_size=1))
def test_an_update_changes_what_its_mask_names(message: pb.BroadcastSpec, names: set[str]) -> None:
    assert masked_fields([f"spec.{name}" for name in names]) == names
    spec, whole = given_spec(only(message, names)).spec, given_spec(message).spec
    named = domain_fields(names)
    for field in dataclasses.fields(Spec):
        source = whole if field.name in named else Spec()
        assert getattr(spec, field.name) == getattr(source, field.name)


def test_a_wrong_path_of_a_mask_is_named() -> None:
    with pytest.raises(InvalidField) as refused:
        masked_fields(["spec.title", "title", "spec.max_duration_s"])
    told = [(each.field, each.description) for each in refused.value.violations]
    assert told == [
        ("update_mask.paths[1]", '"title" is neither "labels" nor "spec." and a field of the spec'),
        ("update_mask.paths[2]", '"spec.max_duration_s" is neither "labels" nor "spec." and a field of the spec'),
    ]


def test_an_update_is_told_in_the_names_of_the_contract() -> None:
    """Of every field, whatever the domain calls its parts."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    stored = Broadcast(id="b", spec=Spec(), create_time=now, update_time=now)
    other = Spec(
        title="other",
        owner_id="other",
        preset=None,
        custom_encoding=PRESETS["480P_30"],
        audio_only=True,
        layout="speaker",
        latency_mode=LatencyMode.LOW,
        reconnect_window_s=1.0,
        max_duration_s=60,
        playback_policy=PlaybackPolicy.SIGNED,
        recording_policy=RecordingPolicy.DISCARD,
        delivery_policy=DeliveryPolicy.MANUAL,
        linger_s=90,
        idle_policy=IdlePolicy.KEEP_RECORDING,
        destinations=(Destination(name="one", url="rtmp://a.b/c"),),
        test=True,
        fallback_modes=(),
        max_webrtc_viewers=1,
        cost_cap=CostCap(nanos=1),
        scheduled_start_time=datetime(2027, 1, 1, tzinfo=UTC),
        static_rendition=domain.StaticRendition.HIGHEST,
        captions_language="de",
        slate_url="https://images.example.com/slate.png",
    )
    for field in dataclasses.fields(Spec):
        assert getattr(other, field.name) != getattr(Spec(), field.name), field.name
    change = update(
        stored, now, etag="", spec=other, keys={}, labels={"a": "b"}, paths=NAMES_OF_PARTS, called=NAMES_OF_PARTS
    )
    assert change is not None
    [event] = change.events
    assert event.message.split(", ") == [*sorted(SPEC_FIELDS), "labels"]


def test_a_new_key_of_a_destination_is_told() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    spec = Spec(destinations=(Destination(name="one", url="rtmp://a.b/c"),))
    stored = Broadcast(
        id="b", spec=spec, create_time=now, update_time=now, destination_keys={"one": Secret("old-stream-key")}
    )
    keys = {"one": Secret("new-stream-key")}
    change = update(stored, now, etag="", spec=spec, keys=keys, labels=None, paths=["destinations"])
    assert change is not None
    assert [event.message for event in change.events] == ["destinations"]


def test_the_contract_says_which_fields_may_change_while_live() -> None:
    text = (Path(pb.__file__).parent / "broadcast.proto").read_text()
    body = re.search(r"(?s)\nmessage BroadcastSpec \{\n(.*?)\n\}\n", text)
    assert body is not None
    said = {
        name
        for comment, name in re.findall(r"((?:  //[^\n]*\n)+)  [\w. ]+ (\w+) = \d+", body[1])
        if re.search(r"\b[Ll]ive[.,]|\b(?:added|removed) live\b", comment)
    }
    assert domain_fields(said) == LIVE_FIELDS


def test_stream_keys_go_one_way() -> None:
    message = pb.BroadcastSpec(destinations=[pb.Destination(name="one", url="rtmp://a.b/c", stream_key="the-key")])
    given_ = given_spec(message)
    assert given_.keys["one"].reveal() == "the-key"
    assert "the-key" not in str(spec_message(given_.spec))
    assert "the-key" not in repr(given_)


def test_a_fraction_of_a_second_of_max_duration() -> None:
    for nanos in (1, 500_000_000):
        with pytest.raises(InvalidField):
            given_spec(pb.BroadcastSpec(max_duration=Duration(seconds=90, nanos=nanos)))
