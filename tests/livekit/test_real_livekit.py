"""The real livekit-server and the simulator do the same: each scenario runs on both, and what is seen is compared."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from livekit import api
from livekit.protocol import models

from tests.livekit import server
from tests.livekit.worlds import (
    KEY,
    SECRET,
    HostRefused,
    Trace,
    World,
    differences,
    post,
    real_world,
    settled,
    simulated_world,
    token,
    until,
)

pytestmark = pytest.mark.real_livekit

_ROOM = "bc-1"
Scenario = Callable[[World, Trace], Awaitable[None]]


async def _people(world: World, room: str = _ROOM) -> list[models.ParticipantInfo]:
    found = await world.api.room.list_participants(api.ListParticipantsRequest(room=room))
    return sorted(found.participants, key=lambda person: person.identity)


async def _tracks(world: World, count: int) -> bool:
    return sum(len(person.tracks) for person in await _people(world)) == count


async def _room(world: World, **fields: Any) -> models.Room:
    return await world.api.room.create_room(api.CreateRoomRequest(name=_ROOM, empty_timeout=300, **fields))


async def _listed(world: World) -> list[models.Room]:
    found = await world.api.room.list_rooms(api.ListRoomsRequest(names=[_ROOM]))
    return list(found.rooms)


async def _refused(call: Awaitable[object]) -> dict[str, object]:
    try:
        await call
    except api.ServerError as error:
        return {"status": error.status, "code": error.code, "message": error.message}
    return {}


async def _told(world: World, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The first *count* webhooks of that name."""

    async def came() -> list[dict[str, Any]]:
        found = [body for body in world.webhooks if body["event"] == event]
        return found[:count] if len(found) >= count else []

    return await until(came, f"{count} webhooks {event}", 60)


async def _left(world: World) -> list[dict[str, Any]]:
    """The first participant_left. The real server refreshes the counts and sends this webhook at the same time, so the
    counts in it are left out.
    """
    [body] = await _told(world, "participant_left")
    room = {name: value for name, value in body["room"].items() if not name.startswith("num")}
    return [{**body, "room": room}]


async def _room_and_metadata(world: World, trace: Trace) -> None:
    trace.add("created", await _room(world, metadata="test/bc-1", departure_timeout=20))
    trace.add("created again", await _room(world, metadata="other"))
    trace.add("listed", await _listed(world))
    trace.add("people", await _people(world))
    trace.add("webhook", await _told(world, "room_started"))
    await world.api.room.delete_room(api.DeleteRoomRequest(room=_ROOM))
    trace.add("listed after the delete", await _listed(world))
    trace.add("deleted again", await _refused(world.api.room.delete_room(api.DeleteRoomRequest(room=_ROOM))))
    trace.add("webhook of the end", await _told(world, "room_finished"))


async def _publishing(world: World, trace: Trace) -> None:
    await _room(world)
    host = await world.host(token(_ROOM))
    trace.add("joined", await _people(world))
    trace.add("joined webhook", await _told(world, "participant_joined"))
    await host.publish("camera")
    await until(lambda: _tracks(world, 1), "the track")
    trace.add("published", await _people(world))
    trace.add("published webhook", await _told(world, "track_published"))
    await host.publish("microphone")
    await until(lambda: _tracks(world, 2), "both tracks")
    trace.add("published both", await _people(world))
    await host.mute("camera")
    await until(lambda: _muted(world), "the mute")
    trace.add("muted", await _people(world))
    await host.unpublish("camera")
    await host.unpublish("microphone")
    await until(lambda: _tracks(world, 0), "no track")
    trace.add("unpublished", await _people(world))
    trace.add(
        "unpublished webhooks",
        sorted(await _told(world, "track_unpublished", 2), key=lambda body: body["track"]["source"]),
    )
    # The flag of a publisher is never cleared, so the count says that one publishes although nobody does.
    await until(lambda: _counted(world, 1), "the counts")
    trace.add("counts after the unpublish", await _listed(world))


async def _muted(world: World) -> bool:
    return any(track.muted for person in await _people(world) for track in person.tracks)


async def _counted(world: World, publishers: int) -> bool:
    return [room.num_publishers for room in await _listed(world)] == [publishers]


