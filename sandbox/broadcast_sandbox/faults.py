"""Faults that a test asks for over `POST /_faults`, taken by the simulator at the named operation.

A fault is consumed by matching calls until `times` runs out. The order of a call is: `latency`, then faults that
refuse (`error`, `hang`, `reset`: no effect), then the effect, then faults that lose the reply (`lost_reply`).
`late_effect` answers as `hang` or `reset` would and has its effect `delay_s` later.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    # of an API call
    "latency",  # wait delay_s (real seconds), then go on as usual
    "error",  # answer `status` with the provider's own error body; no effect
    "hang",  # no effect, no answer (the connection stays open until the caller leaves)
    "reset",  # no effect, the connection is cut
    "lost_reply",  # the effect happens, then the connection is cut without an answer
    "late_effect",  # the connection is cut now (delay_s later the effect happens)
    # of a whole provider
    "outage",  # detail {"how": "error" | "hang" | "reset" | "refuse"}, for delay_s (provider's time; 0 = until cleared)
    # of a webhook (operation = the event's name, or "*")
    "webhook_drop",
    "webhook_duplicate",
    "webhook_delay",  # delay_s, provider's time
    "webhook_reorder",  # held back until the next webhook has gone out
    # of the world
    "rtmp_refuse",  # the ingest or destination refuses the publisher
    "rtmp_drop",  # an established push is cut delay_s after it connected (provider's time)
    "rtmp_hang",  # the connection is never made, and nobody gives up
    "rtmp_no_media",  # connected, but never any media: never active
    "rtmp_wedge",  # connected, and no more media delay_s later; FAILED after 30 s, detail {"monitor": false}: never
    "egress_fail",  # the egress ends FAILED delay_s after ACTIVE
    "egress_abort",  # the egress ends ABORTED instead of becoming ACTIVE
    "egress_complete",  # the egress ends COMPLETE delay_s after ACTIVE; message: "Source closed", "CPU exhausted", ...
    "egress_limit",  # the egress ends LIMIT_REACHED delay_s after ACTIVE
    "egress_stuck",  # the egress stays STARTING
    "egress_ghost",  # the worker dies: the record stays ACTIVE, the participant is gone, stop answers 408
    "worker_loss",  # StartEgress answers 503 "no response from servers", no effect
    "hls_stall",  # a playlist is what it was (operation `playback`, as often as `times` says)
    "upload_fail",  # Mux cannot make an asset of the file (operation `upload`)
]


@dataclass(slots=True, kw_only=True)
class Fault:
    kind: Kind
    operation: str = "*"
    """API method (`CreateRoom`, `StartRoomCompositeEgress`, `create_live_stream`), webhook event name, or `*`."""
    match: str = ""
    """Only where this text occurs in the target's id (room name, egress id, passthrough, url). Empty matches all."""
    times: int = 1
    """How many calls it hits; -1 = until cleared."""
    delay_s: float = 0.0
    status: int = 500
    message: str = ""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


class FaultTable:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.hits: dict[str, int] = {}
        """How often each kind was taken: a test that never hit its fault proves nothing."""

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def add_json(self, body: Any) -> None:
        """Raises ValueError with the name of what is wrong."""
        if isinstance(body, list):
            for item in body:  # pyright: ignore[reportUnknownVariableType]
                self.add_json(item)
            return
        if not isinstance(body, dict):
            raise ValueError("a fault is a JSON object")  # noqa: TRY004
        known = set(Fault.__dataclass_fields__)
        unknown = set(body) - known  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if unknown:
            raise ValueError(f"unknown field(s): {', '.join(sorted(map(str, unknown)))}")  # pyright: ignore[reportUnknownArgumentType]
        if body.get("kind") not in get_args(Kind):  # pyright: ignore[reportUnknownMemberType]
            raise ValueError(f"kind: one of {', '.join(get_args(Kind))}")
        self.add(Fault(**body))  # pyright: ignore[reportUnknownArgumentType]

    def take(self, operation: str, target: str = "", *kinds: Kind) -> Fault | None:
        """The first fault of *kinds* for this operation and target, used up by one."""
        for fault in self._faults:
            if fault.kind not in kinds or fault.operation not in ("*", operation) or fault.match not in target:
                continue
            if fault.times > 0:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
            self.hits[fault.kind] = self.hits.get(fault.kind, 0) + 1
            return fault
        return None

    def clear(self) -> None:
        self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        return [{name: getattr(fault, name) for name in Fault.__dataclass_fields__} for fault in self._faults]
