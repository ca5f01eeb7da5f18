"""The crash matrix under pytest: a sample of it always, all of it with `-m crash_matrix`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.points import CASES, Case
from tests.crash.scenario import run_case

SAMPLE = frozenset(
    {
        "api.start.after_commit-kill9",
        "room.create.before_call+stop-stop",
        "stream.create.after_call-kill9",
        "egress.start.after_intent-stop",
        "egress.start.before_call-stop",
        "egress.start.after_call-raise",
        "key.reset.after_call-kill9",
        "key.reset.before_call-stop",
        "stream.disable.after_call-kill9",
        "egress.stop.after_call-kill9",
        "room.delete.after_call-kill9",
        "stream.delete.after_call-stop",
        "stream.cut.between-kill9",
        "recording.start.after_call-kill9",
        "upload.create.after_call-stop",
        "webhook.before_apply-kill9",
        "watch.mid_delta-kill9",
        "migrate.before_commit+2-kill9",
    }
)


def _marked(case: Case) -> object:
    marks = () if case.id in SAMPLE else (pytest.mark.crash_matrix,)
    return pytest.param(case, id=case.id, marks=marks)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
async def test_it_converges(case: Case, database_url: str, tmp_path: Path) -> None:
    await run_case(case, database_url, tmp_path)


def test_the_sample_is_part_of_the_matrix() -> None:
    assert {case.id for case in CASES} >= SAMPLE
