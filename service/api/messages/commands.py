"""Overrides of the domain as commands, ready to be pasted. `$ADDRESS` is the address of the service."""

import json
import shlex
from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import MethodDescriptor

from broadcast.v1 import admin_service_pb2, broadcast_service_pb2
from service.domain.explain import overrides as domain

_BROADCAST_METHODS = broadcast_service_pb2.DESCRIPTOR.services_by_name["BroadcastService"].methods_by_name
_ADMIN_METHODS = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name


def override_command(broadcast_id: str, intervention: domain.Intervention) -> str:
    which = {"broadcast_id": broadcast_id}
    match intervention:
        case domain.Start():
            command = _grpcurl(_BROADCAST_METHODS["StartBroadcast"], which)
        case domain.Stop():
            command = _grpcurl(_BROADCAST_METHODS["StopBroadcast"], which)
        case domain.Wake():
            command = _grpcurl(_ADMIN_METHODS["WakeBroadcast"], which)
        case domain.FindOrphans():
            command = _grpcurl(_ADMIN_METHODS["ReapOrphans"], {"dry_run": True})
        case domain.SetOnAir(on_air):
            command = _grpcurl(_BROADCAST_METHODS["SetOnAir"], {**which, "on_air": on_air})
        case domain.IssueHostAccess(identity):
            command = _grpcurl(_BROADCAST_METHODS["IssueHostAccess"], {**which, "identity": identity})
        case domain.RemoveDestinations(names):
            command = _remove_destinations(broadcast_id, names)
    return command


def _grpcurl(method: MethodDescriptor, request: Mapping[str, object]) -> str:
    name = f"{method.containing_service.full_name}/{method.name}"
    return f"grpcurl -plaintext -d {shlex.quote(json.dumps(request))} $ADDRESS {name}"


def _remove_destinations(broadcast_id: str, names: Sequence[str]) -> str:
    # No grpcurl: grpcurl and buf curl do not write an update mask the same way.
    named = [argument for name in names for argument in ("--remove-destination", shlex.quote(name))]
    return " ".join(["broadcastctl --target $ADDRESS update", shlex.quote(broadcast_id), *named])
