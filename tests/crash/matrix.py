"""The crash matrix: every failpoint, broken in every way, on a Postgres of its own.

Without a choice of points or modes the table goes to docs/crash-matrix.md.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broadcast_sandbox.postgres.server import EmbeddedPostgres
from service.failpoints import NAMES
from service.store.migrate import migrate
from tests.crash.points import CASES, POINTS, Case, Mode
from tests.crash.scenario import WITHIN_S, Outcome, run_case

TABLE = Path(__file__).parents[2] / "docs" / "crash-matrix.md"
_TEMPLATE = "template"
_PAGE = """\
# Crash matrix

Written by `make test-crash`; a sample of it is part of `make test`. The service runs as a process of its own on a real
Postgres, against the simulators. At each failpoint (`service/failpoints.py`) it is

- **kill -9**: killed, and started again;
- **exception**: hit by an exception, and lives on;
- **SIGSTOP**: stopped past its lease while a second replica runs, and then continued.

Each time the providers hold within {within} s exactly what is wanted, one room, one live stream and one egress that
publishes, or nothing; the rows agree; every call that was repeated with its request id was carried out once; after
StopBroadcast, which is never refused, there is nothing, and nothing publishes. At no moment do two publish to one live
stream. A fallback is over in the end, and what it recorded is uploaded once. Who watches is told every change, once and
in order; who migrates finds every migration applied, once.

The figure is the time from the crash to the last moment at which it was not yet so, beside it what was seen of the
recovery. The waits are shortened: a lease of 2.5 s, graces of 1.5 and 2 s. An exception costs a pause of 4 to 8 s, a
process that stands still within a transaction 10 s, after which Postgres ends its session.

{names} failpoints, {situations} situations, {cases} cases, of which {passed} passed. Median and longest:
{figures}.

| Failpoint | What is interrupted | kill -9 | exception | SIGSTOP |
|---|---|---|---|---|
{rows}

`+stop`: StopBroadcast comes right after the crash, and the process that stood still comes back when all is over.
`+end`: while it is taken down. The other additions tell apart what is met at the same point on another way.

- *call repeated*: the caller asked again, with the same request id.
- *adopted*: a resource was found whose creation nobody had recorded.
- *fenced*: the stream key was reset before another egress was started.
- *written off*: what no list showed was given up after its grace.
- *surplus removed*: one too many was found among the resources of the broadcast.
- *swept*: the sweeper removed what came after the broadcast had given it up.
- *cut off*: the live stream was disabled and enabled again, because of an egress that nobody saw end.
- *recorded*, *uploaded*: by the fallback; *uploaded again*: Mux could make no asset of the file at first.
- *zombie stood down*: the process that stood still found its lease lost.
- *destination added twice*: LiveKit takes the same output twice, and unlike the live stream a further destination has
  no key of ours to fence it with. It takes a process that stands still for a lease between two lines.

## Points of other names

- **Between the commit and the answer** of a call nothing is done, however long the answer waits: `api.*.after_commit`.
- **Before a lease is renewed**: every load and every intent renews it, so `lease.after_claim` and `*.before_intent`.
- **After a lease has ended**: every SIGSTOP, which lasts longer than the lease.
- **Before and after the commit of a record**: `status.before_commit` and `status.after_commit`, whatever is recorded;
  `*.after_record` for one resource.
- **The fence**: `key.reset.*`; the look after it, `observe.*+egress`; the stop of what is found, `egress.stop.*`; the
  connection that outlives its key, `stream.cut.*`.
