"""Overrides of the domain as commands of broadcastctl, ready to be pasted. `$ADDRESS` is the address of the service."""

import shlex

from service.domain.explain import overrides as domain


def override_command(broadcast_id: str, intervention: domain.Intervention) -> str:
    match intervention:
        case domain.Start():
            arguments = ["start", broadcast_id]
        case domain.Stop():
            arguments = ["stop", broadcast_id]
        case domain.Wake():
            arguments = ["wake", broadcast_id]
        case domain.FindOrphans():
            arguments = ["reap", "--dry-run"]
        case domain.SetOnAir(on_air):
            arguments = ["on-air", broadcast_id, "on" if on_air else "off"]
        case domain.IssueHostAccess(identity):
            arguments = ["host-access", broadcast_id, identity]
        case domain.RemoveDestinations(names):
            removed = [argument for name in names for argument in ("--remove-destination", name)]
            arguments = ["update", broadcast_id, *removed]
    return f"broadcastctl --target $ADDRESS {shlex.join(arguments)}"
