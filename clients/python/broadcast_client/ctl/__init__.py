"""The broadcastctl command."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from broadcast_client.client import BroadcastClient
from broadcast_client.ctl.arguments import ENDED_EARLY, INTERRUPTED, RPC_ERROR, USAGE, WAIT_TIMED_OUT, parse
from broadcast_client.ctl.commands import COMMANDS, UsageError
from broadcast_client.ctl.render import Output, one_line
from broadcast_client.errors import BroadcastClientError, BroadcastEndedEarly, WaitTimeout

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; answers the exit code."""
    # gRPC logs of its own accord what the exception tells anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return asyncio.run(_until_interrupted(run(argv)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return RPC_ERROR


async def _until_interrupted(command: Coroutine[Any, Any, int]) -> int:
    """A signal may arrive in one of gRPC's threads: the handler of asyncio.run then waits for the loop to wake up by
    itself, while this one wakes it.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker
    # Windows has no such handlers.
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await command


async def run(argv: Sequence[str] | None = None) -> int:
    """As `main`, inside a running event loop.

    Raises:
        SystemExit: the arguments are wrong, or ask for help.
    """
    arguments = parse(argv)
    out = Output(as_json=arguments.json)
    try:
        async with BroadcastClient(arguments.target) as client:
            return await COMMANDS[arguments.command](client, arguments, out)
    except UsageError as error:
        code, told = USAGE, str(error)
    except WaitTimeout as error:
        code, told = WAIT_TIMED_OUT, str(error)
    except BroadcastEndedEarly as error:
        code, told = ENDED_EARLY, str(error)
    except BroadcastClientError as error:
        code, told = RPC_ERROR, one_line(error)
    out.complain(told)
    return code
