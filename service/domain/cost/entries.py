"""The ledger: from the rows of a broadcast to the facts that it is charged for. Pure.

An entry is made of one row of a resource, and of nothing else that may be lost: a row that is read again after a crash
makes the same entry, under the same key. So an entry is written in the transaction that writes its row, and writing it
again changes nothing.

Invariant: an egress has one entry at most, and so has its connection to the live stream. An entry that has ended does
not move again, unless the egress is found running after it had been given up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from service.domain.broadcast import Broadcast, RecordingPolicy, Spec
from service.domain.cost.prices import CostKind, Tier
from service.domain.resources import (
    AnyResource,
    Egress,
    LocalRecording,
    Phase,
    Recording,
    RecordingStatus,
    Room,
    Stream,
    Upload,
)

_HD_PIXELS = 1280 * 720
_MICROSECOND = timedelta(microseconds=1)


class Basis(StrEnum):
    """Where a quantity comes from."""

    PROVIDER = "provider"
    """The provider's own times."""
    SEEN = "seen"
    """A time of ours: of the look that no longer found it, or at which it was given up."""
    ESTIMATED = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    kind: CostKind
    ref: str
    """The provider's id of what is charged. Empty: it is of the whole broadcast."""
    tier: Tier
    from_time: datetime
    to_time: datetime | None = None
    """None: it goes on."""
    quantity_s: float | None = None
    """Seconds. None: the time from `from_time` to `to_time`."""
    basis: Basis = Basis.PROVIDER

    def micros(self, now: datetime) -> int:
        """Its quantity in microseconds at *now*. Never below 0: the provider's clock may be ahead of *now*."""
        if self.quantity_s is not None:
            return round(self.quantity_s * 1_000_000)
        return max(((self.to_time or now) - self.from_time) // _MICROSECOND, 0)


def entries_of(
    broadcast: Broadcast, resources: Sequence[AnyResource], *, of: Iterable[AnyResource] | None = None
) -> tuple[Entry, ...]:
    """The entries that follow from *resources*, all rows of *broadcast*. *of*: those rows whose entries are asked for;
    None: all of them.
    """
    entries: list[Entry] = []
    rooms = [each for each in resources if isinstance(each, Room)]
    for each in resources if of is None else of:
        match each:
            case Egress() | LocalRecording():
                entries += _of_egress(broadcast.spec, each, rooms)
            case Stream() if broadcast.spec.recording_policy is RecordingPolicy.KEEP:
                at = each.disabled_at or each.changed_at
                entries += [entry for said in each.recordings if (entry := _of_recording(broadcast.spec, said, at))]
            case Upload(recording=Recording() as said):
                entries += [entry for entry in [_of_recording(broadcast.spec, said, each.changed_at)] if entry]
            case _:
                pass
    return tuple(entries)


def _of_egress(spec: Spec, egress: Egress | LocalRecording, rooms: Sequence[Room]) -> list[Entry]:
    """The egress itself, and its connection to the live stream. None was ever charged that has no id: no worker took
    it.
    """
    if not egress.external_id:
        return []
    began = egress.started_at or egress.intended_at
    ended, basis = _end(egress, rooms)
    if egress.started_at is None:
        basis = Basis.SEEN
    kind = CostKind.EGRESS if isinstance(egress, Egress) else CostKind.FILE_EGRESS
    tier = picture(spec)
    entry = Entry(kind=kind, ref=egress.external_id, tier=tier, from_time=began, to_time=ended, basis=basis)
    push = next((each for each in egress.outputs if each.name == ""), None) if isinstance(egress, Egress) else None
    if push is None or push.started_at is None or push.started_at == push.ended_at:
        # LiveKit gives an output that never connected the time of its end as that of its start.
        return [_span(entry)]
    fed = Entry(
        kind=CostKind.INPUT,
        ref=egress.external_id,
        tier=charged_tier(spec),
        from_time=push.started_at,
        to_time=push.ended_at or ended,
        basis=basis if push.ended_at is None else Basis.PROVIDER,
    )
    return [_span(entry), _span(fed)]


def _end(egress: Egress | LocalRecording, rooms: Sequence[Room]) -> tuple[datetime | None, Basis]:
    """When *egress* ended. None: it may run still."""
    if egress.end_seen:
        return (egress.ended_at, Basis.PROVIDER) if egress.ended_at else (egress.changed_at, Basis.SEEN)
    if egress.phase is not Phase.GONE:
        return None, Basis.PROVIDER
    # Its worker died, or it answers nothing: the first look that missed it in its room is nearest to the truth.
    missed = [room.missing[egress.external_id] for room in rooms if egress.external_id in room.missing]
    return min([*missed, egress.changed_at]), Basis.SEEN


def _span(entry: Entry) -> Entry:
    """Clocks of two machines may differ: nothing ends before it begins."""
    return entry if entry.to_time is None else replace(entry, to_time=max(entry.from_time, entry.to_time))


def _of_recording(spec: Spec, said: Recording, at: datetime) -> Entry | None:
    if said.status is not RecordingStatus.READY or said.duration_s is None:
        return None
    return Entry(
        kind=CostKind.RECORDING,
        ref=said.asset_id,
        tier=charged_tier(spec),
        from_time=at,
        to_time=at,
        quantity_s=said.duration_s,
    )


def picture(spec: Spec) -> Tier:
    """The tier of the picture, also of a test."""
    if spec.audio_only:
        return Tier.AUDIO
    return Tier.HD if spec.encoding.width * spec.encoding.height <= _HD_PIXELS else Tier.FULL_HD


def charged_tier(spec: Spec) -> Tier:
    """The tier by which the provider of live streams charges."""
    return Tier.TEST if spec.test else picture(spec)
