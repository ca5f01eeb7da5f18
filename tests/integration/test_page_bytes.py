"""A page is cut by bytes too: every client takes 4 MiB, and no entry is lost or told twice where a page is cut."""

from __future__ import annotations

import asyncio

from broadcast.v1 import broadcast_pb2 as pb
from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.event_pb2 import BroadcastEvent
from service.api.messages.pages import PAGE_BYTES, fitting
from tests.integration.api_stage import api

BROADCASTS = 300


async def test_a_list_of_large_broadcasts_is_cut_by_bytes_and_goes_on_without_gap(database_url: str) -> None:
    destinations = [
        pb.Destination(name=f"d{number}", url=f"rtmp://8.8.8.8/{number}" + "a" * 1000, stream_key="k")
        for number in range(8)
    ]
    labels = {f"l{number:02d}-" + "y" * 58: "z" * 128 for number in range(32)}
    async with api(database_url) as stage:
        for first in range(0, BROADCASTS, 20):
            await asyncio.gather(
                *(
                    stage.create(f"big-{number:04d}", labels=labels, title="放" * 200, destinations=destinations)
                    for number in range(first, first + 20)
                )
            )
        seen: list[str] = []
        sizes: list[int] = []
        request = rpc.ListBroadcastsRequest(page_size=500)
        while True:
            # The channel has no option, as that of any client: a larger answer would be RESOURCE_EXHAUSTED.
            page = await stage.stub.ListBroadcasts(request)
            seen += [each.id for each in page.broadcasts]
            sizes.append(page.ByteSize())
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert sum(sizes) > 4 << 20
        assert max(sizes) < 4 << 20
        assert len(seen) == BROADCASTS
        assert set(seen) == {f"big-{number:04d}" for number in range(BROADCASTS)}


def test_an_entry_larger_than_a_page_is_a_page_of_its_own() -> None:
    large, small = BroadcastEvent(message="x" * (PAGE_BYTES + 1)), BroadcastEvent(message="y")
    assert fitting([large, small]) == [large]
    assert fitting([small, large, small]) == [small]
    assert fitting([small, small]) == [small, small]
    assert fitting([]) == []
