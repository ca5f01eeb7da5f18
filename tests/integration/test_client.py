"""The client against a real server on a real socket that breaks, restarts and refuses."""

import asyncio
import gc
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import grpc
import pytest

import broadcast_client
from broadcast.v1 import admin_service_pb2, broadcast_service_pb2, playback_service_pb2
from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.error_reason_pb2 import ErrorReason
from broadcast_client import (
    BroadcastClient,
    BroadcastEndedEarly,
    BroadcastError,
    BroadcastNotFound,
    CallCancelled,
    Change,
    DeadlineExceeded,
    EtagMismatch,
    FieldImmutable,
    Heartbeat,
    InvalidField,
    Overloaded,
    RequestIdReused,
    Reset,
    ResumeTokenInvalid,
    RetryPolicy,
    ServiceFault,
    ShuttingDown,
    Snapshot,
    SnapshotComplete,
    StateForbids,
    Unavailable,
    Violation,
    WaitTimeout,
    Watch,
    WatchItem,
    WrongEventLoop,
    broadcast_filter,
    broadcast_state,
    errors,
)
from tests.fakes.broadcast_service import FakeServer, FakeService, Fault, Hang, StreamFault
from tests.waiting import eventually

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BREAK = Fault(code=UNAVAILABLE, reason="SHUTTING_DOWN", retry_after=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """A sleep that takes no time and remembers what was asked of it."""

    asked: list[float] = field(default_factory=list[float])

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def service(server: FakeServer) -> FakeService:
    return server.service


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def client(server: FakeServer, pauses: Pauses) -> AsyncIterator[BroadcastClient]:
    """With pauses that take no time and the largest jitter."""
    policy = RetryPolicy(jitter=lambda: 1.0, sleep=pauses.sleep)
    async with BroadcastClient(server.target, retry=policy) as client:
        yield client


@pytest.fixture
async def patient(server: FakeServer) -> AsyncIterator[BroadcastClient]:
    """With short real pauses, as many as a restart takes."""
    policy = RetryPolicy(initial_backoff=0.02, max_backoff=0.1, attempts=200)
    async with BroadcastClient(server.target, retry=policy) as client:
        yield client


UNARY: dict[str, Callable[[BroadcastClient], Awaitable[object]]] = {
    "CreateBroadcast": lambda client: client.create(),
    "GetBroadcast": lambda client: client.get("show"),
    "ListBroadcasts": lambda client: client.list(),
    "UpdateBroadcast": lambda client: client.update("show", mask=["labels"]),
    "StartBroadcast": lambda client: client.start("show"),
    "SetOnAir": lambda client: client.set_on_air("show", True),
    "StopBroadcast": lambda client: client.stop("show"),
    "DeleteBroadcast": lambda client: client.delete("show"),
    "IssueHostAccess": lambda client: client.issue_host_access("show", "ann"),
    "ListBroadcastEvents": lambda client: client.events("show"),
}
WITH_REQUEST_ID = ["CreateBroadcast", "UpdateBroadcast", "StartBroadcast", "SetOnAir", "StopBroadcast"]
READS = ["GetBroadcast", "ListBroadcasts", "IssueHostAccess", "ListBroadcastEvents"]


def test_every_rpc_has_a_method() -> None:
    modules = "".join(path.read_text() for path in Path(broadcast_client.__file__).parent.rglob("*.py"))
    rpcs = {
        method.name
        for file in (admin_service_pb2, broadcast_service_pb2, playback_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(re.findall(r"stub\.([A-Z]\w+)", modules)) == rpcs


def test_public_names() -> None:
    raised = {name for name, value in vars(errors).items() if _is_exception(value)}
    assert raised <= set((errors.__doc__ or "").split()), "the tree at the top of errors.py"
    assert set(broadcast_client.__all__) - raised == {
        "BroadcastClient",
        "Change",
        "HealthNews",
        "HealthWatch",
        "PlaybackNews",
        "PlaybackWatch",
        "Heartbeat",
        "Reset",
        "RetryPolicy",
        "Snapshot",
        "SnapshotComplete",
        "Violation",
        "Watch",
        "WatchItem",
        "broadcast_filter",
        "broadcast_state",
        "state_name",
    }
    assert raised <= set(broadcast_client.__all__)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, errors.BroadcastClientError)


async def test_a_broadcast_from_create_to_delete(client: BroadcastClient, service: FakeService) -> None:
    spec = pb.BroadcastSpec(owner_id="acme")
    created = await client.create(spec, broadcast_id="show", title="Evening", labels={"team": "a"})
    assert (created.id, created.spec.title, created.spec.owner_id) == ("show", "Evening", "acme")
    assert spec.title == "", "the caller's own message is left alone"

    updated = await client.update(
        "show", mask=["spec.title"], spec=pb.BroadcastSpec(title="Night", owner_id="ignored"), etag=created.etag
    )
    assert (updated.spec.title, updated.spec.owner_id) == ("Night", "acme")

    started = await client.start("show", wait=timedelta(seconds=3), host_identity="ann")
    assert started.host_access.identity == "ann"
    assert service.requests("StartBroadcast")[0].wait.ToTimedelta() == timedelta(seconds=3)

    assert (await client.set_on_air("show", True)).status.on_air
    access = await client.issue_host_access("show", "bob", ttl=90)
    assert access.identity == "bob"
    assert service.requests("IssueHostAccess")[0].ttl.seconds == 90

    stopped = await client.stop("show", note="over", wait=0.5)
    assert stopped.status.state == pb.BROADCAST_STATE_ENDED
    assert service.requests("StopBroadcast")[0].note == "over"
    await client.delete("show")
    with pytest.raises(BroadcastNotFound):
        await client.get("show")
    await client.delete("show", allow_missing=True)


async def test_pages_are_followed_to_the_end(client: BroadcastClient, service: FakeService) -> None:
    for number in range(7):
        service.put(f"show-{number}")
    service.put("other", change=lambda broadcast: broadcast.labels.update(team="b"))

    ids = [broadcast.id async for broadcast in client.list_all(page_size=3)]
    assert ids == ["other", *(f"show-{number}" for number in reversed(range(7)))]
    assert [request.page_token for request in service.requests("ListBroadcasts")] == ["", "3", "6"]
    assert [each.id async for each in client.list_all(broadcast_filter(labels={"team": "b"}))] == ["other"]

    for _ in range(4):
        service.put("other", "STARTING")
    events = [event.revision async for event in client.events_all("other", page_size=2)]
    assert events == [8, 9, 10, 11, 12]


def test_states_have_short_names() -> None:
    assert broadcast_state("live") == broadcast_state("BROADCAST_STATE_LIVE") == pb.BROADCAST_STATE_LIVE
    assert broadcast_state(pb.BROADCAST_STATE_READY) == pb.BROADCAST_STATE_READY
    with pytest.raises(ValueError, match=r"no such state: 'ALIVE'.*INTERRUPTED"):
        broadcast_state("ALIVE")
    assert list(broadcast_filter(states=["READY", pb.BROADCAST_STATE_LIVE]).states) == [3, 4]


@pytest.mark.parametrize("method", WITH_REQUEST_ID)
async def test_request_id_is_kept_over_retries(client: BroadcastClient, service: FakeService, method: str) -> None:
    service.put("show")
    service.fail(method, UNAVAILABLE, times=2)
    await UNARY[method](client)
    await UNARY[method](client)
    ids = [request.request_id for request in service.requests(method)]
    assert len(ids) == 4
    assert len(ids[0]) == 36
    assert ids[0] == ids[1] == ids[2] != ids[3]


async def test_request_id_of_the_caller_is_used(client: BroadcastClient, service: FakeService) -> None:
    service.fail("CreateBroadcast", UNAVAILABLE)
    await client.create(request_id="mine")
    assert [request.request_id for request in service.requests("CreateBroadcast")] == ["mine", "mine"]
    with pytest.raises(RequestIdReused) as caught:
        await client.create(title="other content", request_id="mine")
    assert caught.value.metadata == {"request_id": "mine"}


async def test_lost_answer_of_a_create_makes_no_second_broadcast(client: BroadcastClient, service: FakeService) -> None:
    service.fail("CreateBroadcast", UNAVAILABLE, after_effect=True)
    created = await client.create(title="once")
    assert list(service.broadcasts) == [created.id]
    assert len(service.requests("CreateBroadcast")) == 2


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
async def test_what_a_retry_cannot_mend_is_told_at_once(
    client: BroadcastClient, service: FakeService, pauses: Pauses, method: str, code: grpc.StatusCode
) -> None:
    service.put("show")
    service.fail(method, code)
    with pytest.raises(BroadcastError) as caught:
        await UNARY[method](client)
    assert (caught.value.code, caught.value.method) == (code, method)
    assert len(service.received) == 1
    assert pauses.asked == []


@pytest.mark.parametrize("method", UNARY)
async def test_other_side_cancels_only_reads_are_repeated(
    client: BroadcastClient, service: FakeService, method: str
) -> None:
    service.put("show")
    service.fail(method, grpc.StatusCode.CANCELLED)
    if method in READS:
        await UNARY[method](client)
    else:
        with pytest.raises(CallCancelled):
            await UNARY[method](client)
    assert len(service.received) == (2 if method in READS else 1)


async def test_delete_is_repeated_only_when_missing_is_allowed(client: BroadcastClient, service: FakeService) -> None:
    service.put("show")
    service.fail("DeleteBroadcast", UNAVAILABLE, after_effect=True)
    with pytest.raises(Unavailable):
        await client.delete("show")
    assert len(service.received) == 1

    service.put("show")
    service.fail("DeleteBroadcast", UNAVAILABLE, after_effect=True)
    await client.delete("show", allow_missing=True)
    assert len(service.received) == 3


@pytest.mark.parametrize("method", UNARY)
async def test_overloaded_is_waited_out_as_asked(
    client: BroadcastClient, service: FakeService, pauses: Pauses, method: str
) -> None:
    service.put("show")
    service.fail(method, grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after=2.5)
    await UNARY[method](client)
    assert len(service.received) == 2
    assert pauses.asked == [pytest.approx(2.5 + 0.1)]


async def test_retry_info_beyond_the_budget_is_not_waited_for(
    client: BroadcastClient, service: FakeService, pauses: Pauses
) -> None:
    service.fail("ListBroadcasts", grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after=31)
    with pytest.raises(Overloaded) as caught:
        await client.list()
    assert caught.value.retry_after == 31
    assert pauses.asked == []


async def test_pauses_double_and_attempts_end(server: FakeServer, service: FakeService, pauses: Pauses) -> None:
    service.fail("ListBroadcasts", UNAVAILABLE, times=99)
    policy = RetryPolicy(
        attempts=6, initial_backoff=0.5, max_backoff=3.0, budget=60, jitter=lambda: 0.5, sleep=pauses.sleep
    )
    async with BroadcastClient(server.target, retry=policy) as client:
        with pytest.raises(Unavailable):
            await client.list()
    assert pauses.asked == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert len(service.received) == 6


async def test_budget_ends_the_attempts(server: FakeServer, service: FakeService) -> None:
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    service.fail("ListBroadcasts", UNAVAILABLE, times=99)
    policy = RetryPolicy(
        attempts=99, initial_backoff=4, max_backoff=4, budget=10, jitter=lambda: 1.0, clock=lambda: now, sleep=sleep
    )
    async with BroadcastClient(server.target, retry=policy, timeout=5) as client:
        with pytest.raises(Unavailable):
            await client.list()
    assert now == 108.0
    remaining = [each.time_remaining or 0 for each in service.received]
    assert len(remaining) == 3
    assert remaining[2] < 2.1, "the last try gets only what is left"


async def test_deadline_passed_is_tried_again_with_the_same_request(server: FakeServer, service: FakeService) -> None:
    service.faults["CreateBroadcast"].append(Hang())
    async with BroadcastClient(server.target, timeout=1.5) as client:
        created = await client.create(title="late")
        assert created.spec.title == "late"
        first, second = service.requests("CreateBroadcast")
        assert first == second

        service.put("show")
        service.faults["DeleteBroadcast"].append(Hang())
        with pytest.raises(DeadlineExceeded):
            await client.delete("show")
        assert len(service.requests("DeleteBroadcast")) == 1


@pytest.mark.parametrize("method", UNARY)
async def test_every_call_has_a_deadline(client: BroadcastClient, service: FakeService, method: str) -> None:
    service.put("show")
    await UNARY[method](client)
    [received] = service.received
    assert received.time_remaining is not None
    assert 5 < received.time_remaining <= 10.1


async def test_deadline_grows_by_the_wait(client: BroadcastClient, service: FakeService) -> None:
    service.put("show")
    await client.start("show", wait=30)
    await client.stop("show", wait=60, timeout=2)
    start, stop = (each.time_remaining or 0 for each in service.received)
    assert 35 < start <= 40.1
    assert 57 < stop <= 62.1


def test_every_reason_of_the_contract_has_a_class() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()} - {"UNSPECIFIED"}
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BroadcastError)
    ]
    assert reasons == {reason for cls in classes for reason in cls.reasons}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (EtagMismatch, Fault(code=grpc.StatusCode.ABORTED, reason="ETAG_MISMATCH", metadata={"etag": "3"})),
        (FieldImmutable, Fault(code=grpc.StatusCode.FAILED_PRECONDITION, reason="FIELD_IMMUTABLE")),
        (ServiceFault, Fault(code=grpc.StatusCode.INTERNAL, reason="INTERNAL", metadata={"trace_id": "4bf9"})),
        (errors.PermissionDenied, Fault(code=grpc.StatusCode.PERMISSION_DENIED)),
        (errors.InvalidArgument, Fault(code=grpc.StatusCode.INVALID_ARGUMENT, reason="NEWER_THAN_THIS_CLIENT")),
        (BroadcastError, Fault(code=grpc.StatusCode.UNIMPLEMENTED)),
    ],
)
async def test_errors_have_the_class_of_their_reason_or_code(
    client: BroadcastClient, service: FakeService, kind: type[BroadcastError], fault: Fault
) -> None:
    service.faults["ListBroadcasts"].append(fault)
    with pytest.raises(BroadcastError) as caught:
        await client.list()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason) == (fault.code, fault.reason)
    assert caught.value.metadata == fault.metadata
    assert caught.value.trace_id == fault.metadata.get("trace_id", "")


