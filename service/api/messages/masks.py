"""The update mask: which fields of a spec an update changes."""

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from broadcast.v1 import broadcast_pb2 as pb
from service.api.messages.spec import SPEC_FIELDS
from service.domain.errors import InvalidField, Violation


def masked_fields(paths: Sequence[str]) -> set[str]:
    """Names of fields of the contract's spec. The path `labels` is allowed and adds none. Raises InvalidField."""
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
            description = f'"{path}" is neither "labels" nor "spec." and a field of the spec'
            violations.append(Violation(field=f"update_mask.paths[{index}]", description=description))
    if violations:
        raise InvalidField(*violations)
    return names


def only(spec: pb.BroadcastSpec, names: set[str]) -> pb.BroadcastSpec:
    """*spec* with the fields *names* alone: an update does not change the others."""
    masked = pb.BroadcastSpec()
    FieldMask(paths=sorted(names)).MergeMessage(spec, masked)
    return masked


def domain_fields(names: set[str]) -> set[str]:
    """The fields of the domain's spec that hold the fields *names* of the contract's."""
    return {part for name in names for part in SPEC_FIELDS[name].parts}
