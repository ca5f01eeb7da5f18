"""Where the service is broken: every failpoint, what is interrupted there, and the way a broadcast goes to meet it."""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """What happens to the process that meets the point; the names of `service.failpoints`."""

    KILL = "kill9"
    """It is gone; a supervisor starts it again."""
    RAISE = "raise"
    """It lives on."""
    STOP = "stop"
    """It stands still past its lease while a second replica runs, and then goes on as if nothing had been."""


class Path(StrEnum):
    """What happens besides the crash."""

    PLAIN = "plain"
    START_REFUSED = "start without an answer and without effect"
    START_LOST = "start without an answer and with effect"
    STREAM_LOST = "live stream without an answer and with effect"
    STREAM_LATE = "live stream that comes after it was given up"
    RESET_LOST = "start without an answer, then a key reset without an answer and with effect"
    FAILED_EGRESS = "the egress fails on air"
    GHOST = "the worker of the egress dies on air, and its record does not"
    FALLBACK = "the egress fails on air, and the show is recorded meanwhile"
    UPLOAD_ERRORED = "the same, and Mux can make nothing of the file at first"
    DELETE_LOST = "deletion of the room without an answer and with effect"
    NO_HOST = "nobody comes"
    SCHEDULED = "it is scheduled, and nobody starts it"
    POOLED = "its live stream was made ahead"
    MANUAL = "the host is taken on air by hand"
    ON_DEMAND = "on air it is to be delivered only while somebody watches"
    CHANGED = "title, layout and destinations are changed on air"
    DELETED = "it is deleted in the end"
    WATCHED = "somebody watches from the beginning"
    CAPPED = "it costs as much as its cap, which only warns"
    MIGRATED = "the database is brought up to date first"


class Stage(StrEnum):
    """When the point is met, and what is wanted from then on."""

    UP = "up"
    """Before or while it is on air, and it is to be on air."""
    CUT = "cut"
    """Before it is on air, and StopBroadcast comes at once: it is to end, and the process that stood still comes back
    when it has.
    """
    DOWN = "down"
    """While it is taken down."""


class Armed(StrEnum):
    """From when on the point is armed: passings before do not count."""

    START = "start"
    HOST = "before the host comes"
    STOP = "before the stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    name: str
    what: str
    """What is interrupted there."""
    path: Path = Path.PLAIN
    stage: Stage = Stage.UP
    armed: Armed = Armed.START
    passing: int = 1
    webhooks: bool = True
    variant: str = ""
    """Tells it from others of the same name."""

    @property
    def id(self) -> str:
        return f"{self.name}+{self.variant}" if self.variant else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    point: Point
    mode: Mode

    @property
    def id(self) -> str:
        return f"{self.point.id}-{self.mode}"


def _up(name: str, what: str, path: Path = Path.PLAIN, *, webhooks: bool = True) -> Point:
    return Point(name=name, what=what, path=path, webhooks=webhooks)


def _down(name: str, what: str, path: Path = Path.PLAIN) -> Point:
    return Point(name=name, what=what, path=path, stage=Stage.DOWN)


def _cut(name: str, what: str, path: Path = Path.PLAIN) -> Point:
    return Point(name=name, what=f"{what}, and it is stopped at once", path=path, stage=Stage.CUT, variant="stop")


def _ending(name: str, what: str) -> Point:
    what = f"{what}, while it is taken down"
    return Point(name=name, what=what, stage=Stage.DOWN, armed=Armed.STOP, variant="end")


