"""The command line as a whole: which commands there are, what all of them have in common, and how errors end them."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, cast

from cyclopts import App, CycloptsError, Group, Parameter

from broadcast_client.client import BroadcastClient
from broadcast_client.ctl import broadcasts, costs, services, stage, watching
from broadcast_client.ctl.demo import demo
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.session import (
    ENDED_EARLY,
    EXIT_CODES,
    RPC_ERROR,
    USAGE,
    WAIT_TIMED_OUT,
    Session,
    UsageError,
)
from broadcast_client.errors import BroadcastClientError, BroadcastEndedEarly, WaitTimeout

_COMMANDS = {
    "create": broadcasts.create,
    "start": broadcasts.start,
    "stop": broadcasts.stop,
    "on-air": broadcasts.on_air,
    "get": broadcasts.get,
    "list": broadcasts.list_,
    "events": watching.events,
    "watch": watching.watch,
    "health": watching.health,
    "explain": watching.explain,
    "watch-health": watching.watch_health,
    "cost": costs.cost,
    "costs": costs.costs,
    "host-access": broadcasts.host_access,
    "add-destination": broadcasts.add_destination,
    "remove-destination": broadcasts.remove_destination,
    "participants": stage.participants,
    "remove": stage.remove,
    "mute": stage.mute,
    "join": services.join,
    "audience": services.audience,
    "revoke": services.revoke,
    "wake": services.wake,
    "orphans": services.orphans,
    "reap": services.reap,
    "webhooks": services.webhooks,
    "replay": services.replay,
    "delete": broadcasts.delete,
    "update": broadcasts.update,
    "demo": demo,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A command line that was read."""

    target: str
    json: bool
    command: Callable[[Session], Awaitable[int]]
    """Runs the command with its arguments."""


def parse(argv: Sequence[str] | None) -> Invocation:
    """Read a command line. None: that of the process.

    Raises:
        SystemExit: it is wrong (2), or asks for help or the version (0).
    """
    tokens = sys.argv[1:] if argv is None else list(argv)
    try:
        if not tokens:
            raise UsageError("a COMMAND is missing: see broadcastctl --help")  # noqa: TRY301 - reported like the others
        read = APP.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, UsageError) as error:
        if isinstance(error, CycloptsError):
            error.verbose = False
        Output(as_json="--json" in tokens).fail(error, USAGE)
        raise SystemExit(USAGE) from None
    if not isinstance(read, Invocation):
        # Help, the version or completion were asked for, and have been answered.
        raise SystemExit(0)
    return read


async def run_command(argv: Sequence[str] | None) -> int:
    """Read a command line and run it; answers the exit code."""
    invocation = parse(argv)
    out = Output(as_json=invocation.json)
    try:
        async with BroadcastClient(invocation.target) as client:
            with out.retries_told():
                return await invocation.command(Session(client=client, out=out, target=invocation.target))
    except UsageError as caught:
        code, error = USAGE, cast("Exception", caught)
    except WaitTimeout as caught:
        code, error = WAIT_TIMED_OUT, caught
    except BroadcastEndedEarly as caught:
        code, error = ENDED_EARLY, caught
    except BroadcastClientError as caught:
        code, error = RPC_ERROR, caught
    out.fail(error, code)
    return code


def _app() -> App:
    app = App(
        name="broadcastctl",
        help="Live broadcasts from the command line.",
        help_format="plaintext",
        help_epilogue=EXIT_CODES,
        version=f"broadcastctl {version('broadcast-client')}",
        version_flags="--version",
        default_parameter=Parameter(negative="", show_default=_is_telling),
    )
    for name, command in _COMMANDS.items():
        app.command(command, name=name, sort_key=list(_COMMANDS).index(name))
    app.register_install_completion_command(help="Install completion for this shell.")  # pyright: ignore[reportUnknownMemberType] - of its **kwargs
    app.meta.group_parameters = Group("Options of every command")
    # The command reads "--" itself.
    app.meta.end_of_options_delimiter = ""

    @app.meta.default
    def _invocation(  # pyright: ignore[reportUnusedFunction] - registered
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        target: Annotated[
            str, Parameter(metavar="HOST:PORT", env_var="BROADCAST_TARGET", help="of the service")
        ] = "127.0.0.1:50051",
        json: Annotated[bool, Parameter(help="one line of protobuf JSON a message, and errors as JSON")] = False,
    ) -> Invocation | None:
        command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if "session" not in ignored:
            command(*bound.args, **bound.kwargs)
            return None
        return Invocation(
            target=target,
            json=json,
            command=lambda session: command(*bound.args, **bound.kwargs, session=session),
        )

    return app


def _is_telling(default: object) -> str | None:
    """The default in the help. None: it says nothing, as an empty one or a switch that is off."""
    return str(default) if default else None


APP = _app()
