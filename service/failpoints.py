"""Named points where a test may stop, kill or break the process: `FAILPOINTS=egress.start.after_call=kill9@1,...`.

Actions: `kill9` (SIGKILL to itself), `raise` (an exception), `stop` (SIGSTOP to itself; the test continues it).
`@n` hits the n-th passing only, 1 by default; standard error says when. Without the variable a point costs one
dictionary look-up.

A process may die between any two lines of a step, so each step of the reconciler has these points: `before_intent`,
`after_intent`, `before_call` (after the last check of the lease, so only the fence of the resource itself, such as a
key reset, still protects it), `after_call` or `after_failure` (no answer came), `after_record`.
"""

import os
import signal
from dataclasses import dataclass

NAMES = (
    "api.create.before_commit",
    "api.create.after_commit",
    "api.start.before_commit",
    "api.start.after_commit",
    "api.update.before_commit",
    "api.update.after_commit",
    "api.on_air.before_commit",
    "api.on_air.after_commit",
    "api.stop.before_commit",
    "api.stop.after_commit",
    "api.delete.before_commit",
    "api.delete.after_commit",
    "watch.before_snapshot",
    "watch.mid_delta",
    "webhook.before_verify",
    "webhook.before_commit",
    "webhook.after_commit",
    "webhook.before_apply",
    "webhook.after_apply",
    "observer.before_wake",
    "lease.after_claim",
    "lease.before_release",
    "observe.after_read",
    "observe.after_record",
    "status.before_commit",
    "status.after_commit",
    "room.create.before_intent",
    "room.create.after_intent",
    "room.create.before_call",
    "room.create.after_call",
    "room.create.after_record",
    "room.ask.after_intent",
    "room.ask.before_call",
    "room.ask.after_call",
    "room.ask.after_record",
    "stream.create.before_intent",
    "stream.create.after_intent",
    "stream.create.before_call",
    "stream.create.after_call",
    "stream.create.after_failure",
    "stream.create.after_record",
    "egress.start.before_intent",
    "egress.start.after_intent",
    "egress.start.before_call",
    "egress.start.after_call",
    "egress.start.after_failure",
    "egress.start.after_record",
    "key.reset.after_intent",
    "key.reset.before_call",
    "key.reset.after_call",
    "key.reset.after_failure",
    "key.reset.after_record",
    "stream.cut.after_intent",
    "stream.cut.before_call",
    "stream.cut.between",
    "stream.cut.after_call",
    "stream.cut.after_record",
    "write_off.after_record",
    "fallback.before_record",
    "fallback.after_record",
    "cost.before_record",
    "cost.after_record",
    "delivery.before_record",
    "delivery.after_record",
    "recording.start.after_intent",
    "recording.start.before_call",
    "recording.start.after_call",
    "recording.start.after_record",
    "recording.stop.after_intent",
    "recording.stop.before_call",
    "recording.stop.after_call",
    "upload.create.after_intent",
    "upload.create.before_call",
    "upload.create.after_call",
    "upload.create.after_record",
    "upload.delete.after_intent",
    "upload.delete.before_call",
    "upload.delete.after_call",
    "upload.delete.after_record",
    "destinations.set.after_intent",
    "destinations.set.before_call",
    "destinations.set.after_call",
    "destinations.set.after_record",
    "layout.set.after_call",
    "layout.set.after_record",
    "pool.create.after_intent",
    "pool.create.after_call",
    "pool.take.before_record",
    "pool.take.after_record",
    "schedule.before_record",
    "schedule.after_record",
    "title.set.after_call",
    "title.set.after_record",
    "end.after_record",
    "stream.disable.before_call",
    "stream.disable.after_call",
    "stream.disable.after_record",
    "egress.stop.after_intent",
    "egress.stop.before_call",
    "egress.stop.after_call",
    "egress.stop.after_record",
    "room.delete.after_intent",
    "room.delete.before_call",
    "room.delete.after_call",
    "room.delete.after_record",
    "recordings.settle.after_call",
    "recordings.settle.after_record",
    "recordings.discard.after_call",
    "recordings.discard.after_record",
    "stream.delete.after_intent",
    "stream.delete.before_call",
    "stream.delete.after_call",
    "stream.delete.after_record",
    "sweep.before_list",
    "sweep.before_remove",
    "sweep.after_remove",
    "migrate.before_commit",
    "migrate.after_commit",
)


class InjectedFailure(Exception):
    """The action `raise`."""


@dataclass(slots=True)
class _Armed:
    action: str
    left: int


def _parse(text: str) -> dict[str, _Armed]:
    armed: dict[str, _Armed] = {}
    for entry in filter(None, text.split(",")):
        name, _, action = entry.partition("=")
        action, _, nth = action.partition("@")
        if name not in NAMES or action not in ("kill9", "raise", "stop"):
            raise ValueError(f"FAILPOINTS: {entry!r}: unknown name or action")
        armed[name] = _Armed(action, int(nth or 1))
    return armed


_armed = _parse(os.environ.get("FAILPOINTS", ""))


def failpoint(name: str) -> None:
    """Carry out the action that FAILPOINTS has for *name*, if any. Raises InjectedFailure if the action is `raise`."""
    armed = _armed.get(name)
    if armed is None:
        return
    armed.left -= 1
    if armed.left != 0:
        return
    # Written at once and not logged: a buffered log line would be lost by SIGKILL.
    os.write(2, f"failpoint {name}: {armed.action}\n".encode())
    if armed.action == "raise":
        raise InjectedFailure(name)
    os.kill(os.getpid(), signal.SIGKILL if armed.action == "kill9" else signal.SIGSTOP)
