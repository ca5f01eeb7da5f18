"""Local recordings, their uploads, and what becomes of recordings after the end: what is seen, and what is planned."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.broadcast import Broadcast, EndReason, Fallback, FallbackMode, State, Target, seconds
from service.domain.observing.learned import Learned
from service.domain.observing.recordings import (
    local_recording_seen,
    recording_checked,
    recordings_seen,
    upload_checked,
    upload_found,
    uploaded,
)
from service.domain.observing.streams import stream_seen
from service.domain.planning.plan import plan
from service.domain.planning.steps import (
    DeleteUpload,
    Plan,
    SettleRecordings,
    StartRecording,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.planning.what_to_observe import to_observe
from service.domain.ports import EgressSeen
from service.domain.reasons import FallbackReason
from service.domain.reporting.status import status_of
from service.domain.resources import (
    AnyResource,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    Recording,
    RecordingStatus,
    StreamStatus,
    Upload,
)
from service.domain.situation import Availability, Outage
from service.domain.timing import Timing
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, ended, live

TIMING = Timing()
FILE = "rec/test/b/0.mp4"
MUX_AWAY = Availability(outages={"mux": Outage(since=T0 - seconds(600))}, storage=True)
RECORDING = Fallback(
    modes=(FallbackMode.LOCAL_RECORDING,), reason=FallbackReason.STREAMS_UNREACHABLE, since=T0 - seconds(60)
)


def a_recording(**fields: Any) -> LocalRecording:
    given: dict[str, Any] = {
        "ordinal": 0,
        "phase": Phase.PRESENT,
        "external_id": "f",
        "intended_at": LONG_AGO,
        "changed_at": LONG_AGO,
        "observed_at": T0,
        "file": FILE,
        "status": EgressStatus.ACTIVE,
        "status_since": LONG_AGO,
        **fields,
    }
    return LocalRecording(**given)


WRITTEN = a_recording(phase=Phase.GONE, status=EgressStatus.COMPLETE, end_seen=True)


def an_upload(**fields: Any) -> Upload:
    given: dict[str, Any] = {
        "ordinal": 0,
        "phase": Phase.PRESENT,
        "external_id": "A1",
        "intended_at": LONG_AGO,
        "changed_at": T0 - seconds(10),
        "observed_at": T0,
        "recording": Recording(asset_id="A1", uploaded=True),
        **fields,
    }
    return Upload(**given)


def a_file(status: EgressStatus, id: str = "f", **fields: Any) -> EgressSeen:
    given: dict[str, Any] = {"file": FILE, "updated_ns": 5, **fields}
    return EgressSeen(id=id, room_name="b", status=status, **given)


def recording_live(**fields: Any) -> Broadcast:
    return live(live_time=LONG_AGO, fallback=RECORDING, **fields)


def planned(
    broadcast: Broadcast, *resources: AnyResource, availability: Availability = MUX_AWAY, after_s: float = 0
) -> Plan:
    return plan(broadcast, resources, T0 + seconds(after_s), TIMING, availability)


def looks(broadcast: Broadcast, *resources: AnyResource, after_s: float = 0) -> set[tuple[Kind, int]]:
    return set(to_observe(broadcast, resources, T0 + seconds(after_s), TIMING))


def reasons(learned: Learned) -> list[str]:
    return [event.reason for event in learned.events]


def of_recordings(current: Plan) -> tuple[object, ...]:
    steps = (StartRecording, StopRecording, UploadRecording, DeleteUpload, WriteOff, SettleRecordings)
    return tuple(step for step in current.steps if isinstance(step, steps))


PLAYING = (a_room(), a_stream(status=StreamStatus.ACTIVE), an_egress(delivering_since=LONG_AGO))


# Seen.


def test_a_file_egress_is_told_by_its_file_when_its_start_was_not_answered() -> None:
    unknown = a_recording(phase=Phase.UNKNOWN, external_id="", status=EgressStatus.UNKNOWN, failures=2)
    listed = [a_file(EgressStatus.ACTIVE, "other", file="rec/test/b/1.mp4"), a_file(EgressStatus.ACTIVE)]
    learned = recordings_seen([unknown], listed, now=T0, timing=TIMING)
    [found] = learned.resources
    assert (found.phase, found.external_id, found.failures, found.changed_at) == (Phase.PRESENT, "f", 0, T0)
    assert (reasons(learned), learned.adopted) == (["RECORDING_ADOPTED"], 1)
    none = recordings_seen([unknown], listed[:1], now=T0, timing=TIMING)
    assert none.resources == (replace(unknown, observed_at=T0),)


def test_one_that_was_found_when_it_had_ended_is_both() -> None:
    unknown = a_recording(phase=Phase.UNKNOWN, external_id="")
    learned = recordings_seen([unknown], [a_file(EgressStatus.COMPLETE, file_bytes=9)], now=T0, timing=TIMING)
    [found] = learned.resources
    assert isinstance(found, LocalRecording)
    assert (found.phase, found.complete, found.file_bytes) == (Phase.GONE, True, 9)
    assert reasons(learned) == ["RECORDING_ADOPTED", "RECORDING_WRITTEN"]


def test_one_that_was_written_off_and_came_all_the_same_is_ours_again_and_is_stopped() -> None:
    lost = a_recording(phase=Phase.GONE, external_id="", status=EgressStatus.UNKNOWN, acked=True, retry_at=T0)
    [back] = recordings_seen([lost], [a_file(EgressStatus.ACTIVE)], now=T0, timing=TIMING).resources
    assert (back.phase, back.external_id, back.acked, back.retry_at) == (Phase.PRESENT, "f", False, None)
    assert of_recordings(planned(live(), *PLAYING, back)) == (StopRecording(ordinal=0),)
    # With another one in its place, that one stays.
    beside = a_recording(ordinal=1, external_id="g", file="rec/test/b/1.mp4")
    assert of_recordings(planned(recording_live(), *PLAYING, back, beside)) == (StopRecording(ordinal=0),)
    # Once it was seen to end it is over.
    assert recordings_seen([WRITTEN], [a_file(EgressStatus.COMPLETE)], now=T0, timing=TIMING) == Learned()


@pytest.mark.parametrize(
    ("status", "reason", "complete"),
    [
        (EgressStatus.COMPLETE, "RECORDING_WRITTEN", True),
        # Of a session that was as long as it may be: the file is there.
        (EgressStatus.LIMIT_REACHED, "RECORDING_WRITTEN", True),
        (EgressStatus.FAILED, "RECORDING_FAILED", False),
        (EgressStatus.ABORTED, "RECORDING_FAILED", False),
    ],
)
def test_an_end_makes_a_file_or_none(status: EgressStatus, reason: str, complete: bool) -> None:  # noqa: FBT001
    learned = local_recording_seen(a_recording(), a_file(status), T0)
    [now] = learned.resources
    assert isinstance(now, LocalRecording)
    assert (reasons(learned), now.complete, now.phase) == ([reason], complete, Phase.GONE)
    assert (now.retry_at is None) is complete


def test_an_older_report_changes_nothing() -> None:
    held = a_recording(updated_ns=6, status=EgressStatus.ENDING)
    [now] = local_recording_seen(held, a_file(EgressStatus.ACTIVE), T0 + seconds(1)).resources
    assert now == replace(held, observed_at=T0 + seconds(1))


def test_one_that_is_listed_no_more_is_lost_but_not_before_a_list_must_show_it() -> None:
    young = a_recording(changed_at=T0 - seconds(1))
    assert recordings_seen([young], [], now=T0, timing=TIMING).resources[0].phase is Phase.PRESENT
    [absent] = recordings_seen([a_recording()], [], now=T0, timing=TIMING).resources
    assert isinstance(absent, LocalRecording)
    assert (absent.phase, absent.absent_since) == (Phase.PRESENT, T0)
    later = T0 + seconds(TIMING.absence_s)
    learned = recordings_seen([absent], [], now=later, timing=TIMING)
    assert recordings_seen([a_recording()], [], now=T0, timing=TIMING, unknown={"f"}).events == learned.events
    [lost] = learned.resources
    assert isinstance(lost, LocalRecording)
    assert (lost.phase, lost.complete, reasons(learned)) == (Phase.GONE, False, ["RECORDING_LOST"])


def test_an_upload_without_an_answer_is_found_by_its_mark_the_oldest_first() -> None:
    unknown = an_upload(phase=Phase.UNKNOWN, external_id="", recording=None, failures=1, retry_at=T0)
    assert upload_found(unknown, [], T0, TIMING).resources == (replace(unknown, observed_at=T0),)
    learned = upload_found(unknown, [Recording(asset_id="A1"), Recording(asset_id="A2")], T0, TIMING)
    [found] = learned.resources
    assert found == uploaded(unknown, Recording(asset_id="A1"), T0)
    assert isinstance(found, Upload)
    assert found.recording == Recording(asset_id="A1", uploaded=True)
    assert (found.phase, found.external_id, found.failures, found.retry_at) == (Phase.PRESENT, "A1", 0, None)


# The file egress.


def test_it_runs_while_it_is_asked_for_and_a_host_publishes() -> None:
    assert of_recordings(planned(recording_live(), *PLAYING)) == (StartRecording(ordinal=0),)
    nobody = (a_room(host_publishing=False, host_since=T0), *PLAYING[1:])
    assert of_recordings(planned(recording_live(), *nobody)) == ()
    assert of_recordings(planned(recording_live(), *PLAYING, a_recording())) == ()
    assert of_recordings(planned(live(), *PLAYING, a_recording())) == (StopRecording(ordinal=0),)


def test_one_that_failed_is_replaced_after_its_back_off_and_not_for_ever() -> None:
    failed = a_recording(
        phase=Phase.GONE, status=EgressStatus.FAILED, end_seen=True, intended_at=T0, retry_at=T0 + seconds(4)
    )
    current = planned(recording_live(), *PLAYING, failed)
    assert (of_recordings(current), current.wait_until) == ((), T0 + seconds(4))
    assert of_recordings(planned(recording_live(), *PLAYING, failed, after_s=4)) == (StartRecording(ordinal=1),)
    many = [replace(failed, ordinal=n, external_id=f"f{n}") for n in range(TIMING.starts_limit)]
    assert of_recordings(planned(recording_live(), *PLAYING, *many, after_s=9)) == ()
    later = planned(recording_live(), *PLAYING, *many, after_s=TIMING.starts_window_s)
    assert of_recordings(later) == (StartRecording(ordinal=TIMING.starts_limit),)


@pytest.mark.parametrize(
    ("fields", "within"),
    [
        ({"status": EgressStatus.STARTING, "intended_at": T0}, TIMING.egress_start_s),
        ({"status": EgressStatus.ENDING, "status_since": T0}, TIMING.file_stop_s),
    ],
)
def test_one_that_does_not_get_on_is_stopped_after_a_look(fields: dict[str, Any], within: float) -> None:
    recording = a_recording(**fields)
    early = planned(recording_live(), *PLAYING, recording, after_s=within - 1)
    assert of_recordings(early) == ()
    looked = replace(recording, observed_at=T0 + seconds(within))
    assert of_recordings(planned(recording_live(), *PLAYING, looked, after_s=within)) == (StopRecording(ordinal=0),)
    # But not because nobody could look.
    assert of_recordings(planned(recording_live(), *PLAYING, recording, after_s=within)) == ()


def test_what_is_ending_has_time_to_put_its_file_into_the_storage() -> None:
    leaving = a_recording(phase=Phase.DELETING, acked=True, changed_at=T0, status=EgressStatus.ENDING)
    for broadcast in (live(), ended()):
        soon = replace(leaving, observed_at=T0 + seconds(TIMING.egress_stop_s + 1))
        current = planned(broadcast, *PLAYING, soon, after_s=TIMING.egress_stop_s + 1)
        assert of_recordings(current) == ()
        assert not current.done
        late = replace(leaving, observed_at=T0 + seconds(TIMING.file_stop_s))
        [step] = of_recordings(planned(broadcast, *PLAYING, late, after_s=TIMING.file_stop_s))
        assert isinstance(step, WriteOff)
    deaf = replace(leaving, status=EgressStatus.ACTIVE, observed_at=T0 + seconds(TIMING.egress_stop_s))
    [step] = of_recordings(planned(live(), *PLAYING, deaf, after_s=TIMING.egress_stop_s))
    assert isinstance(step, WriteOff)


def test_one_nobody_told_to_stop_is_not_written_off() -> None:
    leaving = a_recording(phase=Phase.DELETING)
    assert of_recordings(planned(live(), *PLAYING, leaving)) == (StopRecording(ordinal=0),)
    assert of_recordings(planned(live(), *PLAYING, replace(leaving, retry_at=T0 + seconds(5)))) == ()


def test_a_start_without_an_answer_is_looked_for_and_written_off() -> None:
    unknown = a_recording(phase=Phase.UNKNOWN, external_id="", intended_at=T0, observed_at=None)
    broadcast = recording_live()
    assert looks(broadcast, *PLAYING, unknown) == {(Kind.RECORDING, 0)}
    waiting = planned(broadcast, *PLAYING, replace(unknown, observed_at=T0))
    assert (of_recordings(waiting), waiting.wait_until) == ((), T0 + seconds(TIMING.lookup_s))
    looked = replace(unknown, observed_at=T0 + seconds(TIMING.egress_grace_s))
    [step] = of_recordings(planned(broadcast, *PLAYING, looked, after_s=TIMING.egress_grace_s))
    assert isinstance(step, WriteOff)


@pytest.mark.parametrize("phase", [Phase.PRESENT, Phase.DELETING, Phase.UNKNOWN, Phase.INTENDED])
def test_nothing_is_over_while_one_may_run(phase: Phase) -> None:
    current = planned(ended(), a_recording(phase=phase, intended_at=T0, changed_at=T0))
    assert not current.done
    assert current.wait_until is not None


# Uploads.


def test_a_file_is_uploaded_once_when_it_is_complete_and_mux_answers() -> None:
    well = Availability(storage=True)
    for broadcast in (live(), ended()):
        assert of_recordings(planned(broadcast, WRITTEN, *PLAYING, availability=well))[-1:] == (
            UploadRecording(ordinal=0),
        )
        for upload in (
            an_upload(),
            an_upload(phase=Phase.INTENDED, intended_at=T0, recording=None),
            an_upload(phase=Phase.UNKNOWN, intended_at=T0, recording=None),
            an_upload(phase=Phase.GONE, refused=True, recording=None),
            an_upload(phase=Phase.GONE, retry_at=T0 + seconds(1), recording=None),
            an_upload(recording=Recording(asset_id="A1", status=RecordingStatus.ERRORED, uploaded=True)),
        ):
            current = planned(broadcast, WRITTEN, *PLAYING, upload, availability=well)
            assert not [step for step in current.steps if isinstance(step, UploadRecording)], upload
        again = an_upload(phase=Phase.GONE, retry_at=T0, recording=None)
        assert UploadRecording(ordinal=0) in planned(broadcast, WRITTEN, *PLAYING, again, availability=well).steps


def errored(asset_id: str = "A1", message: str = "no download") -> Recording:
    return Recording(asset_id=asset_id, status=RecordingStatus.ERRORED, message=message)


@pytest.mark.parametrize("broadcast", [live(), ended()], ids=["live", "ended"])
def test_what_mux_cannot_make_is_deleted_and_made_again_a_few_times(broadcast: Broadcast) -> None:
    """The row holds one asset at a time: the next is not made before the last was seen absent."""
    availability = Availability(storage=True)

    def plan_of(upload: Upload, at: float = 0) -> tuple[object, ...]:
        steps = planned(broadcast, WRITTEN, *PLAYING, upload, availability=availability, after_s=at).steps
        return tuple(step for step in steps if isinstance(step, UploadRecording | DeleteUpload))

    upload = an_upload()
    for attempt, wait in ((1, 60), (2, 300)):
        learned = upload_checked(upload, errored(), T0, TIMING)
        [left] = learned.resources
        assert isinstance(left, Upload)
        assert [event.reason for event in learned.events] == ["UPLOAD_ERRORED"]
        assert learned.events[0].message == f"attempt {attempt} of 3: no download"
        assert (left.phase, left.external_id, left.recording, left.errored) == (Phase.DELETING, "A1", None, attempt)
        assert plan_of(left) == (DeleteUpload(ordinal=0),)
        told = replace(left, acked=True, changed_at=T0 + seconds(1))
        assert plan_of(told, at=1) == ()
        assert looks(broadcast, told, after_s=1) == {(Kind.UPLOAD, 0)}
        [still] = upload_checked(told, errored(), T0, TIMING).resources
        assert still.phase is Phase.DELETING
        assert plan_of(replace(told, observed_at=T0 + seconds(60)), at=60) == (DeleteUpload(ordinal=0),)
        [gone] = upload_checked(told, None, T0, TIMING).resources
        assert isinstance(gone, Upload)
        assert (gone.phase, gone.external_id, gone.retry_at) == (Phase.GONE, "", T0 + seconds(wait))
        assert (plan_of(gone), plan_of(gone, at=wait)) == ((), (UploadRecording(ordinal=0),))
        upload = an_upload(errored=attempt)
    last = upload_checked(upload, errored(message="no video"), T0, TIMING)
    [kept] = last.resources
    assert isinstance(kept, Upload)
    assert kept.recording == replace(errored(message="no video"), uploaded=True)
    assert (kept.phase, [(event.reason, event.message) for event in last.events]) == (
        Phase.PRESENT,
        [("RECORDING_ERRORED", "no video")],
    )
    assert plan_of(kept) == ()


def test_an_upload_that_somebody_deleted_is_not_made_again() -> None:
    [lost] = upload_checked(an_upload(), None, T0, TIMING).resources
    assert isinstance(lost, Upload)
    assert lost.recording is not None
    assert (lost.phase, lost.recording.status) == (Phase.PRESENT, RecordingStatus.ERRORED)
    assert upload_checked(lost, errored(), T0 + seconds(9), TIMING).events == ()


def test_one_that_is_found_and_is_errored_already_is_made_again_too() -> None:
    unknown = an_upload(phase=Phase.UNKNOWN, external_id="", recording=None)
    learned = upload_found(unknown, [errored()], T0, TIMING)
    [found] = learned.resources
    assert (found.phase, found.external_id, reasons(learned)) == (
        Phase.DELETING,
        "A1",
        ["UPLOAD_ADOPTED", "UPLOAD_ERRORED"],
    )
    ready = upload_found(unknown, [replace(errored(), status=RecordingStatus.READY)], T0, TIMING)
    assert reasons(ready) == ["UPLOAD_ADOPTED", "RECORDING_READY"]


def test_callers_are_told_of_no_upload_while_it_is_made_again() -> None:
    """It is not at Mux then, and ERRORED would be the last word."""
    [left] = upload_checked(an_upload(), errored(), T0, TIMING).resources
    assert status_of(ended(), (WRITTEN, left), Plan(done=True), T0)[1].recordings == ()


@pytest.mark.parametrize(
    "recording",
    [
        a_recording(),
        a_recording(phase=Phase.GONE, status=EgressStatus.FAILED, end_seen=True),
        # Written off: nobody saw it end.
        a_recording(phase=Phase.GONE, status=EgressStatus.ENDING),
    ],
)
def test_without_a_file_there_is_no_upload(recording: LocalRecording) -> None:
    for broadcast in (live(), ended()):
        assert (
            UploadRecording(ordinal=0)
            not in planned(broadcast, recording, availability=Availability(storage=True)).steps
        )


def test_what_is_over_waits_for_mux_and_does_not_forget_the_file() -> None:
    waiting = planned(ended(), WRITTEN)
    assert waiting.done
    assert waiting.steps == ()
    assert waiting.wait_until == T0 + seconds(TIMING.replan_s)
    assert planned(ended(), WRITTEN, an_upload()).wait_until is not None
    ready = Recording(asset_id="A1", status=RecordingStatus.READY, uploaded=True)
    assert planned(ended(), WRITTEN, an_upload(recording=ready)).wait_until is None


def test_an_upload_without_an_answer_is_looked_for_less_and_less_often() -> None:
    """Each look reads a list of assets."""
    for broadcast in (live(), ended()):
        for age, every in ((1, 5), (100, 25), (400, 100)):
            unknown = an_upload(phase=Phase.UNKNOWN, recording=None, intended_at=T0 - seconds(age), observed_at=T0)
            assert planned(broadcast, WRITTEN, unknown, *PLAYING).wait_until == T0 + seconds(every)
            assert looks(broadcast, unknown, after_s=every - 0.1) == set()
            assert looks(broadcast, unknown, after_s=every) == {(Kind.UPLOAD, 0)}
            # One that fails is not repeated at once.
            failed = planned(broadcast, WRITTEN, unknown, *PLAYING, after_s=every).wait_until
            assert failed == T0 + seconds(every + max((age + every) / 4, 5))
        over = replace(unknown, intended_at=T0 - seconds(TIMING.upload_grace_s))
        [step] = [s for s in of_recordings(planned(broadcast, WRITTEN, over, *PLAYING)) if isinstance(s, WriteOff)]
        assert step == WriteOff(kind=Kind.UPLOAD, ordinal=0, why="no list showed it within its grace")


def test_what_is_deleted_waits_for_nothing() -> None:
    deleted = replace(ended(), deleted=True)
    for upload in (an_upload(), an_upload(phase=Phase.UNKNOWN, recording=None)):
        current = planned(deleted, WRITTEN, upload, availability=Availability(storage=True))
        assert (current.done, current.steps, current.wait_until) == (True, (), None)
    assert looks(replace(deleted, dirty_at=T0 + seconds(1)), LEFT, an_upload(), after_s=999) == set()


# Recordings after the end.

LEFT = a_stream(
    phase=Phase.GONE,
    changed_at=T0 - seconds(40),
    observed_at=T0,
    fed_at=LONG_AGO,
    disabled=True,
    recordings=(Recording(asset_id="A1"),),
    recordings_settled=True,
)


def test_a_recording_is_asked_for_often_at_first_and_rarely_later() -> None:
    for age, every in ((0, 5), (40, 10), (400, 100), (40_000, 300)):
        stream = replace(LEFT, changed_at=T0 - seconds(age))
        current = planned(ended(), stream)
        assert (current.done, current.wait_until) == (True, T0 + seconds(every))
        assert looks(ended(), stream, after_s=every - 0.1) == set()
        assert looks(ended(), stream, after_s=every) == {(Kind.STREAM, 0)}


@pytest.mark.parametrize("row", [LEFT, an_upload(changed_at=T0 - seconds(40), phase=Phase.PRESENT)])
def test_a_look_that_fails_is_not_repeated_at_once(row: AnyResource) -> None:
    """With Mux away for hours, everything that ended in them would be looked at every other second."""
    for overdue, every in ((10, 12.5), (760, 200), (100_000, 300)):
        assert planned(ended(), row, after_s=overdue).wait_until == T0 + seconds(overdue + every)


def test_a_hint_is_looked_at_at_once() -> None:
    assert looks(replace(ended(), dirty_at=T0 + seconds(1)), LEFT, after_s=1) == {(Kind.STREAM, 0)}
    assert looks(replace(ended(), dirty_at=T0), LEFT, after_s=1) == set()


@pytest.mark.parametrize("status", [RecordingStatus.READY, RecordingStatus.ERRORED])
def test_what_is_settled_rests(status: RecordingStatus) -> None:
    settled = replace(LEFT, recordings=(Recording(asset_id="A1", status=status),))
    current = planned(ended(), settled)
    assert (current.done, current.steps, current.wait_until) == (True, (), None)
    assert looks(replace(ended(), dirty_at=T0 + seconds(1)), settled, after_s=9999) == set()


def test_a_recording_that_is_gone_or_never_done_is_errored() -> None:
    since = T0 - seconds(60)
    for seen, now, message in (
        (None, T0, "it does not exist at Mux any more"),
        (Recording(asset_id="A1"), since + seconds(TIMING.recording_wait_s + 1), "Mux did not finish it in time"),
    ):
        checked, events = recording_checked(Recording(asset_id="A1"), seen, since=since, now=now, timing=TIMING)
        assert (checked.status, checked.message) == (RecordingStatus.ERRORED, message)
        assert [event.reason for event in events] == ["RECORDING_ERRORED"]
    ready = Recording(asset_id="A1", playback_id="PB", status=RecordingStatus.READY)
    late = since + seconds(TIMING.recording_wait_s + 1)
    checked, events = recording_checked(
        Recording(asset_id="A1", uploaded=True), ready, since=since, now=late, timing=TIMING
    )
    assert (checked, [event.reason for event in events]) == (replace(ready, uploaded=True), ["RECORDING_READY"])


# A live stream that somebody else deleted.


def test_what_a_lost_stream_recorded_is_listed_all_the_same() -> None:
    held = a_stream(status=StreamStatus.ACTIVE, active_asset_id="A2", fed_at=LONG_AGO)
    [lost] = stream_seen(held, None, T0).resources
    assert [step for step in planned(live(), a_room(), lost).steps if isinstance(step, SettleRecordings)] == []
    failed = replace(ended(), end_reason=EndReason.STREAM_LOST)
    current = planned(failed, lost)
    assert (current.done, current.steps) == (True, (SettleRecordings(ordinal=0),))
    backing_off = planned(failed, replace(lost, failures=1, retry_at=T0 + seconds(7)))
    assert (backing_off.steps, backing_off.wait_until) == ((), T0 + seconds(5))
    assert planned(replace(failed, deleted=True), lost).steps == ()
    settled = replace(lost, recordings=(), recordings_settled=True)  # type: ignore[call-arg]
    assert (planned(failed, settled).steps, planned(failed, settled).wait_until) == ((), None)


def test_one_that_was_deleted_before_anybody_saw_it_active_may_have_recorded() -> None:
    failed = replace(ended(), end_reason=EndReason.STREAM_LOST)
    lost, over = a_stream(phase=Phase.GONE, fed_at=None), an_egress(phase=Phase.GONE, end_seen=True)
    assert planned(failed, lost, over).steps == (SettleRecordings(ordinal=0),)


@pytest.mark.parametrize("never", [{"external_id": "", "fed_at": None}, {"fed_at": None}])
def test_what_was_never_fed_recorded_nothing(never: dict[str, Any]) -> None:
    assert planned(ended(), a_stream(phase=Phase.GONE, **never)).steps == ()


# Told.


def test_callers_are_told_of_every_recording_and_the_end_is_the_end() -> None:
    ready = Recording(asset_id="A1", playback_id="PB", status=RecordingStatus.READY)
    up = an_upload()
    state, status = status_of(ended(), (replace(LEFT, recordings=(ready,)), WRITTEN, up), Plan(done=True), T0)
    assert state is State.ENDED
    assert status.recordings == (ready, up.recording)
    busy = a_recording(phase=Phase.DELETING)
    assert status_of(ended(), (LEFT, busy), Plan(), T0)[0] is State.STOPPING
    assert ended().target is Target.ENDED
