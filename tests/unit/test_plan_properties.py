"""The plan against a hostile world, and against states that no world should bring about."""

from dataclasses import replace
from datetime import datetime

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.domain.broadcast import (
    Broadcast,
    DeliveryPolicy,
    Destination,
    EndReason,
    Fallback,
    FallbackMode,
    Spec,
    State,
    Target,
    seconds,
)
from service.domain.planning.plan import plan
from service.domain.planning.steps import (
    CreateRoom,
    CreateStream,
    DeleteUpload,
    EndBroadcast,
    Plan,
    ResetKey,
    SetFallback,
    SettleRecordings,
    StartEgress,
    StartRecording,
    StopEgress,
    StopRecording,
    UploadRecording,
    WriteOff,
)
from service.domain.planning.what_to_observe import to_observe
from service.domain.reasons import Blocked, FallbackReason
from service.domain.reporting.status import status_of
from service.domain.resource_set import ResourceSet
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Output,
    OutputState,
    Phase,
    Recording,
    RecordingStatus,
    Room,
    Stream,
    StreamStatus,
    Upload,
)
from service.domain.situation import Availability, Outage
from service.domain.timing import Timing
from tests.unit.plan_deeds import target_of
from tests.unit.plan_world import T0, Fault, Mishap, World

TIMING = Timing()
CREATING = (CreateRoom, CreateStream, StartEgress, StartRecording, ResetKey)
AFTERWARDS = (UploadRecording, DeleteUpload, SettleRecordings, WriteOff)
"""Steps for what is recorded, when nothing runs any more."""

many = settings(
    max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
stories = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)

# Arbitrary states.

moments = st.sampled_from([-5000, -600, -130, -91, -76, -46, -31, -10, -3, -2, -1, 0]).map(lambda s: T0 + seconds(s))
retries = st.none() | st.sampled_from([-5, 0, 1, 40]).map(lambda s: T0 + seconds(s))


def base(ordinal: int, phases: st.SearchStrategy[Phase]) -> dict[str, st.SearchStrategy[object]]:
    return {
        "ordinal": st.just(ordinal),
        "phase": phases,
        "external_id": st.sampled_from(["", f"id-{ordinal}"]),
        "intended_at": moments,
        "observed_at": st.none() | moments,
        "changed_at": moments,
        "failures": st.integers(0, 3),
        "retry_at": retries,
        "acked": st.booleans(),
    }


def rooms(ordinal: int) -> st.SearchStrategy[Room]:
    return st.builds(
        Room,
        **base(ordinal, st.sampled_from(Phase)),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        host_publishing=st.none() | st.booleans(),
        host_since=st.none() | moments,
    )


recordings = st.builds(Recording, asset_id=st.just("A"), status=st.sampled_from(RecordingStatus))


def streams(ordinal: int) -> st.SearchStrategy[Stream]:
    return st.builds(
        Stream,
        **base(ordinal, st.sampled_from(Phase)),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(StreamStatus),
        status_since=st.none() | moments,
        key_epoch=st.integers(0, 2),
        key_stale=st.booleans(),
        disabled=st.booleans(),
        cutting=st.booleans(),
        cut_epoch=st.integers(0, 2),
        key_reset_at=st.none() | moments,
        fed_at=st.none() | moments,
        silent_at=st.none() | moments,
        recordings=st.lists(recordings, max_size=2).map(tuple),
        recordings_settled=st.booleans(),
    )


def egresses(ordinal: int) -> st.SearchStrategy[Egress]:
    outputs = st.builds(Output, name=st.sampled_from(["", "other"]), state=st.sampled_from(OutputState))
    return st.builds(
        Egress,
        **base(ordinal, st.sampled_from(Phase)),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(EgressStatus),
        status_since=st.none() | moments,
        outputs=st.lists(outputs, max_size=2).map(tuple),
        layout=st.sampled_from(["grid", "speaker"]),
        destinations=st.sampled_from([(), ("other",)]),
        key_epoch=st.integers(-1, 2),
        end_seen=st.booleans(),
        fault=st.sampled_from(["", "FAILED"]),
        delivering_since=st.none() | moments,
    )