async def test_violations_name_the_fields(client: BroadcastClient, service: FakeService) -> None:
    service.fail(
        "CreateBroadcast",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        message="2 fields are wrong",
        fields={"spec.title": "too long", "spec.max_duration": "must be positive"},
    )
    with pytest.raises(InvalidField) as caught:
        await client.create()
    assert caught.value.violations == [("spec.title", "too long"), ("spec.max_duration", "must be positive")]
    assert str(caught.value) == (
        "CreateBroadcast: INVALID_FIELD: 2 fields are wrong; spec.title: too long; spec.max_duration: must be positive"
    )

    service.put("show")
    service.fail(
        "StartBroadcast",
        grpc.StatusCode.FAILED_PRECONDITION,
        reason="STATE_FORBIDS",
        subjects={"status.state": "ENDED"},
    )
    with pytest.raises(StateForbids) as forbidden:
        await client.start("show")
    assert forbidden.value.violations == [Violation("status.state", "ENDED")]


async def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        policy = RetryPolicy(attempts=2, initial_backoff=0.01)
        async with BroadcastClient(target, retry=policy) as client:
            with pytest.raises(Unavailable) as caught:
                await client.list()
            assert caught.value.reason == ""
            with pytest.raises(Unavailable):
                await anext(client.watch())


