"""Why a report of a caller about a broadcast was not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.broadcast import State, Target
from service.domain.errors import BroadcastNotFound
from service.domain.lifecycle import not_wanted_live

if TYPE_CHECKING:
    from service.domain.errors import StateForbids
    from service.store.database import Connection


async def refused(connection: Connection, broadcast_id: str) -> BroadcastNotFound | StateForbids:
    """The error to raise for a report that found no broadcast that is wanted live."""
    row = await connection.fetchrow("SELECT state, target FROM broadcast WHERE id = $1 AND NOT deleted", broadcast_id)
    if row is None:
        return BroadcastNotFound(broadcast_id)
    return not_wanted_live(broadcast_id, State(row["state"]), Target(row["target"]))