def files(ordinal: int) -> st.SearchStrategy[LocalRecording]:
    return st.builds(
        LocalRecording,
        **base(ordinal, st.sampled_from(Phase)),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(EgressStatus),
        status_since=st.none() | moments,
        end_seen=st.booleans(),
    )


def uploads(ordinal: int) -> st.SearchStrategy[Upload]:
    built = st.builds(
        Upload,
        **base(ordinal, st.sampled_from(Phase)),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        errored=st.integers(1, 2),
        recording=recordings,
    )
    return built.map(lambda upload: upload if upload.phase is Phase.PRESENT else replace(upload, recording=None))


@st.composite
def resource_sets(draw: st.DrawFn) -> list[AnyResource]:
    found: list[AnyResource] = [draw(rooms(n)) for n in range(draw(st.integers(0, 2)))]
    found += [draw(streams(n)) for n in range(draw(st.integers(0, 2)))]
    found += [draw(egresses(n)) for n in range(draw(st.integers(0, 4)))]
    files_there = draw(st.integers(0, 2))
    found += [draw(files(n)) for n in range(files_there)]
    found += [draw(uploads(n)) for n in range(files_there) if draw(st.booleans())]
    return draw(st.permutations(found))


specs = st.builds(
    Spec,
    delivery_policy=st.sampled_from(DeliveryPolicy),
    destinations=st.sampled_from([(), (Destination(name="other", url="rtmp://other"),)]),
    test=st.booleans(),
    max_duration_s=st.sampled_from([60, 43_200]),
    fallback_modes=st.sampled_from([tuple(FallbackMode), (FallbackMode.LOCAL_RECORDING,), ()]),
)
fallbacks = st.just(Fallback()) | st.builds(
    Fallback,
    modes=st.sampled_from([(), (FallbackMode.LOCAL_RECORDING,), tuple(FallbackMode)]),
    reason=st.just("EGRESS_FAILING"),
    since=moments,
)
surroundings = st.builds(
    Availability,
    outages=st.dictionaries(st.sampled_from(["mux", "livekit"]), st.builds(Outage, since=moments)),
    answering_since=st.dictionaries(st.sampled_from(["mux", "livekit"]), st.none() | moments),
    storage=st.booleans(),
)
broadcasts = st.builds(
    Broadcast,
    id=st.just("b"),
    spec=specs,
    target=st.sampled_from([Target.LIVE, Target.ENDED]),
    on_air=st.booleans(),
    fallback=fallbacks,
    deleted=st.booleans(),
    create_time=st.just(T0),
    update_time=st.just(T0),
    ready_time=st.none() | moments,
    live_time=st.none() | moments,
    dirty_at=st.none() | moments,
)


def check_plan(broadcast: Broadcast, resources: list[AnyResource], current: Plan, now: datetime) -> None:
    """What holds of every plan in every state."""
    rows = {(row.kind, row.ordinal): row for row in resources}
    targets = [target for step in current.steps if (target := target_of(step)) is not None]
    assert len(targets) == len(set(targets)), "two steps for one resource"
    for step in current.steps:
        target = target_of(step)
        row = rows.get(target) if target is not None else None
        on_what_is_gone = isinstance(step, UploadRecording | SettleRecordings)
        assert row is None or row.phase is not Phase.GONE or on_what_is_gone, f"a step for what is gone: {step}"
        # To write off is no call, and what an egress backs off from before it is told to stop is a change of it.
        stop = isinstance(step, StopEgress | StopRecording)
        first_stop = stop and row is not None and row.phase is Phase.PRESENT
        no_back_off = first_stop or isinstance(step, WriteOff)
        if row is not None and row.retry_at is not None and not no_back_off:
            assert row.retry_at <= now, f"before its back-off is over: {step}"
        if isinstance(step, CREATING):
            assert broadcast.target is Target.LIVE
        if isinstance(step, StartEgress):
            check_fenced(resources)
        if isinstance(step, EndBroadcast):
            assert broadcast.target is Target.LIVE
            assert current.steps == (step,)
    if broadcast.target is Target.LIVE:
        assert not current.done
        assert current.wait_until is not None
    if current.done:
        assert all(row.phase is Phase.GONE for row in resources if not isinstance(row, Upload))
        assert all(isinstance(step, AFTERWARDS) for step in current.steps)
    else:
        assert current.wait_until is not None
    assert current.wait_until is None or current.wait_until > now, "a hot loop"


