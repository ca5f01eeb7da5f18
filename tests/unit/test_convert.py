"""Messages and values say the same, and every way of saying no has its word in the contract."""

import base64
import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1 import error_reason_pb2
from service.api.messages import tokens
from service.api.messages.broadcast import broadcast_message, given_filter
from service.api.messages.times import given_duration
from service.api.streams.broadcasts import transition
from service.api.transport import errors
from service.domain import broadcast as domain
from service.domain.audience.watching import Watching
from service.domain.broadcast import Broadcast, Condition, ConditionType, Spec, State, Status, Target
from service.domain.delivery import Decided, Delivery, DeliveryReason, Inputs, Limits
from service.domain.errors import (
    InvalidField,
    PageTokenInvalid,
    ResumeTokenInvalid,
    ServiceError,
    ShuttingDown,
    StateForbids,
    StoreUnavailable,
    Violation,
)
from service.domain.playback_handle import HandleKind, PlaybackHandle
from service.domain.provider import Provider
from service.domain.reasons import ConditionReason, FallbackReason, Operation
from service.store.broadcasts import Filter
from service.store.changes import Before, LoggedChange

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WATCHED = Delivery(
    decided=Decided(wanted=True, reason=DeliveryReason.VIEWERS, since=NOW, starts=(NOW,)),
    inputs=Inputs(
        now=NOW,
        before=Decided(),
        watching=Watching(last_seen=NOW - timedelta(seconds=2), counted_up_to=NOW),
        limits=Limits(linger_s=90, window_s=60, min_run_s=120, stale_s=10, hold_s=90, warm_s=45, flap_s=3600, starts=6),
        running=False,
        host=True,
        recording=False,
    ),
)


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(1, 1_000_000_000), (1, -1), (-1, 1), (0, -(2**31)), (2**62, 0), (400_000_000_000, 0)]
)
def test_durations_that_are_none(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidField):
        given_duration(Duration(seconds=seconds, nanos=nanos), "wait")


def a_broadcast(**fields: Any) -> Broadcast:
    values: dict[str, Any] = {"id": "show-1", "spec": Spec(), "create_time": NOW, "update_time": NOW}
    return Broadcast(**(values | fields))