async def test_cancelled_task_cancels_the_call(client: BroadcastClient, service: FakeService) -> None:
    service.faults["ListBroadcasts"].append(Hang())
    task = asyncio.create_task(client.list())
    await eventually(lambda: service.received)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(service.received) == 1


async def test_closing_the_client_ends_what_is_under_way(server: FakeServer, service: FakeService) -> None:
    client = BroadcastClient(server.target)
    service.faults["ListBroadcasts"].append(Hang())
    watch = client.watch()
    assert isinstance(await anext(watch), SnapshotComplete)
    async with asyncio.TaskGroup() as group:
        listing = group.create_task(_error_of(client.list()))
        watching = group.create_task(_error_of(anext(watch)))
        await eventually(lambda: len(service.received) == 2)
        await client.close()
    assert isinstance(listing.result(), CallCancelled)
    assert isinstance(watching.result(), CallCancelled)


async def _error_of(call: Awaitable[object]) -> BroadcastError | None:
    try:
        await call
    except BroadcastError as error:
        return error
    return None


async def _take(watch: Watch, count: int) -> list[WatchItem]:
    return [await anext(watch) for _ in range(count)]


def _revisions(items: list[WatchItem]) -> list[int]:
    return [item.revision for item in items if isinstance(item, Change)]


async def test_a_try_without_an_answer_quotes_the_answer_before(server: FakeServer, service: FakeService) -> None:
    """A database that freezes: the first try is told so, the last one is not answered within its deadline."""
    service.fail("GetBroadcast", UNAVAILABLE, reason="STORE_UNAVAILABLE", message="the database does not answer")
    service.faults["GetBroadcast"].append(Hang())
    policy = RetryPolicy(attempts=2, initial_backoff=0.01)
    async with BroadcastClient(server.target, timeout=0.2, retry=policy) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.get("show")
    assert "the answer before: STORE_UNAVAILABLE: the database does not answer" in str(caught.value)


