"""Watchers of everything, and what a watch promises, checked against the change log.

They speak to the stub, not by the client: it drops what comes twice, which is what is to be seen here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration

from broadcast.v1.broadcast_service_pb2 import (
    CHANGE_TYPE_SNAPSHOT,
    BroadcastFilter,
    WatchBroadcastsRequest,
    WatchBroadcastsResponse,
)
from broadcast.v1.broadcast_service_pb2_grpc import BroadcastServiceStub
from service.api.messages.tokens import filter_hash, read_resume_token
from service.store.broadcasts import Filter

if TYPE_CHECKING:
    from random import Random

_EVERYTHING = filter_hash(Filter())
_SILENT_S = 4.0
"""Four heartbeats."""
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    at: float
    """Unix seconds."""
    up_to: int
    """The revision in its resume token: all up to here has been told."""
    revision: int | None = None
    """Of a change; None: a heartbeat, or a part of the snapshot."""
    snapshot: bool = False
    complete: bool = False
    broadcast_id: str = ""
    title: str = ""


@dataclass(slots=True, kw_only=True)
class Connection:
    """One stream, from its opening to its break."""

    resumed: int | None
    """The revision of the token it was opened with; None: without one."""
    in_snapshot: bool
    """It has to begin with, or go on with, the snapshot."""
    opened: float = field(default_factory=time.time)
    told: list[Told] = field(default_factory=list[Told])
    end: str = ""


class Watcher:
    def __init__(self, targets: Sequence[str], random: Random, *, cuts: bool = True) -> None:
        """*cuts*: hangs up now and then, and may come back with a token of long ago."""
        self._targets = targets
        self._random = random
        self._cuts = cuts
        self._tokens: list[tuple[str, int, bool]] = []
        """Token, its revision, whether the snapshot was not complete then."""
        self.connections: list[Connection] = []
        self.refused: list[str] = []
        """Answers that say more than "not now"."""

    @property
    def up_to(self) -> int:
        return max((token[1] for token in self._tokens), default=-1)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            target = self._random.choice(self._targets)
            async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                await self._follow(BroadcastServiceStub(channel))
            await asyncio.sleep(self._random.uniform(0.02, 0.2))

    async def _follow(self, stub: BroadcastServiceStub) -> None:
        token, revision, in_snapshot = self._take_up()
        connection = Connection(resumed=revision, in_snapshot=in_snapshot)
        self.connections.append(connection)
        stream: Any = stub.WatchBroadcasts(
            WatchBroadcastsRequest(filter=BroadcastFilter(), resume_token=token, heartbeat_interval=Duration(seconds=1))
        )
        ends = time.monotonic() + (self._random.uniform(0.5, 6) if self._cuts else 3600)
        try:
            while time.monotonic() < ends:
                async with asyncio.timeout(_SILENT_S):
                    message = await stream.read()
                if message is grpc.aio.EOF:
                    connection.end = "ended"
                    return
                self._hear(connection, message)
            connection.end = "cut"
        except TimeoutError:
            connection.end = "silent"
        except grpc.aio.AioRpcError as error:
            connection.end = error.code().name
            if error.code() not in _PASSING:
                self.refused.append(f"{error.code().name}: {error.details()}")
        finally:
            stream.cancel()

    def _take_up(self) -> tuple[str, int | None, bool]:
        if not self._tokens:
            return "", None, True
        # Where it left off; or, as one who slept does, with an older one.
        back = self._random.randint(1, 40) if self._cuts and self._random.random() < 0.3 else 1
        return self._tokens[-min(back, len(self._tokens))]

    def _hear(self, connection: Connection, message: WatchBroadcastsResponse) -> None:
        token = read_resume_token(message.resume_token, _EVERYTHING)
        told = _told(message, token.revision)
        connection.told.append(told)
        self._tokens.append((message.resume_token, token.revision, token.last is not None))


def _told(message: WatchBroadcastsResponse, up_to: int) -> Told:
    now = time.time()
    match message.WhichOneof("message"):
        case "change":
            change = message.change
            snapshot = change.type == CHANGE_TYPE_SNAPSHOT
            return Told(
                at=now,
                up_to=up_to,
                revision=None if snapshot else change.revision,
                snapshot=snapshot,
                broadcast_id=change.broadcast.id,
                title=change.broadcast.spec.title,
            )
        case "snapshot_complete":
            return Told(at=now, up_to=up_to, complete=True)
        case _:
            return Told(at=now, up_to=up_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A row of the change log that watchers are told of."""

    revision: int
    broadcast_id: str
    title: str
    time: float
    first: bool
    """It is how the broadcast began."""


