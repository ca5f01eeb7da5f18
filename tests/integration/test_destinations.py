"""Destinations, one at a time, over a real channel and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast_client.ctl import run
from tests.integration.api_stage import KEY, Stage, api, refused

SHOW = "show-1"
URL = "rtmps://live.example.com:443/app"


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with api(database_url) as stage:
        yield stage


def place(name: str = "tube", url: str = URL, key: str | None = None, **fields: Any) -> pb.Destination:
    return pb.Destination(
        name=name, url=url, stream_key=(KEY if name == "tube" else f"{name}-{KEY}") if key is None else key, **fields
    )


def add(destination: pb.Destination, *, request_id: str = "", etag: str = "") -> rpc.AddDestinationRequest:
    return rpc.AddDestinationRequest(broadcast_id=SHOW, destination=destination, request_id=request_id, etag=etag)


def remove(
    name: str = "tube", *, request_id: str = "", etag: str = "", allow_missing: bool = False
) -> rpc.RemoveDestinationRequest:
    return rpc.RemoveDestinationRequest(
        broadcast_id=SHOW, name=name, request_id=request_id, etag=etag, allow_missing=allow_missing
    )


async def story(stage: Stage) -> list[tuple[str, str]]:
    answer = await stage.stub.ListBroadcastEvents(rpc.ListBroadcastEventsRequest(broadcast_id=SHOW))
    return [(each.reason, each.message) for each in answer.events if each.reason.startswith("DESTINATION")]


async def test_a_destination_is_added_and_removed_by_name_also_on_air(stage: Stage) -> None:
    before = await stage.started(SHOW, destinations=[place("first")])
    added = (await stage.stub.AddDestination(add(place()))).broadcast
    assert [each.name for each in added.spec.destinations] == ["first", "tube"]
    assert (added.generation, int(added.etag)) == (before.generation + 1, int(before.etag) + 1)
    assert [each.state for each in added.status.destinations] == [pb.DESTINATION_STATE_IDLE] * 2
    assert KEY not in str(added)
    removed = (await stage.stub.RemoveDestination(remove("first"))).broadcast
    assert [each.name for each in removed.spec.destinations] == ["tube"]
    assert (removed.generation, int(removed.etag)) == (before.generation + 2, int(before.etag) + 2)
    assert await story(stage) == [("DESTINATION_ADD_REQUESTED", "tube"), ("DESTINATION_REMOVE_REQUESTED", "first")]
    assert stage.woken == [SHOW] * 3


async def test_the_stored_keys_are_those_that_were_given(stage: Stage) -> None:
    await stage.create(SHOW, destinations=[place("first", key="key-of-the-first")])
    await stage.stub.AddDestination(add(place(key="key-of-the-tube-4711")))
    await stage.stub.RemoveDestination(remove("first"))
    row = await stage.sql("SELECT secrets FROM broadcast WHERE id = $1", SHOW)
    async with stage.database.connection() as connection:
        stored = await connection.fetchrow("SELECT * FROM broadcast WHERE id = $1", SHOW)
    assert stored is not None
    keys = stage.rows.broadcast(dict(stored), row).destination_keys
    assert {name: key.reveal() for name, key in keys.items()} == {"tube": "key-of-the-tube-4711"}


async def test_a_repeated_request_changes_nothing_and_another_content_is_refused(stage: Stage) -> None:
    await stage.started(SHOW)
    first = (await stage.stub.AddDestination(add(place(), request_id="r1"))).broadcast
    again = (await stage.stub.AddDestination(add(place(), request_id="r1"))).broadcast
    assert (again.etag, len(again.spec.destinations)) == (first.etag, 1)
    other = add(place(key="another-key-of-it"), request_id="r1")
    assert (await refused(stage.stub.AddDestination(other))).reason == "REQUEST_ID_REUSED"
    await stage.stub.RemoveDestination(remove(request_id="r2"))
    await stage.stub.RemoveDestination(remove(request_id="r2"))
    assert len(await story(stage)) == 2


async def test_a_name_that_is_taken_and_one_that_is_not_there(stage: Stage) -> None:
    await stage.started(SHOW, destinations=[place()])
    taken = await refused(stage.stub.AddDestination(add(place(url="rtmp://other.example.com/app"))))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DESTINATION_EXISTS")
    assert dict(taken.info.metadata) == {"broadcast_id": SHOW, "destination": "tube"}
    missing = await refused(stage.stub.RemoveDestination(remove("nobody")))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "DESTINATION_NOT_FOUND")
    resource = missing.detail(error_details_pb2.ResourceInfo)
    assert resource is not None
    assert (resource.resource_type, resource.resource_name) == ("broadcast.v1.Destination", "nobody")
    answer = await stage.stub.RemoveDestination(remove("nobody", allow_missing=True))
    assert [each.name for each in answer.broadcast.spec.destinations] == ["tube"]


async def test_an_etag_that_is_not_the_present_one_is_refused(stage: Stage) -> None:
    etag = (await stage.started(SHOW, destinations=[place("first")])).etag
    added = (await stage.stub.AddDestination(add(place(), etag=etag))).broadcast
    assert (await refused(stage.stub.AddDestination(add(place("third"), etag=etag)))).reason == "ETAG_MISMATCH"
    assert (await refused(stage.stub.RemoveDestination(remove(etag=etag)))).reason == "ETAG_MISMATCH"
    await stage.stub.RemoveDestination(remove(etag=added.etag))


async def test_those_by_mux_are_fixed_since_the_start_and_the_refusal_says_why(stage: Stage) -> None:
    relayed = place("relay", carrier=pb.DESTINATION_CARRIER_MUX)
    await stage.create(SHOW)
    await stage.stub.AddDestination(add(relayed))
    await stage.stub.RemoveDestination(remove("relay"))
    await stage.stub.AddDestination(add(relayed))
    await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id=SHOW))
    for call in (
        stage.stub.AddDestination(add(place("more", carrier=pb.DESTINATION_CARRIER_MUX))),
        stage.stub.RemoveDestination(remove("relay")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FIELD_IMMUTABLE")
        assert "only while it is idle" in refusal.message
    # One by the egress beside it is still added and removed.
    await stage.stub.AddDestination(add(place("hot")))
    await stage.stub.RemoveDestination(remove("hot"))


BAD: dict[str, tuple[pb.Destination, str]] = {
    "no key": (place(key=""), "destination.stream_key"),
    "key with a space": (place(key="a b"), "destination.stream_key"),
    "http": (place(url="https://live.example.com/app"), "destination.url"),
    "loopback": (place(url="rtmp://127.0.0.1/app"), "destination.url"),
    "metadata service": (place(url="rtmp://169.254.169.254/app"), "destination.url"),
    "name of a private network": (place(url="rtmp://db.internal/app"), "destination.url"),
    "a name that leads there": (place(url="rtmp://sneaky.example.com/app"), "destination.url"),
    "name": (place(name="One"), "destination.name"),
    "a key that looks like another": (place(key="studio-two-2026-stage"), "destination.stream_key"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_destination_is_refused_by_field_and_nothing_is_stored(stage: Stage, case: str) -> None:
    stage.names.known["sneaky.example.com"] = ["10.0.0.7"]
    await stage.started(SHOW, destinations=[place("one", key="studio-one-2026-stage")])
    before = await stage.stored()
    destination, field = BAD[case]
    refusal = await refused(stage.stub.AddDestination(add(destination, request_id="r")))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", [field])
    assert await stage.stored() == before


async def test_there_are_never_more_than_a_spec_may_have(stage: Stage) -> None:
    await stage.create(SHOW, destinations=[place(f"d{n}", url=f"rtmp://h{n}.example.com/app") for n in range(8)])
    refusal = await refused(stage.stub.AddDestination(add(place())))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["destination"])
    await stage.create("other")
    for n in range(7):
        request = add(place(f"m{n}", url=f"rtmp://h{n}.example.com/app", carrier=pb.DESTINATION_CARRIER_MUX))
        request.broadcast_id = "other"
        if n < 6:
            await stage.stub.AddDestination(request)
            continue
        assert (await refused(stage.stub.AddDestination(request))).fields == ["destination.carrier"]


async def test_what_was_stopped_gets_no_destination(stage: Stage) -> None:
    await stage.started(SHOW, destinations=[place("first")])
    await stage.stub.StopBroadcast(rpc.StopBroadcastRequest(broadcast_id=SHOW))
    for call in (stage.stub.AddDestination(add(place())), stage.stub.RemoveDestination(remove("first"))):
        assert (await refused(call)).reason == "STATE_FORBIDS"


async def test_broadcastctl_adds_and_removes(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.started(SHOW)
    target = ("--target", f"127.0.0.1:{stage.port}")
    assert await run([*target, "add-destination", SHOW, f"tube={URL},{KEY}"]) == 0
    told = capsys.readouterr()
    assert "tube" in told.out
    assert KEY not in told.out + told.err
    assert await run([*target, "remove-destination", SHOW, "tube"]) == 0
    assert await run([*target, "remove-destination", SHOW, "tube"]) != 0
    assert "DESTINATION_NOT_FOUND" in capsys.readouterr().err
    assert await run([*target, "remove-destination", SHOW, "tube", "--allow-missing"]) == 0
