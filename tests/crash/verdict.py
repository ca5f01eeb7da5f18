"""What there is, at the providers and in the rows, and whether it is what is wanted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from broadcast_sandbox.storage.s3 import S3Simulator
    from tests.stack import Stack

_ONCE = frozenset(
    {
        "CREATED",
        "START_REQUESTED",
        "STATE_STARTING",
        "STOP_REQUESTED",
        "ON_AIR_REQUESTED",
        "UPDATED",
        "DELETED",
        "STATE_ENDED",
        "ENDING",
    }
)


@dataclass
class Verdict:
    stack: Stack
    pool: asyncpg.Pool[asyncpg.Record]
    storage: S3Simulator | None
    """Of a fallback's recordings; None: there is none."""

    async def runs_once(self) -> None:
        """One room, one live stream and one egress that publishes, and the rows say so."""
        assert not self.stack.doubles()
        rooms, streams, egresses = self._rooms(), self._streams() - await self.idle(), self._egresses()
        assert (len(rooms), len(streams), len(egresses)) == (1, 1, 1), (rooms, streams, egresses)
        assert self.living("mux", "ingest.connected", "ingest.disconnected") == 1
        present = await self._present()
        assert present == {("room", *rooms), ("stream", *streams), ("egress", *egresses)}, present

    async def is_gone(self) -> bool:
        """Nothing runs, nothing publishes, and nobody has anything to do any more. Answers whether it is deleted."""
        assert not self.stack.doubles()
        left = (self._rooms(), self._streams() - await self.idle(), self._egresses())
        assert left == (set(), set(), set()), left
        assert self.living("mux", "ingest.connected", "ingest.disconnected") == 0
        assert self.living("livekit", "destination.connected", "destination.disconnected") == 0
        row = await self.pool.fetchrow("SELECT state, deleted, lease_until, lease_owner, due_at FROM broadcast")
        assert row is not None
        assert row["state"] == "ENDED", row["state"]
        assert (row["lease_until"], row["lease_owner"], row["due_at"]) == (None, None, None), row
        assert await self.pool.fetchval("SELECT count(*) FROM resource WHERE phase <> 'gone' AND kind <> 'upload'") == 0
        return row["deleted"]

    def nothing_kept(self) -> None:
        """Of a broadcast whose recording is to be discarded."""
        assert self.living("mux", "asset.created", "asset.deleted") == 0, "a recording that was to be discarded"

    async def returned(self) -> None:
        """The fallback is over, and what was recorded meanwhile was uploaded, once."""
        assert self.storage is not None
        modes = await self.pool.fetchval(
            "SELECT jsonb_array_length(coalesce(fallback -> 'modes', '[]')) FROM broadcast"
        )
        assert modes == 0, "it is still on its fallback"
        effects = self.stack.mux.effects
        uploads = Counter(str(each.detail["passthrough"]) for each in effects.of("upload.created"))
        twice = [tag for tag, times in uploads.items() if times > 1]
        assert not twice, f"uploaded twice: {twice}"
        left = {each.id for each in effects.of("upload.created")} - {
            str(each.detail["asset"]) for each in effects.of("asset.deleted")
        }
        assert left == {each.id for each in effects.of("upload.ready")}, f"{left} cannot be played"
        assert len(left) == len(self.storage.objects), f"{left} of {[*self.storage.objects]}"

    async def once(self) -> None:
        """What has to be true of the whole story."""
        assert not self.stack.doubles()
        assert await self.pool.fetchval("SELECT count(*) FROM broadcast") == 1
        reasons = await self.reasons()
        twice = {reason for reason in _ONCE if reasons.count(reason) > 1}
        assert not twice, f"applied twice: {twice}"
        assert reasons.count("STATE_ENDED") == 1
        ended = await self.pool.fetchval("SELECT extract(epoch FROM end_time)::float8 FROM broadcast")
        late = [each for each in self.stack.mux.effects.of("ingest.connected") if each.time > ended]
        assert not late, f"published after the end: {late}"

    async def charged(self) -> None:
        """The ledger has every egress that ran, once, from its beginning to its end by the log of effects, to the
        second. One that told no end is charged until it was given up. One that came late, with a dead key, and that no
        look met before it failed, is in no row and in no ledger.
        """
        rows = await self.pool.fetch(
            "SELECT external_id, kind, changed_at, detail FROM resource WHERE external_id <> ''"
        )
        known = {row["external_id"]: row for row in rows if row["kind"] in ("egress", "recording")}
        effects = self.stack.livekit.effects
        began = {each.id: each.time for each in effects.of("egress.started")}
        ended = {each.id: each.time for each in effects.of("egress.ended")}
        connected = {each.id for each in effects.of("egress.stream_connected")}
        began = {id_: time for id_, time in began.items() if id_ in known or id_ in connected}
        assert known.keys() == began.keys(), "an egress ran that nobody is charged for"
        entries = await self.pool.fetch(
            "SELECT ref, basis, extract(epoch FROM from_time)::float8 AS began, "
            "extract(epoch FROM to_time)::float8 AS ended FROM ledger WHERE kind IN ('egress', 'file_egress')"
        )
        assert sorted(each["ref"] for each in entries) == sorted(began)
        for each in entries:
            assert abs(each["began"] - began[each["ref"]]) < 1, f"{each['ref']} is charged from another moment on"
            if each["basis"] == "provider":
                assert abs(each["ended"] - ended[each["ref"]]) < 1, f"{each['ref']} is charged to another moment"
            else:
                given_up = known[each["ref"]]["changed_at"].timestamp()
                assert each["began"] <= each["ended"] <= given_up + 1, f"{each['ref']} is charged after it was given up"
        fed = await self.pool.fetchval(
            "SELECT sum(extract(epoch FROM to_time - from_time))::float8 FROM ledger WHERE kind = 'input'"
        )
        mux = self.stack.mux.effects
        left = sum(each.time for each in mux.of("ingest.disconnected"))
        true = left - sum(each.time for each in mux.of("ingest.connected"))
        if all(each["basis"] == "provider" for each in entries):
            assert abs((fed or 0.0) - true) < 1, f"{fed} s of input are charged, and {true} s were sent"

    async def idle(self) -> set[str]:
        """Live streams of the pool, which wait for a broadcast."""
        rows = await self.pool.fetch("SELECT external_id FROM pool_stream WHERE phase = 'present'")
        return {row["external_id"] for row in rows}

    def _rooms(self) -> set[str]:
        effects = self.stack.livekit.effects
        closed = {each.detail["sid"] for each in effects.of("room.deleted")}
        return {each.id for each in effects.of("room.created") if each.detail["sid"] not in closed}

    def _streams(self) -> set[str]:
        effects = self.stack.mux.effects
        return {each.id for each in effects.of("stream.created")} - {each.id for each in effects.of("stream.deleted")}

    def _egresses(self) -> set[str]:
        effects = self.stack.livekit.effects
        over = {each.id for kind in ("egress.ended", "egress.ghost") for each in effects.of(kind)}
        return {each.id for each in effects.of("egress.started")} - over

    def living(self, provider: str, born: str, died: str) -> int:
        effects = self.stack.mux.effects if provider == "mux" else self.stack.livekit.effects
        return len(effects.of(born)) - len(effects.of(died))

    async def _present(self) -> set[tuple[str, str]]:
        rows = await self.pool.fetch(
            "SELECT kind, external_id FROM resource WHERE phase = 'present' AND kind <> 'upload'"
        )
        return {(row["kind"], row["external_id"]) for row in rows}

    async def reasons(self) -> list[str]:
        return [row["reason"] for row in await self.pool.fetch("SELECT reason FROM event ORDER BY revision")]

    async def story(self) -> list[str]:
        """For people who look for what went wrong."""
        rows = await self.pool.fetch("SELECT time, reason, message, actor, state FROM event ORDER BY revision")
        told = [f"{row['time']:%M:%S.%f} {row['state']:<9} {row['reason']} {row['message']}" for row in rows]
        now = await self.pool.fetch("SELECT kind, ordinal, phase, external_id, detail FROM resource ORDER BY 1, 2")
        done = [f"{each.provider} {each.kind} {each.id} {each.detail}" for each in self.stack.effects()]
        return [*told, *map(str, now), *done]