def test_everything_there_is_to_tell() -> None:
    status = Status(
        state_reason="PLAYING",
        state_time=NOW,
        observed_generation=2,
        conditions=(
            Condition(type=ConditionType.PLAYABLE, met=True, reason=ConditionReason.PLAYING, transition_time=NOW),
            Condition(
                type=ConditionType.INGEST_ACTIVE, met=None, reason=ConditionReason.NOT_OBSERVED, transition_time=NOW
            ),
            Condition(
                type=ConditionType.EGRESS_RUNNING, met=False, reason=ConditionReason.CONNECTING, transition_time=NOW
            ),
        ),
        playback_id="play",
        destinations=(domain.DestinationStatus(name="one", state=domain.DestinationState.FAILED, message="refused"),),
        playback_handle=PlaybackHandle(kind=HandleKind.HLS, playback_ids=("play",), generation=3, since=NOW),
        room_sid="RM_1",
        egress_id="EG_1",
        stream_id="stream",
        asset_id="asset",
        recordings=(domain.Recording(asset_id="asset", playback_id="again"),),
        last_error=domain.ProviderTrouble(
            provider=Provider.MUX,
            operation=Operation.CREATE_STREAM,
            code="429",
            message="slow down",
            retryable=True,
            time=NOW,
        ),
        next_attempt_time=NOW,
    )
    spec = Spec(
        destinations=tuple(domain.Destination(name=name, url="rtmp://a.b/c") for name in ("one", "two")),
        playback_policy=domain.PlaybackPolicy.SIGNED,
        delivery_policy=domain.DeliveryPolicy.ON_DEMAND,
        linger_s=90,
    )
    times = {name: NOW + timedelta(seconds=n) for n, name in enumerate(("start_time", "live_time", "end_time"))}
    message = broadcast_message(
        a_broadcast(
            spec=spec,
            status=status,
            state=State.LIVE,
            target=Target.LIVE,
            generation=2,
            version=5,
            on_air=True,
            fallback=domain.Fallback(
                modes=(domain.FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING, since=NOW
            ),
            delivery=WATCHED,
            labels={"a": "b"},
            **times,
        ),
        "https://play.test",
    )
    told = message.status
    assert (message.etag, message.generation, message.labels["a"]) == ("5", 2, "b")
    assert told.playback.hls_url == "https://play.test/play.m3u8"
    assert told.playback.policy == pb.PLAYBACK_POLICY_SIGNED
    assert [(each.HasField("met"), each.met) for each in told.conditions] == [
        (True, True),
        (False, False),
        (True, False),
    ]
    assert [each.state for each in told.destinations] == [pb.DESTINATION_STATE_FAILED, pb.DESTINATION_STATE_IDLE]
    assert told.provider_ids.livekit_egress_id == "EG_1"
    assert (told.last_error.provider, told.last_error.retryable) == ("mux", True)
    assert [each.mux_asset_id for each in told.recordings] == ["asset"]
    assert (told.fallback.modes, told.fallback.reason) == ([pb.FALLBACK_MODE_DIRECT_WEBRTC], "EGRESS_FAILING")
    assert told.fallback.since.ToDatetime(tzinfo=UTC) == NOW
    delivery = told.delivery
    assert (delivery.wanted, delivery.reason, delivery.linger.seconds) == (True, "VIEWERS", 90)
    seen, counted = delivery.last_viewer_time, delivery.counted_time
    assert (seen.ToDatetime(tzinfo=UTC), counted.ToDatetime(tzinfo=UTC)) == (NOW - timedelta(seconds=2), NOW)
    assert [each.ToDatetime(tzinfo=UTC) for each in delivery.start_times] == [NOW]
    assert {field.name for field, _ in delivery.ListFields()} == set(delivery.DESCRIPTOR.fields_by_name)
    for name, value in times.items():
        assert getattr(told, name).ToDatetime(tzinfo=UTC) == value
    assert told.on_air
    assert not told.reconciling
    # Every field of the message has something to say here, so a new one cannot be forgotten. The audience is no part of
    # the row: GetBroadcast and ListBroadcasts add it.
    beside = {"reconciling", "audience"}
    assert {field.name for field, _ in told.ListFields()} | beside == set(told.DESCRIPTOR.fields_by_name)


def publishing(met: bool) -> Status:  # noqa: FBT001 - a table
    condition = Condition(
        type=ConditionType.HOST_PUBLISHING, met=met, reason=ConditionReason.NO_HOST, transition_time=NOW
    )
    return Status(observed_generation=1, conditions=(condition,))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"target": Target.LIVE, "state": State.STARTING}, True),
        ({"target": Target.LIVE, "state": State.READY, "status": publishing(False)}, False),
        ({"target": Target.LIVE, "state": State.READY, "status": publishing(True)}, True),
        (
            {
                "target": Target.LIVE,
                "state": State.READY,
                "status": publishing(True),
                "spec": Spec(delivery_policy=domain.DeliveryPolicy.MANUAL),
            },
            False,
        ),
        ({"target": Target.LIVE, "state": State.LIVE, "status": publishing(True)}, False),
        ({"target": Target.LIVE, "state": State.LIVE, "status": publishing(True), "generation": 2}, True),
        ({"target": Target.LIVE, "state": State.INTERRUPTED, "status": publishing(False)}, True),
        ({"target": Target.ENDED, "state": State.STOPPING}, True),
        ({"target": Target.ENDED, "state": State.LIVE, "status": publishing(True)}, True),
        ({"target": Target.ENDED, "state": State.ENDED}, False),
        ({"target": Target.ENDED, "state": State.FAILED, "generation": 2}, False),
    ],
)
def test_reconciling(fields: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table
    assert broadcast_message(a_broadcast(**fields), "").status.reconciling is expected


def subclasses(of: type[ServiceError]) -> list[type[ServiceError]]:
    return [each for child in of.__subclasses__() for each in (child, *subclasses(child))]


def test_every_error_has_its_reason_and_every_reason_its_error() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    } - {"UNSPECIFIED"}
    raised = [each.reason for each in subclasses(ServiceError)]
    assert len(raised) == len(set(raised))
    assert {*raised, errors.INTERNAL} == contract == set(errors.CODES)


