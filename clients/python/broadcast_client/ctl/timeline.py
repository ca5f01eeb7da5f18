"""How long each part of the chain took, from what the service says of it. Pure: all times are the service's."""

from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_ENDED,
    BROADCAST_STATE_FAILED,
    BROADCAST_STATE_STOPPING,
    CONDITION_TYPE_EGRESS_RUNNING,
    CONDITION_TYPE_HOST_PUBLISHING,
    CONDITION_TYPE_INGEST_ACTIVE,
    CONDITION_TYPE_PLAYABLE,
    CONDITION_TYPE_ROOM_READY,
    CONDITION_TYPE_STREAM_READY,
    Broadcast,
    ConditionType,
)

END = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the chain."""

    name: str
    condition: ConditionType.ValueType
    after: tuple[str, ...] = ()
    """The parts it waits for."""


PARTS = (
    Part(name="room", condition=CONDITION_TYPE_ROOM_READY),
    Part(name="live stream", condition=CONDITION_TYPE_STREAM_READY),
    Part(name="host", condition=CONDITION_TYPE_HOST_PUBLISHING, after=("room", "live stream")),
    Part(name="egress", condition=CONDITION_TYPE_EGRESS_RUNNING, after=("host",)),
    Part(name="ingest", condition=CONDITION_TYPE_INGEST_ACTIVE, after=("egress",)),
    Part(name="playable", condition=CONDITION_TYPE_PLAYABLE, after=("ingest",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part that came about. Seconds since StartBroadcast."""

    name: str
    began: float
    """When what it waits for was there."""
    done: float

    @property
    def took(self) -> float:
        return self.done - self.began


class Timeline:
    """Takes every state of one broadcast; knows when each part came about for the first time."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self._started: datetime | None = None
        self._stopping: datetime | None = None

    def update(self, broadcast: Broadcast) -> list[Stage]:
        """The stages that are new with this state, in the order they came about."""
        status = broadcast.status
        if not status.HasField("start_time"):
            return []
        started = self._started = self._started or _time(status.start_time)
        met = {each.type: each for each in status.conditions if each.HasField("met") and each.met}
        new: list[Stage] = []
        for part in PARTS:
            if part.name in self.stages or part.condition not in met:
                continue
            done = max(0.0, (_time(met[part.condition].transition_time) - started).total_seconds())
            new.append(Stage(name=part.name, began=min(self.begin(part), done), done=done))
            self.stages[part.name] = new[-1]
        if status.state == BROADCAST_STATE_STOPPING and self._stopping is None:
            self._stopping = _time(status.state_time)
        if status.state in (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED) and END not in self.stages:
            over = _time(status.end_time if status.HasField("end_time") else status.state_time)
            began = min(self._stopping or over, over)
            stage = Stage(name=END, began=(began - started).total_seconds(), done=(over - started).total_seconds())
            self.stages[END] = stage
            new.append(stage)
        return sorted(new, key=lambda stage: stage.done)

    def begin(self, part: Part) -> float:
        """Since when nothing but the part itself is missing, as far as is known. Seconds since StartBroadcast."""
        return max((self.stages[name].done for name in part.after if name in self.stages), default=0.0)

    def is_running(self, part: Part) -> bool:
        """Whether all it waits for is there, and it is not."""
        return (
            self._started is not None
            and END not in self.stages
            and part.name not in self.stages
            and all(name in self.stages for name in part.after)
        )


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
