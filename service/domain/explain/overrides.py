"""Overrides: what a person can ask of the service so that it does something else than it would do by itself.

An override names the intervention and its arguments and nothing of an interface; `service.api.messages.commands` writes
it as a command line.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeAlias

from service.domain.broadcast import Broadcast, Carrier, DeliveryPolicy, DestinationState, State, Target
from service.domain.explain.causes import CauseCode


@dataclass(frozen=True, slots=True)
class Start:
    """Ask for the broadcast to be live."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask for the broadcast to end now."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Make the broadcast due, so that a pass looks at its providers now."""


@dataclass(frozen=True, slots=True)
class FindOrphans:
    """List the resources at the providers that have no owner. Removes nothing."""


@dataclass(frozen=True, slots=True)
class SetOnAir:
    """Take a broadcast of the delivery policy MANUAL on air, or off."""

    on_air: bool


@dataclass(frozen=True, slots=True)
class IssueHostAccess:
    """Make a token with which a host enters the room under *identity*."""

    identity: str


@dataclass(frozen=True, slots=True)
class RemoveDestinations:
    """Take destinations out of the spec, by name."""

    names: tuple[str, ...]


Intervention: TypeAlias = Start | Stop | Wake | FindOrphans | SetOnAir | IssueHostAccess | RemoveDestinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    description: str
    """For people: what the override does."""
    intervention: Intervention


def overrides(broadcast: Broadcast, codes: AbstractSet[CauseCode]) -> tuple[Override, ...]:
    """*codes* of the causes. The override that helps most comes first."""
    if broadcast.target is Target.CREATED:
        return (Override(description="Start it.", intervention=Start()),)
    if broadcast.state.over:
        return ()
    found: list[Override] = []
    if broadcast.target is Target.LIVE:
        found += _while_live_is_wanted(broadcast, codes)
    if broadcast.state is State.STOPPING or CauseCode.EGRESS_GHOST in codes:
        found.append(
            Override(description="See what is left at the providers without an owner.", intervention=FindOrphans())
        )
    found.append(Override(description="Look at everything again now.", intervention=Wake()))
    if broadcast.target is Target.LIVE:
        found.append(Override(description="End it now.", intervention=Stop()))
    return tuple(found)


def _while_live_is_wanted(broadcast: Broadcast, codes: AbstractSet[CauseCode]) -> list[Override]:
    found: list[Override] = []
    if broadcast.spec.delivery_policy is DeliveryPolicy.MANUAL:
        on_air = not broadcast.on_air
        told = "Take it on air." if on_air else "Take it back to its backstage; the egress is stopped."
        found.append(Override(description=told, intervention=SetOnAir(on_air)))
    if codes & {CauseCode.WAITING_FOR_HOST, CauseCode.HOST_LEFT, CauseCode.ROOM_LOST}:
        found.append(
            Override(
                description="Make a token with which a host enters.", intervention=IssueHostAccess(identity="host")
            )
        )
    if codes & {CauseCode.DESTINATION_FAILED, CauseCode.DESTINATION_STOPPED} and (failed := _removable(broadcast)):
        found.append(
            Override(description=f"Send no longer to {', '.join(failed)}.", intervention=RemoveDestinations(failed))
        )
    return found


def _removable(broadcast: Broadcast) -> tuple[str, ...]:
    """Names of the failed destinations that an update may remove. Those that the
    provider of live streams carries are fixed since the start.
    """
    down = (DestinationState.FAILED, DestinationState.STOPPED)
    failed = {each.name for each in broadcast.status.destinations if each.state in down}
    return tuple(each.name for each in broadcast.spec.carried_by(Carrier.EGRESS) if each.name in failed)
