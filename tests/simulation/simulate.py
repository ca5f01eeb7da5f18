"""One seed, from its beginning to its end: the world, its course, and what came of it."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.checks.at_plans import plans_shown
from tests.simulation.checks.violations import Violation
from tests.simulation.course import Broken, Course
from tests.simulation.loop import run
from tests.simulation.silence import errors_told
from tests.simulation.trace import LINES
from tests.simulation.world import World

SEARCHED_EVERY = 10
"""One world in so many has webhooks with bodies, and everything that is shown of it is searched for secrets."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    seed: int
    violations: list[Violation]
    simulated_s: float
    cpu_s: float
    faults: Counter[str]
    seen: Counter[str]
    hash: str
    trace: list[str] = field(default_factory=list[str])
    back_in_s: dict[str, list[float]]
    """From what broke in calm until viewers saw pictures again."""


def simulate(seed: int, *, lines: int | None = LINES, keep: bool = False) -> Outcome:
    """Run the world of *seed*. *keep*: the trace of one without violations too, its last *lines* (None: all)."""
    began = time.process_time()
    world = World(seed, lines=lines, searched=seed % SEARCHED_EVERY == 0)
    course, env, shown = Course(world), world.env, world.shown
    drawn = random.getstate()
    # The reconciler draws its back-offs from the global generator.
    random.seed(seed)
    # A collection in the middle costs more than all the garbage of one world.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with contextlib.ExitStack() as stack:
            said = [] if shown is None else stack.enter_context(shown.all_that_is_said())
            stack.enter_context(plans_shown())
            stack.enter_context(
                errors_told(lambda event, rest: world.invariants.violate("a fault of ours", f"{event} {rest}"), said)
            )
            run(_to_its_end(world, course), env.loop)
        if shown is not None:
            world.invariants.check_secrets(shown)
    finally:
        random.setstate(drawn)
        if collecting:
            gc.enable()
    seen = world.invariants.seen
    seen["zombie write rejected"] += world.tables.zombies
    seen["ambiguous commit resolved"] += world.tables.replays
    seen["webhook doubled"] += world.tables.repeated
    seen["webhook sent again"] += world.webhooks.sent_again
    violations = world.invariants.violations
    return Outcome(
        seed=seed,
        violations=violations,
        simulated_s=env.loop.time(),
        cpu_s=time.process_time() - began,
        faults=Counter({str(kind): count for kind, count in env.faults.counts.items()}),
        seen=seen,
        hash=env.trace.hash,
        trace=env.trace.last() if violations or keep else [],
        back_in_s=dict(course.back_in_s),
    )


async def _to_its_end(world: World, course: Course) -> None:
    try:
        await course.run()
    except Broken:
        pass
    finally:
        world.shared.died = lambda _replica: None
        for replica in world.replicas:
            replica.crash()
