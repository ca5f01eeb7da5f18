"""Where a command prints: tables for people or lines of protobuf JSON on stdout, notices and errors on stderr."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence

from google.protobuf.message import Message
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broadcast.v1.broadcast_pb2 import Broadcast
from broadcast.v1.broadcast_service_pb2 import HostAccess
from broadcast.v1.event_pb2 import BroadcastEvent
from broadcast_client.ctl.render import (
    Cell,
    Column,
    as_dict,
    clock,
    conditions,
    destinations,
    error_record,
    facts,
    grid,
    listed,
    one_line,
    padded_state,
    plain,
)

# Wide enough that no row is folded when the output goes to a file or another program.
_UNLIMITED = 240
# A column that folds keeps this width, however narrow the terminal is.
_FOLDED = 16
_GAP = 2
_PATIENCE_S = 2.0
"""A call that is tried again is not told of before this time: most are answered by then."""


class Output(logging.Handler):
    """Prints, and as a handler of the client's log tells of retries."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self.as_json = as_json
        self.console = _console(None if sys.stdout.isatty() else _UNLIMITED)
        self._tells_from = time.monotonic() + _PATIENCE_S

    def message(self, message: Message, *, secrets: bool = False) -> None:
        """One line of protobuf JSON."""
        self.record(as_dict(message, secrets=secrets))

    def record(self, record: Mapping[str, object]) -> None:
        """One line of JSON."""
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def line(self, *parts: Cell) -> None:
        """One line for people."""
        self.console.print(*(plain(part) if isinstance(part, str) else part for part in parts), soft_wrap=True)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        """A table for people. On a narrow terminal columns fold where they may, and no text is ever cut."""
        table = Table(box=None, pad_edge=False, show_header=any(column.name for column in columns))
        width = _GAP * (len(columns) - 1)
        for number, column in enumerate(columns):
            table.add_column(column.name, no_wrap=not column.folds, overflow="fold", style=column.style)
            widest = max(map(_width, [column.name, *(row[number] for row in rows)]))
            width += min(widest, _FOLDED) if column.folds else widest
        for row in rows:
            table.add_row(*row)
        console = self.console if width <= self.console.width else _console(width)
        console.print(table)

    def complain(self, text: str) -> None:
        """One line on stderr beside the output, such as that there is more."""
        told = json.dumps({"notice": text}, ensure_ascii=False) if self.as_json else f"broadcastctl: {plain(text)}"
        sys.stderr.write(told + "\n")

    def fail(self, error: Exception, exit_code: int) -> None:
        """One line on stderr that says why the command ends with this exit code."""
        if self.as_json:
            sys.stderr.write(json.dumps(error_record(error, exit_code), ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"broadcastctl: {one_line(error)}\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of a retry that the client logs."""
        if time.monotonic() >= self._tells_from:
            self.complain(record.getMessage())

    @contextlib.contextmanager
    def retries_told(self) -> Generator[None, None, None]:
        """Tell on stderr of calls that are tried again, once the command takes longer than usual."""
        logger = logging.getLogger("broadcast_client")
        level = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)

    @contextlib.contextmanager
    def breaks_told(self) -> Generator[None, None, None]:
        """Tell on stderr of every break of a watch, at once."""
        before, self._tells_from = self._tells_from, 0.0
        try:
            yield
        finally:
            self._tells_from = before

    def broadcast(self, broadcast: Broadcast) -> None:
        if self.as_json:
            self.message(broadcast)
            return
        self.console.print(facts(broadcast))
        if broadcast.status.conditions:
            self.table(*conditions(broadcast))
        if broadcast.spec.destinations:
            self.table(*destinations(broadcast))

    def broadcasts(self, broadcasts: Iterable[Broadcast]) -> None:
        if self.as_json:
            for broadcast in broadcasts:
                self.message(broadcast)
        else:
            self.table(*listed(broadcasts))

    def event(self, event: BroadcastEvent) -> None:
        if self.as_json:
            self.message(event)
            return
        self.line(
            clock(event.time), f"{event.actor:<10}", padded_state(event.state), f"{event.reason:<24}", event.message
        )

    def access(self, access: HostAccess) -> None:
        """Also the token: only where it was asked for."""
        if self.as_json:
            self.message(access, secrets=True)
            return
        table = grid()
        table.add_row("room", access.room_name)
        table.add_row("identity", plain(access.identity))
        table.add_row("livekit", access.livekit_url)
        table.add_row("expires", clock(access.expire_time))
        self.console.print(table)
        # By itself and never wrapped: it is copied.
        self.line(access.token)


def _console(width: int | None) -> Console:
    # Titles and messages come from others: brackets in them are no markup.
    return Console(markup=False, highlight=False, emoji=False, width=width)


def _width(cell: Cell) -> int:
    return cell_len(cell.plain if isinstance(cell, Text) else cell)
