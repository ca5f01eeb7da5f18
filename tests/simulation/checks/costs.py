"""I-24: the ledger says what really ran at the providers, by their own log of effects."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from service.domain.broadcast import Broadcast, seconds
from service.domain.cost.bill import bill, quantities
from service.domain.cost.entries import Basis, Entry, charged_tier, picture
from service.domain.cost.prices import CostKind, Prices
from service.domain.resources import Egress, LocalRecording, Phase
from tests.simulation.environment import T0

if TYPE_CHECKING:
    from tests.simulation.checks.violations import Findings
    from tests.simulation.replica import Shared
    from tests.simulation.store.tables import Row

CLOSE_S = 1.0


@dataclass(slots=True)
class Truth:
    """One egress, by the log of effects. Virtual seconds."""

    broadcast_id: str
    began: float
    file: bool
    ended: float | None = None
    """None: it runs, or its worker is dead."""
    died: float | None = None
    """When its worker died, and with it the charge. None: it did not."""
    connected: float | None = None
    """When it was first connected to the live stream."""
    left: float | None = None
    """When its connection last ended."""


def truths(shared: Shared) -> dict[str, Truth]:
    """By the id of the egress. Without those of others."""
    found: dict[str, Truth] = {}
    for effect in shared.env.effects.log:
        match effect.kind:
            case "egress.started" | "recording.started":
                file = effect.kind == "recording.started"
                found[effect.id] = Truth(effect.broadcast_id, effect.time, file)
            case "egress.ended" if effect.id in found:
                found[effect.id].ended = effect.time
            case "egress.ghost" if effect.id in found:
                found[effect.id].died = effect.time
            case "rtmp.connected" if effect.detail in found:
                truth = found[effect.detail]
                truth.connected = effect.time if truth.connected is None else truth.connected
            case "rtmp.left" | "rtmp.cut" if effect.detail in found:
                found[effect.detail].left = effect.time
            case _:
                pass
    return found


def highest_cost(shared: Shared, broadcast: Broadcast, now: datetime) -> int:
    """The nano-dollars that *broadcast* can be thought to have cost at *now*. An egress whose worker died counts until
    now: no look tells when it died.
    """
    entries: list[Entry] = []
    for id_, truth in truths(shared).items():
        if truth.broadcast_id != broadcast.id:
            continue
        kind = CostKind.FILE_EGRESS if truth.file else CostKind.EGRESS
        ended = None if truth.ended is None else at(truth.ended)
        entries.append(
            Entry(kind=kind, ref=id_, tier=picture(broadcast.spec), from_time=at(truth.began), to_time=ended)
        )
        if truth.connected is not None:
            tier, began = charged_tier(broadcast.spec), at(truth.connected)
            entries.append(Entry(kind=CostKind.INPUT, ref=id_, tier=tier, from_time=began, to_time=ended))
    return bill(quantities(entries, now), Prices()).nanos


def at(moment: float) -> datetime:
    return T0 + timedelta(seconds=moment)


class Costs:
    def __init__(self, shared: Shared, findings: Findings) -> None:
        self._shared = shared
        self._findings = findings

    def check(self) -> None:
        """When everything is over and at rest."""
        known = truths(self._shared)
        for row in self._shared.tables.rows.values():
            self._one(row, known)

    def _one(self, row: Row, known: dict[str, Truth]) -> None:
        egresses = {
            each.external_id: each
            for each in row.resources.values()
            if isinstance(each, Egress | LocalRecording) and each.external_id
        }
        by_kind: defaultdict[CostKind, dict[str, Entry]] = defaultdict(dict)
        for (kind, ref), entry in row.ledger.items():
            by_kind[kind][ref] = entry
        charged = by_kind[CostKind.EGRESS] | by_kind[CostKind.FILE_EGRESS]
        if charged.keys() != egresses.keys():
            self._wrong(row, f"charges {sorted(charged)}, and {sorted(egresses)} ran")
        for id_, entry in charged.items():
            if id_ in known and id_ in egresses:
                self._egress(row, egresses[id_], entry, known[id_])
        for id_, entry in by_kind[CostKind.INPUT].items():
            if id_ in known and id_ in charged:
                self._input(row, entry, charged[id_], known[id_])
        lacking = {id_ for id_, truth in known.items() if id_ in charged and truth.connected is not None} - by_kind[
            CostKind.INPUT
        ].keys()
        for id_ in lacking:
            # The provider told of no connection before its worker died.
            if known[id_].died is None and egresses[id_].end_seen:
                self._wrong(row, f"charges no input of {id_}, which was connected at {known[id_].connected:.1f} s")

    def _egress(self, row: Row, egress: Egress | LocalRecording, entry: Entry, truth: Truth) -> None:
        self._near(row, entry, "begins", entry.from_time, truth.began)
        if entry.to_time is None:
            if egress.phase is Phase.GONE or truth.ended is not None:
                self._wrong(row, f"{entry.kind} {entry.ref} goes on, and is gone")
        elif egress.end_seen and truth.ended is not None:
            self._findings.seen["charged to the provider's end"] += 1
            self._near(row, entry, "ends", entry.to_time, truth.ended)
        elif truth.died is not None:
            self._findings.seen["charged to the end that was seen"] += 1
            if entry.to_time > egress.changed_at + self._apart:
                self._wrong(row, f"{entry.kind} {entry.ref} is charged after it was given up")

    def _input(self, row: Row, entry: Entry, egress: Entry, truth: Truth) -> None:
        if truth.connected is None:
            self._wrong(row, f"charges input of {entry.ref}, which was never connected")
            return
        self._near(row, entry, "begins", entry.from_time, truth.connected)
        left = None if truth.left is None else at(truth.left) - seconds(CLOSE_S)
        # One that was given up is charged to the moment of that.
        seen = egress.basis is Basis.PROVIDER and entry.to_time is not None and left is not None
        if seen and entry.to_time is not None and left is not None and entry.to_time < left:
            self._wrong(row, f"input of {entry.ref} ends at {entry.to_time}, and it left at {left}")
        if entry.to_time is not None and egress.to_time is not None and entry.to_time > egress.to_time + self._apart:
            self._wrong(row, f"input of {entry.ref} outlives its egress")

    @property
    def _apart(self) -> timedelta:
        """By so much the providers' clocks may be ahead of the database's, which was set back."""
        return self._shared.env.set_back + seconds(CLOSE_S)

    def _near(self, row: Row, entry: Entry, what: str, charged: datetime, true: float) -> None:
        if abs((charged - at(true)).total_seconds()) > CLOSE_S:
            self._wrong(row, f"{entry.kind} {entry.ref} {what} at {charged}, in truth at {at(true)}")

    def _wrong(self, row: Row, what: str) -> None:
        self._findings.violate("I-24", f"the ledger of {row.broadcast.id}: {what}")
