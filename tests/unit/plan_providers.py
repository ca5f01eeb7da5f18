"""The providers of the plan's world: what is really there."""

import contextlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from service.domain.broadcast import seconds
from service.domain.resources import EgressStatus, StreamStatus

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LIST_LAG_S = 1.5
"""What was created is not in a list before."""


class Fault(Enum):
    """What happens to one call."""

    NONE = auto()
    FAIL = auto()
    """Answered with an error, not done: a throttle, a provider in trouble."""
    REFUSE = auto()
    """The same, and for ever; of a create only."""
    VANISH = auto()
    """No answer, not done."""
    LOST_REPLY = auto()
    """No answer, done."""
    LATE = auto()
    """No answer, done later."""
    CRASH_BEFORE = auto()
    CRASH_AFTER = auto()
    """The process dies; what it stored before the call is all that is known."""
    DEAD_WORKER = auto()
    """Of a start: it runs, then its worker dies and leaves a record that is ACTIVE for ever."""
    DEAF_WORKER = auto()
    """Of a start: it runs and publishes, and answers no stop."""


@dataclass(frozen=True, kw_only=True)
class Mishap:
    fault: Fault
    delay_s: float = 5.0


class NotDone(Exception):
    def __init__(self, *, ambiguous: bool = False, refused: bool = False) -> None:
        self.ambiguous = ambiguous
        self.refused = refused


class Crash(Exception):
    pass


@dataclass(kw_only=True)
class TrueStream:
    id: str
    ordinal: int
    landed_at: datetime
    key: str
    disabled: bool = False
    active: bool = False
    recorded: bool = False
    media_since: datetime | None = None
    lost_at: datetime | None = None


@dataclass(kw_only=True)
class TrueEgress:
    id: str
    ordinal: int
    landed_at: datetime
    key: str
    connected: bool = False
    """To the live stream. A new key cuts nobody off, only the live stream's disable does."""
    status: EgressStatus = EgressStatus.STARTING
    dead: bool = False
    deaf: bool = False

    @property
    def running(self) -> bool:
        return not self.status.terminal and not self.dead

    @property
    def stream_id(self) -> str:
        return self.key.rpartition("/")[0]


@dataclass(kw_only=True)
class TrueFile:
    """A file egress."""

    id: str
    ordinal: int
    landed_at: datetime
    status: EgressStatus = EgressStatus.STARTING
    dead: bool = False
    deaf: bool = False

    @property
    def running(self) -> bool:
        return not self.status.terminal and not self.dead


@dataclass(kw_only=True)
class TrueAsset:
    id: str
    ordinal: int
    """Of the file it was made of; -1: of a live stream."""
    attempt: int = 0
    bad: bool = False
    """Mux cannot make it."""
    landed_at: datetime
    ready_at: datetime


READY_AFTER_S = 20
"""Mux takes so long to prepare an asset."""
FILE_TAKES_S = 60
"""A file egress that is ending takes so long to put its file into the storage."""