async def test_an_error_tells_the_only_violation_once(client: BroadcastClient, service: FakeService) -> None:
    message = "spec.title: must be at most 200 characters"
    service.fail(
        "CreateBroadcast",
        grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_FIELD",
        message=message,
        fields={"spec.title": "must be at most 200 characters"},
    )
    with pytest.raises(InvalidField) as caught:
        await client.create()
    assert str(caught.value) == f"CreateBroadcast: INVALID_FIELD: {message}"
    assert caught.value.violations == [Violation("spec.title", "must be at most 200 characters")]


async def test_watch_tells_snapshot_changes_and_heartbeats(client: BroadcastClient, service: FakeService) -> None:
    service.put("show")
    async with client.watch(heartbeat_interval=1) as watch:
        snapshot, complete = await _take(watch, 2)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.broadcast.id == "show"
        assert complete == SnapshotComplete(resume_token="r1")

        service.put("show", "STARTING")
        service.remove("show")
        updated, removed, heartbeat = await _take(watch, 3)
        assert isinstance(updated, Change)
        assert (updated.type, updated.revision) == (rpc.CHANGE_TYPE_UPDATED, 2)
        assert updated.broadcast.status.state == pb.BROADCAST_STATE_STARTING
        assert isinstance(removed, Change)
        assert removed.type == rpc.CHANGE_TYPE_REMOVED
        assert isinstance(heartbeat, Heartbeat)
        assert heartbeat.server_time.tzinfo is not None
        assert watch.resume_token == heartbeat.resume_token == "r3"