def check_fenced(resources: list[AnyResource]) -> None:
    stream = next(row for row in resources if isinstance(row, Stream) and row.phase is Phase.PRESENT)
    assert not stream.key_stale
    assert not stream.cutting
    for row in resources:
        if isinstance(row, Egress):
            assert row.end_seen or row.key_epoch < stream.key_epoch, f"it may publish: {row}"
            assert not ResourceSet(resources).may_be_connected(row, stream), f"it may be connected: {row}"


def check_world(world: World, current: Plan) -> None:
    check_plan(world.broadcast, world.resources, current, world.now)
    check_looks(world.broadcast, world.resources, world.now)
    assert plan(world.broadcast, world.resources, world.now, world.timing, world.availability) == current
    for step in current.steps:
        if isinstance(step, SetFallback) and step.fallback.reason is FallbackReason.RETURNED:
            answering = world.availability.answering_since.values()
            stayed = [each for each in answering if each and world.now - each >= seconds(TIMING.fallback_return_s)]
            assert len(stayed) == len(answering), "a provider is hardly back"


def check_looks(broadcast: Broadcast, resources: list[AnyResource], now: datetime) -> None:
    wanted = to_observe(broadcast, resources, now, TIMING)
    seen: list[AnyResource] = []
    for row in resources:
        if (row.kind, row.ordinal) not in wanted:
            seen.append(row)
            continue
        assert row.phase is not Phase.GONE or isinstance(row, Stream)
        looked_at = replace(row, observed_at=now)
        if isinstance(looked_at, Room) and looked_at.host_publishing is None:
            looked_at = replace(looked_at, host_publishing=False, host_since=now)
        seen.append(looked_at)
    assert not to_observe(broadcast, seen, now, TIMING), "looks without an end"


def check_status(broadcast: Broadcast, resources: list[AnyResource], current: Plan, availability: Availability) -> None:
    state, status = status_of(broadcast, resources, current, T0, availability)
    known = {condition.type: condition.met for condition in status.conditions}
    assert len(known) == 6
    if state is State.LIVE:
        assert all(met is not False for met in known.values())
        assert all(known.values()) or (availability.outages and status.state_reason)
    assert state.over is (current.done and broadcast.target is Target.ENDED)
    again = status_of(replace(broadcast, state=state, status=status), resources, current, T0 + seconds(5), availability)
    assert again == (state, status)


@many
@given(broadcasts, resource_sets(), surroundings)
def test_every_plan_of_every_state_keeps_the_rules(
    broadcast: Broadcast, resources: list[AnyResource], availability: Availability
) -> None:
    current = plan(broadcast, resources, T0, TIMING, availability)
    check_plan(broadcast, resources, current, T0)
    assert plan(broadcast, list(reversed(resources)), T0, TIMING, availability) == current
    check_looks(broadcast, resources, T0)
    check_status(broadcast, resources, current, availability)


@many
@given(broadcasts, resource_sets(), surroundings)
def test_a_fallback_is_set_once(broadcast: Broadcast, resources: list[AnyResource], availability: Availability) -> None:
    for step in plan(broadcast, resources, T0, TIMING, availability).steps:
        if isinstance(step, SetFallback):
            assert set(step.fallback.modes) <= set(broadcast.spec.fallback_modes)
            then = plan(replace(broadcast, fallback=step.fallback), resources, T0, TIMING, availability)
            assert not [step for step in then.steps if isinstance(step, SetFallback)]


# Arbitrary states, and all goes well from there.


def may_exist(row: AnyResource) -> bool:
    """Not what was seen absent, what was looked for in vain, or what was told to stop."""
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