class Providers:
    def __init__(self, reconnect_window_s: float) -> None:
        self.reconnect_window_s = reconnect_window_s
        self.now = T0
        self.room = False
        self.room_landed_late = False
        self.streams: dict[str, TrueStream] = {}
        self.egresses: dict[str, TrueEgress] = {}
        self.files: dict[str, TrueFile] = {}
        self.assets: dict[str, TrueAsset] = {}
        self.cannot_make = 0
        """So many uploads yet come to nothing at Mux."""
        self.away: set[str] = set()
        """Providers that do not answer. What runs there goes on."""
        self.host = False
        self.most_publishing = 0
        self.last_fault_at = T0
        self.numbers = itertools.count(1)
        self.events: list[tuple[datetime, int, Callable[[], None]]] = []

    def hint(self) -> None:
        """A webhook."""

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds(after_s), next(self.numbers), action))

    @property
    def elapsed(self) -> float:
        return (self.now - T0).total_seconds()

    def can_publish(self, egress: TrueEgress) -> bool:
        stream = self.streams.get(egress.stream_id)
        open_ = stream is not None and not stream.disabled
        return egress.running and open_ and (egress.connected or (stream is not None and stream.key == egress.key))

    def publishes(self, egress: TrueEgress) -> bool:
        return self.can_publish(egress) and egress.status is not EgressStatus.STARTING

    def settle(self) -> None:
        for egress in self.egresses.values():
            egress.connected = egress.connected and self.can_publish(egress)
        able = [egress for egress in self.egresses.values() if self.can_publish(egress)]
        self.most_publishing = max(self.most_publishing, len(able))
        for egress in self.egresses.values():
            if egress.running and egress.status is not EgressStatus.STARTING and not self.can_publish(egress):
                egress.status = EgressStatus.FAILED
        for stream in self.streams.values():
            media = not stream.disabled and any(self.publishes(e) and e.stream_id == stream.id for e in able)
            if media:
                stream.lost_at = None
                stream.media_since = stream.media_since or self.now
                stream.active = stream.active or self.now - stream.media_since >= seconds(8)
                stream.recorded = stream.recorded or stream.active
            else:
                stream.lost_at = stream.lost_at or self.now
                if stream.disabled or self.now - stream.lost_at >= seconds(self.reconnect_window_s):
                    stream.active, stream.media_since = False, None
                elif not stream.active:
                    stream.media_since = None

    @staticmethod
    def status_of_stream(stream: TrueStream) -> StreamStatus:
        if stream.disabled:
            return StreamStatus.DISABLED
        return StreamStatus.ACTIVE if stream.active else StreamStatus.IDLE

    def listed(self, landed_at: datetime) -> bool:
        return self.now - landed_at >= seconds(LIST_LAG_S)

    @staticmethod
    def land(effect: Callable[[], str]) -> None:
        with contextlib.suppress(NotDone):
            effect()

    def launch(self, id_: str, ordinal: int, key: str, mishap: Mishap) -> str:
        if not self.room:
            raise NotDone
        egress = TrueEgress(
            id=id_, ordinal=ordinal, landed_at=self.now, key=key, deaf=mishap.fault is Fault.DEAF_WORKER
        )
        self.egresses[id_] = egress

        def connect() -> None:
            if egress.status is EgressStatus.STARTING:
                egress.connected = self.can_publish(egress)
                egress.status = EgressStatus.ACTIVE if egress.connected else EgressStatus.FAILED
                self.hint()

        def die() -> None:
            if not egress.status.terminal:
                egress.dead, egress.status = True, EgressStatus.ACTIVE
                self.last_fault_at = self.now

        self.at(3, connect)
        if mishap.fault is Fault.DEAD_WORKER:
            self.at(mishap.delay_s, die)
        self.hint()
        return id_

    def end(self, id_: str) -> str:
        egress = self.egresses.get(id_)
        if egress is None or egress.status.terminal:
            return ""
        if egress.dead or egress.deaf:
            raise NotDone
        egress.status = EgressStatus.ENDING

        def finish() -> None:
            if not egress.status.terminal:
                egress.status = EgressStatus.COMPLETE
                self.hint()

        self.at(5, finish)
        return ""

    def launch_file(self, id_: str, ordinal: int, mishap: Mishap) -> str:
        if not self.room:
            raise NotDone
        file = TrueFile(id=id_, ordinal=ordinal, landed_at=self.now, deaf=mishap.fault is Fault.DEAF_WORKER)
        self.files[id_] = file

        def begin() -> None:
            if file.status is EgressStatus.STARTING:
                file.status = EgressStatus.ACTIVE

        def die() -> None:
            if not file.status.terminal:
                file.dead, file.status = True, EgressStatus.ACTIVE
                self.last_fault_at = self.now

        self.at(3, begin)
        if mishap.fault is Fault.DEAD_WORKER:
            self.at(mishap.delay_s, die)
        return id_

    def end_file(self, id_: str) -> str:
        file = self.files.get(id_)
        if file is None or file.status.terminal or file.status is EgressStatus.ENDING:
            return ""
        if file.dead or file.deaf:
            raise NotDone
        file.status = EgressStatus.ENDING

        def finish() -> None:
            if not file.status.terminal:
                file.status = EgressStatus.COMPLETE
                self.hint()

        self.at(FILE_TAKES_S, finish)
        return ""

    def upload(self, id_: str, ordinal: int, attempt: int) -> str:
        self.assets[id_] = TrueAsset(
            id=id_,
            ordinal=ordinal,
            attempt=attempt,
            landed_at=self.now,
            ready_at=self.now + seconds(READY_AFTER_S),
            bad=self.cannot_make > 0,
        )
        self.cannot_make = max(self.cannot_make - 1, 0)
        return id_

    def recorded(self, stream_id: str) -> list[str]:
        """What Mux recorded of a live stream."""
        stream = self.streams.get(stream_id)
        if stream is None or not stream.recorded:
            return []
        id_ = f"{stream_id}/asset"
        asset = TrueAsset(id=id_, ordinal=-1, landed_at=self.now, ready_at=self.now + seconds(READY_AFTER_S))
        self.assets.setdefault(id_, asset)
        return [id_]

    def cut(self, stream_id: str, *, disable: bool) -> str:
        """Disabled, which throws out whoever is connected, or enabled again."""
        stream = self.streams.get(stream_id)
        if stream is None:
            raise NotDone
        stream.disabled = disable
        self.settle()
        return "disabled" if disable else ""

    def lose_room(self) -> None:
        self.room = False
        for egress in self.egresses.values():
            if not egress.dead and not egress.deaf:
                self.end(egress.id)
        for file in self.files.values():
            if not file.dead and not file.deaf:
                self.end_file(file.id)

    def lose_egress(self) -> None:
        """The one that runs fails."""
        for egress in self.egresses.values():
            if egress.running and not egress.deaf:
                egress.status = EgressStatus.FAILED
                self.last_fault_at = self.now
        self.settle()
        self.hint()