async def _counts_are_late(world: World, trace: Trace) -> None:
    await _room(world)
    host = await world.host(token(_ROOM))
    await host.publish("camera")
    await until(lambda: _tracks(world, 1), "the track")
    trace.add("at once", await _listed(world))
    await until(lambda: _counted(world, 1), "the counts")
    trace.add("later", await _listed(world))
    await host.leave()
    await until(lambda: _counted(world, 0), "the counts")
    trace.add("left", await _listed(world))
    trace.add("left webhook", await _left(world))


async def _data_publisher(world: World, trace: Trace) -> None:
    await _room(world)
    await world.host(token(_ROOM, can_publish=False, can_publish_data=True))
    trace.add("may not publish", await _people(world))


async def _killed(world: World, trace: Trace) -> None:
    await _room(world)
    host = await world.host(token(_ROOM))
    await host.publish("camera")
    await until(lambda: _tracks(world, 1), "the track")
    await host.kill()
    trace.add("left webhook", await _left(world))
    trace.add("people", await _people(world))


async def _duplicate_identity(world: World, trace: Trace) -> None:
    await _room(world)
    first = await world.host(token(_ROOM))
    await first.publish("camera")
    await until(lambda: _tracks(world, 1), "the track")
    second = await world.host(token(_ROOM))
    await until(lambda: _tracks(world, 0), "the eviction")
    await second.publish("camera")
    await until(lambda: _tracks(world, 1), "the track of the second")
    trace.add("people", await _people(world))
    trace.add("webhooks", [body["event"] for body in world.webhooks if body["event"].startswith("participant")])
    trace.add("left", await _left(world))


async def _tokens(world: World, trace: Trace) -> None:
    await _room(world)
    for label, given in (
        ("another secret", token(_ROOM, secret="b-secret-of-at-least-thirty-two-bytes")),
        ("a room that does not exist", token("bc-2")),
        ("no right to join", token(_ROOM, room_join=False)),
    ):
        try:
            await world.host(given)
        except HostRefused:
            trace.add(label, "refused")
        else:
            trace.add(label, "let in")


async def _deleted_outside(world: World, trace: Trace) -> None:
    await _room(world)
    host = await world.host(token(_ROOM))
    await host.publish("camera")
    await until(lambda: _tracks(world, 1), "the track")
    await world.api.room.delete_room(api.DeleteRoomRequest(room=_ROOM))
    trace.add("webhook", await _told(world, "room_finished"))
    trace.add("left", await _left(world))
    trace.add("events", sorted({body["event"] for body in world.webhooks}))
    trace.add("listed", await _listed(world))
    trace.add("people", await _people(world))


async def _unknown_names(world: World, trace: Trace) -> None:
    room = world.api.room
    trace.add("people of no room", await _people(world, "nowhere"))
    trace.add("delete no room", await _refused(room.delete_room(api.DeleteRoomRequest(room="nowhere"))))
    removal = api.RoomParticipantIdentity(room="nowhere", identity="ann")
    trace.add("remove from no room", await _refused(room.remove_participant(removal)))
    trace.add("get from no room", await _refused(room.get_participant(removal)))
    await _room(world)
    nobody = api.RoomParticipantIdentity(room=_ROOM, identity="nobody")
    trace.add("remove nobody", await _refused(room.remove_participant(nobody)))
    mute = api.MuteRoomTrackRequest(room=_ROOM, identity="nobody", track_sid="TR_x", muted=True)
    trace.add("mute nobody", await _refused(room.mute_published_track(mute)))
    subscriptions = api.UpdateSubscriptionsRequest(room=_ROOM, identity="nobody")
    trace.add("subscribe nobody", await _refused(room.update_subscriptions(subscriptions)))
    trace.add("send to no room", await _refused(room.send_data(api.SendDataRequest(room="nowhere", data=b"x"))))
    update = api.UpdateParticipantRequest(room=_ROOM, identity="nobody", name="x")
    trace.add("update nobody", await _refused(room.update_participant(update)))
    metadata = api.UpdateRoomMetadataRequest(room="nowhere", metadata="x")
    trace.add("metadata of no room", await _refused(room.update_room_metadata(metadata)))


