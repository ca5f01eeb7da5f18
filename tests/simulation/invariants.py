"""The invariants of a simulated world, checked against the log of what really happened at the providers.

I-1  At no moment can two egresses publish to one live stream. An egress can publish if it runs, and is connected or has
     the key that is valid.
I-2  At last everything with our mark at the providers has an owner, and everything of a broadcast that is over is gone.
     When it is over, nothing of it runs, costs money or takes a publisher: only a disabled live stream may be left.
     A thing that landed within its grace is adopted, and never left to the sweeper. If a row says PRESENT, it exists.
I-3  A broadcast that ends publishes no more: 15 s after its stop without faults, 120 s after the last fault otherwise.
     Nothing connects once it is over, although its live stream may exist for a while. That was disabled before the
     broadcast was over and before it was deleted, if anybody had a key of it.
I-4  No write that was answered is lost or done twice: its story has each change as often as it was made.
I-5  A request that is sent again is the same request. It has one effect at most, it is answered with the same
     broadcast, and no caller is refused for something that he did himself.
I-6  A broadcast that is over stays so, and its end does not move. Targets move forward only. No create is intended once
     the target is ENDED.
I-7  Every change is logged in its commit. Revisions have no gaps, each snapshot is the row as it was committed, the
     state before is that of the snapshot before, `version` moves by one with spec or labels, the last one is the row.
I-8  Every write of a pass carries the fence of the row. A replica that lost the lease begins no call that creates,
     resets or deletes.
I-9  A webhook that was answered with success is stored exactly once. Exactly one record takes it in, within 60 s,
     unless nobody looks at its broadcast any more. A fact is told once, even if a look finds it too.
I-10 No secret of a world shows in anything that is logged, traced, told or stored unsealed. One in ten is searched.
I-11 No provider is called while a transaction is open, and (I-8) nothing is written without a look at the fence.
I-12 With the providers well, a broadcast that is wanted and has a host is published, and LIVE is told of no other. If
     it is to be recorded, it is recorded. No egress of it runs that was given up.
I-13 (cost) A broadcast with manual delivery that is off air has no egress.
I-14 At most 5 egresses of a broadcast that fail are started in 10 minutes. The sweeper removes at most 20 things in a
     minute; a world is too small to reach that (tests/integration/test_admin_orphans.py does). Mux is called within its
     limits.
I-15 Every plan keeps the rules of checks/plan_rules.py: one step a resource at most, none before its back-off is over,
     no egress started beside another that may publish, nothing created for the end, no wait for a moment that is past.
I-16 A broadcast that ends although nobody stopped it has a cause: a host who is away, a live stream that somebody else
     deleted, a create that failed for `Timing.start_deadline_s`.
I-17 A fallback has only modes that its caller allowed. It is left `Timing.fallback_return_s` after it was entered at
     the earliest, unless the broadcast goes off air.
I-18 A broadcast that is over comes to rest: the fate of each recording is known, every recorded file is at Mux,
     and no pass looks at it any more.
I-19 Nothing is done to what belongs to others: their egresses in rooms of ours too, their live streams and recordings.
I-20 With the providers well, one source that lies interrupts no broadcast that delivers: lists that are empty, that
     lack some, that stand still or that come from another project change nothing at the providers.
I-21 The egress of a healthy show sends what it holds before its live stream throws it out. A live stream that viewers
     watched is deleted when the slowest of them has seen the end, and not later than 420 s after the end.
I-22 No egress is stopped for want of viewers while one watches who was seen: whether replicas die with their signs, the
     database is away, or nobody could count.
I-23 (cost) No egress of an ON_DEMAND broadcast runs in calm 300 s after its last viewer, but for a recording that is
     not to be interrupted and for one that was started too often.
I-24 The ledger charges every egress that a row knows once, and its connection to the live stream once, from the second
     at which it began to the second at which the provider ended it. One that told no end is charged until it was given
     up at the latest.

Checked elsewhere: the final state is the same with all webhooks, some or none (I-9, test_webhook_chaos.py); no secret
is in real logs, traces, answers and tables (I-10, tests/e2e/test_secrets.py); streams of watchers are whole under
restarts of Postgres (I-W1 to I-W6, tests/chaos/watchers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checks import history
from tests.simulation.checks.at_calls import AtCalls
from tests.simulation.checks.at_commits import AtCommits
from tests.simulation.checks.at_effects import AtEffects
from tests.simulation.checks.at_plans import AtPlans
from tests.simulation.checks.convergence import Convergence
from tests.simulation.checks.costs import Costs
from tests.simulation.checks.last_seconds import LastSeconds
from tests.simulation.checks.violations import Findings

if TYPE_CHECKING:
    from collections import Counter

    from tests.simulation.callers import Callers
    from tests.simulation.checks.violations import Violation
    from tests.simulation.environment import Hint
    from tests.simulation.replica import Shared
    from tests.simulation.showing import Shown

HEARD_S = 60.0
"""From the storing of a webhook in calm until a pass has taken it in: leases of the dead run out, and it is retried."""


class Invariants:
    """All checks of one world. They begin with it and find what is wrong as it happens."""

    def __init__(self, shared: Shared, callers: Callers) -> None:
        self._shared = shared
        self._callers = callers
        self._findings = Findings(shared.env)
        self._commits = AtCommits(shared, self._findings)
        self._effects = AtEffects(shared, self._findings, self._commits)
        AtCalls(shared, self._findings)
        AtPlans(shared, self._findings)
        self.last_seconds = LastSeconds(shared, self._findings)
        self.convergence = Convergence(shared, self._findings, self._commits)
        self._costs = Costs(shared, self._findings)
        self.violate = self._findings.violate

    @property
    def violations(self) -> list[Violation]:
        return self._findings.violations

    @property
    def seen(self) -> Counter[str]:
        """How often each case happened that a run must have met."""
        return self._findings.seen

    def publishes(self, broadcast_id: str) -> bool:
        """Whether a viewer would see moving pictures."""
        return self.convergence.publishes(broadcast_id)

    def lose_commits(self) -> None:
        """The database went back in time: what was answered since may be lost, and nothing else may go wrong by it."""
        self._findings.commits_lost_at = self._shared.env.loop.time()
        self._findings.seen["commits lost"] += 1
        self._commits.lose_commits()
        self._effects.lose_commits()

    def accepted(self, hint: Hint) -> None:
        """I-9, at every webhook that was answered with success."""
        rows = self._shared.tables.delivered[hint.provider, hint.heard.event_id]
        if rows != 1:
            self.violate("I-9", f"{hint.heard.type} {hint.heard.event_id} was answered and is stored {rows} times")

    def check_history(self) -> None:
        """I-4, I-5, I-7, I-9 and I-24, over the whole run."""
        tables = self._shared.tables
        self._costs.check()
        if not self._findings.commits_lost:
            # A write whose commit was lost is sent again, and done again.
            self._check_callers()
        for invariant, found in (
            ("I-7", history.not_as_logged(tables, self._commits.committed)),
            ("I-9", history.told_twice(tables)),
        ):
            for what in found:
                self.violate(invariant, what)

    def _check_callers(self) -> None:
        for invariant, found in (
            ("I-4", history.lost_or_doubled(self._callers, self._shared.tables)),
            ("I-5", history.taken_for_another(self._callers)),
        ):
            for what in found:
                self.violate(invariant, what)

    def check_heard(self) -> None:
        """I-9, in calm."""
        for what in history.unheard(self._shared.tables, HEARD_S):
            self.violate("I-9", what)

    def check_secrets(self, shown: Shown) -> None:
        """I-10, of a world that was searched."""
        shown.read(self._shared.tables)
        self.seen["secret redacted"] += shown.redacted
        for what in shown.secrets(self._shared.env.canaries):
            self.violate("I-10", what)
