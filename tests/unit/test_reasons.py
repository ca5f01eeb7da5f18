"""The words that programs rely on: their texts stay, they can be read back, and every source has its word."""

from typing import Any

import msgspec
import pytest

from service.domain.broadcast import Fallback, FallbackMode, State
from service.domain.errors import Outcome
from service.domain.observing.streams import STATUS_SEEN
from service.domain.planning.steps import WRITTEN_OFF
from service.domain.reasons import Action, Actor, Blocked, EventReason, FallbackReason, Fault, Word, as_stored
from service.domain.reporting.record import STATE_ENTERED
from service.domain.resources import (
    END_FAULTS,
    REFUSAL_FAULTS,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    StreamStatus,
)
from service.store.rows import RESOURCE_COLUMNS, Rows
from service.store.sealing import Sealer
from tests.unit.health_facts import NOW

GIVEN_OUT: dict[type[Word], str] = {
    Actor: "caller reconciler webhook prober",
    EventReason: """
        CREATED START_REQUESTED ON_AIR_REQUESTED OFF_AIR_REQUESTED UPDATED STOP_REQUESTED DELETED STATE_CREATED
        STATE_STARTING STATE_READY STATE_LIVE STATE_INTERRUPTED STATE_STOPPING STATE_ENDED STATE_FAILED
        STATUS_CHANGED ENDING ROOM_CREATED ROOM_DELETED ROOM_LOST HOST_PUBLISHING HOST_STOPPED STREAM_CREATED
        STREAM_ADOPTED STREAM_SURPLUS STREAM_DISABLED STREAM_DELETED STREAM_LOST STREAM_WRITTEN_OFF
        STREAM_ACTIVE STREAM_IDLE STREAM_UNKNOWN STREAM_DISABLED_OUTSIDE STREAM_ENABLED_OUTSIDE STREAM_CUT
        KEY_RESET KEY_RESET_OUTSIDE EGRESS_STARTED EGRESS_ADOPTED EGRESS_SURPLUS EGRESS_ACTIVE EGRESS_CONNECTED
        EGRESS_STOP_SENT EGRESS_STOPPED EGRESS_ENDED EGRESS_LOST EGRESS_WRITTEN_OFF LAYOUT_SET DESTINATION_ADDED
        DESTINATION_REMOVED DESTINATION_ACTIVE DESTINATION_FAILED PLAYBACK_STALLED PLAYBACK_RESUMED
        FALLBACK_ENTERED FALLBACK_LEFT CALL_FAILED RECORDING_STARTED RECORDING_ADOPTED RECORDING_WRITTEN
        RECORDING_FAILED RECORDING_LOST RECORDING_WRITTEN_OFF RECORDINGS_KEPT RECORDINGS_DISCARDED
        RECORDING_READY RECORDING_ERRORED UPLOAD_CREATED UPLOAD_ADOPTED UPLOAD_ERRORED UPLOAD_IMPOSSIBLE
        UPLOAD_WRITTEN_OFF
    """,
    Fault: """
        - START_TIMEOUT START_LOST END_TIMEOUT DISCONNECTED NOT_CONNECTED NO_MEDIA INGEST_LOST STALLED GHOST
        NOT_STOPPED LOST COMPLETE FAILED ABORTED LIMIT_REACHED NOT_SENT REFUSED MISSING CREDENTIALS THROTTLED
        UNAVAILABLE
    """,
    Blocked: "- START_LIMIT BACK_OFF PREVIOUS_ENDING CUTTING_OFF FENCING",
    FallbackReason: "- EGRESS_FAILING MUX_UNREACHABLE RETURNED OFF_AIR",
    Action: """
        NONE LOOK_AGAIN RETRY WAIT_FOR_HOST WAIT_FOR_ON_AIR WAIT_FOR_EGRESS WAIT_FOR_CONNECTION WAIT_FOR_MEDIA
        WAIT_FOR_END STOP_GHOST CREATE_ROOM DELETE_ROOM CREATE_STREAM DISABLE_STREAM SETTLE_RECORDINGS
        DELETE_STREAM RESET_KEY CUT_STREAM START_EGRESS STOP_EGRESS SET_LAYOUT SET_DESTINATIONS START_RECORDING
        STOP_RECORDING UPLOAD_RECORDING DELETE_UPLOAD SET_FALLBACK WRITE_OFF END_BROADCAST
    """,
}
"""Texts are stored and shown to callers. One that was given out stays; a new word is added here."""


@pytest.mark.parametrize("kind", GIVEN_OUT)
def test_a_text_that_was_given_out_stays(kind: type[Word]) -> None:
    assert {word.value or "-" for word in kind} == {*GIVEN_OUT[kind].split()}


@pytest.mark.parametrize("kind", GIVEN_OUT)
def test_every_word_has_a_sentence(kind: type[Word]) -> None:
    assert all(word.meaning for word in kind)
    assert len({word.meaning for word in kind}) == len(kind)


def test_a_text_of_another_version_is_read_and_shown_unchanged() -> None:
    undeclared = as_stored(EventReason, "SOMETHING_NEW")
    assert undeclared == "SOMETHING_NEW"
    assert undeclared not in [*EventReason]
    assert f"{undeclared}" == str(undeclared) == "SOMETHING_NEW"
    assert as_stored(EventReason, "ENDING") is EventReason.ENDING


@pytest.mark.parametrize("text", ["GHOST", "", "SOMETHING_NEW"])
def test_words_go_through_jsonb_and_back(text: str) -> None:
    rows = Rows(Sealer([b"k" * 32]))
    for made in (
        Egress(ordinal=0, phase=Phase.GONE, intended_at=NOW, changed_at=NOW, fault=as_stored(Fault, text)),
        LocalRecording(ordinal=0, phase=Phase.GONE, intended_at=NOW, changed_at=NOW, fault=as_stored(Fault, text)),
    ):
        values = rows.resource_values("show", made)
        row: dict[str, Any] = dict(zip(RESOURCE_COLUMNS.split(", "), values, strict=True))
        assert row["detail"]["fault"] == text
        assert type(row["detail"]["fault"]) is str
        assert rows.resource("show", row) == made
    fallback = Fallback(modes=(FallbackMode.LOCAL_RECORDING,), reason=as_stored(FallbackReason, text))
    stored = msgspec.json.encode(fallback)
    assert msgspec.json.decode(stored)["reason"] == text
    assert msgspec.json.decode(stored, type=Fallback) == fallback


def test_every_source_of_a_word_has_one() -> None:
    assert {*STATE_ENTERED} == {*State}
    assert {*STATUS_SEEN} == {*StreamStatus}
    assert {*END_FAULTS} == {
        EgressStatus.COMPLETE,
        EgressStatus.FAILED,
        EgressStatus.ABORTED,
        EgressStatus.LIMIT_REACHED,
    }
    assert {*REFUSAL_FAULTS} == {*Outcome} - {Outcome.AMBIGUOUS}
    # A room is created again by its name.
    assert {*WRITTEN_OFF} == {*Kind} - {Kind.ROOM}