async def _moderation(world: World, trace: Trace) -> None:
    """A mute by the server, an unmute that is refused, a removal, and a return with the same token."""
    room = world.api.room
    await _room(world)
    given = token(_ROOM)
    host = await world.host(given)
    await host.publish("camera")
    await host.publish("microphone")
    await until(lambda: _tracks(world, 2), "both tracks")
    [ann] = await _people(world)
    [microphone] = [track for track in ann.tracks if track.type == models.TrackType.AUDIO]

    def mute(track_sid: str = microphone.sid, *, muted: bool = True) -> Awaitable[api.MuteRoomTrackResponse]:
        wanted = api.MuteRoomTrackRequest(room=_ROOM, identity="ann", track_sid=track_sid, muted=muted)
        return room.mute_published_track(wanted)

    trace.add("muted", await mute())
    await until(lambda: _muted(world), "the mute")
    trace.add("people", await _people(world))
    trace.add("muted again", await mute())
    trace.add("no such track", await mute("TR_none"))
    trace.add("unmuted", await _refused(mute(muted=False)))
    trace.add("removed", await room.remove_participant(api.RoomParticipantIdentity(room=_ROOM, identity="ann")))
    trace.add("left webhook", await _left(world))
    trace.add("people after it", await _people(world))
    again = api.RoomParticipantIdentity(room=_ROOM, identity="ann")
    trace.add("removed again", await _refused(room.remove_participant(again)))
    # The token was not revoked.
    await world.host(given)
    trace.add("people after the return", await _people(world))


async def _refused_keys(world: World, trace: Trace) -> None:
    """The text of a refusal quotes the token that was sent."""
    grants = api.VideoGrants(room_list=True)
    for label, made in (
        ("another secret", api.AccessToken(KEY, SECRET[::-1])),
        ("another key", api.AccessToken("otherkey", SECRET)),
        ("expired", api.AccessToken(KEY, SECRET).with_ttl(datetime.timedelta(hours=-1))),
    ):
        token_ = made.with_grants(grants).to_jwt()
        status, text = await post(world.url, "RoomService/ListRooms", token_)
        trace.add(label, {"status": status, "text": text.replace(token_, "the token")})


_SCENARIOS: dict[str, Scenario] = {
    "room and metadata": _room_and_metadata,
    "publishing": _publishing,
    "counts are late": _counts_are_late,
    "may not publish": _data_publisher,
    "killed": _killed,
    "duplicate identity": _duplicate_identity,
    "tokens": _tokens,
    "deleted outside": _deleted_outside,
    "unknown names": _unknown_names,
    "moderation": _moderation,
    "refused keys": _refused_keys,
}


@pytest.fixture(scope="session")
def executable() -> Path:
    try:
        server.outside_address()
        return server.binary()
    except server.ServerMissing as missing:
        pytest.skip(f"!!! no real livekit-server: {missing} !!!")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", _SCENARIOS)
async def test_the_simulator_does_as_the_real_server(name: str, executable: Path, tmp_path: Path) -> None:
    scenario = _SCENARIOS[name]
    real, simulated = Trace(), Trace()

    async def on_the_real() -> None:
        async with real_world(executable, tmp_path / "livekit-server.log") as world:
            await scenario(world, real)

    async def on_the_simulated() -> None:
        async with simulated_world() as world:
            await scenario(world, simulated)

    await asyncio.gather(on_the_real(), on_the_simulated())
    assert [label for label, _ in real.seen] == [label for label, _ in simulated.seen]
    found = [
        line
        for (label, one), (_, other) in zip(real.seen, simulated.seen, strict=True)
        for line in differences(one, other, label)
    ]
    assert not found, "\n".join(found)


def test_ids_and_times_are_what_they_are() -> None:
    seen = settled({"sid": "RM_abc", "creationTime": "1", "name": "bc-1", "people": [{"version": 3}]})
    assert seen == {"sid": "RM_", "creationTime": "a time", "name": "bc-1", "people": [{"version": "a number"}]}
    assert differences({"a": 1, "b": [1]}, {"b": [2], "c": 1}) == [
        "a: only the real server has it: 1",
        "b[0]: real 1, simulated 2",
        "c: only the simulator has it: 1",
    ]
