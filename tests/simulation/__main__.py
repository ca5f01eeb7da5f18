"""`python -m tests.simulation --seeds 2000`: so many worlds, each with its own misfortunes. `--museum`: whether the
simulation misses each protection that is taken away.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.museum import MUSEUM
from tests.simulation.report import Summary, caught_at, run
from tests.simulation.simulate import Outcome, simulate

REGRESSIONS = Path(__file__).with_name("seeds.txt")
_EVERY_S = 10.0
_MUSEUM_SEEDS = 200


def regressions() -> list[int]:
    """Seeds that failed once, and seeds that meet what few do."""
    lines = REGRESSIONS.read_text().splitlines()
    return [int(text) for line in lines if (text := line.partition("#")[0].strip())]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many worlds (2000)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at once (2)")
    parser.add_argument("--museum", nargs="*", metavar="PROTECTION", help="take protections away, all or those named")
    parser.add_argument("--trace", action="store_true", help="everything that happens in the first seed, and its hash")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    if given.trace:
        return _trace(given.first)
    if given.museum is not None:
        return _museum(given.museum or list(MUSEUM), given.first, given.jobs)
    return _simulate(given.first, given.seeds, given.jobs)


def _trace(seed: int) -> int:
    outcome = simulate(seed, lines=None, keep=True)
    print("\n".join(outcome.trace))
    print(f"seed {seed}: {outcome.hash}")
    _tell_violations(outcome)
    return 1 if outcome.violations else 0


def _simulate(first: int, count: int, jobs: int) -> int:
    seeds = [*regressions(), *range(first, first + count)]
    told_at = time.monotonic()
    told = 0

    def progress(summary: Summary) -> None:
        nonlocal told_at, told
        for outcome in summary.failed[told:]:
            print(f"seed {outcome.seed} FAILS: {outcome.violations[0]}", flush=True)
        told = len(summary.failed)
        if time.monotonic() - told_at >= _EVERY_S:
            told_at = time.monotonic()
            print(summary.line(), flush=True)

    summary = run(seeds, jobs=jobs, progress=progress)
    print()
    for line in summary.lines():
        print(line)
    if summary.failed:
        _tell_failed(summary.failed[0])
    return 1 if summary.failed or ((summary.unseen or summary.too_rare) and count >= _MUSEUM_SEEDS) else 0


def _tell_failed(outcome: Outcome) -> None:
    print(f"\nseed {outcome.seed}, the last of its {len(outcome.trace)} lines:")
    print("\n".join(outcome.trace))
    _tell_violations(outcome)
    print(f"\nall of it: python -m tests.simulation --trace --first {outcome.seed}")


def _tell_violations(outcome: Outcome) -> None:
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}")


def _museum(names: Sequence[str], first: int, jobs: int) -> int:
    missed: list[str] = []
    for name in names:
        began = time.monotonic()
        caught = caught_at(name, [*range(first, first + _MUSEUM_SEEDS), *regressions()], jobs=jobs)
        took = f"{time.monotonic() - began:.1f} s"
        if caught is None:
            missed.append(name)
            print(f"NOT CAUGHT within {_MUSEUM_SEEDS} seeds: {name} ({took})", flush=True)
        else:
            what = str(caught.violations[0]).partition("\n")[0]
            print(f"caught at seed {caught.seed}: {name}: {what} ({took})", flush=True)
    print(f"{len(names) - len(missed)} of {len(names)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
