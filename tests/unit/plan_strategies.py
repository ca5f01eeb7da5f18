"""Generated arguments of `plan`: states that no world need bring about, and states built towards rare cases."""

from dataclasses import dataclass, replace
from datetime import datetime

from hypothesis import strategies as st

from service.domain.audience.watching import NOBODY_KNOWS, Watching
from service.domain.broadcast import (
    Broadcast,
    DeliveryPolicy,
    Destination,
    Fallback,
    FallbackMode,
    Spec,
    Target,
    seconds,
)
from service.domain.cost.cap import Costs, spent_of
from service.domain.cost.entries import entries_of
from service.domain.cost.money import CapAction, CostCap, CostLevel
from service.domain.delivery import UNDECIDED, Decided, Delivery, DeliveryReason
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import FallbackReason, Fault
from service.domain.resources import (
    AnyResource,
    Egress,
    EgressStatus,
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
from tests.simulation.environment import T0

LONG_AGO = T0 - seconds(5000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What `plan` is asked at T0."""

    broadcast: Broadcast
    resources: list[AnyResource]
    availability: Availability
    watching: Watching = NOBODY_KNOWS


moments = st.sampled_from([-5000, -600, -130, -91, -76, -46, -31, -10, -3, -2, -1, 0]).map(lambda s: T0 + seconds(s))
counts = st.sampled_from([0, 1, 2, 3, 3, 4])
any_phase = st.sampled_from(Phase)
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
        **base(ordinal, any_phase),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        host_publishing=st.none() | st.booleans(),
        host_since=st.none() | moments,
        absent_since=st.none() | st.none() | moments,
        forgotten_at=st.none() | moments,
        doubted=st.booleans(),
    ).map(lambda room: room if room.phase is Phase.DELETING else replace(room, doubted=False))


recordings = st.builds(Recording, asset_id=st.just("A"), status=st.sampled_from(RecordingStatus))


def streams(ordinal: int) -> st.SearchStrategy[Stream]:
    return st.builds(
        Stream,
        **base(ordinal, any_phase),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(StreamStatus),
        status_since=st.none() | moments,
        key_epoch=st.integers(0, 2),
        key_stale=st.booleans(),
        disabled=st.sampled_from([False, False, True]),
        disabled_at=st.none() | moments,
        title=st.sampled_from(["", "", "", "other"]),
        cutting=st.booleans(),
        cut_epoch=st.integers(0, 2),
        key_reset_at=st.none() | moments,
        fed_at=st.none() | moments,
        silent_at=st.none() | moments,
        recordings=st.lists(recordings, max_size=2).map(tuple),
        recordings_settled=st.booleans(),
    )


def egresses(ordinal: int, phases: st.SearchStrategy[Phase] = any_phase) -> st.SearchStrategy[Egress]:
    outputs = st.builds(Output, name=st.sampled_from(["", "other"]), state=st.sampled_from(OutputState))
    return st.builds(
        Egress,
        **base(ordinal, phases),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(EgressStatus),
        status_since=st.none() | moments,
        outputs=st.lists(outputs, max_size=2).map(tuple),
        layout=st.sampled_from(["grid", "speaker"]),
        destinations=st.sampled_from([(), ("other",)]),
        key_epoch=st.integers(-1, 2),
        end_seen=st.booleans(),
        fault=st.sampled_from(["", Fault.FAILED]),
        delivering_since=st.none() | moments,
    )


def files(ordinal: int) -> st.SearchStrategy[LocalRecording]:
    return st.builds(
        LocalRecording,
        **base(ordinal, any_phase),  # pyright: ignore[reportArgumentType]
        refused=st.booleans(),
        status=st.sampled_from(EgressStatus),
        status_since=st.none() | moments,
        end_seen=st.booleans(),
    )


def uploads(ordinal: int) -> st.SearchStrategy[Upload]:
    built = st.builds(
        Upload,
        **base(ordinal, any_phase),  # pyright: ignore[reportArgumentType]
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


destinations = st.sampled_from([(), (Destination(name="other", url="rtmp://other"),)])
specs = st.builds(
    Spec,
    delivery_policy=st.sampled_from(DeliveryPolicy),
    destinations=destinations,
    test=st.booleans(),
    max_duration_s=st.sampled_from([60, 43_200]),
    fallback_modes=st.sampled_from([tuple(FallbackMode), (FallbackMode.LOCAL_RECORDING,), ()]),
)
fallbacks = st.just(Fallback()) | st.builds(
    Fallback,
    modes=st.sampled_from([(), (FallbackMode.LOCAL_RECORDING,), tuple(FallbackMode)]),
    reason=st.just(FallbackReason.EGRESS_FAILING),
    since=moments,
)
providers = st.sampled_from([ROOMS, STREAMS])
availabilities = st.builds(
    Availability,
    outages=st.dictionaries(providers, st.builds(Outage, since=moments)),
    answering_since=st.dictionaries(providers, st.none() | moments),
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
anything = st.builds(Case, broadcast=broadcasts, resources=resource_sets(), availability=availabilities)


watchings = st.builds(
    Watching,
    last_seen=st.none() | moments,
    counted_up_to=st.sampled_from([None, T0 - seconds(30), T0, T0]),
    counted_since=st.none() | moments,
)


def _decided(since: datetime, *, wanted: bool) -> Delivery:
    reason = DeliveryReason.VIEWERS if wanted else DeliveryReason.NO_VIEWER
    return Delivery(decided=Decided(wanted=wanted, reason=reason, since=since))


deliveries = (
    st.just(UNDECIDED)
    | st.builds(_decided, moments, wanted=st.booleans())
    | st.builds(_decided, st.just(LONG_AGO), wanted=st.just(True))
)


@st.composite
def on_demand(draw: st.DrawFn) -> Case:
    """As `delivering`, or without an egress, with the policy ON_DEMAND and viewers who come and go."""
    case = draw(on_air() | delivering())
    spec = replace(case.broadcast.spec, delivery_policy=DeliveryPolicy.ON_DEMAND)
    broadcast = replace(case.broadcast, spec=spec, delivery=draw(deliveries))
    return replace(case, broadcast=broadcast, watching=draw(watchings))


@st.composite
def on_air(draw: st.DrawFn) -> Case:
    """READY or LIVE, with a room, a host who publishes and a live stream: what is decided is about egresses."""
    modes = st.sampled_from([tuple(FallbackMode), (FallbackMode.DIRECT_WEBRTC,)])
    spec = draw(st.builds(Spec, fallback_modes=modes, destinations=destinations))
    broadcast = replace(
        draw(broadcasts),
        spec=replace(spec, layout=draw(st.sampled_from(["grid", "speaker"]))),
        target=Target.LIVE,
        ready_time=LONG_AGO,
        live_time=draw(st.none() | st.just(LONG_AGO)),
    )
    room = replace(
        draw(rooms(0)),
        phase=Phase.PRESENT,
        refused=False,
        host_publishing=True,
        host_since=draw(st.sampled_from([LONG_AGO, T0 - seconds(130), T0 - seconds(10)])),
    )
    stream = replace(
        draw(streams(0)),
        phase=Phase.PRESENT,
        refused=False,
        disabled=False,
        status=draw(st.sampled_from([StreamStatus.IDLE, StreamStatus.ACTIVE])),
        status_since=draw(st.sampled_from([LONG_AGO, T0 - seconds(130), T0 - seconds(10)])),
        key_stale=draw(st.sampled_from([False, False, False, True])),
        cutting=draw(st.sampled_from([False, False, False, True])),
    )
    tried = [draw(egresses(n, st.sampled_from([Phase.GONE, Phase.GONE, Phase.UNKNOWN]))) for n in range(draw(counts))]
    # Whether each failed, was refused or was stopped is drawn; most were seen to end.
    tried = [replace(each, refused=False, end_seen=each.end_seen or draw(st.booleans())) for each in tried]
    availability = draw(availabilities)
    if draw(st.booleans()):
        availability = replace(availability, outages={})
    return Case(broadcast=broadcast, resources=[room, stream, *tried], availability=availability)


@st.composite
def delivering(draw: st.DrawFn) -> Case:
    """As `on_air`, with an egress that delivers to a live stream that is active. The host may have just left."""
    case = draw(on_air())
    room, stream, *tried = case.resources
    assert isinstance(room, Room)
    assert isinstance(stream, Stream)
    room = replace(room, host_publishing=draw(st.sampled_from([True, True, False])))
    stream = replace(stream, status=StreamStatus.ACTIVE, key_stale=False, cutting=False)
    since = draw(st.sampled_from([LONG_AGO, T0 - seconds(130), T0 - seconds(10)]))
    egress = replace(
        draw(egresses(len(tried), st.just(Phase.PRESENT))),
        refused=False,
        external_id="e",
        key_epoch=stream.key_epoch,
        end_seen=False,
        status=EgressStatus.ACTIVE,
        outputs=(Output(name="", state=OutputState.ACTIVE),),
        observed_at=T0,
        delivering_since=since,
    )
    return replace(case, resources=[room, stream, *tried, egress])


@st.composite
def in_trouble(draw: st.DrawFn) -> Case:
    """As `on_air`, without a fallback, and one is due: egresses failed in a row, or Mux is away for long."""
    case = draw(on_air())
    room, stream, *_ = case.resources
    assert isinstance(stream, Stream)
    tried = [draw(egresses(n, st.just(Phase.GONE))) for n in range(draw(st.sampled_from([2, 3, 3, 3])))]
    failed = [
        replace(egress, refused=False, end_seen=True, key_epoch=0, fault=Fault.FAILED, changed_at=T0 - seconds(3))
        for egress in tried
    ]
    outage = Outage(since=draw(st.sampled_from([T0 - seconds(130), T0 - seconds(91)])))
    availability = replace(case.availability, outages=draw(st.sampled_from([{}, {STREAMS: outage}])))
    broadcast = replace(case.broadcast, fallback=Fallback())
    return Case(
        broadcast=broadcast,
        resources=[room, replace(stream, status=StreamStatus.IDLE), *failed],
        availability=availability,
    )


def _unchanged_for_long(row: AnyResource) -> AnyResource:
    match row:
        case Room():
            return replace(row, host_publishing=True, host_since=LONG_AGO)
        case Stream():
            return replace(row, status_since=LONG_AGO, resumed_at=None)
        case Egress() if row.delivering:
            return replace(row, delivering_since=LONG_AGO)
        case _:
            return row


@st.composite
def recovered(draw: st.DrawFn) -> Case:
    """As `delivering`, in a fallback: viewers may be sent back, if all is well for long enough."""
    case = draw(delivering())
    since = draw(st.sampled_from([LONG_AGO, LONG_AGO, T0 - seconds(130), T0 - seconds(91)]))
    answering = draw(st.sampled_from([LONG_AGO, LONG_AGO, T0 - seconds(130), T0 - seconds(91), None]))
    if draw(st.sampled_from([True, True, False])):
        since = answering = LONG_AGO
        case = replace(case, resources=[_unchanged_for_long(row) for row in case.resources])
    fallback = Fallback(modes=case.broadcast.spec.fallback_modes, reason=FallbackReason.EGRESS_FAILING, since=since)
    availability = replace(case.availability, outages={}, answering_since={ROOMS: LONG_AGO, STREAMS: answering})
    return replace(case, broadcast=replace(case.broadcast, fallback=fallback), availability=availability)


@st.composite
def ending(draw: st.DrawFn) -> Case:
    """The take-down of one that had an egress, made a file and writes another, at any point of it."""
    alive = st.sampled_from([Phase.PRESENT, Phase.PRESENT, Phase.DELETING, Phase.GONE])
    no_back_off = st.sampled_from([None, None, None, T0 + seconds(40)])
    room = replace(draw(rooms(0)), phase=draw(alive), retry_at=draw(no_back_off))
    stream = replace(
        draw(streams(0)),
        phase=draw(alive),
        retry_at=draw(no_back_off),
        acked=draw(st.sampled_from([True, False, False])),
        disabled=draw(st.booleans()),
        recordings_settled=draw(st.booleans()),
    )
    egress = replace(draw(egresses(0, alive)), acked=draw(st.sampled_from([True, True, False])))
    made = replace(draw(files(0)), phase=Phase.GONE, status=EgressStatus.COMPLETE, end_seen=True)
    running = replace(draw(files(1)), phase=draw(alive))
    upload = [draw(uploads(0))] if draw(st.booleans()) else []
    if draw(st.sampled_from([True, False, False])):
        # Next its recordings are listed.
        stream = replace(stream, phase=Phase.PRESENT, retry_at=None, disabled=True, recordings_settled=False)
        egress = replace(egress, phase=Phase.GONE)
    if upload and draw(st.sampled_from([True, False, False])):
        # Mux could make nothing of it, and it is to be deleted.
        upload = [replace(each, phase=Phase.DELETING, acked=False, retry_at=None, recording=None) for each in upload]
    broadcast = replace(draw(broadcasts), target=Target.ENDED, deleted=False)
    availability = replace(draw(availabilities), outages={})
    return Case(
        broadcast=broadcast, resources=[room, stream, egress, made, running, *upload], availability=availability
    )


@st.composite
def written_off(draw: st.DrawFn) -> Case:
    """As `on_air`, after an egress that answered no stop: it may be connected still, although its key is dead."""
    case = draw(on_air())
    room, stream, *tried = case.resources
    assert isinstance(stream, Stream)
    stream = replace(stream, key_epoch=1, cut_epoch=draw(st.sampled_from([0, 0, 1])))
    ended = [replace(egress, phase=Phase.GONE, end_seen=True) for egress in tried if isinstance(egress, Egress)]
    deaf = replace(
        draw(egresses(len(tried), st.just(Phase.GONE))),
        refused=False,
        external_id="deaf",
        key_epoch=draw(st.sampled_from([0, 0, 1])),
        end_seen=False,
    )
    return replace(case, resources=[room, stream, *ended, deaf])


@st.composite
def scheduled(draw: st.DrawFn) -> Case:
    """Nobody asked for a start, and the time of the show may be near."""
    broadcast = draw(broadcasts)
    spec = replace(broadcast.spec, scheduled_start_time=T0 + seconds(draw(st.sampled_from([1, 60, 400, 3600]))))
    return Case(
        broadcast=replace(broadcast, spec=spec, target=Target.CREATED, deleted=False),
        resources=[],
        availability=draw(availabilities),
    )


@st.composite
def capped(draw: st.DrawFn) -> Case:
    """As `delivering`, with a cap of the cost that may be near, reached or far away."""
    case = draw(delivering())
    live = replace(case.broadcast, live_time=LONG_AGO, cost_level=draw(st.sampled_from(CostLevel)))
    timed = [
        replace(each, started_at=draw(moments), external_id=f"e{each.ordinal}") if isinstance(each, Egress) else each
        for each in case.resources
    ]
    cost = spent_of(live, entries_of(live, timed), T0, Costs()).bill.nanos
    close = st.sampled_from([cost, cost * 10 // 9, cost * 2]).map(lambda nanos: max(1, nanos))
    some = st.builds(CostCap, nanos=caps | close, action=st.sampled_from(CapAction))
    spec = replace(live.spec, cost_cap=draw(some | some | some | st.none()))
    return replace(case, broadcast=replace(live, spec=spec), resources=timed)


caps = st.sampled_from([1, 20_000_000, 2_000_000_000, 10_000_000_000, 10**12])
CASES = (
    anything,
    on_air(),
    on_demand(),
    delivering(),
    in_trouble(),
    recovered(),
    written_off(),
    ending(),
    capped(),
    scheduled(),
)
FALLBACK_CASES = (on_air(), in_trouble(), recovered())
