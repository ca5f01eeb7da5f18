"""A command's surroundings: the client, the output, and how a command ends."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from broadcast_client.client import BroadcastClient
from broadcast_client.ctl.output import Output

OK = 0
RPC_ERROR = 1
USAGE = 2
WAIT_TIMED_OUT = 3
ENDED_EARLY = 4
INTERRUPTED = 130

EXIT_CODES = f"""exit codes:
  {OK}    done
  {RPC_ERROR}    the service refused, failed or could not be reached
  {USAGE}    the command line is wrong
  {WAIT_TIMED_OUT}    the state that was waited for did not come in time
  {ENDED_EARLY}    the broadcast ended or failed while it was waited for
  {INTERRUPTED}  Ctrl-C
"""


class UsageError(Exception):
    """The command line is well formed, and still makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Handed to every command."""

    client: BroadcastClient
    out: Output
    target: str
    """Address of the service."""


InSession: TypeAlias = Annotated[Session, Parameter(parse=False)]
"""The type of a command's `session`, which is no option."""
