"""The texts, tables and dictionaries that are printed. They hold secrets only where these were asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text

from broadcast.v1.broadcast_pb2 import (
    Broadcast,
    BroadcastState,
    ConditionType,
    DeliveryPolicy,
    DestinationState,
    DestinationStatus,
    EncodingPreset,
    LatencyMode,
)
from broadcast_client.errors import BroadcastError
from broadcast_client.values import short_name, state_name

_STYLES = {
    "CREATED": "dim",
    "STARTING": "yellow",
    "READY": "cyan",
    "LIVE": "bold green",
    "INTERRUPTED": "bold magenta",
    "STOPPING": "yellow",
    "ENDED": "dim",
    "FAILED": "bold red",
}
_MINUTE = 60
_HOUR = 3600
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    folds: bool = False
    """Whether its text may go on in the next line. Ids and reasons may not: they are copied and searched for."""
    style: str = ""


Cell: TypeAlias = str | Text
Rows: TypeAlias = tuple[Sequence[Column], Sequence[Sequence[Cell]]]
"""The columns of a table, and its rows."""


def as_dict(message: Message, *, secrets: bool = False) -> dict[str, object]:
    """Protobuf JSON with the names of the contract."""
    if not secrets:
        shown = type(message)()
        shown.CopyFrom(message)
        _redact(shown)
        message = shown
    return MessageToDict(message, preserving_proto_field_name=True)


def _redact(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            message.ClearField(field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                _redact(each)


def one_line(error: Exception) -> str:
    """The reason, the message, each field that the message does not name, and where to look further."""
    if not isinstance(error, BroadcastError):
        return plain(str(error))
    parts = [f"{error.reason or error.code.name}: {error.message}"]
    parts += [told for told in map(": ".join, error.violations) if told not in error.message]
    if not error.violations and "field" in error.metadata:
        parts.append(error.metadata["field"])
    if error.retry_after is not None:
        parts.append(f"try again in {human(error.retry_after)}")
    if error.trace_id:
        parts.append(f"trace {error.trace_id}")
    return plain("; ".join(parts))


def error_record(error: Exception, exit_code: int) -> dict[str, object]:
    """An error for programs. `reason` and `code` are empty if it is not the service's."""
    if not isinstance(error, BroadcastError):
        return {"error": {"code": "", "reason": "", "message": plain(str(error)), "exit_code": exit_code}}
    return {
        "error": {
            "code": error.code.name,
            "reason": error.reason,
            "message": error.message,
            "method": error.method,
            "metadata": error.metadata,
            "violations": [{"field": field, "description": text} for field, text in error.violations],
            "retry_after_seconds": error.retry_after,
            "exit_code": exit_code,
        }
    }


def plain(text: str) -> str:
    """Text in one line that cannot move the cursor or colour the terminal, wherever it came from."""
    return "".join(each if each.isprintable() else " " for each in text)


def human(seconds: float) -> str:
    """A duration as people say it: 3.2s, 42s, 1m05s, 2h03m, 3d04h."""
    if seconds < 10:  # noqa: PLR2004 - below ten the tenth matters
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def age(since: Timestamp) -> str:
    if not since.seconds:
        return ""
    return human((datetime.now(UTC) - since.ToDatetime(tzinfo=UTC)).total_seconds())


def clock(time: Timestamp) -> str:
    """Local date and time to the millisecond."""
    return time.ToDatetime(tzinfo=UTC).astimezone().isoformat(sep=" ", timespec="milliseconds") if time.seconds else ""


def state(value: BroadcastState.ValueType) -> Text:
    name = state_name(value)
    return Text(name, style=_STYLES.get(name, ""))


def padded_state(value: BroadcastState.ValueType) -> Text:
    name = state_name(value)
    return Text(f"{name:<11}", style=_STYLES.get(name, ""))


def grid() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table


def _span(duration: Duration) -> str:
    return human(duration.ToTimedelta().total_seconds())


