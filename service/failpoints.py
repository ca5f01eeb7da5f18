"""Named points where a test may stop, kill or break the process: `FAILPOINTS=egress.start.after_call=kill9@1,...`.

Actions: `kill9` (SIGKILL to itself), `raise` (an exception), `stop` (SIGSTOP to itself; the test continues it).
`@n` hits the n-th passing only, 1 by default. Without the variable a point costs one dictionary look-up.
"""

import os
import signal
from dataclasses import dataclass

NAMES = (
    "api.create.before_commit",
    "api.create.after_commit",
    "api.start.before_commit",
    "api.start.after_commit",
    "api.stop.before_commit",
    "api.stop.after_commit",
    "lease.after_claim",
    "lease.before_release",
    "room.create.before_intent",
    "room.create.after_intent",
    "room.create.after_call",
    "room.create.after_record",
    "stream.create.before_intent",
    "stream.create.after_intent",
    "stream.create.after_call",
    "stream.create.after_record",
    "status.before_commit",
    "status.after_commit",
    "egress.start.before_intent",
    "egress.start.after_intent",
    "egress.start.after_call",
    "egress.start.after_record",
    "key.reset.after_intent",
    "key.reset.after_call",
    "key.reset.after_record",
    "observe.after_read",
    "observe.after_record",
    "end.after_record",
    "stream.disable.after_call",
    "stream.disable.after_record",
    "egress.stop.after_intent",
    "egress.stop.after_call",
    "egress.stop.after_record",
    "room.delete.after_intent",
    "room.delete.after_call",
    "room.delete.after_record",
    "recordings.settle.after_call",
    "stream.delete.after_intent",
    "stream.delete.after_call",
    "stream.delete.after_record",
    "write_off.after_record",
)


class InjectedFailure(Exception):
    pass


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
    armed = _armed.get(name)
    if armed is None:
        return
    armed.left -= 1
    if armed.left != 0:
        return
    if armed.action == "raise":
        raise InjectedFailure(name)
    os.kill(os.getpid(), signal.SIGKILL if armed.action == "kill9" else signal.SIGSTOP)
