"""What the real store can be asked, the one in memory can be asked in the same words."""

import inspect

import pytest

from service.store import broadcasts, budgets, changes, leases, owned_ids, passes, pool
from service.store.audience import slots
from service.store.measurements import outages, probes
from tests.simulation import store

PAIRS: list[tuple[type, type]] = [
    (leases.Leases, store.Leases),
    (passes.Passes, store.Passes),
    (broadcasts.Broadcasts, store.Broadcasts),
    (changes.Changes, store.Changes),
    (budgets.Budgets, store.Budgets),
    (owned_ids.OwnedIds, store.OwnedIds),
    (pool.Pool, store.Pool),
    (outages.Outages, store.Outages),
    (probes.Probes, store.Probes),
    (slots.AudienceSlots, store.AudienceSlots),
]


def asked(of: type) -> dict[str, list[tuple[str, object, object]]]:
    """Method to the names, kinds and defaults of its parameters."""
    return {
        name: [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(of, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("real", "simulated"), PAIRS, ids=lambda each: each.__module__)
def test_the_same_methods_with_the_same_parameters(real: type, simulated: type) -> None:
    assert asked(simulated) == asked(real)
