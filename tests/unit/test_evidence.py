"""Absence: what is not listed is not gone before it is believed, and what is believed gone did not end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.domain.broadcast import seconds
from service.domain.observing.egresses import egresses_seen
from service.domain.observing.learned import Learned
from service.domain.observing.rooms import people_doubted, room_absent, room_seen
from service.domain.observing.streams import stream_absent, stream_seen
from service.domain.ports import EgressSeen, OutputSeen, RoomInside, RoomPeople, RoomSeen, StreamSeen
from service.domain.reasons import Fault
from service.domain.resource_set import ResourceSet
from service.domain.resources import Egress, EgressStatus, Output, OutputState, Phase, Room, Stream, StreamStatus
from service.domain.secret import NO_SECRET
from service.domain.timing import Timing

NOW = datetime(2026, 11, 1, tzinfo=UTC)
EARLIER = NOW - seconds(120)
TIMING = Timing()
OURS = "rtmps://global-live.mux.com:443/app/{5bd...234}"
THEIRS = "rtmp://live.example.com/app/{abc...ghi}"
DELIVERS = (Output(name="", state=OutputState.ACTIVE),)


def egress(**changes: Any) -> Egress:
    values: dict[str, Any] = {
        "phase": Phase.PRESENT,
        "external_id": "EG_1",
        "intended_at": EARLIER,
        "changed_at": EARLIER,
        "status": EgressStatus.ACTIVE,
        "outputs": DELIVERS,
    }
    return Egress(ordinal=0, **{**values, **changes})


def room(**changes: Any) -> Room:
    values: dict[str, Any] = {
        "phase": Phase.PRESENT,
        "external_id": "first",
        "intended_at": EARLIER,
        "changed_at": EARLIER,
        "host_publishing": True,
        "host_since": EARLIER,
    }
    return Room(ordinal=0, **{**values, **changes})


def stream(status: StreamStatus = StreamStatus.ACTIVE, **changes: Any) -> Stream:
    values: dict[str, Any] = {"phase": Phase.PRESENT, "external_id": "LS1", "intended_at": EARLIER}
    return Stream(ordinal=0, status=status, changed_at=EARLIER, **{**values, **changes})


def shown(id: str, *addresses: str, status: EgressStatus = EgressStatus.ACTIVE) -> EgressSeen:
    outputs = tuple(OutputSeen(address=address, state=OutputState.ACTIVE) for address in addresses)
    return EgressSeen(id=id, room_name="first", status=status, started_at=EARLIER, updated_ns=1, outputs=outputs)


def look(rows: list[Egress], *listed: EgressSeen, now: datetime = NOW, **known: Any) -> Learned:
    return egresses_seen(rows, listed, names={OURS: [""]}, address=OURS, key_epoch=0, now=now, timing=TIMING, **known)


def one(learned: Learned) -> Egress:
    [row] = learned.resources
    assert isinstance(row, Egress)
    return row


def test_one_list_that_lacks_an_egress_changes_nothing_of_it() -> None:
    learned = look([egress()])
    assert one(learned) == egress(observed_at=NOW, absent_since=NOW)
    assert learned.events == ()


def test_two_lists_apart_that_lack_it_are_believed() -> None:
    absent = one(look([egress()]))
    soon = one(look([absent], now=NOW + seconds(TIMING.absence_s - 0.1)))
    assert (soon.phase, soon.absent_since) == (Phase.PRESENT, NOW)
    learned = look([soon], now=NOW + seconds(TIMING.absence_s))
    lost = one(learned)
    assert (lost.phase, lost.fault) == (Phase.GONE, Fault.LOST)
    assert [event.reason for event in learned.events] == ["EGRESS_LOST"]


def test_an_id_that_the_provider_does_not_know_is_believed_at_once() -> None:
    assert one(look([egress()], unknown={"EG_1"})).phase is Phase.GONE


@pytest.mark.parametrize("unknown", [set[str](), {"EG_1"}])
def test_an_egress_whose_media_arrive_is_there_whatever_lists_lack(unknown: set[str]) -> None:
    held = egress(absent_since=EARLIER)
    assert one(look([held], unknown=unknown, feeding=held)).phase is Phase.PRESENT


def test_an_egress_that_is_listed_again_is_not_absent() -> None:
    assert one(look([egress(absent_since=EARLIER)], shown("EG_1", OURS))).absent_since is None


def test_what_was_lost_was_not_seen_to_end_so_it_is_cut_off_before_the_next_start() -> None:
    lost = one(look([egress()], unknown={"EG_1"}))
    held = ResourceSet([lost, stream()])
    assert not lost.end_seen
    assert held.may_be_connected(lost, stream())
    assert not held.may_be_connected(lost, stream(cut_epoch=1))


def test_a_lost_egress_that_is_listed_again_is_ours_and_is_stopped() -> None:
    lost = egress(phase=Phase.GONE, fault=Fault.LOST)
    learned = look([lost], shown("EG_1", OURS))
    assert one(learned).phase is Phase.PRESENT
    assert [event.reason for event in learned.events] == ["EGRESS_SURPLUS"]


@pytest.mark.parametrize("fault", [Fault.GHOST, Fault.NOT_STOPPED])
def test_one_that_answered_no_stop_stays_listed_for_ever_and_is_not_meant(fault: Fault) -> None:
    assert look([egress(phase=Phase.GONE, fault=fault)], shown("EG_1", OURS)) == Learned()


def test_an_egress_of_somebody_else_in_our_room_is_left_alone() -> None:
    assert look([egress()], shown("EG_1", OURS), shown("EG_9", THEIRS)).events == ()
    assert [each.external_id for each in look([egress()], shown("EG_1", OURS), shown("EG_9", THEIRS)).resources] == [
        "EG_1"
    ]
    surplus = look([egress()], shown("EG_1", OURS), shown("EG_9", OURS))
    assert [event.reason for event in surplus.events] == ["EGRESS_SURPLUS"]


def test_a_room_that_no_list_shows_keeps_its_host_until_its_absence_is_believed() -> None:
    [absent] = room_absent(room(), NOW, TIMING, contradicted=False).resources
    assert absent == room(observed_at=NOW, absent_since=NOW)
    later = room_absent(room(absent_since=NOW), NOW + seconds(TIMING.absence_s), TIMING, contradicted=False)
    [lost] = later.resources
    assert isinstance(lost, Room)
    assert (lost.phase, lost.host_publishing) == (Phase.GONE, False)
    assert [event.reason for event in later.events] == ["ROOM_LOST"]
    [back] = room_seen(room(absent_since=EARLIER), RoomInside(people=RoomPeople()), NOW).resources
    assert back.absent_since is None


def test_a_room_whose_media_arrive_is_there() -> None:
    [row] = room_absent(room(absent_since=EARLIER), NOW, TIMING, contradicted=True).resources
    assert row.phase is Phase.PRESENT


def test_a_room_whose_delete_was_confirmed_is_gone_at_the_first_look() -> None:
    leaving = room(phase=Phase.DELETING, acked=True)
    learned = room_absent(leaving, NOW, TIMING, contradicted=False)
    assert [event.reason for event in learned.events] == ["ROOM_DELETED"]
    unconfirmed = room_absent(replace(leaving, acked=False), NOW, TIMING, contradicted=False)
    assert unconfirmed.resources[0].phase is Phase.DELETING


@pytest.mark.parametrize(
    ("rows", "delivered"),
    [
        ([egress(), stream()], True),
        ([egress(absent_since=EARLIER), stream()], True),
        ([egress(), stream(StreamStatus.IDLE)], False),
        ([egress(), stream(disabled=True)], False),
        ([egress(outputs=()), stream()], False),
        ([egress(phase=Phase.GONE, end_seen=True), stream()], False),
        ([stream()], False),
    ],
)
def test_what_contradicts_an_absence(rows: list[Egress | Stream], delivered: bool) -> None:  # noqa: FBT001
    assert ResourceSet(rows).delivered is delivered


@pytest.mark.parametrize(
    ("listed", "contradicted", "gone"),
    [(None, False, False), (False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_one_answer_that_a_live_stream_does_not_exist_is_believed_only_if_the_list_agrees(
    listed: bool | None,  # noqa: FBT001
    contradicted: bool,  # noqa: FBT001
    gone: bool,  # noqa: FBT001
) -> None:
    learned = stream_absent(stream(), NOW, TIMING, listed=listed, contradicted=contradicted)
    assert (learned.resources[0].phase is Phase.GONE) is gone
    assert [event.reason for event in learned.events] == (["STREAM_LOST"] if gone else [])
    if not gone:
        assert learned.resources == (stream(observed_at=NOW, absent_since=NOW),)


def test_two_such_answers_apart_are_believed_unless_a_list_has_it() -> None:
    away = stream(absent_since=NOW)
    later = NOW + seconds(TIMING.absence_s)
    assert stream_absent(away, later, TIMING, listed=None, contradicted=True).resources[0].phase is Phase.GONE
    assert stream_absent(away, later, TIMING, listed=True, contradicted=False).resources[0].phase is Phase.PRESENT
    soon = stream_absent(away, later - seconds(0.1), TIMING, listed=None, contradicted=False)
    assert soon.resources[0].absent_since == NOW
    shown = StreamSeen(id="LS1", tag="t", status=StreamStatus.ACTIVE, created_at=EARLIER, key=NO_SECRET)
    [back] = stream_seen(away, shown, later).resources
    assert back.absent_since is None


def test_a_live_stream_whose_delete_was_sent_is_gone_at_the_first_such_answer() -> None:
    leaving = stream(phase=Phase.DELETING)
    learned = stream_absent(leaving, NOW, TIMING, listed=None, contradicted=True)
    assert [event.reason for event in learned.events] == ["STREAM_DELETED"]


@pytest.mark.parametrize(
    ("publishers", "recorded", "host", "since_s", "doubted"),
    [
        (1, False, True, None, True),
        (0, True, True, None, True),
        (0, False, True, None, False),
        (1, False, False, None, False),
        (1, False, None, None, False),
        (1, False, True, 9.9, True),
        (1, False, True, 10, False),
    ],
)
def test_an_empty_room_in_which_somebody_is_counted_is_doubted_for_as_long_as_counts_are_late(
    publishers: int,
    recorded: bool,  # noqa: FBT001
    host: bool | None,  # noqa: FBT001
    since_s: float | None,
    doubted: bool,  # noqa: FBT001
) -> None:
    held = room(host_publishing=host, absent_since=None if since_s is None else NOW - seconds(since_s))
    listed = RoomSeen(name="first", sid="RM", publishers=publishers, recorded=recorded)
    assert people_doubted(held, RoomInside(), listed, NOW, TIMING) is doubted
    assert not people_doubted(held, RoomInside(anybody=True), listed, NOW, TIMING)
