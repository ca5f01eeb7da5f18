"""The broadcastctl command. It needs the extra `cli` of the distribution; this module imports without it."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

__all__ = ["main", "run"]

_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130
_NEEDED = ("cyclopts", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code.

    Raises:
        SystemExit: the arguments are wrong (2), or ask for help (0).
    """
    if not all(importlib.util.find_spec(name) for name in _NEEDED):
        sys.stderr.write("broadcastctl: not installed whole: pip install 'cyclopts>=5.5' 'rich>=15' (the extra cli)\n")
        return _USAGE
    # gRPC would log the errors that the exception carries anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return asyncio.run(_until_interrupted(run(argv)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED


async def run(argv: Sequence[str] | None = None) -> int:
    """As `main`, inside a running event loop."""
    from broadcast_client.ctl.program import run_command  # noqa: PLC0415 - needs the extra, which main looks for first

    return await run_command(argv)


async def _until_interrupted(command: Coroutine[Any, Any, int]) -> int:
    """A signal may arrive in one of gRPC's threads. The handler of asyncio.run then waits until the loop wakes up by
    itself; this one wakes it.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker
    # Windows has no such handlers.
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await command