@many
@given(resource_sets(), st.data())
def test_the_end_comes_from_any_state(resources: list[AnyResource], data: st.DataObject) -> None:
    possible = [(row.kind, row.ordinal) for row in resources if may_exist(row)]
    there = data.draw(st.sets(st.sampled_from(possible)) if possible else st.just(set[tuple[Kind, int]]()))
    world = World(check=check_world)
    world.adopt(resources, frozenset(there))
    world.stop()
    # One grace of an egress, and the time of its stop: what is adopted at the last moment has to be stopped yet.
    # A file takes a minute more to get into the storage.
    assert world.run(300, until=lambda: world.done), f"not done: {world.resources}"
    assert not world.left()
    assert len(world.log) <= 6 * len(resources)
    assert world.state.over
    check_rest(world)


def check_rest(world: World) -> None:
    """Of what is over nothing is waited for in vain, and every file is at Mux, once."""
    passes = world.passes
    # What became of an upload is found out rarely, and Mux has to prepare what it was given.
    assert world.run(1800, until=lambda: world.rests), f"no rest: {world.resources} {world.last_plan}"
    assert world.passes - passes <= 80, "a storm"
    rows = world.resources
    told = status_of(world.broadcast, rows, world.last_plan, world.now, world.availability)[1].recordings
    assert all(recording.settled for recording in told)
    uploads = {row.ordinal: row for row in rows if isinstance(row, Upload)}
    for row in rows:
        if isinstance(row, LocalRecording) and row.complete and not world.broadcast.deleted:
            upload = uploads[row.ordinal]
            assert upload.recording is not None or upload.refused, f"never uploaded: {row}"


# Stories.

