"""The end comes from any state: rows of every kind and phase, of which any may really exist at the providers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.broadcast import (
    Broadcast,
    EndReason,
    LatencyMode,
    PlaybackPolicy,
    Spec,
    State,
    Target,
    seconds,
)
from service.domain.lifecycle import Event
from service.domain.ports import EgressWanted, Push, RecordingWanted, StreamWanted, UploadWanted
from service.domain.reasons import Actor, EventReason
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    Kind,
    LocalRecording,
    Phase,
    Room,
    Stream,
    Upload,
)
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.reconciler.act.requests import room_wanted
from service.reconciler.act.tags import file_of, stream_tag, upload_tag
from tests.simulation.environment import T0
from tests.simulation.replica import TAG
from tests.simulation.stage import ID, Stage, play
from tests.simulation.store.tables import Row, Written
from tests.unit.plan_strategies import resource_sets

EXAMPLES = 150
FILES = "shows/sim/"
TIMING = Timing()
SPEC = Spec(title="A show")
CALLS_A_RESOURCE = 6
"""At most so many calls that change anything are made for each resource, from any state to its end."""
RESTING_PASSES = 80
"""From the end until its recordings are known, it may be looked at so often, and no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The state in which a replica begins: rows, and the keys of those whose thing exists at its provider."""

    resources: Sequence[AnyResource]
    there: frozenset[tuple[Kind, int]]


def may_exist(row: AnyResource) -> bool:
    """False for a row whose thing was seen absent, was looked for in vain, or was told to stop."""
    graces = {
        Kind.STREAM: TIMING.stream_grace_s,
        Kind.EGRESS: TIMING.egress_grace_s,
        Kind.RECORDING: TIMING.egress_grace_s,
        Kind.UPLOAD: TIMING.upload_grace_s,
    }
    if row.unresolved and row.kind is not Kind.ROOM and row.observed_at is not None:
        return row.observed_at < row.intended_at + seconds(graces[row.kind])
    if row.phase is Phase.DELETING and row.kind in (Kind.EGRESS, Kind.RECORDING):
        return not row.acked and row.failures == 0
    return row.phase is not Phase.GONE


@st.composite
def found(draw: st.DrawFn) -> Found:
    resources = [named(row) for row in draw(resource_sets())]
    possible = [(row.kind, row.ordinal) for row in resources if may_exist(row)]
    there = frozenset(each for each in possible if draw(st.sampled_from((True, True, False))))
    return Found(resources=resources, there=there)


def named(row: AnyResource) -> AnyResource:
    """As the service stores it: an id comes with the answer, a room's is its name, every file has a name of its own."""
    name = ID if isinstance(row, Room) else f"{row.kind}-{row.ordinal}"
    row = replace(row, external_id="" if row.unresolved else name)
    return replace(row, file=file_of(FILES, ID, row.ordinal)) if isinstance(row, LocalRecording) else row


