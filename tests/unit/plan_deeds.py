"""What the reconciler of the plan's world does, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from service.domain import reasons
from service.domain.broadcast import Carrier, EndReason, Fallback, Target, seconds
from service.domain.planning.steps import (
    CreateRoom,
    CreateStream,
    CutStream,
    DeleteRoom,
    DeleteStream,
    DeleteUpload,
    DisableStream,
    EndBroadcast,
    ResetKey,
    SetDestinations,
    SetFallback,
    SetLayout,
    SettleRecordings,
    StartEgress,
    StartRecording,
    Step,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    Recording,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.secret import Secret
from tests.unit.plan_looks import Key, Looks
from tests.unit.plan_providers import Crash, Fault, Mishap, NotDone, TrueStream

CREATES = (CreateRoom, CreateStream, StartEgress, StartRecording, UploadRecording)


def target_of(step: Step) -> tuple[Kind, int] | None:  # noqa: PLR0911 - one answer a kind
    """The resource a step acts on; None for the broadcast itself."""
    match step:
        case CreateRoom() | DeleteRoom():
            return Kind.ROOM, step.ordinal
        case CreateStream() | DisableStream() | SettleRecordings() | DeleteStream() | ResetKey() | CutStream():
            return Kind.STREAM, step.ordinal
        case StartEgress() | StopEgress() | SetLayout() | SetDestinations():
            return Kind.EGRESS, step.ordinal
        case StartRecording() | StopRecording():
            return Kind.RECORDING, step.ordinal
        case UploadRecording() | DeleteUpload():
            return Kind.UPLOAD, step.ordinal
        case WriteOff():
            return step.kind, step.ordinal
        case SetFallback() | EndBroadcast():
            return None


@dataclass
class Deeds(Looks):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.wake_at: datetime | None = None
        self.fallbacks: list[Fallback] = []

    def stop(self, reason: EndReason = EndReason.STOPPED) -> None:
        if self.broadcast.target is not Target.ENDED:
            self.broadcast = replace(self.broadcast, target=Target.ENDED, end_reason=reason)
        self.wake_at = self.now

    def act(self, step: Step) -> None:
        key = target_of(step)
        match step:
            case EndBroadcast():
                self.stop(step.reason)
                return
            case SetFallback():
                self.broadcast = replace(self.broadcast, fallback=step.fallback)
                self.fallbacks.append(step.fallback)
                return
            case WriteOff():
                row = self.rows[step.kind, step.ordinal]
                if isinstance(row, Egress) and not row.fault:
                    row = replace(
                        row,
                        fault=reasons.Fault.NOT_STOPPED if row.phase is Phase.DELETING else reasons.Fault.START_LOST,
                    )
                if isinstance(row, LocalRecording) and not row.fault and row.phase is Phase.DELETING:
                    row = replace(row, fault=reasons.Fault.NOT_STOPPED)
                self.put(replace(row, phase=Phase.GONE, changed_at=self.now))
                return
            case _:
                assert key is not None
        if isinstance(step, StartRecording | UploadRecording):
            self._before_file(step, key)
        else:
            self._before(step, key)
        try:
            answer = self._call(step)
        except NotDone as trouble:
            self._failed(step, key, trouble)
        else:
            self.put(replace(self.rows[key], failures=0, retry_at=None))
            if isinstance(step, StartRecording | StopRecording | UploadRecording):
                self._after_file(self.rows[key], answer)
            else:
                self._after(step, key, answer)

    def _before_file(self, step: StartRecording | UploadRecording, key: Key) -> None:
        row, n, now = self.rows.get(key), step.ordinal, self.now
        if isinstance(step, StartRecording):
            assert row is None
            self.put(LocalRecording(ordinal=n, phase=Phase.INTENDED, intended_at=now, changed_at=now, file="f"))
            return
        assert row is None or row.phase is Phase.GONE
        upload = Upload(ordinal=n, phase=Phase.INTENDED, intended_at=now, changed_at=now)
        if isinstance(row, Upload):
            upload = replace(upload, failures=row.failures, attempt=row.attempt + 1, errored=row.errored)
        self.put(upload)

    def _after_file(self, row: AnyResource, answer: str) -> None:
        if row.phase is Phase.DELETING:
            self.put(replace(row, acked=True))
            return
        row = replace(row, phase=Phase.PRESENT, changed_at=self.now, external_id=answer)
        if isinstance(row, LocalRecording):
            self.put(replace(row, status=EgressStatus.STARTING))
        elif isinstance(row, Upload):
            made = Recording(asset_id=answer, uploaded=True)
            self.put(replace(row, observed_at=self.now, recording=made))

    def _before(self, step: Step, key: Key) -> None:  # noqa: C901 - one case per step
        row, now = self.rows.get(key), self.now
        match step:
            case CreateRoom():
                self.put(
                    Room(ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=now, changed_at=now)
                    if row is None
                    else replace(row, phase=Phase.INTENDED, changed_at=now)
                )
            case CreateStream():
                assert row is None
                self.put(Stream(ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=now, changed_at=now))
            case StartEgress():
                assert row is None
                stream = ResourceSet(self.resources).stream
                assert stream is not None
                self.put(
                    Egress(
                        ordinal=step.ordinal,
                        phase=Phase.INTENDED,
                        intended_at=now,
                        changed_at=now,
                        key_epoch=stream.key_epoch,
                        layout=self.broadcast.spec.layout,
                        destinations=tuple(d.name for d in self.broadcast.spec.carried_by(Carrier.EGRESS)),
                    )
                )
            case DeleteRoom() | DeleteStream() | DeleteUpload():
                assert row is not None
                self.put(replace(row, phase=Phase.DELETING, changed_at=now))
            case StopEgress() | StopRecording():
                assert row is not None
                if isinstance(row, Egress | LocalRecording):
                    row = replace(row, fault=step.fault or row.fault)
                    self.put(row)
                if row.phase is not Phase.DELETING:
                    self.put(replace(row, phase=Phase.DELETING, changed_at=now, failures=0, retry_at=None))
                elif not row.acked and row.failures == 0:
                    # The call before was never made, or its process died in it.
                    self.put(replace(row, changed_at=now))
            case ResetKey():
                assert isinstance(row, Stream)
                self.put(replace(row, key_stale=True))
            case CutStream():
                assert isinstance(row, Stream)
                self.put(replace(row, cutting=True))
            case _:
                pass

    def _failed(self, step: Step, key: Key, trouble: NotDone) -> None:
        row = self.rows[key]
        failures = row.failures + 1
        phase, changed_at = row.phase, row.changed_at
        if isinstance(step, CREATES):
            changed_at = self.now
            if trouble.ambiguous:
                phase = Phase.UNKNOWN
            elif not isinstance(step, CreateRoom):
                before = self.rows.get((row.kind, row.ordinal - 1))
                if not isinstance(step, UploadRecording):
                    failures = (before.failures if before is not None else 0) + 1
                phase = Phase.GONE
                if isinstance(row, Egress):
                    row = replace(row, end_seen=True, fault="UNAVAILABLE")
                elif isinstance(row, LocalRecording):
                    row = replace(row, end_seen=True)
        retry_at = self.now + seconds(min(30.0, 2.0 ** min(failures - 1, 10)))
        self.put(
            replace(
                row, phase=phase, changed_at=changed_at, failures=failures, retry_at=retry_at, refused=trouble.refused
            )
        )

    def _after(self, step: Step, key: Key, answer: str) -> None:  # noqa: C901 - one case per step
        row, now = self.rows[key], self.now
        match step, row:
            case CreateRoom(), Room():
                self.put(replace(row, phase=Phase.PRESENT, changed_at=now, host_publishing=self.host, host_since=now))
            case CreateStream(), Stream():
                new_key = Secret(self.streams[answer].key)
                self.put(replace(row, phase=Phase.PRESENT, changed_at=now, external_id=answer, key=new_key))
            case StartEgress(), Egress():
                self.put(
                    replace(row, phase=Phase.PRESENT, changed_at=now, external_id=answer, status=EgressStatus.STARTING)
                )
            case ((DeleteRoom() | DeleteStream() | DeleteUpload() | StopEgress()), _):
                self.put(replace(row, acked=True))
            case ResetKey(), Stream():
                self.put(
                    replace(row, key_epoch=row.key_epoch + 1, key_stale=False, key=Secret(answer), key_reset_at=now)
                )
            case DisableStream(), Stream():
                self.put(replace(row, disabled=True))
            case CutStream(), Stream() if answer:
                self.put(replace(row, status=StreamStatus.DISABLED, status_since=now))
            case CutStream(), Stream():
                self.put(
                    replace(
                        row,
                        cutting=False,
                        cut_epoch=row.key_epoch,
                        status=StreamStatus.IDLE,
                        status_since=now,
                        silent_at=now,
                    )
                )
            case SettleRecordings(), Stream():
                listed = tuple(Recording(asset_id=id_) for id_ in answer.split() if id_)
                self.put(replace(row, recordings_settled=True, recordings=listed))
            case SetLayout(), Egress():
                self.put(replace(row, layout=self.broadcast.spec.layout))
            case SetDestinations(), Egress():
                kept = tuple(name for name in row.destinations if name not in step.remove)
                self.put(replace(row, destinations=(*kept, *step.add)))
            case _:
                raise AssertionError(step)

    def _call(self, step: Step) -> str:  # noqa: C901 - one case per fault
        key = target_of(step)
        if key is not None and ("mux" if key[0] in (Kind.STREAM, Kind.UPLOAD) else "livekit") in self.away:
            self.last_fault_at = self.now
            raise NotDone
        mishap = self.mishaps.pop(0) if self.mishaps else Mishap(fault=Fault.NONE)
        # The effect is bound now: what lands late has the key of its own time.
        effect = self._effect(step, mishap)
        if mishap.fault is not Fault.NONE:
            self.last_fault_at = self.now
        match mishap.fault:
            case Fault.FAIL:
                raise NotDone
            case Fault.REFUSE:
                raise NotDone(refused=isinstance(step, CREATES))
            case Fault.VANISH:
                raise NotDone(ambiguous=True)
            case Fault.LOST_REPLY:
                effect()
                raise NotDone(ambiguous=True)
            case Fault.LATE:
                self.at(mishap.delay_s, lambda: self.land(effect))
                self.last_fault_at = self.now + seconds(mishap.delay_s)
                raise NotDone(ambiguous=True)
            case Fault.CRASH_BEFORE:
                raise Crash
            case Fault.CRASH_AFTER:
                effect()
                raise Crash
            case Fault.NONE | Fault.DEAD_WORKER | Fault.DEAF_WORKER:
                return effect()

    def _effect(self, step: Step, mishap: Mishap) -> Callable[[], str]:  # noqa: C901 - one case per step
        key = target_of(step)
        assert key is not None
        row = self.rows[key]
        asked_at = self.now

        def effect() -> str:
            try:
                return carry_out()
            finally:
                self.settle()

        def carry_out() -> str:  # noqa: C901, PLR0911, PLR0912 - one case per step
            number = next(self.numbers)
            match step:
                case CreateRoom():
                    self.room_landed_late = self.now > asked_at
                    self.room = True
                case DeleteRoom():
                    self.lose_room()
                case CreateStream():
                    stream = TrueStream(
                        id=f"s{number}", ordinal=step.ordinal, landed_at=self.now, key=f"s{number}/key0"
                    )
                    self.streams[stream.id] = stream
                    return stream.id
                case StartEgress():
                    return self.launch(f"e{number}", step.ordinal, stream_key, mishap)
                case StopEgress():
                    return self.end(row.external_id)
                case StartRecording():
                    return self.launch_file(f"f{number}", step.ordinal, mishap)
                case StopRecording():
                    return self.end_file(row.external_id)
                case UploadRecording():
                    assert isinstance(row, Upload)
                    return self.upload(f"a{number}", step.ordinal, row.attempt)
                case DeleteUpload():
                    self.assets.pop(row.external_id, None)
                case SettleRecordings():
                    return " ".join(self.recorded(row.external_id))
                case ResetKey():
                    found = self.streams.get(row.external_id)
                    if found is None:
                        raise NotDone
                    found.key = f"{found.id}/key{number}"
                    return found.key
                case DisableStream():
                    if row.external_id not in self.streams:
                        raise NotDone
                    self.streams[row.external_id].disabled = True
                case CutStream():
                    assert isinstance(row, Stream)
                    return self.cut(row.external_id, disable=row.status is not StreamStatus.DISABLED)
                case DeleteStream():
                    self.streams.pop(row.external_id, None)
                case _:
                    pass
            return ""

        in_use = ResourceSet(self.resources).stream
        stream_key = in_use.key.reveal() if in_use is not None else ""
        return effect
