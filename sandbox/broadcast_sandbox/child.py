"""Child processes that end with their parent, even if the parent is ended by `kill -9`.

Only Linux can do this: the kernel sends the child a signal when the thread that started it is gone. Elsewhere a child
outlives a parent that could not clean up.
"""

import os
import signal
import sys
from collections.abc import Sequence

# A new process rather than `preexec_fn`, which would run gRPC's fork handlers in the middle of a test. Postgres refuses
# to be root, so root steps down here: into a user namespace (files stay root's, private directories stay reachable) or
# to another user. The death signal comes last because a change of user clears it.
_LAUNCH = """
import ctypes, os, sys
parent, death_signal, identity, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if identity == "namespace":
    if libc.unshare(0x10000000):
        sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
    with open("/proc/self/uid_map", "w") as uid_map:
        uid_map.write("1000 0 1")
elif identity != "self":
    user, group = map(int, identity.split(":"))
    os.setgroups([]), os.setgid(group), os.setuid(user)
if sys.platform == "linux":
    libc.prctl(1, int(death_signal))
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
os.execv(command[0], command)
"""


def bound(command: Sequence[str], death_signal: signal.Signals, *, identity: str = "self") -> list[str]:
    """The command line that runs *command* (an absolute path first) as a child of this process and thread.

    *death_signal* is sent to it when they are gone. *identity*: `self`, `namespace` (root as user 1000 of a user
    namespace of its own) or `uid:gid`.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(int(death_signal)), identity, *command]
