"""Health of the delivery to viewers: the media that arrive at the live stream, and the playlist that a player gets."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.broadcast import FallbackMode, PlaybackPolicy, State, seconds
from service.domain.facts import Facts
from service.domain.health.common import Answer, chain_part, of_a_resource
from service.domain.health.egress import unconnected_since
from service.domain.health.model import ChainPart, HealthState, PartHealth, noted
from service.domain.measurements import PROBED_S, SEEN_S, Unseen
from service.domain.observing.playlist import not_seen
from service.domain.ports import PlaylistSeen
from service.domain.provider import STREAMS
from service.domain.reasons import Fault, HealthReason
from service.domain.resource_set import unwatched, wants_egress
from service.domain.resources import (
    Egress,
    EgressStatus,
    Phase,
    Stream,
    StreamStatus,
)
from service.domain.sentences import clock
from service.domain.timing import Timing

_OK = 200


def _streams(facts: Facts) -> Sequence[Stream]:
    """The live stream in use if it is there, or else all attempts."""
    current = facts.resource_set.stream
    return facts.resource_set.streams if current is None or current.phase is not Phase.PRESENT else (current,)


@chain_part(ChainPart.INGEST)
@of_a_resource(ChainPart.INGEST, "the live stream", _streams)
def ingest(facts: Facts, timing: Timing, current: Stream) -> Answer:
    part = PartHealth(
        part=ChainPart.INGEST,
        state=HealthState.IDLE,
        reason=HealthReason.IDLE,
        message="nothing is to arrive now",
        since=current.status_since or current.changed_at,
        evidence=noted(
            (f"{STREAMS}_live_stream_id", current.external_id, None),
            (f"{STREAMS}_status", current.status, current.status_since),
            (f"{STREAMS}_asset_id", current.active_asset_id, None),
            ("encoder_connected", encoder_connected(facts, current), current.connected_at),
        ),
    )
    return Answer(_arrives(facts, current, part, timing), rests_on=current)


def _arrives(facts: Facts, stream: Stream, part: PartHealth, timing: Timing) -> PartHealth:
    """*part* with the state of the media at the live stream."""
    match stream.status:
        case StreamStatus.DISABLED if stream.cutting:
            message = "who is connected is cut off"
            return replace(part, state=HealthState.PENDING, reason=HealthReason.CUTTING, message=message)
        case StreamStatus.DISABLED:
            message = f"somebody disabled it at {STREAMS.display_name}"
            return replace(part, state=HealthState.DOWN, reason=HealthReason.DISABLED, message=message)
        case StreamStatus.UNKNOWN:
            message = "nobody looked yet"
            return replace(part, state=HealthState.UNKNOWN, reason=HealthReason.NOT_OBSERVED, message=message)
        case StreamStatus.ACTIVE if encoder_left(facts, stream):
            return _left(facts, stream, part)
        case StreamStatus.ACTIVE:
            return replace(part, state=HealthState.OK, reason=HealthReason.ACTIVE, message="")
        case StreamStatus.IDLE:
            return _silent(facts, stream, part, timing)


def _left(facts: Facts, stream: Stream, part: PartHealth) -> PartHealth:
    """*part* with the state of a live stream that waits for its encoder within the reconnect window."""
    if unwatched(facts.broadcast):
        message = f"nobody watches; {STREAMS.display_name} waits for an encoder within the reconnect window"
        return replace(part, message=message)
    if facts.broadcast.state is State.READY:
        return replace(part, state=HealthState.PENDING, reason=HealthReason.WAITING_FOR_EGRESS, message="")
    return replace(
        part,
        state=HealthState.DOWN,
        reason=HealthReason.DISCONNECTED,
        message=f"the encoder left; {STREAMS.display_name} waits for it within the reconnect window",
        since=stream.connected_at,
    )


def fell_silent(facts: Facts, egress: Egress, stream: Stream | None) -> bool:
    """Whether media of *egress* arrived and does not arrive any more, although its output is still active."""
    if stream is None or not egress.delivering:
        return False
    if stream.status is StreamStatus.ACTIVE and encoder_left(facts, stream):
        return True
    since = egress.delivering_since or egress.status_since
    fell = stream.status_since is not None and since is not None and stream.status_since > since
    return stream.status is StreamStatus.IDLE and fell


def _silent(facts: Facts, stream: Stream, part: PartHealth, timing: Timing) -> PartHealth:
    """*part* with the reason why no media arrives."""
    egress = facts.resource_set.egress
    if egress is None or not wants_egress(facts.broadcast, facts.resource_set):
        if facts.broadcast.state is not State.INTERRUPTED:
            return part
        return replace(part, state=HealthState.DOWN, reason=HealthReason.NO_ENCODER, message="nothing sends to it")
    if egress.status is not EgressStatus.ACTIVE:
        return replace(part, state=HealthState.PENDING, reason=HealthReason.WAITING_FOR_EGRESS, message="")
    if (since := unconnected_since(facts, egress, timing)) is not None:
        message = "the egress runs and has no connection to it"
        return replace(part, state=HealthState.DOWN, reason=Fault.NOT_CONNECTED, message=message, since=since)
    since = max(egress.status_since or egress.changed_at, stream.status_since or egress.changed_at)
    fell = fell_silent(facts, egress, stream)
    if fell or facts.now >= since + seconds(timing.ingest_start_s / 2):
        message = f"the egress runs and {STREAMS.display_name} sees no media{' of it any more' if fell else ''}"
        return replace(part, state=HealthState.DOWN, reason=HealthReason.NO_MEDIA, message=message, since=since)
    message = f"the egress runs, {STREAMS.display_name} becomes active"
    return replace(part, state=HealthState.PENDING, reason=HealthReason.WAITING_FOR_MEDIA, message=message, since=since)


def encoder_connected(facts: Facts, stream: Stream) -> bool | None:
    """Whether an encoder is connected to the live stream, as the newest webhook about that said. None: no webhook said
    it, or a later look shows that it cannot be so any more, because the webhook of the change was lost.

    An encoder that left is followed by silence when the reconnect window is over; media after a silence come from a new
    encoder.
    """
    said, at = stream.connected, stream.connected_at
    if said is None or at is None:
        return None
    fed, silent = stream.fed_at, stream.silent_at
    if said:
        return None if fed is not None and silent is not None and at < fed < silent else True
    compared = facts.seen_at(stream)
    if stream.status is StreamStatus.ACTIVE and fed is not None and compared is not None:
        fed = max(fed, compared)
    if fed is None:
        return False
    over = at + seconds(facts.broadcast.spec.reconnect_window_s + SEEN_S)
    return None if fed > over or (silent is not None and at < silent < fed) else False


def encoder_left(facts: Facts, stream: Stream) -> bool:
    """Whether the encoder left a live stream that is still active: it stays active through the reconnect window.

    If the egress says that it sends, either the webhook or the status of the egress is out of date. Then the encoder
    counts as gone only if the webhook is the newer of the two and the playlist stands still.
    """
    if encoder_connected(facts, stream) is not False or stream.connected_at is None:
        return False
    egress = facts.resource_set.egress
    if egress is None or not egress.delivering or egress.delivering_since is None:
        return True
    return stream.connected_at > egress.delivering_since and facts.probe.stalled


@chain_part(ChainPart.PLAYBACK)
def playback(facts: Facts, _timing: Timing) -> Answer:
    broadcast = facts.broadcast
    part = PartHealth(
        part=ChainPart.PLAYBACK,
        state=HealthState.IDLE,
        reason=HealthReason.NOT_ON_AIR,
        message="nothing is to be played yet",
        since=broadcast.status.state_time,
    )
    if FallbackMode.DIRECT_WEBRTC in broadcast.fallback.modes:
        message = f"viewers watch in the room: {broadcast.fallback.reason}"
        since = broadcast.fallback.since
        told = replace(
            part, state=HealthState.DEGRADED, reason=HealthReason.DIRECT_WEBRTC, message=message, since=since
        )
        return Answer(told)
    if broadcast.state not in (State.LIVE, State.INTERRUPTED):
        return Answer(part)
    message = "nobody looked lately"
    unknown = replace(part, state=HealthState.UNKNOWN, reason=HealthReason.NOT_OBSERVED, message=message)
    if broadcast.spec.playback_policy is PlaybackPolicy.SIGNED and not facts.availability.signing:
        message = "only who holds a viewer's token can look"
        return Answer(replace(unknown, reason=HealthReason.SIGNED, message=message))
    if (unseen := _out_of_sight(facts)) is not None:
        out_of_sight = replace(
            unknown,
            reason=HealthReason.PLAYBACK_UNREACHABLE,
            message=f"the playlist cannot be seen: {unseen.message}",
            since=unseen.since,
            observed_at=unseen.at,
            evidence=noted(
                ("http_status" if unseen.code.isdecimal() else "look_failed", unseen.code, unseen.at),
                ("last_seen", facts.probe.playlist_at, facts.probe.playlist_at),
            ),
        )
        return Answer(out_of_sight)
    seen, seen_at = facts.probe.playlist, facts.probe.playlist_at
    if seen is None or not facts.fresh(seen_at, PROBED_S):
        return Answer(replace(unknown, since=seen_at, observed_at=seen_at))
    probed = replace(
        part,
        observed_at=seen_at,
        evidence=noted(
            ("http_status", seen.status, seen_at),
            ("media_sequence", seen.media_sequence, seen_at),
            ("last_segment", seen.last_segment, seen_at),
            ("advanced", facts.probe.advanced_at, facts.probe.advanced_at),
            ("target_duration_s", seen.target_duration_s or None, seen_at),
        ),
    )
    return Answer(_plays(facts, seen, probed))


def _out_of_sight(facts: Facts) -> Unseen | None:
    """`Probe.out_of_sight`. An answer of the edge that is no playlist counts too, where another version stored it as if
    it were one.
    """
    seen, seen_at = facts.probe.playlist, facts.probe.playlist_at
    instead = not_seen(seen) if seen is not None else None
    if instead is not None and seen_at is not None and facts.fresh(seen_at, PROBED_S):
        code, message = instead
        return Unseen(since=facts.probe.standing_since or seen_at, at=seen_at, code=code, message=message)
    return facts.probe.out_of_sight(facts.now)


def _plays(facts: Facts, seen: PlaylistSeen, part: PartHealth) -> PartHealth:
    live_since = facts.broadcast.status.state_time
    if seen.status != _OK:
        message = f"the playlist answers {seen.status}"
        return replace(part, state=HealthState.DOWN, reason=HealthReason.NOT_ON_AIR, message=message, since=None)
    if seen.ended:
        message = "the playlist says it is over"
        return replace(part, state=HealthState.DOWN, reason=HealthReason.ENDED, message=message, since=None)
    since = facts.probe.standing_since
    if since is not None and facts.probe.stalled:
        message = f"the playlist did not move on since {clock(since)}"
        return replace(part, state=HealthState.DOWN, reason=HealthReason.STALLED, message=message, since=since)
    if facts.probe.advanced_at is None:
        message = "the playlist is there; whether it moves on is seen at the next look"
        return replace(
            part, state=HealthState.PENDING, reason=HealthReason.SEEN_ONCE, message=message, since=live_since
        )
    return replace(part, state=HealthState.OK, reason=HealthReason.ADVANCING, message="", since=live_since)