def test_the_codes_are_those_the_contract_tells_of() -> None:
    text = (Path(error_reason_pb2.__file__).parent / "error_reason.proto").read_text()
    for comment, name in re.findall(r"\n((?:  //[^\n]*\n)+)  ERROR_REASON_([A-Z_]+) = [1-9]", text):
        code = re.search(
            r"\b([A-Z]+(?:_[A-Z]+)*)(?=[.,:;])", re.sub(r"(?s)//     \{.*", "", comment).replace("RPC", "")
        )
        assert code is not None
        assert errors.CODES[name].name == code[1], name


def details(error: ServiceError) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in errors.status_of(error).details:
        name = packed.type_url.rpartition(".")[2]
        assert name not in found, "each type at most once"
        detail = getattr(error_details_pb2, name)()
        packed.Unpack(detail)
        found[name] = detail
    return found


def test_details_by_reason() -> None:
    invalid = details(InvalidField(Violation(field="a", description="x"), Violation(field="b", description="y")))
    assert [each.field for each in invalid["BadRequest"].field_violations] == ["a", "b"]
    assert invalid["ErrorInfo"].metadata == {"field": "a"}
    assert set(details(StateForbids("no", broadcast_id="show-1", state="LIVE"))) == {"ErrorInfo", "PreconditionFailure"}
    for _ in range(20):
        away = details(ShuttingDown("bye"))["RetryInfo"].retry_delay.ToTimedelta()
        assert timedelta(0) <= away <= timedelta(seconds=5)
        unavailable = StoreUnavailable("gone")
        unavailable.retry_after = timedelta(seconds=2)
        pause = details(unavailable)["RetryInfo"].retry_delay.ToTimedelta()
        assert timedelta(seconds=2) <= pause <= timedelta(seconds=3)


def test_an_error_fits_into_the_metadata_of_an_answer() -> None:
    long = "\N{SNOWMAN}" * 100_000
    error = InvalidField(*(Violation(field=f"{long}{n}", description=f"{n}{long}") for n in range(100)))
    assert errors.status_of(error).ByteSize() < 6000
    assert errors.code_of(error) is grpc.StatusCode.INVALID_ARGUMENT


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    with pytest.raises(PageTokenInvalid):
        tokens.read_page_token(text, "")
    with pytest.raises(ResumeTokenInvalid):
        tokens.read_resume_token(text, "")
    with pytest.raises(PageTokenInvalid):
        tokens.read_story_token(text, "")


def test_tokens_hold_what_was_put_in() -> None:
    place = tokens.Position.of(NOW, "show-1")
    assert place.key == (NOW, "show-1")
    page = tokens.read_page_token(tokens.page_token("f", place, 7), "f")
    assert (page.last, page.revision) == (place, 7)
    resume = tokens.read_resume_token(tokens.resume_token("f", 7, place), "f")
    assert (resume.last, resume.revision) == (place, 7)
    assert tokens.read_resume_token(tokens.resume_token("f", 2**63 - 1), "f").revision == 2**63 - 1
    assert len(tokens.resume_token("f" * 16, 2**63 - 1, tokens.Position.of(NOW, "x" * 63))) < 512
    for forged in (
        tokens.resume_token("f", 2**63),
        tokens.resume_token("f", -1),
        tokens.resume_token("f", 1, tokens.Position(2**62, "show-1")),
        tokens.resume_token("f", 1, tokens.Position(1, "a\0")),
    ):
        with pytest.raises(ResumeTokenInvalid):
            tokens.read_resume_token(forged, "f")


