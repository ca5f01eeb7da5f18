"""The service's own adapter at a real livekit-server: who publishes is seen at once, though its counts are late."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from service.domain.ports import RoomWanted
from service.domain.secret import Secret
from service.providers.livekit.client import LiveKit
from tests.livekit.test_real_livekit import executable
from tests.livekit.worlds import KEY, SECRET, RealWorld, real_world, token

__all__ = ["executable"]

pytestmark = pytest.mark.real_livekit

_ROOM = "bc-1"
_SOON_S = 1.0


async def _webhook(world: RealWorld, event: str, count: int) -> None:
    """Until that many came. Looked for every millisecond: the look of the service follows at once."""
    while sum(body["event"] == event for body in world.webhooks) < count:  # noqa: ASYNC110 - the list has no event
        await asyncio.sleep(0.001)


@pytest.mark.timeout(120)
async def test_the_look_that_a_webhook_wakes_sees_who_publishes(executable: Path, tmp_path: Path) -> None:
    """Three times: a host publishes, unpublishes and stays. The count in the list of rooms says 1 all the time."""
    async with real_world(executable, tmp_path / "livekit-server.log") as world:
        livekit = LiveKit(url=world.url, api_key=KEY, api_secret=Secret(SECRET), longest_call=timedelta(seconds=15))
        try:
            await livekit.rooms.create(
                RoomWanted(
                    name=_ROOM,
                    tag="bs1:test:bc-1",
                    empty_timeout=timedelta(minutes=5),
                    departure_timeout=timedelta(minutes=5),
                )
            )
            host = await world.host(token(_ROOM))
            loop = asyncio.get_running_loop()
            for round_ in range(1, 4):
                for deed, event, publishers in (
                    (host.publish, "track_published", 1),
                    (host.unpublish, "track_unpublished", 0),
                ):
                    began = loop.time()
                    asked = asyncio.create_task(deed("camera"))
                    await _webhook(world, event, round_)
                    inside = await livekit.rooms.inside(_ROOM)
                    took = loop.time() - began
                    await asked
                    assert len(inside.people.publishers) == publishers, f"{event} of round {round_}: an old look"
                    assert took < _SOON_S, f"{event} of round {round_} was seen after {took:.2f} s"
                    print(f"{event}: seen after {took:.3f} s")
            await asyncio.sleep(6)
            listed = await livekit.rooms.get(_ROOM)
            assert listed is not None
            assert listed.publishers == 1, "the flag stays set"
            await host.leave()
            await _webhook(world, "participant_left", 1)
            assert not (await livekit.rooms.inside(_ROOM)).anybody
        finally:
            await livekit.close()