async def test_watch_goes_on_from_a_list_and_from_a_token(client: BroadcastClient, service: FakeService) -> None:
    service.put("show")
    page = await client.list()
    service.put("show", "STARTING")
    async with client.watch(resume_token=page.resume_token) as watch:
        assert _revisions(await _take(watch, 1)) == [2]
        token = watch.resume_token
    service.put("show", "READY")
    async with client.watch(resume_token=token) as watch:
        assert _revisions(await _take(watch, 1)) == [3]


async def test_watch_outlives_restarts_and_loses_nothing(
    patient: BroadcastClient, server: FakeServer, service: FakeService
) -> None:
    async with patient.watch(heartbeat_interval=1) as watch:
        await anext(watch)
        items: list[WatchItem] = []
        for round_ in range(4):
            for number in range(5):
                service.put(f"show-{round_}-{number}")
            # Some are read before the break, some are under way, one happens while nothing is served.
            while not items or _revisions(items)[-1] < 6 * round_ + 2:
                items += await _take(watch, 1)
            await server.stop()
            service.put(f"show-{round_}-in-the-dark")
            await server.start()
        service.put("last")
        async with asyncio.timeout(20):
            while _revisions(items)[-1] < len(service.log):
                items.append(await anext(watch))
    assert _revisions(items) == list(range(1, len(service.log) + 1))
    assert not any(isinstance(item, Reset | Snapshot) for item in items)
    assert len(service.requests("WatchBroadcasts")) >= 5


