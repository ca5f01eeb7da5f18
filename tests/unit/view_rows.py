"""One row of the table of views: the words of a broadcast in each view, short enough to be read side by side."""

from dataclasses import dataclass

from broadcast.v1 import health_pb2 as health_pb
from broadcast_client.values import short_name
from tests.unit.views import Views

_TOLD = ("DOWN", "DEGRADED", "UNKNOWN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    get: str
    """State, its reason, and the code of the last error."""
    playable: str
    """The condition PLAYABLE."""
    health: str
    """Overall, and the parts that are not well, each with its reason."""
    causes: str
    """The codes, the likeliest first."""
    headline: str
    join: str
    """How a viewer watches, and why not yet."""


def row_of(views: Views) -> Row:
    status, join = views.get.status, views.join
    playable = views.condition("PLAYABLE")
    met = {True: "met", False: "not met", None: "unknown"}[views.met("PLAYABLE")]
    parts = [
        f"{short_name(health_pb.ChainPart.DESCRIPTOR, part.part)} {part.reason}"
        for part in views.health.parts
        if views.part_state(part) in _TOLD and part.reason != "NOT_MEASURED"
    ]
    eta = f" in {join.starting.eta.seconds} s" if join.starting.HasField("eta") else ""
    return Row(
        get=" ".join(filter(None, (views.state, status.state_reason, status.last_error.code))),
        playable=f"{met} {playable.reason}" if playable is not None else "",
        health=f"{views.overall}: {', '.join(parts)}".removesuffix(": "),
        causes=", ".join(views.causes),
        headline=views.explanation.summary.partition(": ")[2],
        join=f"{views.way} {join.starting.reason}{eta}".rstrip(),
    )
