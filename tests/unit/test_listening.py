"""What webhooks change at once, and what they must not."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from service.domain.broadcast import seconds
from service.domain.observing.learned import Learned
from service.domain.observing.webhook_facts import listen
from service.domain.planning.plan import plan
from service.domain.planning.steps import CutStream, StartEgress
from service.domain.planning.what_to_observe import to_observe
from service.domain.ports import EgressSeen, Heard, OutputSeen, StreamSeen
from service.domain.reasons import Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.secret import NO_SECRET, Secret
from service.domain.timing import Timing
from tests.unit.test_plan import LONG_AGO, T0, a_room, a_stream, an_egress, live, starting

TIMING = Timing()
ADDRESS = "rtmps://global-live.mux.com:443/app/{abc...xyz}"
BEFORE = T0 - seconds(10)
STREAM = a_stream(observed_at=BEFORE, key=Secret("key"), playback_id="PB")


def heard(*said: Heard, resources: Sequence[AnyResource], now: datetime = T0) -> Learned:
    return listen(resources, said, lambda egress: {ADDRESS: [""]} if egress.external_id else {}, now, TIMING)


def about_egress(status: EgressStatus, updated_ns: int, id: str = "e", **fields: Any) -> Heard:
    outputs = (OutputSeen(address=ADDRESS, state=OutputState.ACTIVE),) if status is EgressStatus.ACTIVE else ()
    given: dict[str, Any] = {"outputs": outputs, **fields}
    seen = EgressSeen(id=id, room_name="b", status=status, updated_ns=updated_ns, **given)
    return Heard(event_id=f"{id}-{updated_ns}", type="egress_updated", provider_time=T0, egress=seen)


def about_stream(status: StreamStatus | None, at: datetime | None, **fields: Any) -> Heard:
    seen = None
    if status is not None:
        seen = StreamSeen(id="s", tag="bs1:test:b:0", status=status, created_at=LONG_AGO, key=NO_SECRET)
    given: dict[str, Any] = {"stream_id": "s", **fields}
    return Heard(event_id=f"{status} {at}", type="video.live_stream", provider_time=at, stream=seen, **given)


def about_asset(status: RecordingStatus, id: str = "A1", **fields: Any) -> Heard:
    said = Recording(asset_id=id, status=status, **fields)
    return Heard(event_id=f"{id} {status}", type="video.asset", provider_time=T0, recording=said)


def after(learned: Learned, resources: Sequence[AnyResource]) -> list[AnyResource]:
    rows = {(row.kind, row.ordinal): row for row in (*resources, *learned.resources)}
    return list(rows.values())


def reasons(learned: Learned) -> list[str]:
    return [event.reason for event in learned.events]


# Egresses.


def test_an_egress_is_followed_as_soon_as_it_is_heard_of() -> None:
    new = starting(updated_ns=5, observed_at=BEFORE)
    learned = heard(about_egress(EgressStatus.ACTIVE, 6), resources=[new])
    [now] = learned.resources
    assert isinstance(now, Egress)
    assert (now.status, now.delivering, now.updated_ns) == (EgressStatus.ACTIVE, True, 6)
    assert reasons(learned) == ["EGRESS_ACTIVE", "EGRESS_CONNECTED"]
    assert now.observed_at == BEFORE, "it was heard of, nobody looked"


@pytest.mark.parametrize("updated_ns", [4, 5])
def test_what_is_not_newer_changes_nothing(updated_ns: int) -> None:
    assert heard(about_egress(EgressStatus.STARTING, updated_ns), resources=[an_egress(updated_ns=5)]) == Learned()


def test_one_that_is_delivered_twice_is_told_once() -> None:
    once = about_egress(EgressStatus.FAILED, 6, error="rtmp")
    assert reasons(heard(once, once, resources=[an_egress(updated_ns=5)])) == ["EGRESS_ENDED"]


def test_an_end_is_believed() -> None:
    [ended] = heard(about_egress(EgressStatus.FAILED, 6, error="rtmp"), resources=[an_egress()]).resources
    assert isinstance(ended, Egress)
    assert (ended.phase, ended.end_seen, ended.fault, ended.error) == (Phase.GONE, True, "FAILED", "rtmp")
    asked = an_egress(phase=Phase.DELETING, fault=Fault.NONE)
    learned = heard(about_egress(EgressStatus.COMPLETE, 6), resources=[asked])
    [stopped] = learned.resources
    assert isinstance(stopped, Egress)
    assert (stopped.phase, stopped.fault, reasons(learned)) == (Phase.GONE, "", ["EGRESS_STOPPED"])


@pytest.mark.parametrize(
    "row",
    [
        an_egress(external_id="other"),
        an_egress(external_id="", phase=Phase.UNKNOWN),
        an_egress(phase=Phase.GONE, end_seen=True),
        a_room(external_id="e"),
    ],
    ids=["another", "not known yet", "gone", "room"],
)
def test_what_is_of_another_changes_nothing(row: AnyResource) -> None:
    assert heard(about_egress(EgressStatus.FAILED, 6), resources=[row]) == Learned()


def test_a_local_recording_is_complete_when_it_is_heard_to_be() -> None:
    running = LocalRecording(
        ordinal=0,
        phase=Phase.DELETING,
        external_id="f",
        intended_at=LONG_AGO,
        changed_at=BEFORE,
        observed_at=BEFORE,
        file="rec/b/0.mp4",
        status=EgressStatus.ENDING,
    )
    said = about_egress(EgressStatus.COMPLETE, 6, id="f", file="rec/b/0.mp4", file_bytes=77, file_duration_s=3.5)
    learned = heard(said, resources=[running])
    [now] = learned.resources
    assert isinstance(now, LocalRecording)
    assert (now.phase, now.complete, now.file_bytes, now.duration_s) == (Phase.GONE, True, 77, 3.5)
    assert (reasons(learned), now.observed_at) == (["RECORDING_WRITTEN"], BEFORE)


# The live stream.


def test_a_live_stream_is_what_it_is_heard_to_be() -> None:
    learned = heard(about_stream(StreamStatus.ACTIVE, T0 - seconds(1), connected=True), resources=[STREAM])
    [now] = learned.resources
    assert isinstance(now, Stream)
    assert (now.status, now.status_since, now.connected) == (StreamStatus.ACTIVE, T0, True)
    assert (now.heard_at, now.connected_at, now.observed_at) == (T0 - seconds(1), T0 - seconds(1), BEFORE)
    assert (now.key, now.playback_id) == (Secret("key"), "PB"), "what a webhook does not carry stays"
    assert reasons(learned) == ["STREAM_ACTIVE"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (STREAM, about_stream(StreamStatus.ACTIVE, BEFORE)),
        (replace(STREAM, heard_at=T0), about_stream(StreamStatus.ACTIVE, T0)),
        (STREAM, about_stream(StreamStatus.ACTIVE, None)),
        (STREAM, about_stream(StreamStatus.ACTIVE, T0, stream_id="other")),
        (replace(STREAM, phase=Phase.DELETING), about_stream(StreamStatus.ACTIVE, T0)),
        (replace(STREAM, phase=Phase.GONE), about_stream(StreamStatus.ACTIVE, T0)),
        (replace(STREAM, external_id="", phase=Phase.UNKNOWN), about_stream(StreamStatus.ACTIVE, T0, stream_id="")),
    ],
    ids=["older than a look", "heard before", "of no time", "another", "leaving", "gone", "not known yet"],
)
def test_what_is_old_or_of_another_stream_changes_nothing(row: Stream, said: Heard) -> None:
    assert heard(said, resources=[row]) == Learned()


def test_only_a_connection_may_be_heard_of() -> None:
    [now] = heard(about_stream(None, T0, connected=False), resources=[replace(STREAM, connected=True)]).resources
    assert isinstance(now, Stream)
    assert (now.connected, now.connected_at, now.status) == (False, T0, StreamStatus.IDLE)
    # Such as one of a simulcast target, which does not know.
    [later] = heard(about_stream(None, T0 + seconds(1)), resources=[now]).resources
    assert isinstance(later, Stream)
    assert (later.connected, later.connected_at, later.heard_at) == (False, T0, T0 + seconds(1))


def test_a_connection_is_not_heard_of_before_it_was() -> None:
    """The database's clock was set back, and is behind the provider's. An encoder that left before its successor came
    must not seem to have left after it.
    """
    [now] = heard(about_stream(None, T0 + seconds(300), connected=False), resources=[STREAM]).resources
    assert isinstance(now, Stream)
    assert (now.connected, now.connected_at, now.heard_at) == (False, T0, T0 + seconds(300))


def test_no_order_of_arrival_makes_a_difference() -> None:
    said = [
        about_stream(StreamStatus.ACTIVE, T0 - seconds(5), connected=True),
        about_stream(None, T0 - seconds(4), connected=False),
        about_stream(StreamStatus.IDLE, T0 - seconds(3)),
        about_stream(StreamStatus.ACTIVE, T0 - seconds(1), connected=True),
        about_egress(EgressStatus.ACTIVE, 6),
        about_egress(EgressStatus.ENDING, 7),
        about_egress(EgressStatus.FAILED, 8, error="rtmp"),
    ]
    rows = [STREAM, starting(updated_ns=5)]
    whole = after(heard(*said, resources=rows), rows)
    for seed in range(50):
        mixed = random.Random(seed).sample(said * 2, 14)
        held: list[AnyResource] = list(rows)
        # One by one, as passes may take them in.
        for each in mixed:
            held = after(heard(each, resources=held), held)
        assert [replace(row, delivering_since=None) if isinstance(row, Egress) else row for row in held] == [
            replace(row, delivering_since=None) if isinstance(row, Egress) else row for row in whole
        ], mixed


# Hints are no looks.


def test_a_word_of_silence_frees_nobody_who_may_be_connected() -> None:
    """Idle at 12:00, fed again at 12:01 by one that was written off at 12:02: two would publish."""
    deaf = an_egress(phase=Phase.GONE, changed_at=T0 - seconds(2), key_epoch=0)
    stream = replace(STREAM, key_epoch=1, key_reset_at=T0 - seconds(1), status=StreamStatus.ACTIVE)
    rows = [a_room(), stream, deaf]
    now = after(heard(about_stream(StreamStatus.IDLE, T0 - seconds(5)), resources=rows), rows)
    [held] = ResourceSet(now).streams
    assert ResourceSet(now).may_be_connected(deaf, held)
    # The look that follows finds it active again.
    looked = [replace(row, status=StreamStatus.ACTIVE, observed_at=T0) if row is held else row for row in now]
    steps = plan(live(), looked, T0, TIMING).steps
    assert steps == (CutStream(ordinal=0),)
    assert not [step for step in steps if isinstance(step, StartEgress)]


def test_media_that_were_heard_of_do_not_shorten_the_wait_for_media() -> None:
    [now] = heard(about_stream(StreamStatus.ACTIVE, T0), resources=[STREAM]).resources
    assert isinstance(now, Stream)
    assert now.fed_at is None


def test_disabled_is_for_a_look_to_say() -> None:
    """Such as the word of our own cut, which arrives when it is enabled again; and then the look fails."""
    rows = [a_room(), replace(STREAM, status=StreamStatus.ACTIVE), an_egress(delivering_since=LONG_AGO)]
    now = after(heard(about_stream(StreamStatus.DISABLED, T0), resources=rows), rows)
    assert ResourceSet(now).streams[0].status is StreamStatus.ACTIVE
    assert plan(live(live_time=LONG_AGO), now, T0, TIMING).steps == ()


def test_what_was_heard_leaves_the_look_due() -> None:
    broadcast = live(dirty_at=T0)
    rows = [a_room(), STREAM, an_egress(observed_at=BEFORE, delivering_since=LONG_AGO)]
    said = [about_stream(StreamStatus.ACTIVE, T0), about_egress(EgressStatus.ACTIVE, 6)]
    now = after(heard(*said, resources=rows), rows)
    assert to_observe(broadcast, now, T0, TIMING) >= {(Kind.STREAM, 0), (Kind.EGRESS, 0)}


# Recordings.

PREPARING = Recording(asset_id="A1")
OVER = replace(STREAM, phase=Phase.GONE, recordings=(Recording(asset_id="A0"), PREPARING), recordings_settled=True)


def test_a_recording_is_ready_as_soon_as_it_is_heard_to_be() -> None:
    learned = heard(about_asset(RecordingStatus.READY, playback_id="PB1", duration_s=9.5), resources=[OVER])
    [now] = learned.resources
    assert isinstance(now, Stream)
    assert now.recordings[0] == OVER.recordings[0]
    ready = now.recordings[1]
    assert (ready.status, ready.playback_id, ready.duration_s) == (RecordingStatus.READY, "PB1", 9.5)
    assert reasons(learned) == ["RECORDING_READY"]
    assert heard(about_asset(RecordingStatus.ERRORED), resources=[now]) == Learned(), "it stays what it became"


@pytest.mark.parametrize(
    "said",
    [about_asset(RecordingStatus.READY, "other"), about_asset(RecordingStatus.PREPARING), about_stream(None, T0)],
)
def test_what_says_nothing_new_of_a_recording_changes_nothing(said: Heard) -> None:
    assert heard(said, resources=[OVER]) == Learned()


def test_a_live_stream_that_is_there_lists_its_recordings_itself() -> None:
    present = replace(OVER, phase=Phase.PRESENT)
    assert heard(about_asset(RecordingStatus.READY), resources=[present]) == Learned()


def test_an_upload_is_ready_as_soon_as_it_is_heard_to_be() -> None:
    uploading = Upload(
        ordinal=2,
        phase=Phase.PRESENT,
        external_id="A1",
        intended_at=LONG_AGO,
        changed_at=BEFORE,
        observed_at=BEFORE,
        recording=replace(PREPARING, uploaded=True),
    )
    [now] = heard(about_asset(RecordingStatus.READY, playback_id="PB"), resources=[uploading]).resources
    assert now == replace(
        uploading,
        recording=Recording(asset_id="A1", playback_id="PB", status=RecordingStatus.READY, uploaded=True),
    )
    [again] = heard(about_asset(RecordingStatus.ERRORED), resources=[uploading]).resources
    assert isinstance(again, Upload)
    assert (again.phase, again.errored, again.observed_at) == (Phase.DELETING, 1, BEFORE)
    # The same once more, late.
    assert heard(about_asset(RecordingStatus.ERRORED), resources=[again]) == Learned()
    unanswered = replace(uploading, phase=Phase.UNKNOWN, recording=None, external_id="")
    assert heard(about_asset(RecordingStatus.READY), resources=[unanswered]) == Learned()
