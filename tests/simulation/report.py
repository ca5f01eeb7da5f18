"""Many worlds at once, and what came of them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.museum import without
from tests.simulation.simulate import Outcome, simulate

_TOGETHER = 5
"""Seeds a worker takes at a time."""
VACUOUS = (
    "adopted",
    "fenced",
    "late effect neutralised",
    "zombie write rejected",
    "orphan swept",
    "upload made again",
    "ambiguous commit resolved",
    "ghost beside another egress",
    "ghost handled",
    "webhook doubled",
    "webhook sent again",
    "secret redacted",
    "cut off",
    "fallback entered",
    "fallback left",
    "file recorded",
    "ended by itself",
    "end shown to viewers",
)
"""Cases that a run of many seeds must have met. A run that never met one has proved nothing about it."""
OFTEN = ("adopted", "fenced", "fallback entered", "ended by itself", "end shown to viewers")
OFTEN_SHARE = 0.1
"""The share of worlds in which each case of `OFTEN` must have been met."""


@dataclass(slots=True)
class Summary:
    seeds: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    began: float = field(default_factory=time.monotonic)
    faults: Counter[str] = field(default_factory=Counter[str])
    seen: Counter[str] = field(default_factory=Counter[str])
    seen_in: Counter[str] = field(default_factory=Counter[str])
    """In how many worlds each case was met."""
    failed: list[Outcome] = field(default_factory=list[Outcome])
    back_in_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.faults += outcome.faults
        self.seen += outcome.seen
        self.seen_in.update(name for name, count in outcome.seen.items() if count)
        for what, took in outcome.back_in_s.items():
            self.back_in_s[what] += took
        if outcome.violations:
            self.failed.append(outcome)

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def speed(self) -> float:
        return self.simulated_s / self.wall_s

    @property
    def faults_an_hour(self) -> float:
        return self.faults.total() / (self.simulated_s / 3600) if self.simulated_s else 0.0

    @property
    def unseen(self) -> list[str]:
        return [name for name in VACUOUS if not self.seen[name]]

    @property
    def too_rare(self) -> list[str]:
        return [name for name in OFTEN if self.seen_in[name] < OFTEN_SHARE * self.seeds]

    def line(self) -> str:
        return (
            f"{self.seeds} seeds, {len(self.failed)} with a violation, {self.simulated_s / 3600:.1f} simulated hours "
            f"in {self.wall_s:.0f} s ({self.speed:,.0f} times real time; {self.cpu_s:.0f} s of processor time), "
            f"{self.faults_an_hour:.0f} faults a simulated hour"
        )

    def lines(self) -> Iterator[str]:
        yield self.line()
        yield "seen: " + ", ".join(f"{name} {self.seen[name]} (in {self.seen_in[name]} worlds)" for name in VACUOUS)
        yield "faults: " + ", ".join(f"{name} {count}" for name, count in self.faults.most_common())
        for what, took in sorted(self.back_in_s.items()):
            times = sorted(took)
            yield (
                f"{what}, with every webhook lost: pictures again after {times[len(times) // 2]:.0f} s (median), "
                f"{times[-1]:.0f} s (longest of {len(times)})"
            )
        if self.unseen:
            yield f"NEVER SEEN: {', '.join(self.unseen)}"
        if self.too_rare:
            yield f"TOO RARE: {', '.join(self.too_rare)}"


def _several(seeds: Sequence[int], taken_away: str | None) -> list[Outcome]:
    if taken_away is None:
        return [simulate(seed) for seed in seeds]
    with without(taken_away):
        return [simulate(seed) for seed in seeds]


def outcomes(seeds: Iterable[int], *, jobs: int, taken_away: str | None = None) -> Iterator[Outcome]:
    """In the order of the seeds; *taken_away*: the protection of the museum that is missing."""
    wanted = list(seeds)
    parts = [wanted[n : n + _TOGETHER] for n in range(0, len(wanted), _TOGETHER)]
    if jobs == 1:
        for part in parts:
            yield from _several(part, taken_away)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            for several in pool.map(_several, parts, [taken_away] * len(parts)):
                yield from several
        finally:
            pool.shutdown(cancel_futures=True)


def caught_at(name: str, seeds: Iterable[int], *, jobs: int) -> Outcome | None:
    """The first world that misses the protection *name*."""
    for outcome in outcomes(seeds, jobs=jobs, taken_away=name):
        if outcome.violations:
            return outcome
    return None


def run(seeds: Sequence[int], *, jobs: int, progress: Callable[[Summary], None]) -> Summary:
    summary = Summary()
    for outcome in outcomes(seeds, jobs=jobs):
        summary.add(outcome)
        progress(summary)
    return summary