@pytest.mark.parametrize("then", ["end", "hang", BREAK, Fault(code=grpc.StatusCode.INTERNAL)])
async def test_watch_goes_on_after_any_break_of_a_stream(
    server: FakeServer, service: FakeService, pauses: Pauses, then: Literal["end", "hang"] | Fault
) -> None:
    service.stream_faults.extend(StreamFault(after=after, then=then) for after in (2, 1, 1, 0, 2))
    policy = RetryPolicy(jitter=lambda: 1.0, sleep=pauses.sleep)
    async with (
        BroadcastClient(server.target, retry=policy) as client,
        client.watch(heartbeat_interval=0.3 if then == "hang" else 20) as watch,
    ):
        assert isinstance(await anext(watch), SnapshotComplete)
        for number in range(6):
            service.put(f"show-{number}")
        items: list[WatchItem] = []
        async with asyncio.timeout(20):
            while len(_revisions(items)) < 6:
                items.append(await anext(watch))
    assert _revisions(items) == [1, 2, 3, 4, 5, 6]
    tokens = [request.resume_token for request in service.requests("WatchBroadcasts")]
    assert tokens == ["", "r1", "r2", "r3", "r3", "r5"]
    asked = 0.01 if then is BREAK else 0
    assert pauses.asked == pytest.approx([asked + backoff for backoff in (0.1, 0.2, 0.4, 0.8, 1.6)])


async def test_change_that_comes_again_is_told_once(client: BroadcastClient, service: FakeService) -> None:
    service.repeats = 2
    service.stream_faults.append(StreamFault(after=4, then="end"))
    async with client.watch() as watch:
        await anext(watch)
        for number in range(5):
            service.put(f"show-{number}")
        assert _revisions(await _take(watch, 5)) == [1, 2, 3, 4, 5]


async def test_expired_token_begins_again_and_says_so(client: BroadcastClient, service: FakeService) -> None:
    service.put("old")
    service.stream_faults.append(StreamFault(after=2, then="end"))
    async with client.watch() as watch:
        await _take(watch, 2)
        service.remove("old")
        service.put("new")
        service.compacted = len(service.log)
        reset, snapshot, complete = await _take(watch, 3)
        assert reset == Reset(reason="RESUME_TOKEN_EXPIRED")
        assert isinstance(snapshot, Snapshot)
        assert snapshot.broadcast.id == "new"
        assert complete == SnapshotComplete(resume_token="r3")
        service.put("new", "STARTING")
        assert _revisions(await _take(watch, 1)) == [4]

    async with client.watch(resume_token="r1") as watch:
        assert await anext(watch) == Reset(reason="RESUME_TOKEN_EXPIRED")


async def test_broken_snapshot_is_void(client: BroadcastClient, service: FakeService) -> None:
    for number in range(3):
        service.put(f"show-{number}")
    service.stream_faults.append(StreamFault(after=2, then=BREAK))
    async with client.watch() as watch:
        items = await _take(watch, 7)
        assert watch.resume_token == "r3"
    kinds = [type(item) for item in items]
    assert kinds == [Snapshot, Snapshot, Reset, Snapshot, Snapshot, Snapshot, SnapshotComplete]
    assert items[2] == Reset(reason="SNAPSHOT_INTERRUPTED")


