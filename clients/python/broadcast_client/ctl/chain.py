"""Health and explanation, drawn for people: the chain with a mark for each part, and causes in their order."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from broadcast.v1.health_pb2 import (
    CHAIN_PART_DESTINATION,
    CHAIN_PART_EGRESS,
    CHAIN_PART_HOST,
    CHAIN_PART_INGEST,
    CHAIN_PART_PLAYBACK,
    CHAIN_PART_ROOM,
    BroadcastHealth,
    ChainPart,
    ConnectionQuality,
    Evidence,
    Explanation,
    HealthState,
    NextAction,
    PartHealth,
    PublisherHealth,
    TrackHealth,
)
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import Cell, Column, Rows, age, human, padded_state, plain
from broadcast_client.ctl.render import state as state_text
from broadcast_client.values import short_name

_CHAIN = (CHAIN_PART_HOST, CHAIN_PART_ROOM, CHAIN_PART_EGRESS, CHAIN_PART_INGEST, CHAIN_PART_PLAYBACK)
_MARKS = {
    "OK": ("●", "bold green"),
    "IDLE": ("○", "dim"),
    "PENDING": ("◌", "yellow"),
    "DEGRADED": ("◐", "bold yellow"),
    "DOWN": ("✗", "bold red"),
    "UNKNOWN": ("?", "bold magenta"),
}


def show_health(out: Output, health: BroadcastHealth) -> None:
    if out.as_json:
        out.message(health)
        return
    head = Text(f"{health.broadcast_id}  ")
    head.append(state_text(health.state))
    head.append(f"  {health.state_reason}" if health.state_reason else "")
    head.append("  overall ")
    head.append(_state(health.overall))
    out.line(head)
    if about := _about(health):
        out.line(Text(about, style="dim"))
    out.line(Text("\n  ") + chain(health) + Text("\n"))
    out.table(*_parts(health.parts))
    if health.publishers:
        out.table(*_publishers(health.publishers))
    out.line(_next(health.next_action))


def show_explanation(out: Output, explanation: Explanation, *, address: str) -> None:
    """*address*: of the service, for the commands."""
    if out.as_json:
        out.message(explanation)
        return
    out.line(Text(f"{explanation.broadcast_id}  ") + state_text(explanation.state))
    out.line(explanation.summary.partition(": ")[2] or explanation.summary)
    for number, cause in enumerate(explanation.causes, 1):
        out.line("")
        out.line(Text(f"{number}. {cause.code}", style="bold"), Text(f"({cause.blame})", style="dim"))
        out.line(f"   {cause.message}")
        out.table(*_evidence(cause.evidence))
        out.line(Text("   → ", style="green"), plain(cause.remedy))
    out.line("")
    out.line(_next(explanation.next_action))
    for override in explanation.overrides:
        out.line(Text(f"\n{override.description}", style="dim"))
        out.line("  " + override.command.replace("$ADDRESS", address))


def show_change(out: Output, health: BroadcastHealth, time: datetime) -> None:
    """One line."""
    bad = [
        f"{_part_name(part).lower()} {part.reason}"
        for part in health.parts
        if short_name(HealthState.DESCRIPTOR, part.state) in ("DOWN", "DEGRADED", "UNKNOWN", "PENDING")
        and part.reason != "NOT_MEASURED"
    ]
    line = Text(f"{time.astimezone():%H:%M:%S}  ")
    line.append(padded_state(health.state))
    line.append(" ")
    for part in _in_order(health):
        line.append(_mark(part.state))
    line.append(f"  {health.broadcast_id}  {', '.join(bad)}")
    if health.title:
        line.append(f"  {plain(health.title)}", style="dim")
    out.line(line)


def chain(health: BroadcastHealth) -> Text:
    """`● host ── ● room ── ● egress ── ✗ ingest ── ? playback`."""
    drawn = Text()
    for n, part in enumerate(_in_order(health)):
        drawn.append(" ── " if n else "", style="dim")
        drawn.append(_mark(part.state))
        drawn.append(f" {_part_name(part).lower()}")
    return drawn


def _about(health: BroadcastHealth) -> str:
    """Title, owner and labels. Empty: it has none."""
    labels = (f"{name}={health.labels[name]}" for name in sorted(health.labels))
    return plain("  ".join(filter(None, (health.title, health.owner_id, *labels))))


def _in_order(health: BroadcastHealth) -> list[PartHealth]:
    by_part = {part.part: part for part in health.parts}
    return [by_part[which] for which in _CHAIN if which in by_part]


def _part_name(part: PartHealth) -> str:
    name = short_name(ChainPart.DESCRIPTOR, part.part)
    return f"{name} {part.name}" if part.part == CHAIN_PART_DESTINATION else name


def _mark(state: HealthState.ValueType) -> Text:
    mark, style = _MARKS.get(short_name(HealthState.DESCRIPTOR, state), ("·", ""))
    return Text(mark, style=style)


def _state(state: HealthState.ValueType) -> Text:
    name = short_name(HealthState.DESCRIPTOR, state)
    return Text(name, style=_MARKS.get(name, ("", ""))[1])


def _parts(parts: Iterable[PartHealth]) -> Rows:
    rows: list[list[Cell]] = [
        [
            _mark(part.state),
            plain(_part_name(part).lower()),
            _state(part.state),
            age(part.since),
            _ago(part.observed_time),
            part.reason,
            plain(part.message),
        ]
        for part in parts
    ]
    kept = [Column(name) for name in ("", "PART", "STATE", "FOR", "SEEN", "REASON")]
    return [*kept, Column("MESSAGE", folds=True)], rows


def _publishers(publishers: Sequence[PublisherHealth]) -> Rows:
    rows: list[list[Cell]] = [
        [
            plain(publisher.identity),
            short_name(ConnectionQuality.DESCRIPTOR, publisher.connection_quality).lower(),
            _measured(publisher),
            plain(", ".join(_track(track) for track in publisher.tracks)),
        ]
        for publisher in publishers
    ]
    return [Column("PUBLISHER"), Column("CONNECTION"), Column("SENDS", folds=True), Column("TRACKS", folds=True)], rows


def _measured(publisher: PublisherHealth) -> str:
    stats = publisher.stats
    parts: list[str] = []
    if stats.HasField("video_bitrate_bps"):
        parts.append(f"{stats.video_bitrate_bps / 1e6:.1f} Mb/s")
    if stats.HasField("frame_rate"):
        parts.append(f"{stats.frame_rate:g} fps")
    if stats.HasField("packet_loss_ratio"):
        parts.append(f"{stats.packet_loss_ratio:.1%} lost")
    if stats.HasField("round_trip_time"):
        parts.append(f"rtt {stats.round_trip_time.ToTimedelta().total_seconds() * 1000:.0f} ms")
    return ", ".join(parts)


def _track(track: TrackHealth) -> str:
    size = f" {track.width}x{track.height}" if track.width and track.height else ""
    layers = f" {len(track.layers)} layers" if track.simulcast and track.layers else ""
    return f"{track.source}{size}{layers}{' muted' if track.muted else ''}"


def _evidence(evidence: Iterable[Evidence]) -> Rows:
    rows: list[list[Cell]] = [[f"     {each.name}", plain(each.value), _ago(each.time)] for each in evidence]
    return [Column("", style="dim"), Column("", folds=True), Column("", style="dim")], rows


def _next(action: NextAction) -> Text:
    told = Text("next  ", style="dim")
    told.append(action.action, style="bold")
    told.append(f"  {plain(action.message)}")
    if action.time.seconds:
        left = (action.time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        when = f"in {human(left)}" if left > 0 else "now"
        told.append(f"  {when}", style="cyan")
    return told


def _ago(time: Timestamp) -> str:
    return f"{age(time)} ago" if time.seconds else ""
