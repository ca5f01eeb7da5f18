"""The commands with which a person overrides what the service would do by itself. `$ADDRESS` is the service's."""

import json
import shlex
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from service.domain.broadcast import Broadcast, Carrier, DeliveryPolicy, DestinationState, State, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    description: str
    command: str


def overrides(broadcast: Broadcast, codes: AbstractSet[str]) -> tuple[Override, ...]:
    """*codes* of the causes. What helps most comes first."""
    which = {"broadcast_id": broadcast.id}
    if broadcast.target is Target.CREATED:
        return (Override(description="Start it.", command=_call("BroadcastService/StartBroadcast", which)),)
    if broadcast.state.over:
        return ()
    found: list[Override] = []
    if broadcast.target is Target.LIVE:
        found += _of_a_show(broadcast, codes)
    if broadcast.state is State.STOPPING or "EGRESS_GHOST" in codes:
        found.append(
            Override(
                description="See what is left at the providers without an owner.",
                command=_call("AdminService/ReapOrphans", {"dry_run": True}),
            )
        )
    found.append(
        Override(description="Look at everything again now.", command=_call("AdminService/WakeBroadcast", which))
    )
    if broadcast.target is Target.LIVE:
        found.append(Override(description="End it now.", command=_call("BroadcastService/StopBroadcast", which)))
    return tuple(found)


def _of_a_show(broadcast: Broadcast, codes: AbstractSet[str]) -> list[Override]:
    which = {"broadcast_id": broadcast.id}
    found: list[Override] = []
    if broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL:
        on_air = not broadcast.on_air
        told = "Take it on air." if on_air else "Take it back to its backstage; the egress is stopped."
        found.append(
            Override(description=told, command=_call("BroadcastService/SetOnAir", {**which, "on_air": on_air}))
        )
    if codes & {"WAITING_FOR_HOST", "HOST_LEFT", "ROOM_LOST"}:
        entry = {**which, "identity": "host"}
        found.append(
            Override(
                description="Make a token with which a host enters.",
                command=_call("BroadcastService/IssueHostAccess", entry),
            )
        )
    if "DESTINATION_FAILED" in codes:
        found += _without_failed(broadcast)
    return found


def _without_failed(broadcast: Broadcast) -> list[Override]:
    """Those by Mux are fixed since the start."""
    failed = {each.name for each in broadcast.status.destinations if each.state is DestinationState.FAILED}
    removed = [each.name for each in broadcast.spec.carried_by(Carrier.EGRESS) if each.name in failed]
    if not removed:
        return []
    # grpcurl and buf curl do not write an update mask the same way.
    named = [argument for name in removed for argument in ("--remove-destination", shlex.quote(name))]
    command = " ".join(["broadcastctl --target $ADDRESS update", shlex.quote(broadcast.id), *named])
    return [Override(description=f"Send no longer to {', '.join(removed)}.", command=command)]


def _call(method: str, body: object) -> str:
    return f"grpcurl -plaintext -d {shlex.quote(json.dumps(body))} $ADDRESS broadcast.v1.{method}"
