"""What the reconciler of the plan's world learns by looking."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from service.domain.broadcast import Broadcast, Spec, seconds
from service.domain.observing.provider_state import upload_checked
from service.domain.planning.what_to_observe import to_observe
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.secret import Secret
from service.domain.situation import Availability, Outage
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
        self.availability = Availability(storage=True)
        self.failing_since: dict[str, datetime] = {}
        self.answering_since: dict[str, datetime] = {}

    @property
    def resources(self) -> list[AnyResource]:
        return list(self.rows.values())

    def put(self, row: AnyResource) -> None:
        self.rows[row.kind, row.ordinal] = row

    def report(self) -> bool:
        """What the observer tells of the providers. Whether it is news."""
        for name in ("livekit", "mux"):
            gone, here = (
                (self.failing_since, self.answering_since)
                if name in self.away
                else (self.answering_since, self.failing_since)
            )
            gone.setdefault(name, self.now)
            here.pop(name, None)
        outages = {
            name: Outage(since=since) for name, since in self.failing_since.items() if self.now - since >= seconds(5)
        }
        news = outages.keys() != self.availability.outages.keys()
        answering = {name: self.answering_since.get(name) for name in ("livekit", "mux")}
        self.availability = Availability(outages=outages, answering_since=answering, storage=True)
        return news

    def observe(self) -> None:  # noqa: C901 - one case a kind
        wanted = to_observe(self.broadcast, self.resources, self.now, self.timing)
        rooms_egresses = False
        for key in sorted(wanted):
            if self.blind and self.blind.pop(0):
                self.last_fault_at = self.now
                continue
            row = self.rows[key]
            if ("mux" if isinstance(row, Stream | Upload) else "livekit") in self.away:
                continue
            match row:
                case Room():
                    self._see_room(row)
                case Stream() if row.phase is Phase.GONE:
                    self.put(replace(row, recordings=tuple(map(self._checked, row.recordings)), observed_at=self.now))
                case Stream():
                    self._see_stream(row)
                case Egress():
                    self._see_egress(row)
                    rooms_egresses = True
                case LocalRecording():
                    self._see_recording(row)
                    rooms_egresses = True
                case Upload():
                    self._see_upload(row)
            assert self.rows[key].phase is Phase.GONE or self.rows[key].observed_at == self.now
        if rooms_egresses:
            self._see_strangers()
            self._see_lost_files()

    def _checked(self, recording: Recording) -> Recording:
        asset = self.assets.get(recording.asset_id)
        if asset is None:
            return replace(recording, status=RecordingStatus.ERRORED)
        if asset.ready_at > self.now:
            return recording
        return replace(recording, status=RecordingStatus.ERRORED if asset.bad else RecordingStatus.READY)

    def _see_recording(self, row: LocalRecording) -> None:
        if row.unresolved:
            found = next((file for file in self.files.values() if file.ordinal == row.ordinal), None)
            if found is None or not self.listed(found.landed_at):
                self.put(replace(row, observed_at=self.now))
                return
            row = replace(row, phase=Phase.PRESENT, external_id=found.id, changed_at=self.now, failures=0)
        file = self.files.get(row.external_id)
        if file is None or not self.listed(file.landed_at):
            self._gone(row)
            return
        if file.status is not row.status:
            row = replace(row, status=file.status, status_since=self.now)
        if file.status.terminal:
            self.put(replace(row, phase=Phase.GONE, changed_at=self.now, observed_at=self.now, end_seen=True))
        else:
            self.put(replace(row, observed_at=self.now))

    def _see_lost_files(self) -> None:
        """Those that were written off and are there all the same."""
        for row in list(self.rows.values()):
            if isinstance(row, LocalRecording) and row.phase is Phase.GONE and not row.end_seen:
                file = next((file for file in self.files.values() if file.ordinal == row.ordinal), None)
                stays = bool(row.fault) and file is not None and file.status is EgressStatus.ACTIVE
                if file is not None and self.listed(file.landed_at) and not stays:
                    back = replace(
                        row, phase=Phase.PRESENT, changed_at=self.now, failures=0, retry_at=None, acked=False
                    )
                    self.put(replace(back, external_id=file.id))
                    self._see_recording(replace(back, external_id=file.id))

    def _see_upload(self, row: Upload) -> None:
        if row.unresolved:
            mark = (row.ordinal, row.attempt)
            made = [a for a in self.assets.values() if (a.ordinal, a.attempt) == mark and self.listed(a.landed_at)]
            if not made:
                self.put(replace(row, observed_at=self.now))
                return
            row = replace(
                row,
                phase=Phase.PRESENT,
                external_id=made[0].id,
                changed_at=self.now,
                recording=Recording(asset_id=made[0].id, uploaded=True),
            )
        there = row.external_id in self.assets
        seen = self._checked(Recording(asset_id=row.external_id)) if there else None
        self.put(*upload_checked(row, seen, self.now, self.timing).resources)

    def _gone(self, row: AnyResource) -> None:
        gone = replace(row, phase=Phase.GONE, changed_at=self.now, observed_at=self.now)
        if isinstance(gone, Egress):
            asked = row.phase is Phase.DELETING
            gone = replace(gone, end_seen=True, fault=gone.fault if asked else "ENDED")
        self.put(gone)

    def _see_room(self, row: Room) -> None:
        if not self.room:
            self._gone(row)
            return
        resource_set = ResourceSet(self.resources)
        inside = frozenset(each.id for each in (*self.egresses.values(), *self.files.values()) if each.running)
        asked = len(resource_set.may_be_inside) > 1 or not inside
        row = replace(row, recorded=bool(inside), missing=resource_set.missing(inside if asked else None, self.now))
        if row.phase is Phase.PRESENT and row.host_publishing is not self.host:
            row = replace(row, host_publishing=self.host, host_since=self.now)
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