async def test_refused_watch_is_over(client: BroadcastClient, service: FakeService) -> None:
    service.fail("WatchBroadcasts", grpc.StatusCode.INVALID_ARGUMENT, reason="RESUME_TOKEN_INVALID")
    watch = client.watch(resume_token="r1")
    with pytest.raises(ResumeTokenInvalid):
        await anext(watch)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_watch_that_never_stood_gives_up(client: BroadcastClient, service: FakeService, pauses: Pauses) -> None:
    service.fail("WatchBroadcasts", UNAVAILABLE, reason="SHUTTING_DOWN", times=99)
    with pytest.raises(ShuttingDown):
        await anext(client.watch())
    assert len(pauses.asked) == 4


async def test_cancelled_anext_loses_nothing(client: BroadcastClient, service: FakeService) -> None:
    async with client.watch() as watch:
        await anext(watch)
        items: list[WatchItem] = []
        for number in range(20):
            waiting = asyncio.create_task(_take(watch, 1))
            await asyncio.sleep(0)
            service.put(f"show-{number}")
            # More and more of the way is gone when the cancellation comes.
            for _ in range(number):
                await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                items += await waiting
        while len(items) < 20:
            items += await _take(watch, 1)
    assert _revisions(items) == list(range(1, 21))


Watching = Callable[[BroadcastClient], AsyncIterator[object]]


def _watch_broadcasts(client: BroadcastClient) -> AsyncIterator[object]:
    return client.watch(resume_token="r0")


def _watch_health(client: BroadcastClient) -> AsyncIterator[object]:
    return client.watch_health()


BOTH_WATCHES = pytest.mark.parametrize(
    ("method", "watching"),
    [
        # From the beginning of the log: every connection tells one change.
        pytest.param("WatchBroadcasts", _watch_broadcasts, id="WatchBroadcasts"),
        pytest.param("WatchHealth", _watch_health, id="WatchHealth"),
    ],
)


@BOTH_WATCHES
async def test_a_watch_is_not_opened_again_and_again_at_a_server_that_breaks_after_each_message(
    client: BroadcastClient, service: FakeService, pauses: Pauses, method: str, watching: Watching
) -> None:
    """A message is no proof of health: the pauses grow although every connection brought one."""
    for n in range(9):
        service.put(f"show-{n}")
    service.stream_faults.extend([StreamFault(after=1, then=Fault(code=UNAVAILABLE))] * 9)
    stream = watching(client)
    for _ in range(9):
        await anext(stream)
    assert pauses.asked == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert len(service.requests(method)) == 9


@BOTH_WATCHES
async def test_pauses_begin_anew_after_a_connection_that_stood(
    server: FakeServer, service: FakeService, pauses: Pauses, method: str, watching: Watching
) -> None:
    for n in range(5):
        service.put(f"show-{n}")
    now = 0.0
    policy = RetryPolicy(jitter=lambda: 1.0, sleep=pauses.sleep, clock=lambda: now)
    service.stream_faults.extend([StreamFault(after=1, then=Fault(code=UNAVAILABLE))] * 4)
    async with BroadcastClient(server.target, retry=policy) as client:
        stream = watching(client)
        for stood in (0.0, 0.0, 6.0, 0.0):
            await anext(stream)
            now += stood
        await anext(stream)
    assert pauses.asked == [0.1, 0.2, 0.1, 0.2]
    assert len(service.requests(method)) == 5


def test_a_client_in_a_second_event_loop_says_so() -> None:
    """One client in several asyncio.run, as in Celery, Django and tests."""
    server = FakeServer()
    client = BroadcastClient(server.target)

    async def use(client: BroadcastClient) -> int:
        await server.start()
        try:
            return len((await client.list()).broadcasts)
        finally:
            await server.stop()

    assert asyncio.run(use(client)) == 0
    with pytest.raises(WrongEventLoop, match=r"make one BroadcastClient for each asyncio\.run"):
        asyncio.run(use(client))
    with pytest.raises(WrongEventLoop):
        asyncio.run(_first(client.watch()))
    asyncio.run(client.close())
    assert asyncio.run(use(BroadcastClient(server.target))) == 0


