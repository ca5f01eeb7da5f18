"""Faults, drawn from the seed: whether a site is active in a run (25 %; 75 % where a doubt costs most), and
whether an active one fires (25 %, or less where it would leave nothing standing). Every fault is counted by its kind.
"""

from __future__ import annotations

import random
from collections import Counter
from enum import StrEnum

from tests.simulation.trace import Trace

ACTIVE = 0.25
ACTIVE_IN_DOUBT = 0.75
FIRES = 0.25
FIRES_LATE = 0.5
"""For calls whose late effect would double a thing that was made meanwhile."""


class Kind(StrEnum):
    # Calls to a provider.
    NOT_SENT = "call not sent"
    UNAVAILABLE = "call refused for now"
    THROTTLED = "call throttled"
    REFUSED = "call refused for good"
    SLOW = "call slow"
    NO_EFFECT = "no answer, no effect"
    LOST_REPLY = "no answer, effect"
    LATE_EFFECT = "no answer, late effect"
    OUTAGE = "call into an outage"
    # Wrong answers.
    LIST_EMPTY = "list empty"
    LIST_STALE = "list stands still"
    LIST_SHORT = "list lacks some"
    LIST_FOREIGN = "list of another project"
    # The store.
    STORE_ERROR = "store error"
    AMBIGUOUS_COMMIT = "ambiguous commit"
    STORE_SLOW = "store slow"
    FAILOVER = "last commits lost in a failover"
    CLOCK_BACK = "database clock set back"
    STORE_OUTAGE = "store call into an outage"
    # Replicas.
    CRASH = "crash"
    PAUSE = "pause"
    CREDENTIALS = "credentials of one replica refused"
    # Messages.
    NOTIFY_LOST = "notification lost"
    NOTIFY_LATE = "notification late"
    WEBHOOK_LOST = "webhook lost"
    WEBHOOK_LATE = "webhook late"
    WEBHOOK_TWICE = "webhook twice"
    WEBHOOK_UNANSWERED = "webhook taken, answer lost"
    # Things at the providers.
    EGRESS_FAILED = "egress failed"
    EGRESS_ABORTED = "egress aborted"
    EGRESS_COMPLETE = "egress complete, not asked"
    EGRESS_LIMIT = "egress limit reached"
    EGRESS_STUCK = "egress stuck in STARTING"
    EGRESS_WEDGED = "egress wedged"
    EGRESS_NOT_CONNECTED = "egress never connected"
    EGRESS_NO_MEDIA = "egress connected, no media"
    EGRESS_GHOST = "egress ghost"
    ONE_OF_TWO = "worker lost, of one of two egresses"
    EGRESS_DEAF = "egress deaf to stops"
    OUTPUT_FAILED = "one output failed"
    RTMP_LOST = "RTMP connection lost"
    ROOM_DELETED = "room deleted outside"
    STREAM_STALLED = "playlist stands still"
    STREAM_DISABLED = "live stream disabled outside"
    STREAM_DELETED = "live stream deleted outside"
    UPLOAD_ERRORED = "upload errored"
    STRANGER = "egress of another application in a room of ours"
    STALE_TOKEN = "room entered with an old token"


_READ = (Kind.NOT_SENT, Kind.UNAVAILABLE, Kind.THROTTLED, Kind.SLOW, Kind.NO_EFFECT)
_WRITE = (Kind.LATE_EFFECT, Kind.LOST_REPLY, *_READ)
_RARE = {Kind.CRASH: 0.02, Kind.PAUSE: 0.02, Kind.REFUSED: 0.01, Kind.STORE_ERROR: 0.1, Kind.AMBIGUOUS_COMMIT: 0.1}
"""These fire less often than one in four: at that rate no pass would come to its end."""
_DOUBTS = (Kind.LATE_EFFECT, Kind.LOST_REPLY, Kind.NO_EFFECT)
_COSTLY = frozenset({"livekit.StartEgress", "mux.create_live_stream", "mux.create_asset", "mux.reset_stream_key"})
_EVERYWHERE = (Kind.CRASH, Kind.PAUSE)


class Faults:
    def __init__(self, rng: random.Random, trace: Trace) -> None:
        self.rng = rng
        self.enabled = False
        self.counts: Counter[Kind] = Counter()
        self._trace = trace
        self._sites: dict[tuple[str, str], tuple[tuple[Kind, float], ...]] = {}

    def count(self, kind: Kind, where: str) -> None:
        self.counts[kind] += 1
        self._trace.add("fault", kind, where)

    def draw(self, where: str, kinds: tuple[Kind, ...], group: str) -> Kind | None:
        """The fault of this passing of the site *where*, of which *kinds* are possible; *group* names the set."""
        if not self.enabled:
            return None
        site = (where, group)
        active = self._sites.get(site)
        if active is None:
            active = self._sites[site] = tuple(
                (kind, FIRES_LATE if kind is Kind.LATE_EFFECT and where in _COSTLY else _RARE.get(kind, FIRES))
                for kind in kinds
                if self.rng.random() < (ACTIVE_IN_DOUBT if kind in _DOUBTS and where in _COSTLY else ACTIVE)
            )
        for kind, fires in active:
            if self.rng.random() < fires:
                self.count(kind, where)
                return kind
        return None

    def of_call(self, where: str, *, writes: bool, creates: bool) -> Kind | None:
        if not self.enabled:
            return None
        kinds = _WRITE if writes else _READ
        return self.draw(where, (*kinds, Kind.REFUSED) if creates else kinds, "call")

    def before(self, where: str) -> Kind | None:
        """The fault of a replica on its way to a call."""
        return self.draw(where, _EVERYWHERE, "before")

    def after(self, where: str) -> Kind | None:
        """The fault of a replica on its way back from a call."""
        return self.draw(where, _EVERYWHERE, "after")

    def of_statement(self, where: str) -> Kind | None:
        return self.draw(where, (Kind.STORE_ERROR, Kind.STORE_SLOW), "statement")

    def of_commit(self, where: str) -> Kind | None:
        return self.draw(where, (Kind.AMBIGUOUS_COMMIT,), "commit")

    def hits(self, kind: Kind, where: str, probability: float = FIRES) -> bool:
        """Whether the fault *kind* fires now, at a site that is active in a quarter of the runs."""
        if not self.enabled:
            return False
        site = (where, kind.value)
        active = self._sites.get(site)
        if active is None:
            active = self._sites[site] = ((kind, probability),) if self.rng.random() < ACTIVE else ()
        if not active or self.rng.random() >= probability:
            return False
        self.count(kind, where)
        return True
