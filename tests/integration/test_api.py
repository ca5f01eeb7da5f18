"""Every RPC over a real channel and a real database."""

import pytest

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from tests.integration.api_stage import KEY, Stage, api, refused, seconds


@pytest.fixture
async def stage(database_url):
    async with api(database_url) as stage:
        yield stage


async def test_smoke(stage: Stage) -> None:
    made = await stage.create("show-1", title="A show", labels={"a": "b"}, destinations=[pb.Destination(name="x", url="rtmp://live.example.com/app", stream_key=KEY)])
    print(made)
    print(await stage.get("show-1"))
    r = await stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1", wait=seconds(0.2), host_identity="h"))
    print(r)
    print(await refused(stage.stub.GetBroadcast(rpc.GetBroadcastRequest(broadcast_id="x"))))
    print(await refused(stage.stub.StartBroadcast(rpc.StartBroadcastRequest(broadcast_id="show-1",host_identity="EG_1"))))
    call = stage.stub.WatchBroadcasts(rpc.WatchBroadcastsRequest())
    print(await call.read(), await call.read())
    await stage.becomes("show-1", "READY")
    print(await call.read())
