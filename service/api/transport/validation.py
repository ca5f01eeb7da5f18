"""From bytes to a request that satisfies the rules of the contract. The only module that uses protovalidate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from broadcast.v1 import admin_service_pb2, broadcast_service_pb2, playback_service_pb2, webhook_service_pb2
from service.api.transport.sizes import Sizes
from service.domain.errors import InvalidField, Violation

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

BROADCAST_SERVICE: Final = broadcast_service_pb2.DESCRIPTOR.services_by_name["BroadcastService"].full_name
PLAYBACK_SERVICE: Final = playback_service_pb2.DESCRIPTOR.services_by_name["PlaybackService"].full_name
WEBHOOK_SERVICE: Final = webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"].full_name
ADMIN_SERVICE: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

_FILES = (admin_service_pb2, broadcast_service_pb2, playback_service_pb2, webhook_service_pb2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    service: str
    """With its package."""
    name: str
    """No two services have a method of the same name."""
    request: type[Message]

    @property
    def path(self) -> str:
        """Of the HTTP request: the key of METHODS."""
        return f"/{self.service}/{self.name}"


METHODS: Final = {
    f"/{service.full_name}/{method.name}": Method(
        service=service.full_name, name=method.name, request=GetMessageClass(method.input_type)
    )
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""The methods of all services by the path of the HTTP request, `/broadcast.v1.Service/Method`."""


PATTERNS: Final = {
    r"^[A-Za-z0-9._:-]*$": "may only have A-Z, a-z, 0-9, ., _, : and -",
    r"^([a-z]([a-z0-9-]{0,61}[a-z0-9])?)?$": (
        "must be 1 to 63 of a-z, 0-9 and -, begin with a letter and not end with -"
    ),
    r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$": (
        "must be 1 to 63 of a-z, 0-9, ., _, / and -, begin and end with a letter or digit"
    ),
    r"^[A-Za-z0-9._:/@-]{0,128}$": "may only have A-Z, a-z, 0-9, ., _, :, /, @ and -, 128 at most",
    r"^[^\x00-\x1f\x7f]*$": "must not contain control characters",
    r"^[^\x00-\x1f\x7f]+$": "must not be empty, nor contain control characters",
    r"^([a-z][a-z0-9-]*)?$": "may only have a-z, 0-9 and -, and must begin with a letter",
    r"^[A-Za-z0-9._:@-]+$": "must not be empty, and may only have A-Z, a-z, 0-9, ., _, :, @ and -",
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": (
        "must be 1 to 63 of a-z, 0-9 and -, begin and end with a letter or digit"
    ),
}
"""The patterns of the contract in words: a caller should not have to read a regular expression. A test holds that every
pattern is here.
"""


class _Subscript(Protocol):
    field: str
    value: Any


class RequestParser:
    """Parses and validates the requests of all services."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()
        self._sizes = {
            name: Sizes(cast("Descriptor", method.request.DESCRIPTOR), PATTERNS) for name, method in METHODS.items()
        }
        for method in METHODS.values():
            # The rules of a type are compiled with its first message, which takes 5 ms. No caller should wait for that.
            self._validator.collect_violations(method.request())

    def parse(self, method: Method, raw: bytes) -> Message:
        """Raises InvalidField: with every violation, or with the first field that holds more than it may."""
        self._sizes[method.path].check(raw)
        try:
            request = method.request.FromString(raw)
        except DecodeError:
            # gRPC would answer INTERNAL. In practice a text is not UTF-8, and protobuf does not say which.
            raise InvalidField(
                Violation(field="request", description="cannot be read: no such message, or text that is not UTF-8")
            ) from None
        violations = [_violation(found) for found in self._validator.collect_violations(request)]
        # Postgres accepts no text with a NUL. A request without a zero byte has none, which is quick to see.
        if not violations and 0 in raw:
            violations = [
                Violation(field=path, description="must not contain the character NUL")
                for path in _with_nul(request, "")
            ]
        if violations:
            raise InvalidField(*violations)
        return request


def _violation(found: protovalidate.Violation) -> Violation:
    # protovalidate's own message class: it cannot be packed into a status, so its parts are copied.
    proto = cast("Any", found.proto)
    path = ""
    for element in proto.field.elements if proto.field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += _subscript(element.subscript)
    words = PATTERNS.get(str(found.rule_value)) if proto.rule_id == "string.pattern" else None
    return Violation(field=path or "request", description=words or proto.message or proto.rule_id)


def _subscript(subscript: _Subscript) -> str:
    return f"[{_quoted(subscript.value)}]" if subscript.field == "string_key" else f"[{subscript.value}]"


def _quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _with_nul(message: Message, path: str) -> Iterator[str]:
    """Paths of the texts that contain a NUL."""
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, each in cast("Mapping[Any, Any]", value).items():
                if "\0" in str(key) or (isinstance(each, str) and "\0" in each):
                    yield f"{name}[{_quoted(str(key))}]"
        elif field.type == FieldDescriptor.TYPE_STRING:
            for index, each in enumerate(value) if field.is_repeated else ((None, value),):
                if "\0" in each:
                    yield name if index is None else f"{name}[{index}]"
        elif field.message_type is not None:
            for index, each in enumerate(value) if field.is_repeated else ((None, value),):
                yield from _with_nul(each, name if index is None else f"{name}[{index}]")
