"""Times that lie ahead of the database's clock after it was set back."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.observing.set_back import moved_back
from service.domain.resources import AnyResource, Egress, Phase, Room, Stream

NOW = datetime(2026, 11, 1, tzinfo=UTC)
_TIMES = {
    name
    for kind in get_args(AnyResource)
    for name, hint in get_type_hints(kind).items()
    if datetime in (hint, *get_args(hint))
}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_nothing_is_moved_while_the_clock_goes_well() -> None:
    rows = (
        Room(ordinal=0, phase=Phase.PRESENT, intended_at=ago(9), changed_at=ago(8), retry_at=ago(-60)),
        # A replica adds the time that passed since it read the database's clock, by a clock of its own.
        Egress(ordinal=0, phase=Phase.PRESENT, intended_at=ago(1), changed_at=ago(-0.2)),
    )
    assert moved_back(rows, NOW) == ()


def test_what_happened_keeps_its_order_and_its_intervals() -> None:
    room = Room(ordinal=0, phase=Phase.PRESENT, intended_at=ago(400), changed_at=ago(-100), observed_at=ago(-295))
    egress = Egress(
        ordinal=0, phase=Phase.DELETING, intended_at=ago(-200), changed_at=ago(-290), failures=1, retry_at=ago(-310)
    )
    new_room, new_egress = moved_back((room, egress), NOW)
    assert (new_room.intended_at, new_room.changed_at, new_room.observed_at) == (ago(400), ago(195), NOW)
    assert (new_egress.intended_at, new_egress.changed_at, new_egress.retry_at) == (ago(95), ago(5), ago(-15))
    assert moved_back((new_room, new_egress), NOW) == ()


def test_only_rows_with_times_ahead_are_written() -> None:
    old = Room(ordinal=0, phase=Phase.GONE, intended_at=ago(400), changed_at=ago(300))
    new = Room(ordinal=1, phase=Phase.PRESENT, intended_at=ago(-5), changed_at=ago(-5), missing={"EG_1": ago(-3)})
    [moved] = moved_back((old, new), NOW)
    assert isinstance(moved, Room)
    assert (moved.ordinal, moved.changed_at, moved.missing) == (1, NOW, {"EG_1": ago(2)})


def test_times_of_providers_stay_as_they_were() -> None:
    stream = Stream(
        ordinal=0,
        phase=Phase.PRESENT,
        intended_at=ago(9),
        changed_at=ago(9),
        heard_at=ago(-300),
    )
    assert moved_back((stream,), NOW) == ()


def test_the_last_connection_is_as_long_ago_as_it_was() -> None:
    """It is compared with what was seen since. Ahead of the clock, an encoder that left would seem to leave after its
    successor came.
    """
    stream = Stream(
        ordinal=0,
        phase=Phase.PRESENT,
        intended_at=ago(9),
        changed_at=ago(9),
        connected_at=ago(-290),
        observed_at=ago(-300),
    )
    [moved] = moved_back((stream,), NOW)
    assert isinstance(moved, Stream)
    assert (moved.connected_at, moved.observed_at) == (ago(10), NOW)


@pytest.mark.parametrize("kind", get_args(AnyResource))
@given(data=st.data())
def test_no_time_is_left_ahead(kind: type[AnyResource], data: st.DataObject) -> None:
    """A field that is added is a time of the database, unless it is said to be another's."""
    moments = st.datetimes(NOW.replace(tzinfo=None), NOW.replace(tzinfo=None) + timedelta(hours=1)).map(
        lambda moment: moment.replace(tzinfo=UTC)
    )
    names = sorted({field.name for field in fields(kind)} & _TIMES)
    times: dict[str, Any] = {name: data.draw(moments) for name in names}
    row = kind(ordinal=0, phase=Phase.PRESENT, **times)
    for moved in moved_back((row,), NOW):
        for name in set(names) - {"retry_at", "heard_at", "started_at", "ended_at"}:
            assert getattr(moved, name) <= NOW, name
