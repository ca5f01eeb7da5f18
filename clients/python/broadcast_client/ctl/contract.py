"""Options and their help texts, derived from the descriptors of the contract.

A field that is added to a message of the contract becomes an option without a change here.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

from cyclopts import Parameter, Token
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broadcast_client.ctl.arguments import a_duration, a_time, one
from broadcast_client.values import by_short_name, duration
from buf.validate.validate_pb2 import FieldRules
from buf.validate.validate_pb2 import field as field_rules

_Options = TypeVar("_Options", bound="FieldOptions")

# "--latency" reads better than "--latency-mode", and nothing else can be meant.
_SUFFIX = re.compile(r"_(id|mode|policy)$")
_DURATION = Duration.DESCRIPTOR
_TIME = Timestamp.DESCRIPTOR
_UNITS = ((3600, "h"), (60, "m"), (1, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionOfField:
    """One option, and the field of the message that it sets."""

    path: tuple[str, ...]
    """Names of the fields from the message to the value."""
    field: FieldDescriptor
    name: str
    """Of the option, such as "--title"."""

    def set(self, message: Message, value: object) -> None:
        *parents, name = self.path
        for parent in parents:
            message = getattr(message, parent)
        if self.field.message_type is _DURATION:
            getattr(message, name).CopyFrom(duration(cast("float", value)))
        elif self.field.message_type is _TIME:
            getattr(message, name).FromDatetime(cast("datetime", value))
        else:
            setattr(message, name, value)


class FieldOptions:
    """The base of a class whose attributes are the options of a message. None: the option was not given."""

    options: Sequence[OptionOfField] = ()

    def fill(self, message: Message) -> list[str]:
        """Set the fields whose options were given; answer the names of these fields."""
        given = [(option, value) for option in self.options if (value := getattr(self, option.path[0])) is not None]
        for option, value in given:
            option.set(message, value)
        return [option.path[0] for option, _ in given]


def options_of(message: type[Message], hints: dict[str, str]) -> Callable[[type[_Options]], type[_Options]]:
    """Give a class one attribute for each field of a message that fits into one option.

    These are texts, numbers, booleans, enums, durations and times, and messages with a `preset`, of which that is the
    option.

    Args:
        message: of the contract.
        hints: by name of a field, a text for the help in place of the derived one.
    """

    def decorate(cls: type[_Options]) -> type[_Options]:
        cls.options = tuple(_options(cast("Descriptor", message.DESCRIPTOR)))
        for option in cls.options:
            attribute = option.path[0]
            cls.__annotations__[attribute] = _annotation(option, hints.get(attribute))
            setattr(cls, attribute, None)
        return dataclass(kw_only=True)(cls)

    return decorate


def bounds(message: type[Message], field: str) -> str:
    """The values that the contract allows for a field, for the help: "1m to 6h", "at most 30s"."""
    return _bounds(cast("Descriptor", message.DESCRIPTOR).fields_by_name[field])


def one_of(enum: EnumDescriptor) -> Callable[[Any, Sequence[Token]], int]:
    """A converter from short names to the values of an enum of the contract."""
    names = by_short_name(enum)

    def convert(text: str) -> int:
        try:
            return names[text.upper()]
        except KeyError:
            raise ValueError(f"{text!r} is none of {', '.join(names)}") from None

    return one(convert)


def choices(enum: EnumDescriptor) -> str:
    """The short names of an enum, for the help: "LOW, REDUCED or STANDARD"."""
    *most, last = by_short_name(enum)
    return f"{', '.join(most)} or {last}" if most else last


def _options(message: Descriptor) -> Iterable[OptionOfField]:
    for field in message.fields:
        path, value = (field.name,), field
        if field.message_type is not None and "preset" in field.message_type.fields_by_name:
            path, value = (field.name, "preset"), field.message_type.fields_by_name["preset"]
        if value.is_repeated or (value.message_type is not None and value.message_type not in (_DURATION, _TIME)):
            continue
        name = _SUFFIX.sub("", field.name).replace("_", "-")
        yield OptionOfField(path=path, field=value, name=f"--{name}")


def _annotation(option: OptionOfField, hint: str | None) -> Any:
    field = option.field
    help_ = hint or _bounds(field)
    if field.message_type is _DURATION:
        parameter = Parameter(name=option.name, converter=one(a_duration), metavar="DURATION", help=help_)
        return Annotated[float | None, parameter]
    if field.message_type is _TIME:
        return Annotated[
            datetime | None, Parameter(name=option.name, converter=one(a_time), metavar="TIME", help=help_)
        ]
    if field.enum_type is not None:
        parameter = Parameter(
            name=option.name,
            converter=one_of(field.enum_type),
            metavar=option.name.removeprefix("--").upper(),
            help=hint or choices(field.enum_type),
        )
        return Annotated[int | None, parameter]
    kinds: dict[int, type] = {
        FieldDescriptor.CPPTYPE_STRING: str,
        FieldDescriptor.CPPTYPE_BOOL: bool,
        FieldDescriptor.CPPTYPE_DOUBLE: float,
        FieldDescriptor.CPPTYPE_FLOAT: float,
    }
    return Annotated[kinds.get(field.cpp_type, int) | None, Parameter(name=option.name, help=help_)]


def _bounds(field: FieldDescriptor) -> str:
    rules: FieldRules = field.GetOptions().Extensions[field_rules]
    if rules.WhichOneof("type") == "string" and rules.string.max_len:
        return f"at most {rules.string.max_len} characters"
    if rules.WhichOneof("type") == "duration":
        least, most = rules.duration.gte.seconds, rules.duration.lte.seconds
        return f"{_human(least)} to {_human(most)}" if least else f"at most {_human(most)}"
    return ""


def _human(seconds: int) -> str:
    """Seconds in the largest unit that divides them."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"
