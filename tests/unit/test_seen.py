"""Adoption: whose is what a provider shows, when nobody answered its creation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.lifecycle import Event
from service.domain.observing.egresses import egresses_seen, with_egress
from service.domain.observing.learned import Learned
from service.domain.observing.rooms import room_seen
from service.domain.observing.streams import stream_seen, streams_found
from service.domain.ports import EgressSeen, OutputSeen, PublisherSeen, RoomInside, RoomPeople, RoomSeen, StreamSeen
from service.domain.reasons import EventReason
from service.domain.resources import Egress, EgressStatus, Output, OutputState, Phase, Room, Stream, StreamStatus
from service.domain.secret import Secret
from service.domain.timing import Timing

T0 = datetime(2026, 11, 1, tzinfo=UTC)
NOW = T0 + timedelta(minutes=2)
TIMING = Timing()
ADDRESS = "rtmps://global-live.mux.com:443/app/{5bd...234}"
OLD_ADDRESS = "rtmps://global-live.mux.com:443/app/{aaa...zzz}"
TUBE = "rtmps://a.example/live/{tub...key}"
NAMES = {ADDRESS: [""], OLD_ADDRESS: [""], TUBE: ["tube"]}
"""Every address that an egress of ours was ever given."""


def stream(ordinal: int = 0, **changes: Any) -> Stream:
    values: dict[str, Any] = {"phase": Phase.UNKNOWN, "intended_at": T0, "changed_at": T0, "failures": 1}
    return Stream(ordinal=ordinal, **{**values, **changes})


def present(ordinal: int = 0, **changes: Any) -> Stream:
    values = {"phase": Phase.PRESENT, "external_id": "LS1", "key": Secret("key"), "failures": 0, "key_epoch": 2}
    return stream(ordinal, **{**values, **changes})


def stream_of(id: str, age_s: float = 0, **changes: Any) -> StreamSeen:
    values: dict[str, Any] = {"status": StreamStatus.IDLE, "key": Secret(f"key of {id}"), "playback_id": f"PB-{id}"}
    return StreamSeen(id=id, tag="bs1:test:first:0", created_at=NOW - timedelta(seconds=age_s), **{**values, **changes})


def reasons(learned: Learned) -> list[str]:
    return [event.reason for event in learned.events]


def test_a_search_that_finds_nothing_has_looked() -> None:
    learned = streams_found(stream(), [], [stream()], NOW)
    assert learned.resources == (stream(observed_at=NOW),)
    assert (learned.events, learned.adopted) == ((), 0)


def test_the_one_that_is_found_is_adopted_whole() -> None:
    waiting = stream(retry_at=NOW, acked=False)
    [adopted] = streams_found(waiting, [stream_of("LS1")], [waiting], NOW).resources
    assert adopted == replace(
        waiting,
        phase=Phase.PRESENT,
        external_id="LS1",
        key=Secret("key of LS1"),
        playback_id="PB-LS1",
        status=StreamStatus.IDLE,
        status_since=NOW,
        silent_at=NOW,
        observed_at=NOW,
        changed_at=NOW,
        failures=0,
        retry_at=None,
    )


def test_of_several_the_oldest_is_adopted_and_the_rest_are_rows_of_their_own() -> None:
    streams = [stream(0, phase=Phase.GONE, external_id="LS0"), stream(3), stream(1)]
    found = [stream_of("LS1", 30), stream_of("LS2", 20), stream_of("LS3", 10)]
    learned = streams_found(streams[1], found, streams, NOW)
    assert [(each.ordinal, each.external_id, each.phase) for each in learned.resources] == [
        (3, "LS1", Phase.PRESENT),
        (4, "LS2", Phase.PRESENT),
        (5, "LS3", Phase.PRESENT),
    ]
    assert reasons(learned) == ["STREAM_ADOPTED", "STREAM_SURPLUS", "STREAM_SURPLUS"]
    assert learned.adopted == 1
    keys = [each.key for each in learned.resources if isinstance(each, Stream)]
    assert keys == [Secret("key of LS1"), Secret("key of LS2"), Secret("key of LS3")]


@pytest.mark.parametrize("phase", [Phase.PRESENT, Phase.DELETING, Phase.GONE])
def test_what_has_a_row_already_is_not_adopted_again(phase: Phase) -> None:
    streams = [stream(0), stream(1, phase=phase, external_id="LS1")]
    learned = streams_found(streams[0], [stream_of("LS1", 9)], streams, NOW)
    assert learned.resources == (replace(streams[0], observed_at=NOW),)
    learned = streams_found(streams[0], [stream_of("LS1", 9), stream_of("LS2")], streams, NOW)
    assert [each.external_id for each in learned.resources] == ["LS2"]


def test_a_key_that_drifted_makes_a_new_epoch_and_is_told_once_without_the_key() -> None:
    shown = stream_of("LS1", key=Secret("reset by somebody"))
    learned = stream_seen(present(status=StreamStatus.IDLE), shown, NOW)
    [seen] = learned.resources
    assert isinstance(seen, Stream)
    assert (seen.key, seen.key_epoch) == (Secret("reset by somebody"), 3)
    assert learned.events == (Event(reason=EventReason.KEY_RESET_OUTSIDE, message="LS1"),)
    assert stream_seen(seen, shown, NOW).events == ()


IDLE, ACTIVE, DISABLED = StreamStatus.IDLE, StreamStatus.ACTIVE, StreamStatus.DISABLED


@pytest.mark.parametrize(
    ("held", "shown", "told"),
    [
        (present(status=IDLE), ACTIVE, ["STREAM_ACTIVE"]),
        (present(status=ACTIVE), ACTIVE, []),
        (present(status=ACTIVE), DISABLED, ["STREAM_DISABLED_OUTSIDE"]),
        (present(status=DISABLED), DISABLED, []),
        (present(status=DISABLED), IDLE, ["STREAM_ENABLED_OUTSIDE"]),
        # Ours: the end told of it when it was done, and a cut is found between its two calls or after them.
        (present(status=ACTIVE, disabled=True), DISABLED, []),
        (present(status=ACTIVE, cutting=True), DISABLED, ["STREAM_DISABLED"]),
        (present(status=DISABLED, cutting=True), IDLE, ["STREAM_IDLE"]),
        # What we disabled is for nobody else to enable.
        (present(status=DISABLED, disabled=True), IDLE, ["STREAM_ENABLED_OUTSIDE"]),
    ],
)
def test_the_story_tells_what_was_not_by_us(held: Stream, shown: StreamStatus, told: list[str]) -> None:
    assert reasons(stream_seen(held, stream_of("LS1", status=shown, key=Secret("key")), NOW)) == told


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (present(), Secret("key")),
        (present(), Secret("")),
        # A reset of ours is under way: what is shown may be either, and the reset is done again before it is used.
        (present(key_stale=True), Secret("other")),
    ],
)
def test_a_key_that_did_not_drift_stays(held: Stream, shown: Secret) -> None:
    learned = stream_seen(held, stream_of("LS1", key=shown), NOW)
    [seen] = learned.resources
    assert "KEY_RESET_OUTSIDE" not in reasons(learned)
    assert isinstance(seen, Stream)
    assert (seen.key, seen.key_epoch, seen.key_stale) == (held.key, held.key_epoch, held.key_stale)


@pytest.mark.parametrize(("phase", "reason"), [(Phase.PRESENT, "STREAM_LOST"), (Phase.DELETING, "STREAM_DELETED")])
def test_a_stream_that_is_not_shown_is_gone(phase: Phase, reason: str) -> None:
    learned = stream_seen(present(phase=phase), None, NOW)
    assert learned.resources[0].phase is Phase.GONE
    assert reasons(learned) == [reason]


def test_a_stream_that_is_being_deleted_and_still_shown_was_looked_at_and_no_more() -> None:
    held = present(phase=Phase.DELETING, acked=True)
    learned = stream_seen(held, stream_of("LS1", key=Secret("new"), status=StreamStatus.ACTIVE), NOW)
    assert learned == Learned(resources=(replace(held, observed_at=NOW),))


def test_an_asset_is_remembered_after_its_stream_went_idle() -> None:
    [active] = stream_seen(present(), stream_of("LS1", active_asset_id="AS1"), NOW).resources
    assert isinstance(active, Stream)
    [idle] = stream_seen(active, stream_of("LS1"), NOW).resources
    assert isinstance(idle, Stream)
    assert idle.active_asset_id == "AS1"


@pytest.mark.parametrize(
    ("before", "publishers", "told"),
    [
        (None, 0, []),
        (None, 1, ["HOST_PUBLISHING"]),
        (False, 0, []),
        (False, 2, ["HOST_PUBLISHING"]),
        (True, 1, []),
        (True, 0, ["HOST_STOPPED"]),
    ],
)
def test_a_host_who_comes_or_goes_is_told_once(before: bool | None, publishers: int, told: list[str]) -> None:  # noqa: FBT001
    room = Room(ordinal=0, phase=Phase.PRESENT, intended_at=T0, changed_at=T0, host_publishing=before, host_since=T0)
    there = tuple(PublisherSeen(identity=str(n), name="", joined_at=None, tracks=()) for n in range(publishers))
    # The count in the list says that somebody publishes, whoever does.
    listed = RoomSeen(name="first", sid="RM_1", publishers=3)
    inside = RoomInside(people=RoomPeople(publishers=there), anybody=bool(there))
    learned = room_seen(room, inside, NOW, listed=listed)
    [seen] = learned.resources
    assert isinstance(seen, Room)
    assert reasons(learned) == told
    assert seen.host_publishing is (publishers > 0)
    assert seen.host_since == (T0 if before is seen.host_publishing else NOW)


def egress(ordinal: int = 0, **changes: Any) -> Egress:
    values: dict[str, Any] = {"phase": Phase.UNKNOWN, "intended_at": T0, "changed_at": T0, "key_epoch": 2}
    return Egress(ordinal=ordinal, **{**values, **changes})


def running(ordinal: int = 0, **changes: Any) -> Egress:
    values = {
        "phase": Phase.PRESENT,
        "external_id": "EG_1",
        "status": EgressStatus.ACTIVE,
        "status_since": T0,
        "updated_ns": 50,
        "outputs": (Output(name="", state=OutputState.ACTIVE),),
    }
    return egress(ordinal, **{**values, **changes})


def egress_of(
    id: str,
    *addresses: str,
    status: EgressStatus = EgressStatus.ACTIVE,
    at: int = 100,
    state: OutputState = OutputState.ACTIVE,
) -> EgressSeen:
    outputs = tuple(OutputSeen(address=address, state=state) for address in addresses)
    return EgressSeen(id=id, room_name="first", status=status, started_at=T0, updated_ns=at, outputs=outputs)


def look(egresses: list[Egress], *listed: EgressSeen, now: datetime = NOW, key_epoch: int = 2) -> Learned:
    return egresses_seen(egresses, listed, names=NAMES, address=ADDRESS, key_epoch=key_epoch, now=now, timing=TIMING)


def learned_egresses(learned: Learned) -> list[tuple[int, str, Phase]]:
    return [(each.ordinal, each.external_id, each.phase) for each in learned.resources]


def test_a_start_without_an_answer_is_known_by_its_key() -> None:
    learned = look([egress(failures=3)], egress_of("EG_9", ADDRESS, TUBE))
    [adopted] = learned.resources
    assert isinstance(adopted, Egress)
    assert learned_egresses(learned) == [(0, "EG_9", Phase.PRESENT)]
    assert (adopted.key_epoch, adopted.failures, adopted.changed_at) == (2, 0, NOW)
    assert adopted.destinations == ("tube",)
    assert adopted.delivering
    assert learned.adopted == 1
    assert reasons(learned)[0] == "EGRESS_ADOPTED"


def test_a_start_without_an_answer_that_nothing_shows_waits() -> None:
    for phase in (Phase.INTENDED, Phase.UNKNOWN):
        learned = look([egress(phase=phase)])
        assert learned == Learned(resources=(egress(phase=phase, observed_at=NOW),))


def test_a_stranger_with_another_key_is_no_start_of_the_present_one() -> None:
    learned = look([egress()], egress_of("EG_9", OLD_ADDRESS))
    waiting, stranger = learned.resources
    assert (waiting.phase, waiting.external_id) == (Phase.UNKNOWN, "")
    assert isinstance(stranger, Egress)
    assert (stranger.ordinal, stranger.external_id, stranger.phase) == (1, "EG_9", Phase.PRESENT)
    # It holds a key that is not the present one, whatever it is.
    assert stranger.key_epoch == -1
    assert (reasons(learned), learned.adopted) == (["EGRESS_SURPLUS"], 0)


def test_a_fenced_start_is_the_stranger_with_another_key() -> None:
    """Its key was reset meanwhile; the one with the present key is of a start after it."""
    fenced, present_one = egress(0, key_epoch=1), egress(1, key_epoch=2)
    learned = look([fenced, present_one], egress_of("EG_new", ADDRESS, at=200), egress_of("EG_old", OLD_ADDRESS))
    assert learned_egresses(learned) == [(0, "EG_old", Phase.PRESENT), (1, "EG_new", Phase.PRESENT)]
    assert learned.adopted == 2
    for order in ([present_one, fenced],):
        again = look(order, egress_of("EG_old", OLD_ADDRESS), egress_of("EG_new", ADDRESS))
        assert {each.external_id: each.ordinal for each in again.resources} == {"EG_old": 0, "EG_new": 1}


def test_a_fenced_start_does_not_take_the_one_with_the_present_key() -> None:
    learned = look([egress(0, key_epoch=1)], egress_of("EG_new", ADDRESS))
    assert learned_egresses(learned) == [(0, "", Phase.UNKNOWN), (1, "EG_new", Phase.PRESENT)]
    stranger = learned.resources[1]
    assert isinstance(stranger, Egress)
    assert stranger.key_epoch == 2


def test_one_stranger_is_adopted_once() -> None:
    learned = look([egress(0), egress(1)], egress_of("EG_9", ADDRESS))
    assert learned_egresses(learned) == [(0, "EG_9", Phase.PRESENT), (1, "", Phase.UNKNOWN)]


def test_of_two_the_newest_report_is_adopted_and_the_other_is_a_surplus() -> None:
    learned = look([egress()], egress_of("EG_1", ADDRESS, at=100), egress_of("EG_2", ADDRESS, at=200))
    assert learned_egresses(learned) == [(0, "EG_2", Phase.PRESENT), (1, "EG_1", Phase.PRESENT)]
    assert reasons(learned).count("EGRESS_SURPLUS") == 1


def test_what_is_known_is_no_stranger() -> None:
    rows = [running(0), running(1, phase=Phase.GONE, external_id="EG_0"), egress(2)]
    listed = (egress_of("EG_1", ADDRESS), egress_of("EG_0", ADDRESS, status=EgressStatus.ENDING))
    learned = look(rows, *listed)
    assert learned_egresses(learned) == [(0, "EG_1", Phase.PRESENT), (2, "", Phase.UNKNOWN)]


@pytest.mark.parametrize("status", [status for status in EgressStatus if status.terminal])
def test_a_stranger_that_ended_is_nobodys_business(status: EgressStatus) -> None:
    assert look([], egress_of("EG_9", ADDRESS, status=status)) == Learned()
    # But it may be the start that nobody answered, which so is known to have ended.
    learned = look([egress()], egress_of("EG_9", ADDRESS, status=status))
    [ended] = learned.resources
    assert isinstance(ended, Egress)
    assert (ended.phase, ended.external_id, ended.end_seen) == (Phase.GONE, "EG_9", True)
    assert reasons(learned) == ["EGRESS_ADOPTED", "EGRESS_ENDED"]


@pytest.mark.parametrize("status", [status for status in EgressStatus if status.terminal])
@pytest.mark.parametrize(("phase", "reason"), [(Phase.PRESENT, "EGRESS_ENDED"), (Phase.DELETING, "EGRESS_STOPPED")])
def test_what_ended_is_gone_and_seen_to_have_ended(status: EgressStatus, phase: Phase, reason: str) -> None:
    learned = look([running(phase=phase)], egress_of("EG_1", ADDRESS, status=status))
    [ended] = learned.resources
    assert isinstance(ended, Egress)
    assert (ended.phase, ended.end_seen, ended.status, ended.changed_at) == (Phase.GONE, True, status, NOW)
    assert reasons(learned) == [reason]


@pytest.mark.parametrize("status", [status for status in EgressStatus if not status.terminal])
def test_what_has_not_ended_is_not_seen_to_have(status: EgressStatus) -> None:
    [seen] = look([running(phase=Phase.DELETING)], egress_of("EG_1", ADDRESS, status=status)).resources
    assert isinstance(seen, Egress)
    assert (seen.phase, seen.end_seen) == (Phase.DELETING, False)


def test_an_older_report_that_comes_late_changes_nothing() -> None:
    held = running(updated_ns=100)
    for late in (
        egress_of("EG_1", status=EgressStatus.STARTING, at=99),
        egress_of("EG_1", ADDRESS, status=EgressStatus.COMPLETE, at=99),
    ):
        assert look([held], late) == Learned(resources=(replace(held, observed_at=NOW),))
    for newer in (100, 101):
        [seen] = look([held], egress_of("EG_1", ADDRESS, status=EgressStatus.ENDING, at=newer)).resources
        assert isinstance(seen, Egress)
        assert seen.status is EgressStatus.ENDING


def test_a_report_without_a_version_is_believed() -> None:
    seen = with_egress(running(updated_ns=100), egress_of("EG_1", status=EgressStatus.ENDING, at=0), NAMES, NOW)
    assert seen.status is EgressStatus.ENDING


def test_the_lag_of_a_list_protects_a_young_egress_and_no_old_one() -> None:
    # Young since it is known to be there, however long it was looked for before.
    held = running(changed_at=NOW)
    before = NOW + timedelta(seconds=TIMING.list_lag_s - 0.001)
    assert look([held], now=before) == Learned(resources=(replace(held, observed_at=before),))
    after = NOW + timedelta(seconds=TIMING.list_lag_s)
    assert look([held], now=after) == Learned(resources=(replace(held, observed_at=after, absent_since=after),))


def report(*outputs: tuple[str, OutputState]) -> EgressSeen:
    return EgressSeen(
        id="EG_1",
        room_name="first",
        status=EgressStatus.ACTIVE,
        updated_ns=100,
        outputs=tuple(OutputSeen(address=address, state=state) for address, state in outputs),
    )


def named(egress: Egress) -> list[tuple[str, OutputState]]:
    return [(output.name, output.state) for output in egress.outputs]


STRANGE = "rtmp://x/y/{z...z}"


def test_outputs_are_told_by_name_in_no_order_of_livekits() -> None:
    told = ((TUBE, OutputState.FINISHED), (STRANGE, OutputState.ACTIVE), (ADDRESS, OutputState.ACTIVE))
    learned = with_egress(running(destinations=("tube",)), report(*told), NAMES, NOW)
    assert named(learned) == [
        ("", OutputState.ACTIVE),
        (STRANGE, OutputState.ACTIVE),
        ("tube", OutputState.FINISHED),
    ]
    # What is over is no destination that it has.
    assert learned.destinations == (STRANGE,)
    for turned in (told[::-1], (told[1], told[0], told[2])):
        assert with_egress(running(destinations=("tube",)), report(*turned), NAMES, NOW) == learned


@pytest.mark.parametrize("had", [(), ("tube",)])
def test_what_failed_is_a_destination_as_long_as_it_was_not_removed(had: tuple[str, ...]) -> None:
    seen = report((ADDRESS, OutputState.ACTIVE), (TUBE, OutputState.FAILED))
    assert with_egress(running(destinations=had), seen, NAMES, NOW).destinations == had


def test_a_report_without_outputs_takes_none_away() -> None:
    assert with_egress(running(destinations=("tube",)), report(), NAMES, NOW).destinations == ("tube",)


def test_keys_alike_at_both_ends_are_told_apart_by_what_lives_and_what_was_there() -> None:
    names = {**NAMES, TUBE: ["tube", "twin"]}
    both = report((TUBE, OutputState.FAILED), (TUBE, OutputState.ACTIVE))
    for had, expected in (
        (("twin",), [("tube", OutputState.FAILED), ("twin", OutputState.ACTIVE)]),
        (("tube",), [("tube", OutputState.ACTIVE), ("twin", OutputState.FAILED)]),
    ):
        assert named(with_egress(running(destinations=had), both, names, NOW)) == expected
    assert names[TUBE] == ["tube", "twin"]


def test_what_begins_is_told_once() -> None:
    starting = running(status=EgressStatus.STARTING, outputs=())
    connecting = look([starting], egress_of("EG_1", ADDRESS, state=OutputState.CONNECTING))
    assert reasons(connecting) == ["EGRESS_ACTIVE"]
    [active] = connecting.resources
    assert isinstance(active, Egress)
    connected = look([active], egress_of("EG_1", ADDRESS))
    assert reasons(connected) == ["EGRESS_CONNECTED"]
    [delivering] = connected.resources
    assert isinstance(delivering, Egress)
    assert reasons(look([delivering], egress_of("EG_1", ADDRESS))) == []


def test_a_fenced_start_takes_nobody_else_in_the_room() -> None:
    """An egress of another application pushes to an address of its own, and is no start of ours."""
    learned = look([egress(0, key_epoch=1)], egress_of("EG_9", "rtmp://elsewhere.example/live/{the...key}"))
    assert learned_egresses(learned) == [(0, "", Phase.UNKNOWN)]
    assert (reasons(learned), learned.adopted) == ([], 0)
