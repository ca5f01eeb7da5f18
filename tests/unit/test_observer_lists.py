"""What the observer asks for: no more than it needs, and a token for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.domain.ports import EgressSeen, RoomSeen, StreamSeen
from service.domain.ports.pages import NextPage, at_once
from service.domain.resources import EgressStatus, StreamStatus
from service.domain.secret import NO_SECRET
from service.providers.budget import Budget, Limit, Limits
from service.providers.refusals import Refusals
from service.reconciler.background.observer import Observer
from service.store.owned_ids import OwnedResource

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PAGE = 100


class Fakes:
    """Rooms, egresses, live streams, rows and tokens: *ours* of ours, and *theirs* of others."""

    def __init__(self, ours: int, theirs: int, *, tokens: int | None = None) -> None:
        self.names = [f"show-{n}" for n in range(ours)]
        self.theirs = theirs
        self.calls: list[str] = []
        self.taken = 0
        self.tokens = tokens
        self.compared_with: list[Sequence[str]] = []

    async def take(self, name: str, *, rate: float, burst: float, floor: float, **_: Any) -> Granted:
        del name, rate, burst, floor
        granted = self.tokens is None or self.tokens > 0
        if granted and self.tokens is not None:
            self.tokens -= 1
        self.taken += granted
        return Granted(taken=int(granted))

    async def list(self, names: Sequence[str] = ()) -> Sequence[RoomSeen]:
        self.calls.append(f"ListRooms {len(names)}")
        return [RoomSeen(name=name, sid="RM", publishers=1, recorded=True) for name in names if name in self.names]

    async def list_room(self, room_name: str) -> Sequence[EgressSeen]:
        self.calls.append("ListEgress of a room")
        ended = EgressSeen(id="old", room_name=room_name, status=EgressStatus.COMPLETE)
        return [self._egress(room_name), ended]

    def _egress(self, name: str) -> EgressSeen:
        return EgressSeen(id=f"EG {name}", room_name=name, status=EgressStatus.ACTIVE, updated_ns=5)

    async def get(self, stream_id: str) -> StreamSeen | None:
        self.calls.append("get_live_stream")
        return self._stream(stream_id)

    def _stream(self, stream_id: str) -> StreamSeen:
        return StreamSeen(id=stream_id, tag="", status=StreamStatus.ACTIVE, created_at=NOW, key=NO_SECRET)

    async def of_running(self) -> list[OwnedResource]:
        return [
            OwnedResource(
                broadcast_id=name,
                kind=kind,
                phase="present",
                external_id=external_id,
                status=status,
                host_publishing=True if kind == "room" else None,
                recorded=True if kind == "room" else None,
                updated_ns=5,
            )
            for name in self.names
            for kind, external_id, status in (
                ("room", name, ""),
                ("egress", f"EG {name}", "ACTIVE"),
                ("stream", f"LS {name}", "active"),
            )
        ]

    async def now(self) -> datetime:
        return NOW

    async def report(self, *_: object) -> None: ...

    async def compared(self, providers: Sequence[str], began: datetime) -> None:
        assert began == NOW
        self.compared_with.append(providers)

    async def wake(self, broadcast_ids: Sequence[str]) -> None:
        raise AssertionError(broadcast_ids)


class Granted:
    def __init__(self, *, taken: int) -> None:
        self.taken = taken
        self.come_back = NOW


class Lists:
    """The two that are both called `list_active`."""

    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes
        self.list_room, self.get = fakes.list_room, fakes.get


class Egresses(Lists):
    async def list_active(self) -> Sequence[EgressSeen]:
        fakes = self.fakes
        fakes.calls.append("ListEgress")
        return [fakes._egress(name) for name in (*fakes.names, *map(str, range(fakes.theirs)))]  # pyright: ignore[reportPrivateUsage] - of this module


class Streams(Lists):
    async def list_active(self, *, next_page: NextPage = at_once) -> Sequence[StreamSeen]:
        fakes = self.fakes
        found = [fakes._stream(f"LS {name}") for name in (*fakes.names, *map(str, range(fakes.theirs)))]  # pyright: ignore[reportPrivateUsage] - of this module
        for n in range(len(found) // PAGE + 1):
            if n:
                await next_page()
            fakes.calls.append("list_live_streams")
        return found


def observer(fakes: Fakes, limits: Limits | None = None) -> Observer:
    class Providers:
        rooms, egresses, streams = fakes, Egresses(fakes), Streams(fakes)
        budget = Budget(fakes.take, limits or Limits())
        refusals, files = Refusals(), ""

    untyped: Any = fakes
    providers: Any = Providers()
    return Observer(untyped, untyped, untyped, providers, every=timedelta(seconds=10))


async def look(watching: Observer, fakes: Fakes) -> list[str]:
    before = len(fakes.calls), fakes.taken
    assert await watching.look() == set()
    made = fakes.calls[before[0] :]
    assert fakes.taken - before[1] == len(made), "a token for each request"
    return sorted(made)


async def test_three_lists_are_enough_and_rooms_are_asked_for_by_their_names() -> None:
    fakes = Fakes(ours=40, theirs=3)
    watching = observer(fakes)
    for _ in range(2):
        assert await look(watching, fakes) == ["ListEgress", "ListRooms 40", "list_live_streams"]
    assert fakes.compared_with == [["livekit", "mux"]] * 2


async def test_where_others_fill_the_lists_a_few_of_ours_are_asked_for_one_by_one() -> None:
    fakes = Fakes(ours=2, theirs=2000)
    watching = observer(fakes)
    first = await look(watching, fakes)
    assert first == ["ListEgress", "ListRooms 2", *["list_live_streams"] * 21]
    rooms = ["ListEgress of a room"] * 2
    assert await look(watching, fakes) == [*rooms, "ListRooms 2", "get_live_stream", "get_live_stream"]
    # With more of ours the lists are the shorter way again.
    fakes.names = [f"show-{n}" for n in range(30)]
    assert (await look(watching, fakes)).count("ListEgress") == 1


async def test_five_thousand_of_ours_take_a_token_a_page() -> None:
    fakes = Fakes(ours=5000, theirs=0)
    made = await look(observer(fakes), fakes)
    assert made.count("ListRooms 500") == 10
    assert made.count("list_live_streams") == 51


async def test_a_round_waits_for_tokens_and_compares_nothing_that_it_saw_in_part() -> None:
    fakes = Fakes(ours=150, theirs=0, tokens=3)
    quick = Limits(mux_other=Limit(rate=1000, burst=10))
    looking = asyncio.create_task(observer(fakes, quick).look())
    await asyncio.sleep(0.05)
    assert not looking.done()
    assert fakes.calls.count("list_live_streams") == 1
    fakes.tokens = 10
    assert await looking == set()
    assert fakes.calls.count("list_live_streams") == 2
    assert fakes.compared_with == [["livekit", "mux"]]
