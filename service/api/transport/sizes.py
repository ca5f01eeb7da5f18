"""How much a request may hold, checked on its bytes before anything is built of them.

The limits are the contract's own (`max_items`, `max_pairs`, `max_len`), read from the descriptors, so a new field has
its limit at once; a field without one gets a general limit. Rules in CEL may cost the square of a list, and a message
of four million bytes may become two million objects, so both come after this check.

Invariant: the work is bounded by the limits and not by the size of the request. The check ends at the first field that
is over its limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from service.domain.errors import InvalidField, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import Descriptor

ITEMS: Final = 100
"""For a list or a map without a limit in the contract."""
CHARACTERS: Final = 1024
"""For a text without a limit in the contract."""
_SENT_AGAIN = 16
"""Times that a field which is no list may be in one message. Encoders send it once; protobuf keeps the last."""
_UNKNOWN = 1000
"""Fields of a newer contract in one request."""
_NESTED = 32
_BYTES_A_CHARACTER = 4
_BYTES_A_VARINT = 10

_VARINT, _64_BITS, _LENGTH, _32_BITS = 0, 1, 2, 5
_FIXED = {_64_BITS: 8, _32_BITS: 4}
_PACKED_AS = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}
"""Bytes of an element, by type. The other numbers have varints of any length."""


@dataclass(slots=True)
class _Field:
    name: str
    repeated: bool = False
    most: int = _SENT_AGAIN
    """Elements of a list or a map; of another field the times it may be sent."""
    longest: int = 0
    """Bytes of a text, of bytes, or of one element. 0: no text and no bytes."""
    message: dict[int, _Field] | None = None
    """The fields of a message by number. None: it is none."""
    element_bytes: int = 0
    """Of a packed element. 0: a varint."""
    too_many: str = ""
    too_long: str = ""


@dataclass(slots=True)
class _Seen:
    """What one message had so far. A message that is sent twice is merged by protobuf, so both count as one."""

    path: str = ""
    """Of the message in the request."""
    depth: int = 0
    counts: dict[int, int] = field(default_factory=dict[int, int])
    inner: dict[int, _Seen] = field(default_factory=dict[int, "_Seen"])


class _Unreadable(Exception):
    """These bytes are no message. protobuf would say so too."""


class Sizes:
    """Of one type of request."""

    def __init__(self, request: Descriptor, words: Mapping[str, str]) -> None:
        """*words*: what is said of a text that is too long for its pattern, by pattern."""
        self._fields = _fields_of(request, words, {})

    def check(self, raw: bytes) -> None:
        """Raises InvalidField with the first field that holds too much, or with `request` for bytes that are none."""
        try:
            _Scan(raw).message(self._fields, 0, len(raw), _Seen())
        except _Unreadable:
            raise InvalidField(Violation(field="request", description="cannot be read: no such message")) from None


class _Scan:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._unknown = 0

    def message(self, fields: dict[int, _Field], at: int, end: int, seen: _Seen) -> None:
        """Check the message in the bytes from *at* to *end*. Raises InvalidField, _Unreadable."""
        if seen.depth > _NESTED:
            raise _over(seen.path, "is nested too deeply")
        while at < end:
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            begins, at = self._value(wire, at, end)
            known = fields.get(number)
            if known is None or not _fits(known, wire):
                self._unknown += 1
                if self._unknown > _UNKNOWN:
                    description = f"has more than {_UNKNOWN} fields that the contract does not have"
                    raise _over(seen.path or "request", description)
                continue
            count = seen.counts.get(number, 0)
            path = f"{seen.path}.{known.name}" if seen.path else known.name
            total = seen.counts[number] = count + self._elements(known, wire, begins, at)
            if total > known.most:
                raise _over(path, known.too_many)
            if known.message is not None:
                if known.repeated:
                    inner = _Seen(f"{path}[{count}]", seen.depth + 1)
                else:
                    inner = seen.inner.setdefault(number, _Seen(path, seen.depth + 1))
                self.message(known.message, begins, at, inner)
            elif known.longest and at - begins > known.longest:
                raise _over(f"{path}[{count}]" if known.repeated else path, known.too_long)

    def _value(self, wire: int, at: int, end: int) -> tuple[int, int]:
        """Where the value begins and ends."""
        if wire == _VARINT:
            begins = at
            _, at = self._varint(at, end)
            return begins, at
        if wire == _LENGTH:
            length, at = self._varint(at, end)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            # Groups: no message of the contract has any.
            raise _Unreadable
        if length > end - at:
            raise _Unreadable
        return at, at + length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if at < end and (byte := self._raw[at]) < 0x80:  # noqa: PLR2004 - as below, and by far the most are this short
            return byte, at + 1
        value = shift = 0
        for index in range(at, min(end, at + _BYTES_A_VARINT)):
            byte = self._raw[index]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
                return value, index + 1
            shift += 7
        raise _Unreadable

    def _elements(self, known: _Field, wire: int, begins: int, ends: int) -> int:
        """How many elements a value has: a list of numbers may be packed into one. An empty pack counts as one element,
        or any number of empty packs could be sent.
        """
        if not known.repeated or wire != _LENGTH or known.message is not None or known.longest:
            return 1
        length = ends - begins
        if known.element_bytes:
            return max(1, length // known.element_bytes)
        if length > known.most * _BYTES_A_VARINT:
            return known.most + 1
        return max(1, sum(byte < 0x80 for byte in self._raw[begins:ends]))  # noqa: PLR2004 - the last byte of a varint


def _fits(known: _Field, wire: int) -> bool:
    """Whether protobuf takes a value of this wire type for the field. Another one is an unknown field to it."""
    if known.message is not None or known.longest:
        return wire == _LENGTH
    return wire != _LENGTH or known.repeated


def _over(path: str, description: str) -> InvalidField:
    return InvalidField(Violation(field=path, description=description))


def _fields_of(message: Descriptor, words: Mapping[str, str], made: dict[str, dict[int, _Field]]) -> dict[int, _Field]:
    """By number. *made*: by message, for messages that hold themselves."""
    if message.full_name in made:
        return made[message.full_name]
    fields = made[message.full_name] = {}
    for each in message.fields:
        rules = each.GetOptions().Extensions[validate_pb2.field]
        found = fields[each.number] = _Field(each.name, repeated=each.is_repeated, too_many="is sent too often")
        if each.is_repeated:
            _limit_items(found, each, rules)
            rules = rules.repeated.items
        if each.message_type is None:
            found.element_bytes = _PACKED_AS.get(each.type, 0)
            _limit_length(found, each, rules, words)
        elif each.message_type.GetOptions().map_entry:
            found.message = _entry_of(each, words, made)
        else:
            found.message = _fields_of(each.message_type, words, made)
    return fields


def _entry_of(map_: FieldDescriptor, words: Mapping[str, str], made: dict[str, dict[int, _Field]]) -> dict[int, _Field]:
    """The two fields of an entry. Their rules stand at the map."""
    assert map_.message_type is not None  # noqa: S101 - for the type checker: a map has entries
    rules = map_.GetOptions().Extensions[validate_pb2.field].map
    fields: dict[int, _Field] = {}
    for each in map_.message_type.fields:
        found = fields[each.number] = _Field(each.name, too_many="is sent too often")
        if each.message_type is not None:
            found.message = _fields_of(each.message_type, words, made)
        else:
            _limit_length(found, each, rules.keys if each.name == "key" else rules.values, words)
    return fields


def _limit_items(found: _Field, each: FieldDescriptor, rules: validate_pb2.FieldRules) -> None:
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        found.most = rules.map.max_pairs or ITEMS
        found.too_many = f"map must be at most {found.most} entries"
    else:
        found.most = rules.repeated.max_items or ITEMS
        found.too_many = f"must contain no more than {found.most} item(s)"


def _limit_length(
    found: _Field, each: FieldDescriptor, rules: validate_pb2.FieldRules, words: Mapping[str, str]
) -> None:
    if each.type == FieldDescriptor.TYPE_STRING:
        longest = rules.string.len or rules.string.max_len or CHARACTERS
        found.longest = longest * _BYTES_A_CHARACTER
        found.too_long = f"must be at most {longest} characters"
        if not rules.string.max_len:
            found.too_long = words.get(rules.string.pattern, found.too_long)
    elif each.type == FieldDescriptor.TYPE_BYTES:
        found.longest = rules.bytes.len or rules.bytes.max_len or CHARACTERS
        found.too_long = f"must be at most {found.longest} bytes"
