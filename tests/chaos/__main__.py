"""Postgres restarts under load, for as long as wanted: `make chaos ARGS="--seconds 1800"`."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.drill import Wanted, drill

_READY_WITHIN_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="for how long Postgres is not left in peace (120)")
    parser.add_argument("--replicas", type=int, default=3, help="processes of the service (3)")
    parser.add_argument("--callers", type=int, default=6, help="callers, each with a broadcast at a time (6)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10_000), help="of everything that is drawn by lot"
    )
    arguments = parser.parse_args()
    wanted = Wanted(
        replicas=arguments.replicas, callers=arguments.callers, seconds=arguments.seconds, seed=arguments.seed
    )
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {wanted.seed}; logs: {directory}", flush=True)
    report = asyncio.run(drill(wanted, directory))
    print(report)
    late = [harm for harm in report.harms if harm.recovery_s > _READY_WITHIN_S]
    for harm in late:
        print(f"{harm.how}: ready again only after {harm.recovery_s:.2f} s")
    return 1 if report.found or late else 0


if __name__ == "__main__":
    sys.exit(main())
