"""Nothing acknowledged is lost and nothing is doubled, whatever becomes of Postgres (`make chaos` for more of it)."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.chaos.drill import Report, Wanted, drill
from tests.chaos.history import Kind, Triage
from tests.chaos.monkey import How

READY_WITHIN_S = 5.0


@pytest.mark.timeout(300)
async def test_two_restarts_under_load(tmp_path: Path) -> None:
    wanted = Wanted(cycles=(How.KILL, How.FAST), down_s=(0.3, 0.8), calm_s=(1.5, 2.5), least=100, seed=1)
    report = await drill(wanted, tmp_path)
    print(report)
    assert len(report.harms) == 2
    _is_good(report, wanted)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_restarts_for_two_minutes(tmp_path: Path) -> None:
    wanted = Wanted(replicas=3, callers=6, seconds=120, least=1000, seed=2)
    report = await drill(wanted, tmp_path)
    print(report)
    assert {harm.how for harm in report.harms} == {*How}
    _is_good(report, wanted)
    assert max(report.recoveries) <= READY_WITHIN_S, "ready again within 5 s"
    assert statistics.quantiles(report.lags, n=100)[98] <= 2.0, "I-W6: fresh"
    assert max(report.lags) <= 5.0, "I-W6: fresh"
    assert report.ambiguous, "no answer was lost: it was too easy"


def _is_good(report: Report, wanted: Wanted) -> None:
    assert not report.found, "\n".join(report.found)
    # None of it was in vain.
    history = report.history
    assert history.acknowledged >= wanted.least
    assert all(history.of(kind, triage=Triage.OK) for kind in Kind)
    assert history.of(Kind.UPDATE, triage=Triage.FAIL)
    assert any(each.triage is Triage.OK and each.attempts > 1 for each in history.operations), "nobody met an outage"
    assert report.changes > wanted.least
    assert report.resumed
    assert report.broken
    assert report.retried_webhooks