- **The take-down**: `stream.disable.*`, `egress.stop.*`, `room.delete.*`, `recordings.*`, `stream.delete.*`.
- **Places of viewers** are stored one by one as they are asked for. Nothing is gathered that could be lost.
"""
_WORDS = {Mode.KILL: "kill -9", Mode.RAISE: "exception", Mode.STOP: "SIGSTOP"}


@dataclass
class Run:
    server: EmbeddedPostgres
    total: int
    logs: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    failures: dict[str, str] = field(default_factory=dict[str, str])

    async def one(self, case: Case) -> None:
        name = f"case_{len(self.outcomes) + len(self.failures)}_{id(case)}"
        directory = self.logs / case.id
        directory.mkdir()
        began = time.monotonic()
        try:
            database_url = await self.server.create_database(name, template=_TEMPLATE)
            outcome = await run_case(case, database_url, directory)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the others go on
            self.failures[case.id] = "".join(traceback.format_exception(failure))
            self._say(case, began, "FAILED")
        else:
            self.outcomes[case.id] = outcome
            self._say(case, began, f"{outcome.converged_s:4.1f} s  {', '.join(outcome.seen)}")
        await self.server.drop_database(name)

    def _say(self, case: Case, began: float, what: str) -> None:
        done = len(self.outcomes) + len(self.failures)
        print(f"{done:3}/{self.total} {time.monotonic() - began:5.1f} s  {case.id:44} {what}", flush=True)


async def run(cases: Sequence[Case], *, parallel: int) -> Run:
    server = EmbeddedPostgres()
    await server.start()
    try:
        await migrate(await server.create_database(_TEMPLATE))
        everything = Run(server, len(cases), Path(tempfile.mkdtemp(prefix="crash-matrix-")))
        waiting = iter(cases)

        async def worker() -> None:
            for case in waiting:
                await everything.one(case)

        async with asyncio.TaskGroup() as workers:
            for _ in range(parallel):
                workers.create_task(worker())
        return everything
    finally:
        await server.stop()


def table(done: Run) -> str:
    rows: list[str] = []
    for point in POINTS:
        cells = [_cell(done, Case(point=point, mode=mode)) for mode in Mode]
        rows.append(f"| `{point.id}` | {point.what} | {' | '.join(cells)} |")
    return _PAGE.format(
        within=f"{WITHIN_S:g}",
        names=len(NAMES),
        situations=len(POINTS),
        cases=len(CASES),
        passed=len(done.outcomes),
        figures=_figures(done),
        rows="\n".join(rows),
    )


def _figures(done: Run) -> str:
    told: list[str] = []
    for mode in Mode:
        taken = [outcome.converged_s for outcome in done.outcomes.values() if outcome.case.mode is mode]
        if taken:
            told.append(f"{_WORDS[mode]} {statistics.median(taken):.1f} and {max(taken):.1f} s")
    return ", ".join(told)


def _cell(done: Run, case: Case) -> str:
    outcome = done.outcomes.get(case.id)
    if outcome is None:
        return "**failed**"
    return f"{outcome.converged_s:.1f} s" + "".join(f", {word}" for word in outcome.seen)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.matrix", description=__doc__)
    parser.add_argument("--points", nargs="+", default=["*"], metavar="PATTERN", help='such as "egress.*"; all')
    parser.add_argument("--modes", nargs="+", default=[*Mode], choices=[*Mode], help="all")
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="cases at a time (2)")
    arguments = parser.parse_args()
    cases = [
        case
        for case in CASES
        if case.mode in arguments.modes and any(fnmatch.fnmatch(case.point.id, each) for each in arguments.points)
    ]
    if not cases:
        parser.error("no such point")
    began = time.monotonic()
    done = asyncio.run(run(cases, parallel=arguments.parallel))
    for name, failure in done.failures.items():
        print(f"\n{name}: {done.logs / name}\n{failure}")
    print(
        f"\n{len(done.outcomes)} of {len(cases)} cases passed in {time.monotonic() - began:.0f} s; {_figures(done)} "
        f"(median and longest); logs: {done.logs}"
    )
    if len(cases) == len(CASES):
        TABLE.write_text(table(done))
        print(f"written: {TABLE}")
    return 1 if done.failures else 0


if __name__ == "__main__":
    sys.exit(main())
