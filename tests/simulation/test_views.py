"""The views of a broadcast agree at every commit of simulated worlds, with all that goes wrong in them.

The states are those that the service really brings about, and the facts are what Health and Explain would be made of at
that moment.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from service.domain.facts import Facts, Told
from service.domain.lifecycle import Event
from service.domain.measurements import Probe
from service.domain.situation import Availability
from tests.simulation import invariants
from tests.simulation.checks.at_commits import AtCommits
from tests.simulation.simulate import simulate
from tests.unit.view_laws import LAWS, broken, nothing_is_of_the_future

if TYPE_CHECKING:
    import pytest

    from tests.simulation.checks.violations import Findings
    from tests.simulation.replica import Shared
    from tests.simulation.store.tables import Written

SEEDS = range(1, 13)
# The clock of the database is set back in some worlds.
TIMELESS = tuple(law for law in LAWS if law is not nothing_is_of_the_future)


def facts_of(shared: Shared, written: Written) -> Facts:
    """As the API would read them in the moment after the commit."""
    tables, row = shared.tables, written.row
    story = tuple(
        Told(event=Event(reason=each.reason, message=each.message), time=each.time, actor=each.actor)
        for each in tables.events
        if each.broadcast_id == written.after.id
    )
    return Facts(
        broadcast=row.read(),
        resources=tuple(row.sorted_resources()),
        now=tables.now(),
        availability=Availability(outages=tables.outages(), storage=shared.storage),
        looked_at={name: each.compared_at for name, each in tables.looked.items() if each.compared_at is not None},
        probe=tables.probes.get(written.after.id, Probe()),
        story=story,
    )


class AtCommitsWithViews(AtCommits):
    def __init__(self, shared: Shared, findings: Findings) -> None:
        super().__init__(shared, findings)
        self._seen_by = shared, findings
        self._calling: set[str] = set()
        """Broadcasts with a call under way."""

    def _written(self, written: Written) -> None:
        super()._written(written)
        if written.intended is not None:
            # An intent changes a resource alone: the status follows when the call was answered. A caller who changes
            # something meanwhile leaves the status as it is.
            self._calling.add(written.after.id)
            return
        if written.claim is not None:
            self._calling.discard(written.after.id)
        elif written.after.id in self._calling:
            return
        shared, findings = self._seen_by
        facts = facts_of(shared, written)
        for how in broken(facts, shared.timing, TIMELESS):
            findings.violate("views", how)
        findings.seen.update((f"views while {facts.broadcast.state}", "views"))


def test_the_views_agree_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "AtCommits", AtCommitsWithViews)
    met: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = simulate(seed)
        assert outcome.violations == []
        met.update(outcome.seen)
    assert met["views"] > 500
    for state in ("STARTING", "READY", "LIVE", "INTERRUPTED", "STOPPING", "ENDED"):
        assert met[f"views while {state}"] > 0, state
