"""Faults that a test or a person asks for over `POST /_faults`, taken by a simulator at the named operation.

Invariant: a table holds only faults that its simulator can take. A kind, an operation or a detail that the simulator
does not have is refused when the fault is added, because a fault that never fires proves nothing.

A fault is used up by matching calls until `times` runs out. For one call the order is: `latency`, then the faults that
refuse it without any effect (`error`, `hang`, `reset`), then the effect, then the loss of the answer (`lost_reply`).
`late_effect` cuts the connection at once and has its effect `delay_s` later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

Kind = Literal[
    # of an API call
    "latency",  # wait delay_s (real seconds), then go on as usual
    "error",  # answer `status` with the provider's own error body; no effect
    "hang",  # no effect, no answer (the connection stays open until the caller leaves)
    "reset",  # no effect, the connection is cut
    "lost_reply",  # the effect happens, then the connection is cut without an answer
    "late_effect",  # the connection is cut now, and the effect happens delay_s (real seconds) later
    # of a whole provider, or of Mux's playback alone
    "outage",  # for delay_s (provider's time; 0 = until cleared); detail {"how": ..., "status": ...}
    # of a webhook (operation = the event's name, or "*")
    "webhook_drop",
    "webhook_duplicate",
    "webhook_delay",  # delay_s, provider's time
    "webhook_reorder",  # held back until the next webhook has gone out
    # of media, egresses and files
    "rtmp_refuse",  # the ingest or destination refuses the publisher
    "rtmp_drop",  # an established push is cut delay_s after it connected (provider's time)
    "rtmp_hang",  # the connection is never made, and the egress does not give up
    "rtmp_no_media",  # connected, but never any media: never active
    "rtmp_wedge",  # connected, and no more media delay_s later; FAILED after 30 s, detail {"monitor": false}: never
    "egress_fail",  # the egress ends FAILED delay_s after ACTIVE
    "egress_abort",  # the egress ends ABORTED instead of becoming ACTIVE
    "egress_complete",  # the egress ends COMPLETE delay_s after ACTIVE; message: "Source closed", "CPU exhausted", ...
    "egress_limit",  # the egress ends LIMIT_REACHED delay_s after ACTIVE
    "egress_stuck",  # the egress stays STARTING
    "egress_ghost",  # the worker dies: the record stays ACTIVE, the participant is gone, stop answers 408
    "worker_loss",  # StartEgress answers 503 "no response from servers", no effect
    "hls_stall",  # a playlist does not change (operation `playback`, as often as `times` says)
    "upload_fail",  # Mux cannot make an asset of the file (operation `upload`)
]
WEBHOOK_KINDS: tuple[Kind, ...] = ("webhook_drop", "webhook_duplicate", "webhook_delay", "webhook_reorder")
ANY = "*"


@dataclass(slots=True, kw_only=True)
class Fault:
    kind: Kind
    operation: str = ANY
    """API method (`CreateRoom`, `StartRoomCompositeEgress`, `create_live_stream`), webhook event name, or `*`."""
    match: str = ""
    """It hits only targets whose id (room name, egress id, passthrough, url) contains this text. Empty matches all."""
    times: int = 1
    """Number of calls that it hits; -1 = until cleared."""
    delay_s: float = 0.0
    status: int = 500
    message: str = ""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The operations of a simulator at which it takes faults of one kind."""

    operations: frozenset[str]
    details: frozenset[str] = frozenset()
    """Keys that `detail` may have."""
    check: Callable[[Fault], None] | None = None
    """Further rules of the kind. Raises ValueError with the name of the field."""


class FaultTable:
    def __init__(self, sites: Mapping[Kind, Site] | None = None) -> None:
        """*sites*: every kind that the simulator can take. None: any kind at any operation, for tests of one part."""
        self.sites = sites
        self._faults: list[Fault] = []
        self.hits: dict[str, int] = {}
        """How often each kind was taken: a test that never hit its fault proves nothing."""

    def add(self, *faults: Fault) -> None:
        """All of them or none. Raises ValueError if one can never fire; the text names the field and what there is."""
        for fault in faults:
            _check_values(fault)
            if self.sites is not None:
                _check_site(fault, self.sites)
        self._faults.extend(faults)

    def add_json(self, body: Any) -> None:
        """One fault or a list of them: all or none. Raises ValueError with the name of the field that is wrong."""
        items = cast("list[Any]", body) if isinstance(body, list) else [body]
        self.add(*map(_parsed, items))

    def take(self, operation: str, target: str = "", *kinds: Kind) -> Fault | None:
        """The first fault of *kinds* for this operation and target, used up by one."""
        if self.sites is not None:
            undeclared = [kind for kind in kinds if operation not in self.sites[kind].operations]
            assert not undeclared, f"{operation} is not declared for {undeclared}"
        for fault in self._faults:
            if fault.kind not in kinds or fault.operation not in (ANY, operation) or fault.match not in target:
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
        return [{name: getattr(fault, name) for name in _FIELDS} for fault in self._faults]


_FIELDS = tuple(one.name for one in fields(Fault))


def _parsed(body: Any) -> Fault:
    if not isinstance(body, dict):
        raise ValueError("a fault is a JSON object")  # noqa: TRY004 - all bad input is ValueError
    unknown = set(map(str, body)) - set(_FIELDS)  # pyright: ignore[reportUnknownArgumentType]
    if unknown:
        raise ValueError(f"unknown field(s): {', '.join(sorted(unknown))}; a fault has {', '.join(_FIELDS)}")
    if "kind" not in body:
        raise ValueError(f"kind: one of {', '.join(get_args(Kind))}")
    return Fault(**body)  # pyright: ignore[reportUnknownArgumentType]


def _check_values(fault: Fault) -> None:
    if fault.kind not in get_args(Kind):
        raise ValueError(f"kind: one of {', '.join(get_args(Kind))}")
    for name in ("operation", "match", "message"):
        if not isinstance(getattr(fault, name), str):
            raise ValueError(f"{name}: a string")  # noqa: TRY004 - all bad input is ValueError
    if not _is_number(fault.times, int) or fault.times < -1 or fault.times == 0:
        raise ValueError("times: 1 or more, or -1 (until cleared)")
    if not _is_number(fault.delay_s, int, float) or not 0 <= fault.delay_s < float("inf"):
        raise ValueError("delay_s: a number of seconds, 0 or more")
    if not _is_number(fault.status, int) or not 200 <= fault.status <= 599:
        raise ValueError("status: 200 to 599")
    if not isinstance(fault.detail, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - it may come from JSON
        raise ValueError("detail: an object")  # noqa: TRY004 - all bad input is ValueError


def _check_site(fault: Fault, sites: Mapping[Kind, Site]) -> None:
    site = sites.get(fault.kind)
    if site is None:
        raise ValueError(f"kind: {fault.kind} cannot happen here; one of {', '.join(sites)}")
    if fault.operation != ANY and fault.operation not in site.operations:
        raise ValueError(f"operation: for {fault.kind} one of {', '.join(sorted(site.operations))}, or {ANY}")
    unknown = set(map(str, fault.detail)) - site.details
    if unknown:
        known = ", ".join(sorted(site.details)) or "nothing"
        raise ValueError(f"detail: {', '.join(sorted(unknown))} is unknown; {fault.kind} takes {known}")
    if site.check is not None:
        site.check(fault)


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
