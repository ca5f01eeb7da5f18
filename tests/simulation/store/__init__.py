"""The store in memory. It passes the conformance tests that Postgres passes."""

from tests.simulation.store.audience import AudienceSlots
from tests.simulation.store.callers import Broadcasts, Changes
from tests.simulation.store.leases import Leases
from tests.simulation.store.passes import Passes
from tests.simulation.store.pool import Pool
from tests.simulation.store.probes import Probes
from tests.simulation.store.shared import Budgets, Inbox, Outages, OwnedIds
from tests.simulation.store.standby import Standby
from tests.simulation.store.tables import Line, Tables, under_way
from tests.simulation.store.upkeep import Upkeep

__all__ = [
    "AudienceSlots",
    "Broadcasts",
    "Budgets",
    "Changes",
    "Inbox",
    "Leases",
    "Line",
    "Outages",
    "OwnedIds",
    "Passes",
    "Pool",
    "Probes",
    "Standby",
    "Tables",
    "Upkeep",
    "under_way",
]
