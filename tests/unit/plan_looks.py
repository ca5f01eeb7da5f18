"""What the reconciler of the plan's world learns by looking."""

from dataclasses import dataclass, field, replace

from service.domain.broadcast import (
    AnyResource,
    Broadcast,
    Egress,
    EgressStatus,
    Kind,
    Output,
    OutputState,
    Phase,
    Room,
    Spec,
    Stream,
    StreamStatus,
)
from service.domain.observation import to_observe
from service.domain.secret import Secret
from service.domain.timing import Timing
from tests.unit.plan_providers import (
    T0,
    Mishap,
    Providers,
)

Key = tuple[Kind, int]


@dataclass
class Looks(Providers):
    spec: Spec = field(default_factory=Spec)
    mishaps: list[Mishap] = field(default_factory=list[Mishap])
    """Of the changing calls, in their order; then all goes well."""
    blind: list[bool] = field(default_factory=list[bool])
    """Of the looks, in their order: whether it fails."""
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        super().__init__(self.spec.reconnect_window_s)
        self.broadcast = Broadcast(id="b", spec=self.spec, create_time=T0, update_time=T0)
        self.rows: dict[Key, AnyResource] = {}

    @property
    def resources(self) -> list[AnyResource]:
        return list(self.rows.values())

    def put(self, row: AnyResource) -> None:
        self.rows[row.kind, row.ordinal] = row

    def observe(self) -> None:
        wanted = to_observe(self.broadcast, self.resources, self.now, self.timing)
        rooms_egresses = False
        for key in sorted(wanted):
            if self.blind and self.blind.pop(0):
                self.last_fault_at = self.now
                continue
            row = self.rows[key]
            match row:
                case Room():
                    self._see_room(row)
                case Stream():
                    self._see_stream(row)
                case Egress():
                    self._see_egress(row)
                    rooms_egresses = True
            assert self.rows[key].phase is Phase.GONE or self.rows[key].observed_at == self.now
        if rooms_egresses:
            self._see_strangers()

    def _gone(self, row: AnyResource) -> None:
        gone = replace(row, phase=Phase.GONE, changed_at=self.now, observed_at=self.now)
        self.put(replace(gone, end_seen=True) if isinstance(gone, Egress) else gone)

    def _see_room(self, row: Room) -> None:
        if not self.room:
            self._gone(row)
        elif row.phase is Phase.PRESENT and row.host_publishing is not self.host:
            self.put(replace(row, observed_at=self.now, host_publishing=self.host, host_since=self.now))
        else:
            self.put(replace(row, observed_at=self.now))

    def _see_stream(self, row: Stream) -> None:
        if row.unresolved:
            found = next((s for s in self.streams.values() if s.ordinal == row.ordinal), None)
            if found is None or not self.listed(found.landed_at):
                self.put(replace(row, observed_at=self.now))
                return
            row = replace(row, phase=Phase.PRESENT, external_id=found.id, changed_at=self.now, key=Secret(found.key))
        stream = self.streams.get(row.external_id)
        if stream is None:
            self._gone(row)
            return
        status = self.status_of_stream(stream)
        if status is not row.status:
            row = replace(row, status=status, status_since=self.now)
        active = status is StreamStatus.ACTIVE
        row = replace(row, fed_at=self.now if active else row.fed_at, silent_at=row.silent_at if active else self.now)
        if row.key.reveal() != stream.key:
            # A reset that landed later than its answer was waited for.
            row = replace(row, key=Secret(stream.key), key_epoch=row.key_epoch + 1)
        self.put(replace(row, observed_at=self.now))

    def _see_egress(self, row: Egress) -> None:
        if row.unresolved:
            found = next((e for e in self.egresses.values() if e.ordinal == row.ordinal), None)
            if found is None or not self.listed(found.landed_at):
                self.put(replace(row, observed_at=self.now))
                return
            row = replace(row, phase=Phase.PRESENT, external_id=found.id, changed_at=self.now)
        egress = self.egresses.get(row.external_id)
        if egress is None or egress.status.terminal or not self.listed(egress.landed_at):
            self._gone(row)
            return
        if egress.status is not row.status:
            active = egress.status is EgressStatus.ACTIVE
            outputs = (Output(name="", state=OutputState.ACTIVE),) if active else ()
            since = self.now if active else None
            row = replace(row, status=egress.status, status_since=self.now, outputs=outputs, delivering_since=since)
        self.put(replace(row, observed_at=self.now))

    def _see_strangers(self) -> None:
        rows = [row for row in self.rows.values() if isinstance(row, Egress)]
        known = {row.external_id for row in rows} | {
            egress.id
            for egress in self.egresses.values()
            for row in rows
            if row.unresolved and row.ordinal == egress.ordinal
        }
        for egress in self.egresses.values():
            if egress.id not in known and not egress.status.terminal and self.listed(egress.landed_at):
                ordinal = max((row.ordinal for row in self.rows.values() if isinstance(row, Egress)), default=-1) + 1
                self.put(
                    Egress(
                        ordinal=ordinal,
                        phase=Phase.PRESENT,
                        external_id=egress.id,
                        intended_at=self.now,
                        changed_at=self.now,
                        observed_at=self.now,
                        status=egress.status,
                        key_epoch=-1,
                    )
                )