def facts(broadcast: Broadcast) -> Table:
    spec, status = broadcast.spec, broadcast.status
    encoding = short_name(EncodingPreset.DESCRIPTOR, spec.encoding.preset)
    if spec.encoding.HasField("custom"):
        custom = spec.encoding.custom
        encoding = f"{custom.width}x{custom.height} {custom.frame_rate} fps {custom.video_bitrate_bps / 1e6:g} Mb/s"
    told = state(status.state)
    if status.state_reason or status.state_time.seconds:
        told.append(f"  {status.state_reason}  for {age(status.state_time)}", style="default")
    rows: list[tuple[str, str | Text]] = [
        ("id", broadcast.id),
        ("state", told),
        ("target", state_name(status.target_state) + (", reconciling" if status.reconciling else "")),
        ("title", spec.title),
        ("owner", spec.owner_id),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(broadcast.labels.items()))),
        ("encoding", encoding),
        ("latency", short_name(LatencyMode.DESCRIPTOR, spec.latency_mode)),
        ("delivery", _delivery(broadcast)),
        ("layout", spec.layout),
        ("reconnect", _span(spec.reconnect_window) if spec.HasField("reconnect_window") else ""),
        ("at most", _span(spec.max_duration) if spec.HasField("max_duration") else ""),
        ("playback", status.playback.hls_url),
        ("created", clock(broadcast.create_time)),
        ("scheduled", clock(spec.scheduled_start_time)),
        ("started", clock(status.start_time)),
        ("live", clock(status.live_time)),
        ("ended", clock(status.end_time)),
        ("recordings", ", ".join(each.hls_url or each.playback_id or each.mux_asset_id for each in status.recordings)),
    ]
    if status.HasField("last_error"):
        error = status.last_error
        again = "tried again" if error.retryable else "not tried again"
        # The text of an error often begins with its code.
        code = "" if error.message.startswith(error.code) else f"{error.code}: "
        rows.append(("error", f"{error.provider} {error.operation}: {code}{error.message} ({again})"))
    table = grid()
    for name, value in rows:
        if value and value != "UNSPECIFIED":
            table.add_row(name, plain(value) if isinstance(value, str) else value)
    return table


def _delivery(broadcast: Broadcast) -> str:
    status = broadcast.status
    name = short_name(DeliveryPolicy.DESCRIPTOR, broadcast.spec.delivery_policy)
    if name == "MANUAL":
        return f"{name}, {'on air' if status.on_air else 'backstage'}"
    if status.HasField("delivery"):
        wanted = "wanted" if status.delivery.wanted else "not wanted"
        return f"{name}, {wanted}: {status.delivery.reason} for {age(status.delivery.since)}"
    return name


def conditions(broadcast: Broadcast) -> Rows:
    rows: list[list[Cell]] = []
    for condition in broadcast.status.conditions:
        met = Text("unknown", style="yellow")
        if condition.HasField("met"):
            met = Text("yes", style="green") if condition.met else Text("no", style="dim")
        name = short_name(ConditionType.DESCRIPTOR, condition.type)
        rows.append([name, met, age(condition.transition_time), condition.reason, plain(condition.message)])
    kept = [Column(name) for name in ("CONDITION", "MET", "FOR", "REASON")]
    return [*kept, Column("MESSAGE", folds=True)], rows


def destinations(broadcast: Broadcast) -> Rows:
    rows: list[list[Cell]] = []
    seen = {each.name: each for each in broadcast.status.destinations}
    for destination in broadcast.spec.destinations:
        status = seen.get(destination.name)
        name = short_name(DestinationState.DESCRIPTOR, status.state) if status else ""
        message = plain(_trouble(status)) if status else ""
        rows.append([destination.name, name, plain(destination.url), message])
    return [Column("DESTINATION"), Column("STATE"), Column("URL", folds=True), Column("MESSAGE", folds=True)], rows


def _trouble(status: DestinationStatus) -> str:
    """The message of its state, or else the last failure, which is over."""
    if status.message or not status.HasField("last_error_time"):
        return status.message
    return f"failed at {clock(status.last_error_time)}: {status.last_error}".removesuffix(": ")


def listed(broadcasts: Iterable[Broadcast]) -> Rows:
    rows: list[list[Cell]] = [
        [
            broadcast.id,
            state(broadcast.status.state),
            age(broadcast.status.state_time),
            broadcast.status.state_reason,
            plain(broadcast.spec.title),
            plain(broadcast.spec.owner_id),
            ",".join(f"{key}={value}" for key, value in sorted(broadcast.labels.items())),
        ]
        for broadcast in broadcasts
    ]
    kept = [Column(name) for name in ("ID", "STATE", "FOR", "REASON")]
    return [*kept, *(Column(name, folds=True) for name in ("TITLE", "OWNER", "LABELS"))], rows
