"""One request cannot stop a replica: what a request costs is bounded, whatever its four million bytes are filled with.

The fields are taken from the descriptors of all services, so a new one is filled here without being named.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from broadcast.v1.broadcast_pb2 import BroadcastSpec
from broadcast.v1.broadcast_service_pb2 import CreateBroadcastRequest, UpdateBroadcastRequest
from service.api.transport.validation import METHODS, Method, RequestParser
from service.domain.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST = 4 << 20
CREATE = METHODS["/broadcast.v1.BroadcastService/CreateBroadcast"]
Path = tuple[FieldDescriptor, ...]

parser = RequestParser()


def fillable(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Every field that can be of any size, as the path to it."""
    for field in message.fields:
        path = (*above, field)
        if field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield path
        if field.message_type is not None:
            yield from fillable(field.message_type, path)


PATHS = {
    f"{method.name}.{'.'.join(field.name for field in path)}": (method, path)
    for method in METHODS.values()
    for path in fillable(cast("Descriptor", method.request.DESCRIPTOR))
}


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def of_length(field: FieldDescriptor, content: bytes) -> bytes:
    return varint(field.number << 3 | 2) + varint(len(content)) + content


def one_long(field: FieldDescriptor) -> bytes:
    if field.message_type is not None:
        return many_empty(field)
    return of_length(field, b"a" * (LARGEST - 64))


def many_empty(field: FieldDescriptor) -> bytes:
    element = of_length(field, b"")
    return element * ((LARGEST - 64) // len(element))


def many_distinct(field: FieldDescriptor) -> bytes:
    """Elements that differ, which is the worst for a rule that compares each with each."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return b"".join(varint(field.number << 3) + b"\1" for _ in range((LARGEST - 64) // 3))
    texts = (f"a{number}".ljust(70, "a").encode() for number in range(LARGEST // 80))
    if field.message_type is None:
        return b"".join(of_length(field, text) for text in texts)
    first = min(field.message_type.fields, key=lambda each: each.number)
    return b"".join(of_length(field, of_length(first, text)) for text in texts)


def wrapped(path: Path, fill: Callable[[FieldDescriptor], bytes]) -> bytes:
    raw = fill(path[-1])
    for field in reversed(path[:-1]):
        raw = of_length(field, raw)
    return raw


def cpu_s(method: Method, raw: bytes) -> tuple[float, list[str]]:
    """The CPU time of the fastest of some tries, and the fields that were refused."""
    times: list[float] = []
    refused: list[str] = []
    for _ in range(9):
        began = time.process_time()
        try:
            parser.parse(method, raw)
        except InvalidField as error:
            refused = [violation.field for violation in error.violations]
        times.append(time.process_time() - began)
    return min(times), refused


@pytest.fixture(scope="module")
def ordinary_s() -> float:
    request = CreateBroadcastRequest(request_id="a", labels={f"l{number}": "v" for number in range(32)})
    for number in range(8):
        request.spec.destinations.add(name=f"d{number}", url="rtmp://live.example.com/app", stream_key="k")
    return cpu_s(CREATE, request.SerializeToString())[0]


@pytest.mark.parametrize("fill", [one_long, many_empty, many_distinct])
@pytest.mark.parametrize("name", PATHS)
def test_a_field_filled_to_the_largest_request_costs_no_more_than_some_ordinary_requests(
    name: str, fill: Callable[[FieldDescriptor], bytes], ordinary_s: float
) -> None:
    method, path = PATHS[name]
    took_s, refused = cpu_s(method, wrapped(path, fill))
    assert took_s < 20 * ordinary_s
    assert any(field.startswith(path[0].name) for field in refused), "the error names the field"


class NoRules:
    def collect_violations(self, _message: object) -> None:
        pytest.fail("a rule ran")


def test_ten_thousand_empty_destinations_are_refused_before_their_names_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = CreateBroadcastRequest(request_id="a")
    for _ in range(10_000):
        request.spec.destinations.add()
    monkeypatch.setattr(parser, "_validator", NoRules())
    with pytest.raises(InvalidField, match=r"^spec.destinations: must contain no more than 8 item\(s\)$"):
        parser.parse(CREATE, request.SerializeToString())


def test_a_list_in_pieces_counts_as_one() -> None:
    """The parser of protobuf merges a message that is sent twice."""
    request = CreateBroadcastRequest()
    for number in range(5):
        request.spec.destinations.add(name=f"d{number}", url="rtmp://live.example.com/app")
    with pytest.raises(InvalidField, match=r"^spec.destinations: must contain no more than 8"):
        parser.parse(CREATE, request.SerializeToString() * 2)


def test_a_field_that_is_no_list_cannot_be_sent_a_million_times() -> None:
    again = CreateBroadcastRequest(request_id="a").SerializeToString()
    with pytest.raises(InvalidField, match=r"^request_id: is sent too often$"):
        parser.parse(CREATE, again * 1_000_000)
    parser.parse(CREATE, CreateBroadcastRequest(spec=BroadcastSpec()).SerializeToString() + again * 2)


def test_unknown_fields_are_limited_in_number_and_otherwise_let_through() -> None:
    known = CreateBroadcastRequest(spec=BroadcastSpec()).SerializeToString()
    newer = varint(1000 << 3) + b"\1"
    parser.parse(CREATE, known + newer * 1000)
    with pytest.raises(InvalidField, match=r"^request: has more than 1000 fields"):
        parser.parse(CREATE, known + newer * 1001)


def test_a_mask_without_a_limit_in_the_contract_has_the_general_one() -> None:
    update = METHODS["/broadcast.v1.BroadcastService/UpdateBroadcast"]
    request = UpdateBroadcastRequest(broadcast_id="a")
    request.update_mask.paths.extend(["spec.title"] * 100)
    parser.parse(update, request.SerializeToString())
    request.update_mask.paths.append("spec.title")
    with pytest.raises(InvalidField, match=r"^update_mask.paths: must contain no more than 100 item\(s\)$"):
        parser.parse(update, request.SerializeToString())


def test_cut_bytes_are_no_message() -> None:
    raw = CreateBroadcastRequest(request_id="abc").SerializeToString()
    for broken in (raw[:-1], b"\x0b", b"\xff" * 11):
        with pytest.raises(InvalidField, match=r"^request: cannot be read"):
            parser.parse(CREATE, broken)