faults = st.sampled_from([Fault.NONE, *(fault for fault in Fault if fault is not Fault.REFUSE)])
mishaps = st.lists(
    st.builds(Mishap, fault=faults, delay_s=st.sampled_from([0.5, 3.0, 12.0, 29.0, 45.0, 80.0, 130.0])), max_size=14
)
blindness = st.lists(st.booleans(), max_size=12) | st.integers(0, 60).map(lambda n: [True] * n)
actions = st.lists(
    st.tuples(
        st.sampled_from(["host", "no host", "lose egress", "lose room", "mux away", "livekit away", "back", "stop"]),
        st.sampled_from([0.0, 1.0, 4.0, 15.0, 50.0, 100.0, 180.0]),
    ),
    max_size=9,
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World(mishaps=draw(mishaps), blind=draw(blindness), webhooks=draw(st.booleans()), check=check_world)
    world.cannot_make = draw(st.integers(0, 4))
    return world


def tell(world: World, story: list[tuple[str, float]]) -> None:
    world.start()
    for action, pause_s in story:
        match action:
            case "host":
                world.set_host(publishes=True)
            case "no host":
                world.set_host(publishes=False)
            case "lose egress":
                world.lose_egress()
            case "lose room":
                world.lose_room()
            case "mux away":
                world.away.add("mux")
            case "livekit away":
                world.away.add("livekit")
            case "back":
                world.away.clear()
            case _:
                world.stop()
        world.run(pause_s)


@stories
@given(worlds(), actions)
def test_never_two_publishers_and_nothing_is_left(world: World, story: list[tuple[str, float]]) -> None:
    tell(world, story)
    world.run(60)
    assert world.most_publishing <= 1
    world.away.clear()
    world.stop()
    # Faults are finite, and each costs a back-off of at most 30 s; a look that fails costs 2 s.
    bound = 400 + 35 * len(world.mishaps) + 5 * len(world.blind)
    assert world.run(bound, until=lambda: world.done), f"not done: {world.resources}"
    assert world.most_publishing <= 1
    assert not world.left()
    check_rest(world)
    made = [asset.ordinal for asset in world.assets.values() if asset.ordinal >= 0]
    assert len(made) == len(set(made)), "uploaded twice"
    check_fallbacks(world)
    # What lands after the end finds nothing to publish to.
    world.run(200)
    assert world.most_publishing <= 1
    assert not any(world.can_publish(egress) for egress in world.egresses.values())


@stories
@given(worlds(), actions.filter(lambda story: all(action != "stop" for action, _ in story)))
def test_it_gets_live(world: World, story: list[tuple[str, float]]) -> None:
    tell(world, story)
    world.away.clear()
    world.set_host(publishes=True)
    # The story so far may have used up faults or not; the rest comes now.
    while world.mishaps or world.blind:
        quiet = (len(world.mishaps), len(world.blind))
        world.run(60)
        if quiet == (len(world.mishaps), len(world.blind)):
            break
    world.mishaps.clear()
    world.blind.clear()
    world.run(max(0.0, (world.last_fault_at - world.now).total_seconds()))
    # The provider loses the stream only by START_TIMEOUT: two minutes without one.
    ended = world.broadcast.end_reason
    assert ended in (None, EndReason.START_TIMEOUT)
    assume(ended is None)
    playing = world.run(300, until=lambda: world.state is State.LIVE or world.last_plan.blocked is Blocked.START_LIMIT)
    assert playing, f"{world.state}: {world.resources}"
    check_fallbacks(world)


def check_fallbacks(world: World) -> None:
    """It does not flap: what is entered is left after its time, or with the air."""
    entered = None
    for fallback in world.fallbacks:
        assert fallback.since is not None
        if fallback.modes:
            entered = entered or fallback.since
            continue
        assert entered is not None, "left twice"
        assert fallback.since - entered >= seconds(TIMING.fallback_return_s), "too soon"
        entered = None


outages = st.lists(
    st.tuples(st.sampled_from([20.0, 100.0, 125.0, 300.0]), st.sampled_from([10.0, 60.0, 130.0])), max_size=5
)


@stories
@given(st.builds(World, mishaps=mishaps, check=st.just(check_world)), outages)
def test_nothing_that_was_recorded_while_mux_was_away_is_lost(world: World, story: list[tuple[float, float]]) -> None:
    world.start()
    world.set_host(publishes=True)
    world.run(40)
    for away_s, pause_s in story:
        world.away.add("mux")
        world.run(away_s)
        world.away.clear()
        world.run(pause_s)
    # The end falls into an outage, and Mux comes back when nothing runs any more but the live stream.
    world.away.add("mux")
    world.run(200)
    world.stop()
    world.run(200)
    world.away.clear()
    assert world.run(900, until=lambda: world.done), f"not done: {world.resources}"
    check_rest(world)
    files = [file for file in world.files.values() if file.status is EgressStatus.COMPLETE]
    made = {asset.ordinal for asset in world.assets.values() if asset.ordinal >= 0}
    assert {file.ordinal for file in files if not written_off(world, file.ordinal)} <= made
    check_fallbacks(world)


def written_off(world: World, ordinal: int) -> bool:
    row = world.rows[Kind.RECORDING, ordinal]
    return isinstance(row, LocalRecording) and not row.end_seen


@stories
@given(
    st.lists(st.builds(Mishap, fault=faults, delay_s=st.sampled_from([0.5, 3.0, 12.0])), max_size=6),
    blindness,
    st.lists(st.sampled_from([4.0, 20.0, 60.0, 150.0]), min_size=2, max_size=6),
)
def test_what_answers_no_stop_and_stays_connected_is_cut_off_before_the_next(
    later: list[Mishap], blind: list[bool], pauses: list[float]
) -> None:
    """Off air and on again, with a worker that LiveKit cannot reach."""
    deaf = [*[Mishap(fault=Fault.NONE)] * 2, Mishap(fault=Fault.DEAF_WORKER)]
    world = World(spec=Spec(delivery_policy=DeliveryPolicy.MANUAL), mishaps=deaf, check=check_world)
    world.set_on_air(on_air=True)
    world.start()
    world.set_host(publishes=True)
    assert world.run(60, until=lambda: world.state is State.LIVE)
    world.mishaps, world.blind = list(later), list(blind)
    for n, pause_s in enumerate(pauses):
        world.set_on_air(on_air=n % 2 == 1)
        world.run(pause_s)
        assert world.most_publishing <= 1
    world.mishaps.clear()
    world.blind.clear()
    world.set_on_air(on_air=True)
    playing = world.run(500, until=lambda: world.state is State.LIVE or world.last_plan.blocked is Blocked.START_LIMIT)
    assert playing, f"{world.state}: {world.resources}"
    assert world.most_publishing <= 1
    [first, *_] = world.egresses.values()
    assert first.status.terminal, "it was thrown out"