async def _first(watch: Watch) -> WatchItem:
    return await anext(watch)


async def test_a_client_that_was_closed_before_its_first_call_says_so(server: FakeServer) -> None:
    client = BroadcastClient(server.target)
    await client.close()
    with pytest.raises(CallCancelled, match="the client was closed"):
        await client.list()


async def test_leaving_a_watch_cancels_its_call(client: BroadcastClient, service: FakeService) -> None:
    async with client.watch() as watch:
        await anext(watch)
        assert service.open_streams == 1
    await eventually(lambda: service.open_streams == 0)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)

    forgotten = client.watch()
    await anext(forgotten)
    assert service.open_streams == 1
    del forgotten
    gc.collect()
    await eventually(lambda: service.open_streams == 0)


async def test_wait_until_sees_the_state_come(client: BroadcastClient, service: FakeService) -> None:
    service.put("show")
    waiting = asyncio.create_task(client.wait_until("show", "LIVE"))
    await eventually(lambda: service.open_streams)
    service.put("other", "LIVE")
    service.put("show", "STARTING")
    service.put("show", "LIVE")
    broadcast = await waiting
    assert (broadcast.id, broadcast.status.state) == ("show", pb.BROADCAST_STATE_LIVE)
    assert service.requests("WatchBroadcasts")[0].filter == broadcast_filter(ids=["show"])
    await eventually(lambda: service.open_streams == 0)
    assert (await client.wait_until("show", [pb.BROADCAST_STATE_READY, "LIVE"])).status.state == 4


async def test_wait_until_over_a_restart(patient: BroadcastClient, server: FakeServer, service: FakeService) -> None:
    service.put("show", "READY")
    waiting = asyncio.create_task(patient.wait_until("show", "LIVE", timeout=20))
    await eventually(lambda: service.open_streams)
    await server.stop()
    service.put("show", "LIVE")
    service.put("show", "INTERRUPTED")
    await server.start()
    assert (await waiting).status.state == pb.BROADCAST_STATE_LIVE, "though it is so no more"


@pytest.mark.parametrize("state", ["ENDED", "FAILED"])
async def test_wait_until_ends_early(client: BroadcastClient, service: FakeService, state: str) -> None:
    service.put("show", state, reason="START_TIMEOUT")
    with pytest.raises(BroadcastEndedEarly, match=rf"show is {state} \(START_TIMEOUT\)") as caught:
        await client.wait_until("show", "LIVE")
    assert caught.value.broadcast is not None
    assert caught.value.broadcast.status.state_reason == "START_TIMEOUT"
    assert (await client.wait_until("show", ["ENDED", "FAILED"])).id == "show"


async def test_wait_until_times_out_with_what_was_seen(client: BroadcastClient, service: FakeService) -> None:
    service.put("show", "READY")
    with pytest.raises(WaitTimeout, match=r"show is READY, not INTERRUPTED or LIVE, after 1\.5 s") as caught:
        await client.wait_until("show", ["LIVE", "INTERRUPTED"], timeout=1.5)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.broadcast is not None
    assert caught.value.broadcast.status.state == pb.BROADCAST_STATE_READY

    service.stream_faults.append(StreamFault(after=0, then="hang"))
    with pytest.raises(WaitTimeout) as unseen:
        await client.wait_until("show", "LIVE", timeout=0.5)
    assert unseen.value.broadcast is None


async def test_wait_until_needs_a_broadcast(client: BroadcastClient, service: FakeService) -> None:
    with pytest.raises(BroadcastNotFound) as caught:
        await client.wait_until("nobody", "LIVE")
    assert caught.value.metadata == {"broadcast_id": "nobody"}

    service.put("show")
    waiting = asyncio.create_task(client.wait_until("show", "LIVE"))
    await eventually(lambda: service.open_streams)
    service.remove("show")
    with pytest.raises(BroadcastNotFound):
        await waiting