class Ground:
    """Puts the rows into the tables, and the things that exist of them to the providers."""

    def __init__(self, stage: Stage, begins: Found) -> None:
        self._stage = stage
        self._begins = begins

    def lay(self) -> None:
        rows = {(row.kind, row.ordinal): row for row in self._begins.resources}
        # An egress needs a room, and a room that is not there takes its egresses with it.
        self._stage.livekit.create_room(room_wanted(ID, TAG, TIMING))
        key = ""
        for kind in (Kind.STREAM, Kind.EGRESS, Kind.RECORDING, Kind.UPLOAD):
            for (_, ordinal), row in sorted(rows.items()):
                if row.kind is kind and (kind, ordinal) in self._begins.there:
                    id_ = self._make(row, key)
                    if isinstance(row, Stream):
                        stream = self._stage.mux.streams[id_]
                        # A live stream that is being deleted was disabled before, or nobody had a key of it.
                        key = key or ("" if row.phase is Phase.DELETING else stream.key)
                        # Only the service itself disables it, so the row and the provider agree.
                        stream.disabled = row.disabled
                    if isinstance(row, Egress):
                        # The next egresses hold dead keys: there are never two publishers.
                        key = ""
                    if not row.unresolved:
                        rows[kind, ordinal] = replace(row, external_id=id_)
        # All of it was made some time ago, so lists show it.
        for stream in self._stage.mux.living:
            stream.listed_at = 0.0
        for egress in self._stage.livekit.ours:
            egress.lag_s = 0.0
        if not any(kind is Kind.ROOM for kind, _ in self._begins.there):
            self._stage.livekit.delete_room(ID, "outside")
        self._store(rows)

    def _make(self, row: AnyResource, key: str) -> str:
        livekit, mux = self._stage.livekit, self._stage.mux
        encoding = SPEC.encoding
        match row:
            case Stream():
                return mux.create(
                    StreamWanted(
                        tag=stream_tag(TAG, ID, row.ordinal),
                        title=SPEC.title,
                        playback_policy=PlaybackPolicy.PUBLIC,
                        latency_mode=LatencyMode.LOW,
                        reconnect_window_s=60.0,
                        max_duration_s=43_200,
                        test=False,
                        audio_only=False,
                    )
                ).id
            case Egress():
                pushes = (Push(name="", url=Secret(f"mux://{key}")),)
                wanted = EgressWanted(room_name=ID, encoding=encoding, audio_only=False, layout="grid", pushes=pushes)
                return livekit.start(wanted).id
            case LocalRecording():
                wanted = RecordingWanted(
                    room_name=ID, encoding=encoding, audio_only=False, layout="grid", file=row.file
                )
                return livekit.record(wanted).id
            case Upload():
                url = Secret("https://storage.example/file")
                tag = upload_tag(TAG, ID, row)
                return mux.upload(
                    UploadWanted(tag=tag, url=url, title=SPEC.title, playback_policy=PlaybackPolicy.PUBLIC)
                ).asset_id
            case Room():
                return ID

    def _store(self, rows: dict[tuple[Kind, int], AnyResource]) -> None:
        tables = self._stage.world.tables
        broadcast = Broadcast(
            id=ID,
            spec=SPEC,
            target=Target.ENDED,
            state=State.STOPPING,
            end_reason=EndReason.STOPPED,
            create_time=T0,
            update_time=T0,
            start_time=T0,
        )
        row = Row(broadcast=broadcast, due_at=T0, lane=0)
        tables.rows[ID] = row
        tables.put_resources(row, list(rows.values()))
        created = (Event(reason=EventReason.CREATED),)
        tables.append(row, created, actor=Actor.CALLER, before=None)
        tables.written(Written(claim=None, row=row, before=None, after=broadcast, events=created))


def test_the_end_comes_from_any_state() -> None:
    met: Counter[str] = Counter()

    def holds(begins: Found) -> None:
        async def scene(stage: Stage) -> None:
            Ground(stage, begins).lay()
            writes = stage.writes()
            stage.world.begin()
            convergence = stage.world.invariants.convergence
            # The grace of an egress and the time of its stop: one may be adopted at the last moment. A file takes
            # longer to get into the storage.
            await stage.until(lambda: stage.broadcast.state.over, 300)
            # A retired live stream is kept for the last viewers.
            assert not ResourceSet(stage.row.sorted_resources()).left
            assert not [each for each in convergence.leftovers() if not each.startswith(("upload", "live stream"))]
            assert len(writes) <= CALLS_A_RESOURCE * len(begins.resources), writes
            passes = stage.row.fence
            await stage.until(lambda: not convergence.restless() and not convergence.leftovers(), 1800)
            assert all(each.phase is Phase.GONE for each in ResourceSet(stage.row.sorted_resources()).running)
            convergence.check_over()
            convergence.check_rest()
            assert stage.row.fence - passes <= RESTING_PASSES, "a storm"
            check_files(stage)

        stage = play(scene, storage=True)
        met.update(name for name, count in stage.world.invariants.seen.items() if count)
        met.update({f"{kind} there" for kind, _ in begins.there})

    many = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    many(given(found())(holds))()
    for kind in Kind:
        assert met[f"{kind} there"] >= 0.1 * EXAMPLES, f"{kind} in {met[f'{kind} there']} of {EXAMPLES} examples"
    assert met["adopted"] >= 0.1 * EXAMPLES, f"adopted in {met['adopted']} of {EXAMPLES} examples"


def check_files(stage: Stage) -> None:
    """Every file that a row says is complete is at Mux, or Mux refused it."""
    resources = stage.row.sorted_resources()
    uploads = {row.ordinal: row for row in resources if isinstance(row, Upload)}
    for row in resources:
        if isinstance(row, LocalRecording) and row.complete:
            upload = uploads[row.ordinal]
            assert upload.recording is not None or upload.refused, f"never uploaded: {row}"
