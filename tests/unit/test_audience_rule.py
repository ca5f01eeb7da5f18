"""The one number of viewers: whose count it is, and when there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.audience.audience import COUNTS_S, Audience, Count, Source, audience_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def counts(**of: int) -> list[Count]:
    return [Count(source=Source(each), viewers=viewers, counted_at=NOW) for each, viewers in of.items()]


@pytest.mark.parametrize(
    ("of", "viewers", "rule"),
    [
        ({}, None, None),
        ({"SESSIONS": 7}, 7, "SESSIONS"),
        ({"SESSIONS": 0}, 0, "SESSIONS"),
        # Nobody is in the room, or no player reports: that says nothing of the others.
        ({"ROOM": 0}, None, None),
        ({"ENGAGEMENT": 0}, None, None),
        ({"ENGAGEMENT": 0, "ROOM": 0, "SESSIONS": 0}, 0, "SESSIONS"),
        ({"ENGAGEMENT": 0, "ROOM": 3}, 3, "ROOM"),
        # Parts overlap: the largest, never their sum.
        ({"SESSIONS": 90, "ENGAGEMENT": 95, "ROOM": 10}, 95, "ENGAGEMENT"),
        ({"SESSIONS": 96, "ENGAGEMENT": 95, "ROOM": 10}, 96, "SESSIONS"),
        ({"SESSIONS": 95, "ENGAGEMENT": 95}, 95, "SESSIONS"),
        # Who reports says that he knows.
        ({"SESSIONS": 96, "ENGAGEMENT": 95, "REPORTED": 5}, 5, "REPORTED"),
        ({"SESSIONS": 96, "REPORTED": 0}, 0, "REPORTED"),
    ],
)
def test_whose_count_is_the_number(of: dict[str, int], viewers: int | None, rule: str | None) -> None:
    audience = audience_of(counts(**of), NOW)
    assert (audience.viewers, audience.rule) == (viewers, rule)
    assert {each.source: each.viewers for each in audience.counts} == of


def test_an_old_count_is_left_out() -> None:
    of = counts(SESSIONS=7, REPORTED=5)
    later = NOW + timedelta(seconds=COUNTS_S)
    assert audience_of(of, later).viewers == 5
    assert audience_of(of, later + timedelta(seconds=1)) == Audience(read_at=later + timedelta(seconds=1))


@given(st.dictionaries(st.sampled_from(list(Source)), st.integers(0, 1000)))
def test_the_number_is_one_of_the_counts_and_no_sum(of: dict[Source, int]) -> None:
    audience = audience_of(counts(**of), NOW)
    if audience.rule is None:
        assert audience.viewers is None
    else:
        assert audience.viewers == of[audience.rule]
        others = [viewers for source, viewers in of.items() if source is not Source.REPORTED]
        assert audience.rule is Source.REPORTED or audience.viewers == max(others)