def test_tokens_that_callers_keep_are_read_by_later_versions() -> None:
    def token(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    position = tokens.Position.of(NOW, "show-1")
    assert tokens.page_token("f", position, 7) == token(
        '{"t":"page","v":1,"filter":"f","place":[1893553445678901,"show-1"],"revision":7}'
    )
    assert tokens.resume_token("f", 7, position) == token(
        '{"t":"resume","v":1,"filter":"f","revision":7,"place":[1893553445678901,"show-1"]}'
    )
    assert tokens.resume_token("f", 7) == token('{"t":"resume","v":1,"filter":"f","revision":7}')
    assert tokens.story_token("show-1", 7) == token('{"t":"story","v":1,"broadcast_id":"show-1","revision":7}')
    assert tokens.inbox_token("f", 7) == token('{"t":"inbox","v":1,"filter":"f","id":7}')


def test_filters_that_mean_the_same_have_the_same_hash() -> None:
    one = rpc.BroadcastFilter(
        broadcast_ids=["a", "b", "a"],
        labels={"x": "1", "y": "2"},
        states=[pb.BROADCAST_STATE_READY, pb.BROADCAST_STATE_LIVE],
    )
    two = rpc.BroadcastFilter(
        broadcast_ids=["b", "a"],
        labels={"y": "2", "x": "1"},
        states=[pb.BROADCAST_STATE_LIVE, pb.BROADCAST_STATE_READY],
    )
    hashes = {tokens.filter_hash(given_filter(each)) for each in (one, two)}
    assert len(hashes) == 1
    others = [
        Filter(),
        Filter(ids=("a",)),
        Filter(owner_id="a"),
        Filter(labels=(("a", "b"),)),
        Filter(created_after=NOW),
    ]
    assert len({tokens.filter_hash(each) for each in others}) == len(others)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, {}, rpc.CHANGE_TYPE_ADDED),
        ({}, {}, rpc.CHANGE_TYPE_UPDATED),
        ({}, {"deleted": True}, rpc.CHANGE_TYPE_REMOVED),
        ({}, {"labels": {"a": "c"}}, rpc.CHANGE_TYPE_REMOVED),
        ({}, {"spec": Spec(owner_id="bob")}, rpc.CHANGE_TYPE_REMOVED),
        ({}, {"state": State.ENDED}, rpc.CHANGE_TYPE_REMOVED),
        ({"labels": {}}, {}, rpc.CHANGE_TYPE_ADDED),
        ({"state": State.STARTING}, {}, rpc.CHANGE_TYPE_ADDED),
        ({"owner_id": "bob"}, {}, rpc.CHANGE_TYPE_ADDED),
        ({"labels": {}}, {"state": State.ENDED}, None),
        ({"labels": {}}, {"deleted": True}, None),
        (None, {"state": State.LIVE}, None),
    ],
)
def test_what_a_change_is_to_a_filter(
    before: dict[str, Any] | None, after: dict[str, Any], expected: rpc.ChangeType.ValueType | None
) -> None:
    filter_ = Filter(states=(State.CREATED,), labels=(("a", "b"),), owner_id="ann", created_after=NOW)
    inside: dict[str, Any] = {
        "state": State.CREATED,
        "labels": {"a": "b", "more": ""},
        "owner_id": "ann",
        "deleted": False,
    }
    change = LoggedChange(
        revision=1,
        broadcast=a_broadcast(**({"labels": {"a": "b"}, "spec": Spec(owner_id="ann")} | after)),
        before=None if before is None else Before(**(inside | before)),
    )
    assert transition(filter_, change) == expected
    later = dataclasses.replace(filter_, created_after=NOW + timedelta(seconds=1))
    assert transition(later, change) is None
