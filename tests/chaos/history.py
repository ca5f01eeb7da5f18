"""What callers asked for and what they were told, as a checker needs it.

An operation is *ok* (acknowledged: its effect is there, once), *fail* (refused: it has none), or *info* (nobody told:
it may have happened, now or later, or not).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


class Triage(StrEnum):
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Kind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    START = "start"
    STOP = "stop"


@dataclass(slots=True, kw_only=True)
class Operation:
    kind: Kind
    request_id: str
    broadcast_id: str = ""
    """Empty before a create was answered."""
    title: str = ""
    """What an update writes; no two write the same."""
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    triage: Triage = Triage.INFO
    attempts: int = 0
    last_attempt: float = 0.0
    """When it began."""
    answers: set[str] = field(default_factory=set[str])
    """The broadcasts that were answered: one."""
    error: str = ""
    refusable: bool = False
    """It asks for what has to be refused."""

    def __str__(self) -> str:
        return f"{self.kind} {self.request_id} of {self.broadcast_id or '?'} ({self.triage}, {self.attempts} tries)"


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list[Operation])

    def begin(self, kind: Kind, request_id: str, *, broadcast_id: str = "", title: str = "") -> Operation:
        operation = Operation(kind=kind, request_id=request_id, broadcast_id=broadcast_id, title=title)
        self.operations.append(operation)
        return operation

    def of(self, *kinds: Kind, triage: Triage | None = None) -> list[Operation]:
        return [each for each in self.operations if each.kind in kinds and triage in (None, each.triage)]

    @property
    def acknowledged(self) -> int:
        return sum(each.triage is Triage.OK for each in self.operations)
