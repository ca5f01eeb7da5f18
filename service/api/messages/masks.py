"""Which fields of a spec an update names."""

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from broadcast.v1 import broadcast_pb2 as pb
from service.api.messages.broadcast import SPEC_FIELDS
from service.domain.errors import FieldImmutable, InvalidField, Violation


def masked_fields(paths: Sequence[str]) -> set[str]:
    """Names of fields of the spec. Raises InvalidField."""
    if not paths:
        raise InvalidField(Violation(field="update_mask", description="must name at least one path"))
    names: set[str] = set()
    violations: list[Violation] = []
    for index, path in enumerate(paths):
        name = path.removeprefix("spec.")
        if path == "labels":
            continue
        if path.startswith("spec.") and name in SPEC_FIELDS:
            names.add(name)
        else:
            description = 'is neither "labels" nor "spec." and a field of the spec'
            violations.append(Violation(field=f"update_mask.paths[{index}]", description=description))
    if violations:
        raise InvalidField(*violations)
    return names


def only(spec: pb.BroadcastSpec, names: set[str]) -> pb.BroadcastSpec:
    """Without what the mask does not name: it may hold anything."""
    masked = pb.BroadcastSpec()
    FieldMask(paths=sorted(names)).MergeMessage(spec, masked)
    return masked


def in_words_of_the_contract(error: FieldImmutable) -> FieldImmutable:
    field = error.metadata["field"]
    inner = field.removeprefix("spec.")
    outer = next((name for name, parts in SPEC_FIELDS.items() if inner in parts), inner)
    return FieldImmutable(error.message.replace(field, f"spec.{outer}"), field=f"spec.{outer}")
