"""The findings of the checks of one world: violations, and how often each rare case was met."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.environment import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    time: float
    """Virtual seconds from the beginning of the world."""
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.time:.1f} s: {self.text}"


@dataclass(slots=True)
class Findings:
    env: Environment
    violations: list[Violation] = field(default_factory=list[Violation])
    """In the order in which they were found."""
    seen: Counter[str] = field(default_factory=Counter[str])
    """How often each rare case happened."""

    commits_lost_at: float | None = None
    """When the database lost commits. What was answered or intended before may be missing then, and is not missed."""

    @property
    def commits_lost(self) -> bool:
        return self.commits_lost_at is not None

    def violate(self, invariant: str, text: str) -> None:
        self.env.trace.add("VIOLATION", invariant, text)
        self.violations.append(Violation(time=self.env.loop.time(), invariant=invariant, text=text))
