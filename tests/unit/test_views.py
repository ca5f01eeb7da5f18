"""One truth in GetBroadcast, GetBroadcastHealth, ExplainBroadcast and JoinBroadcast: what each says of one stored row.

The table holds the words of each situation in each view. The laws hold between the views, in the situations of the
table and in generated ones.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from service.domain.facts import Facts
from tests.unit.health_facts import TIMING
from tests.unit.situations import SITUATIONS
from tests.unit.view_laws import broken
from tests.unit.view_rows import row_of
from tests.unit.view_strategies import FACTS
from tests.unit.view_table import TABLE
from tests.unit.views import views_of

EXAMPLES = 40
"""Of each strategy."""
MET = (
    "OK",
    "IDLE",
    "PENDING",
    "DEGRADED",
    "DOWN",
    "UNKNOWN",
    "LIVE",
    "INTERRUPTED",
    "READY",
    "STOPPING",
    "UNEXPLAINED",
)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_view_of_a_situation(name: str) -> None:
    assert row_of(views_of(SITUATIONS[name], TIMING)) == TABLE[name]


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_views_of_a_situation_agree(name: str) -> None:
    assert broken(SITUATIONS[name], TIMING) == []


def test_the_table_has_the_situations_and_no_others() -> None:
    assert list(TABLE) == list(SITUATIONS)


def test_the_views_of_any_state_agree() -> None:
    met: Counter[str] = Counter()

    def hold(facts: Facts) -> None:
        assert broken(facts, TIMING) == []
        views = views_of(facts, TIMING)
        met.update({views.state, views.overall, *views.causes})

    # The last strategy begins with the situations of the table: most of it is well there.
    for times, strategy in zip((*[1] * (len(FACTS) - 1), 4), FACTS, strict=True):
        many = settings(
            max_examples=times * EXAMPLES, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
        )
        many(given(strategy)(hold))()
    assert [each for each in MET if met[each] == 0] == [], met