POINTS: tuple[Point, ...] = (
    _up("api.create.before_commit", "CreateBroadcast, before its transaction commits"),
    _up("api.create.after_commit", "CreateBroadcast, stored and not answered"),
    _up("api.start.before_commit", "StartBroadcast, before its transaction commits"),
    _up("api.start.after_commit", "StartBroadcast, stored and not answered"),
    _up("schedule.before_record", "a broadcast whose scheduled time is near, before it is begun", Path.SCHEDULED),
    _up("schedule.after_record", "a broadcast whose scheduled time is near, begun", Path.SCHEDULED),
    _up("pool.create.after_intent", "the keeper of the pool, before it makes a live stream", Path.POOLED),
    _up("pool.create.after_call", "the keeper of the pool, which has made one and not written it down", Path.POOLED),
    _up("pool.take.before_record", "a start, about to take a live stream of the pool", Path.POOLED),
    _cut("pool.take.before_record", "a start, about to take a live stream of the pool", Path.POOLED),
    _up("pool.take.after_record", "a live stream of the pool, taken and without a name", Path.POOLED),
    _cut("pool.take.after_record", "a live stream of the pool, taken and without a name", Path.POOLED),
    _up("lease.after_claim", "a pass, claimed and not begun"),
    _up("room.create.before_intent", "the room, before its intent is stored"),
    _up("room.create.after_intent", "the room, intended"),
    _up("room.create.before_call", "the room, intended, behind the last look at the lease"),
    _cut("room.create.before_call", "the room, intended, behind the last look at the lease"),
    _up("room.create.after_call", "the room, created and not recorded"),
    _cut("room.create.after_call", "the room, created and not recorded"),
    _up("room.create.after_record", "the room, recorded"),
    _up("stream.create.before_intent", "the live stream, before its intent is stored"),
    _up("stream.create.after_intent", "the live stream, intended"),
    _up("stream.create.before_call", "the live stream, intended, behind the last look at the lease"),
    _cut("stream.create.before_call", "the live stream, intended, behind the last look at the lease"),
    _up("stream.create.after_call", "the live stream, created and not recorded"),
    _cut("stream.create.after_call", "the live stream, created and not recorded"),
    _up("stream.create.after_failure", "the live stream, created without an answer", Path.STREAM_LOST),
    _up("stream.create.after_record", "the live stream, recorded"),
    Point(
        name="observe.after_read",
        what="a look that finds the live stream of a create without an answer",
        path=Path.STREAM_LOST,
        variant="stream",
    ),
    Point(
        name="observe.after_record",
        what="a pass that has adopted the live stream of a create without an answer",
        path=Path.STREAM_LOST,
        variant="stream",
    ),
    _up("status.before_commit", "the first record, before its transaction commits"),
    Point(name="status.before_commit", what="the second record, before its commit", passing=2, variant="2"),
    _up("status.after_commit", "the first record, committed"),
    Point(name="status.after_commit", what="the second record, committed", passing=2, variant="2"),
    _up("lease.before_release", "a pass, done, before it gives its lease back"),
    Point(name="lease.before_release", what="the second pass, before it gives its lease back", passing=2, variant="2"),
    _up("webhook.before_verify", "a webhook, received"),
    _up("webhook.before_commit", "a webhook, before its transaction commits"),
    _up("webhook.after_commit", "a webhook, stored and not answered"),
    _up("webhook.before_apply", "a pass, about to take a webhook into account"),
    _up("webhook.after_apply", "a pass that has taken a webhook into account"),
    _up("observer.before_wake", "the observer, which has seen a host and not said so", webhooks=False),
    _up("egress.start.before_intent", "the egress, before its intent is stored"),
    _up("egress.start.after_intent", "the egress, intended"),
    _up("egress.start.before_call", "the egress, intended, behind the last look at the lease"),
    _cut("egress.start.before_call", "the egress, intended, behind the last look at the lease"),
    _up("egress.start.after_call", "the egress, started and not recorded"),
    _cut("egress.start.after_call", "the egress, started and not recorded"),
    _up("egress.start.after_failure", "the egress, started without an answer", Path.START_LOST),
    _up("egress.start.after_record", "the egress, recorded"),
    Point(
        name="observe.after_read",
        what="a look that finds the egress of a start without an answer",
        path=Path.START_LOST,
        variant="egress",
        armed=Armed.HOST,
        passing=2,
        webhooks=False,
    ),
    Point(
        name="observe.after_record",
        what="a pass that has adopted the egress of a start without an answer",
        path=Path.START_LOST,
        variant="egress",
        armed=Armed.HOST,
        passing=2,
        webhooks=False,
    ),
    _up("key.reset.after_intent", "the fence of a start without an answer, intended", Path.START_REFUSED),
    _up("key.reset.before_call", "the fence, intended, behind the last look at the lease", Path.START_REFUSED),
    _cut("key.reset.before_call", "the fence, intended, behind the last look at the lease", Path.START_REFUSED),
    _up("key.reset.after_call", "the fence: the key is new, and nobody has written it down", Path.START_REFUSED),
    _cut("key.reset.after_call", "the fence: the key is new, and nobody has written it down", Path.START_REFUSED),
    _up("key.reset.after_failure", "the fence: the key is new, and nobody was told", Path.RESET_LOST),
    _up("key.reset.after_record", "the fence, recorded", Path.START_REFUSED),
    Point(
        name="egress.start.before_call",
        what="the start after the fence, behind the last look at the lease",
        path=Path.START_REFUSED,
        variant="fenced",
        passing=2,
    ),
    Point(
        name="egress.start.after_call",
        what="the start after the fence, not recorded",
        path=Path.START_REFUSED,
        variant="fenced",
    ),
    _up("write_off.after_record", "an egress that no list showed, given up", Path.START_REFUSED),
    _up("sweep.before_list", "the sweeper, about to look for what nobody owns", Path.STREAM_LATE),
    _up("sweep.before_remove", "the sweeper, about to remove a live stream that came too late", Path.STREAM_LATE),
    _up("sweep.after_remove", "the sweeper, which has removed it", Path.STREAM_LATE),
    _up("api.on_air.before_commit", "SetOnAir, before its transaction commits", Path.MANUAL),
    _up("api.on_air.after_commit", "SetOnAir, stored and not answered", Path.MANUAL),
    _up("api.update.before_commit", "UpdateBroadcast, before its transaction commits", Path.CHANGED),
    _up("api.update.after_commit", "UpdateBroadcast, stored and not answered", Path.CHANGED),
    _up("destinations.set.after_intent", "a further destination, intended", Path.CHANGED),
    _up("destinations.set.before_call", "a further destination, behind the last look at the lease", Path.CHANGED),
    _up("destinations.set.after_call", "a further destination, added and not recorded", Path.CHANGED),
    _up("destinations.set.after_record", "a further destination, recorded", Path.CHANGED),
    _up("layout.set.after_call", "a new layout, set and not recorded", Path.CHANGED),
    _up("layout.set.after_record", "a new layout, recorded", Path.CHANGED),
    _up("title.set.after_call", "a new title, set and not recorded", Path.CHANGED),
    _up("title.set.after_record", "a new title, recorded", Path.CHANGED),
    Point(
        name="egress.start.after_intent",
        what="the replacement of an egress that failed on air, intended",
        path=Path.FAILED_EGRESS,
        variant="2",
        passing=2,
    ),
    _up("stream.cut.after_intent", "the cut of the live stream from an egress that is a ghost, intended", Path.GHOST),
    _up("stream.cut.before_call", "the cut, intended, behind the last look at the lease", Path.GHOST),
    _up("stream.cut.between", "the live stream, disabled and not yet enabled again", Path.GHOST),
    _up("stream.cut.after_call", "the live stream, cut and not recorded", Path.GHOST),
    _up("stream.cut.after_record", "the live stream, cut, the ghost not yet replaced", Path.GHOST),
    _up("fallback.before_record", "the fallback, decided", Path.FALLBACK),
    _up("fallback.after_record", "the fallback, recorded and not begun", Path.FALLBACK),
    Point(
        name="fallback.after_record",
        what="the return from the fallback, recorded",
        path=Path.FALLBACK,
        passing=2,
        variant="return",
    ),
    _up("cost.before_record", "the cost cap, seen to be reached", Path.CAPPED),
    _up("cost.after_record", "the cost cap, told to be reached", Path.CAPPED),
    _up("delivery.before_record", "whether the egress runs on for viewers, decided", Path.ON_DEMAND),
    _up("delivery.after_record", "whether the egress runs on for viewers, recorded", Path.ON_DEMAND),
    _up("recording.start.after_intent", "the file egress of a fallback, intended", Path.FALLBACK),
    _up("recording.start.before_call", "the file egress, behind the last look at the lease", Path.FALLBACK),
    _up("recording.start.after_call", "the file egress, started and not recorded", Path.FALLBACK),
    _up("recording.start.after_record", "the file egress, recorded", Path.FALLBACK),
    _up("recording.stop.after_intent", "the stop of the file egress, intended", Path.FALLBACK),
    _up("recording.stop.before_call", "the stop of the file egress, behind the last look at the lease", Path.FALLBACK),
    _up("recording.stop.after_call", "the file egress, told to stop, not recorded", Path.FALLBACK),
    _up("upload.create.after_intent", "the upload of the file, intended", Path.FALLBACK),
    _up("upload.create.before_call", "the upload, behind the last look at the lease", Path.FALLBACK),
    _up("upload.create.after_call", "the upload, begun and not recorded", Path.FALLBACK),
    _up("upload.create.after_record", "the upload, recorded", Path.FALLBACK),
    _up("upload.delete.after_intent", "the deletion of an asset that is errored, intended", Path.UPLOAD_ERRORED),
    _up("upload.delete.before_call", "the same deletion, behind the last look at the lease", Path.UPLOAD_ERRORED),
    _up("upload.delete.after_call", "an asset that is errored, deleted and not recorded", Path.UPLOAD_ERRORED),
    _up("upload.delete.after_record", "an asset that is errored, deleted, not yet seen absent", Path.UPLOAD_ERRORED),
    _up("watch.before_snapshot", "a watch, opened and told nothing", Path.WATCHED),
    Point(name="watch.mid_delta", what="a watch, between two changes", path=Path.WATCHED, passing=3),
    _up("migrate.before_commit", "a migration, before its transaction commits", Path.MIGRATED),
    Point(
        name="migrate.before_commit",
        what="the second migration, before its transaction commits",
        path=Path.MIGRATED,
        passing=2,
        variant="2",
    ),
    _up("migrate.after_commit", "a migration, applied, with more to come", Path.MIGRATED),
    _down("end.after_record", "the end for want of a host, recorded", Path.NO_HOST),
    _down("api.stop.before_commit", "StopBroadcast, before its transaction commits"),
    _down("api.stop.after_commit", "StopBroadcast, stored and not answered"),
    _ending("lease.after_claim", "a pass, claimed and not begun"),
    _down("stream.disable.before_call", "the live stream, about to be disabled"),
    _down("stream.disable.after_call", "the live stream, disabled and not recorded"),
    _down("stream.disable.after_record", "the live stream, disabled"),
    _down("egress.stop.after_intent", "the stop of the egress, intended"),
    _down("egress.stop.before_call", "the stop of the egress, behind the last look at the lease"),
    _down("egress.stop.after_call", "the egress, told to stop, not recorded"),
    _down("egress.stop.after_record", "the egress, told to stop"),
    _down("room.delete.after_intent", "the deletion of the room, intended"),
    _down("room.delete.before_call", "the deletion of the room, behind the last look at the lease"),
    _down("room.delete.after_call", "the room, deleted and not recorded"),
    _down("room.delete.after_record", "the room, deleted, its absence not yet seen"),
    _down("room.ask.after_intent", "the question whether there is a room that no delete finds", Path.DELETE_LOST),
    _down("room.ask.before_call", "the same question, behind the last look at the lease", Path.DELETE_LOST),
    _down("room.ask.after_call", "the room that the question made, not recorded", Path.DELETE_LOST),
    _down("room.ask.after_record", "the room that the question made, recorded and not deleted", Path.DELETE_LOST),
    _down("recordings.settle.after_call", "the recordings, listed and not recorded"),
    _down("recordings.settle.after_record", "the recordings, listed and not yet deleted"),
    _down("recordings.discard.after_call", "a recording, deleted and not recorded"),
    _down("recordings.discard.after_record", "a recording, deleted"),
    _down("stream.delete.after_intent", "the deletion of the live stream, intended"),
    _down("stream.delete.before_call", "the deletion of the live stream, behind the last look at the lease"),
    _down("stream.delete.after_call", "the live stream, deleted and not recorded"),
    _down("stream.delete.after_record", "the live stream, deleted, its absence not yet seen"),
    _ending("observe.after_read", "a look at what is leaving"),
    _ending("observe.after_record", "a look at what is leaving, recorded"),
    _ending("status.before_commit", "the first record, before its transaction commits"),
    _ending("status.after_commit", "the first record, committed"),
    _ending("lease.before_release", "a pass, done, before it gives its lease back"),
    _down("api.delete.before_commit", "DeleteBroadcast, before its transaction commits", Path.DELETED),
    _down("api.delete.after_commit", "DeleteBroadcast, stored and not answered", Path.DELETED),
)

CASES: tuple[Case, ...] = tuple(Case(point=point, mode=mode) for point in POINTS for mode in Mode)
