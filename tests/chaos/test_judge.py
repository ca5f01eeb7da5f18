"""The judge of the drill finds what it is there to find."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.webhooks import Delivery
from tests.chaos import judge
from tests.chaos.history import History, Kind, Operation, Triage
from tests.chaos.judge import Entry, Row, Stored
from tests.chaos.watchers import Connection, Logged, Told, lags, violations

TAG = "bs1:test:"


def operation(kind: Kind, request_id: str, *, triage: Triage = Triage.OK, at: float = 0.0) -> Operation:
    made = Operation(kind=kind, request_id=request_id, broadcast_id="b", title=request_id, began=at)
    made.triage = triage
    if triage is Triage.OK:
        made.answers = {"b"}
    return made


def entry(revision: int, reason: str, title: str) -> Entry:
    return Entry(revision=revision, broadcast_id="b", reason=reason, time=float(revision), title=title)


def told() -> tuple[History, Stored]:
    """One broadcast that was created, updated twice, started and stopped."""
    history = History(
        [
            operation(Kind.CREATE, "c", at=1),
            operation(Kind.UPDATE, "u1", at=2),
            operation(Kind.UPDATE, "u2", at=3),
            operation(Kind.START, "s", at=4),
            operation(Kind.STOP, "e", at=5),
        ]
    )
    entries = [
        entry(1, "CREATED", "c"),
        entry(2, "UPDATED", "u1"),
        entry(3, "UPDATED", "u2"),
        entry(4, "START_REQUESTED", "u2"),
        entry(5, "STOP_REQUESTED", "u2"),
    ]
    row = Row(id="b", request="c", state="ENDED", end_reason="STOPPED", title="u2", generation=3)
    return history, Stored(rows=[row], entries=entries, head=5, webhooks=Counter(), delivered=Counter())


def without(stored: Stored, revision: int) -> Stored:
    """As if it had never been: the others move up."""
    kept = [each for each in stored.entries if each.revision != revision]
    moved = [replace(each, revision=number) for number, each in enumerate(kept, 1)]
    return replace(stored, entries=moved, head=len(moved))


def more(stored: Stored, *entries: Entry) -> Stored:
    return replace(stored, entries=[*stored.entries, *entries], head=stored.head + len(entries))


def row(stored: Stored, **changed: object) -> Stored:
    return replace(stored, rows=[replace(stored.rows[0], **changed)])  # pyright: ignore[reportArgumentType]


def test_what_is_right_is_found_right() -> None:
    history, stored = told()
    assert judge.acknowledged(history, stored) == []
    # What nobody told of may have happened, or not.
    history.operations.append(operation(Kind.UPDATE, "u3", triage=Triage.INFO, at=4.5))
    assert judge.acknowledged(history, stored) == []
    assert judge.acknowledged(history, row(more(stored, entry(6, "UPDATED", "u3")), title="u3", generation=4)) == []


@pytest.mark.parametrize(
    ("revision", "what"), [(1, "nobody wrote"), (2, "lost: update u1"), (4, "lost: start s"), (5, "lost: stop e")]
)
def test_what_is_lost_is_found(revision: int, what: str) -> None:
    history, stored = told()
    if revision == 1:
        history.operations[0].request_id = "other"
        what = "lost: create other"
    assert any(each.startswith(what) for each in judge.acknowledged(history, without(stored, revision)))


def test_what_is_applied_twice_is_found() -> None:
    history, stored = told()
    again = more(stored, entry(6, "UPDATED", "u1"), entry(7, "UPDATED", "u2"))
    found = judge.acknowledged(history, row(again, generation=5))
    assert [each[:17] for each in found] == ["2 times: update u", "2 times: update u"]
    found = judge.acknowledged(history, more(stored, entry(6, "START_REQUESTED", "u2")))
    assert found == [f"2 times: {history.operations[3]}"]
    found = judge.acknowledged(history, replace(stored, rows=[*stored.rows, replace(stored.rows[0], id="b2")]))
    assert f"2 times: {history.operations[0]}" in found
    # The same content again changes nothing but the count.
    assert judge.acknowledged(history, row(stored, generation=4)) == ["b: generation 4 after 3 titles"]


def test_what_was_refused_and_happened_is_found() -> None:
    history, stored = told()
    refused = operation(Kind.UPDATE, "u3", triage=Triage.FAIL)
    refused.refusable = True
    history.operations.append(refused)
    assert judge.acknowledged(history, stored) == []
    found = judge.acknowledged(history, row(more(stored, entry(6, "UPDATED", "u3")), title="u3", generation=4))
    assert found == [f"1 times: {refused}"]


def test_what_should_not_have_been_refused_is_found() -> None:
    history, stored = told()
    history.operations[1].triage = Triage.FAIL
    assert any(each.startswith("refused: update u1") for each in judge.acknowledged(history, stored))
    history.operations[1].triage, history.operations[1].refusable = Triage.OK, True
    assert any(each.startswith("not refused: update u1") for each in judge.acknowledged(history, stored))


def test_order_answers_gaps_and_strangers() -> None:
    history, stored = told()
    history.operations[1].began, history.operations[2].began = 3, 2
    assert judge.acknowledged(history, stored) == [
        f"out of order: {history.operations[2]} came after {history.operations[1]}"
    ]
    history, stored = told()
    history.operations[3].answers = {"b", "b2"}
    assert judge.acknowledged(history, stored) == [f"answered ['b', 'b2']: {history.operations[3]}"]
    history, stored = told()
    history.operations[0].answers = {"b2"}
    assert judge.acknowledged(history, stored) == [f"answered ['b2']: {history.operations[0]}"]
    history, stored = told()
    assert "I-7: the log has gaps: 5 entries, and its head is 6" in judge.acknowledged(history, replace(stored, head=6))
    assert any("is stored, and the log ends" in each for each in judge.acknowledged(history, row(stored, title="u1")))
    assert "b: nobody asked for it" in judge.acknowledged(History(history.operations[1:]), stored)


def livekit(*effects: tuple[str, str]) -> EffectLog:
    log = EffectLog("livekit")
    for kind, id_ in effects:
        detail = {"room": "b"} if kind.startswith("egress.") else {}
        log.append(kind, id_, **(detail | ({"passthrough": f"{TAG}b:0"} if kind == "stream.created" else {})))
    return log


@pytest.mark.parametrize(
    ("effects", "found"),
    [
        ([("room.created", "b"), ("room.deleted", "b")], []),
        ([("room.created", "b")], ["left: 1 of room.created"]),
        (
            [(kind, id_) for id_ in ("E1", "E2") for kind in ("egress.started", "egress.ended")],
            ["b: 2 egresses"],
        ),
        (
            [(kind, id_) for id_ in ("S1", "S2") for kind in ("stream.created", "stream.deleted")],
            ["b: 2 live streams"],
        ),
        ([("ingest.double", "S1")], ["I-1: two publish to S1"]),
        (
            [("room.created", "x"), ("room.deleted", "x")],
            ["x: {'rooms': 1} of a broadcast that is not stored"],
        ),
    ],
)
def test_what_the_providers_did(effects: list[tuple[str, str]], found: list[str]) -> None:
    _, stored = told()
    assert judge.effects(stored, livekit(*effects).after(0), TAG) == found


def test_an_end_that_nobody_wanted_is_found() -> None:
    _, stored = told()
    assert judge.effects(row(stored, state="FAILED", end_reason="START_TIMEOUT"), [], TAG) == [
        "b is FAILED (START_TIMEOUT)"
    ]


def delivery(event_id: str, status: int | None) -> Delivery:
    return Delivery(event="room_started", event_id=event_id, attempt=1, status=status, time=0.0)


def test_webhooks() -> None:
    _, stored = told()
    stored.webhooks.update({("mux", "1"): 1, ("mux", "2"): 1})
    stored.delivered.update({("mux", "1"): 2, ("mux", "2"): 1})
    sent = [delivery("1", 200), delivery("1", 200), delivery("2", None), delivery("3", 503)]
    assert judge.webhooks(stored, {"mux": sent}) == []
    assert judge.webhooks(stored, {"mux": [*sent, delivery("3", 200)]}) == [
        "('mux', '3') was accepted, and is stored 0 times",
        "('mux', '3') was accepted 1 times, and counted 0 times",
    ]
    assert judge.webhooks(stored, {"mux": sent[:2]}) == ["('mux', '2') is stored, and nobody sent it"]


LOG = [
    Logged(revision=number, broadcast_id="b", title=f"t{number}", time=float(number), first=number == 1)
    for number in range(1, 7)
]


def change(revision: int, **changed: object) -> Told:
    made = Told(at=revision + 0.1, up_to=revision, revision=revision, broadcast_id="b", title=f"t{revision}")
    return replace(made, **changed)  # pyright: ignore[reportArgumentType]


def beat(up_to: int) -> Told:
    return Told(at=up_to + 0.5, up_to=up_to)


SNAPSHOT = (Told(at=0, up_to=2, snapshot=True, broadcast_id="b"), Told(at=0, up_to=2, complete=True))
RESUMED = Connection(resumed=2, in_snapshot=False)
FRESH = Connection(resumed=None, in_snapshot=True)


@pytest.mark.parametrize(
    ("connection", "told", "found"),
    [
        (FRESH, (*SNAPSHOT, change(3), beat(3), change(4)), ()),
        (RESUMED, (change(3), beat(3), change(4), change(5)), ()),
        (RESUMED, (), ()),
        (RESUMED, (change(4), change(3)), ("I-W1", "I-W3", "I-W5")),
        (RESUMED, (change(3), change(3)), ("I-W2", "I-W3", "I-W5")),
        (RESUMED, (change(3), change(5)), ("I-W3",)),
        (RESUMED, (change(4),), ("I-W3",)),
        (RESUMED, (change(2),), ("I-W3", "I-W5")),
        (RESUMED, (change(3, title="of another"),), ("I-W3",)),
        (RESUMED, (change(3), beat(4)), ("I-W3",)),
        (RESUMED, (change(3), beat(2)), ("I-W5",)),
        (RESUMED, (change(3, up_to=4), change(4)), ("I-W4", "I-W5")),
        (RESUMED, SNAPSHOT, ("I-W3", "I-W4")),
        (FRESH, (SNAPSHOT[1],), ("I-W3",)),
        (FRESH, (change(3),), ("I-W3",)),
        (FRESH, (change(3), *SNAPSHOT), ("I-W5",)),
    ],
)
def test_what_a_watch_may_not_do(connection: Connection, told: tuple[Told, ...], found: tuple[str, ...]) -> None:
    connection = replace(connection, told=[*told])
    rules = {
        rule
        for each in violations("w", [connection], LOG)
        for rule in ("I-W1", "I-W2", "I-W3", "I-W4", "I-W5")
        if rule in each
    }
    assert rules == set(found)


def test_how_late_is_told_of_what_happened_in_calm() -> None:
    connection = replace(RESUMED, told=[beat(2), change(3, at=3.25), change(4, at=4.5), change(5, at=9.0)])
    assert lags([connection], LOG, [(2.5, 4.2), (4.3, 8.0)]) == [0.25]
    assert lags([connection], LOG, [(2.5, 10.0)]) == [0.25, 0.5, 4.0]
    # Not of what it had to catch up with.
    assert lags([replace(connection, told=connection.told[1:])], LOG, [(2.5, 10.0)]) == [0.5, 4.0]