def violations(name: str, connections: Iterable[Connection], log: Sequence[Logged]) -> list[str]:
    """Of I-W1 (ordered), I-W2 (unique), I-W3 (reliable), I-W4 (resumable), I-W5 (bookmark)."""
    found: list[str] = []
    in_snapshot: set[str] = set()
    for number, connection in enumerate(connections):
        where = f"{name}, connection {number} (resumed at {connection.resumed}, {connection.end})"
        found += [f"{where}: {what}" for what in _within(connection, log)]
        if connection.in_snapshot:
            in_snapshot |= {told.broadcast_id for told in connection.told if told.snapshot}
        for told in connection.told:
            if told.complete:
                there = {each.broadcast_id for each in log if each.first and each.revision <= told.up_to}
                found += [f"{where}: I-W3: {missing} is not in the snapshot" for missing in there - in_snapshot]
    return found


def _within(connection: Connection, log: Sequence[Logged]) -> list[str]:
    """One stream: exactly the log, from where it was resumed, or its snapshot is complete, to where it broke."""
    found: list[str] = []
    after = None if connection.in_snapshot else connection.resumed
    changes: list[tuple[int, str, str]] = []
    up_to = -1 if connection.resumed is None else connection.resumed
    for told in connection.told:
        if told.snapshot and not connection.in_snapshot:
            found.append("I-W4: a snapshot, and it was resumed")
        if told.complete:
            after = told.up_to
        if told.up_to < up_to:
            found.append(f"I-W5: the token goes back from {up_to} to {told.up_to}")
        if told.revision is not None:
            found += _change(told, changes[-1][0] if changes else 0, up_to)
            changes.append((told.revision, told.broadcast_id, told.title))
        up_to = max(up_to, told.up_to)
    expected: list[tuple[int, str, str]] = []
    if after is not None:
        expected = [(each.revision, each.broadcast_id, each.title) for each in log if after < each.revision <= up_to]
    if changes != expected:
        missing = sorted({each[0] for each in expected} - {each[0] for each in changes})
        found.append(f"I-W3: what was told is not the log after {after}, up to {up_to}; missing: {missing[:9]}")
    return found


def _change(told: Told, before: int, up_to: int) -> list[str]:
    revision = told.revision or 0
    rules = {
        f"I-W1: {revision} after {before}": revision >= before,
        f"I-W2: {revision} twice": revision != before,
        f"I-W4: the token of {revision} resumes at {told.up_to}": told.up_to == revision,
        f"I-W5: {revision} after a token of {up_to}": revision > up_to,
    }
    return [what for what, holds in rules.items() if not holds]


def lags(connections: Iterable[Connection], log: Sequence[Logged], calm: Iterable[tuple[float, float]]) -> list[float]:
    """I-W6: seconds from the beginning of a change's transaction to who was connected then; only of what happened while
    nothing was broken.
    """
    times = {each.revision: each.time for each in log}
    spans = list(calm)
    return [
        told.at - times[told.revision]
        for connection in connections
        for told in connection.told
        if told.revision is not None
        and connection.told[0].at < times.get(told.revision, 0.0)
        and any(began <= times[told.revision] and told.at <= ended for began, ended in spans)
    ]
