from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

# What a replica says of faults of its own.
_FAULTS = ("pass_failed", "pass_does_not_settle", "rpc_failed")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    """What the replicas in this process log. That none of them met a fault of its own is part of every test."""
    with capture_logs() as captured:
        yield captured
    for entry in captured:
        if entry["log_level"] != "debug" and entry["event"] != "rpc":
            print(entry)
    assert not [entry for entry in captured if entry["event"] in _FAULTS]


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follow-up look is found by the poll: a second each, and there are a few in every broadcast."""
    monkeypatch.setattr("service.reconciler.loop._POLL_S", 0.2)
