"""The client and broadcastctl on AdminService and PlaybackService, as they are served."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from broadcast.v1 import broadcast_pb2 as pb
from broadcast_client import (
    BroadcastClient,
    BroadcastNotFound,
    ProviderUnavailable,
    RetryPolicy,
    ViewerLimit,
    WebhookNotFound,
)
from broadcast_client.ctl import run
from service.domain.broadcast import Fallback, FallbackMode, Status
from service.domain.orphans import Found, Orphan, Reaped
from service.domain.provider import Provider
from service.domain.reasons import FallbackReason
from service.domain.resources import Kind, Recording, RecordingStatus
from service.store.sealing import Sealer
from tests.integration.api_stage import Behind, Beside, Stage, api
from tests.integration.services_stage import admin_api, inbox_of, playback_api
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Collection

SEALER = Sealer([b"k" * 32])
ROOM = Fallback(modes=(FallbackMode.DIRECT_WEBRTC,), reason=FallbackReason.EGRESS_FAILING)


def orphan(external_id: str, *, removable: bool = True) -> Orphan:
    return Orphan(
        provider=Provider.MUX,
        kind=Kind.STREAM,
        external_id=external_id,
        broadcast_id="show-0",
        created_at=datetime.now(UTC) - timedelta(hours=2),
        removable=removable,
    )


class Orphans:
    """What a provider would say."""

    def __init__(self) -> None:
        self.there: list[Orphan] = []
        self.incomplete: tuple[Provider, ...] = ()

    async def find(self) -> Found:
        return Found(orphans=tuple(self.there), incomplete=self.incomplete)

    async def reap(self, external_ids: Collection[str], *, dry_run: bool) -> Reaped:
        asked = [each for each in self.there if not external_ids or each.external_id in external_ids]
        removed = tuple(each for each in asked if each.removable)
        if not dry_run:
            self.there = [each for each in self.there if each not in removed]
        remaining = tuple(each for each in asked if each not in removed)
        return Reaped(removed=removed, remaining=remaining, incomplete=self.incomplete)


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Ctl = Callable[..., Coroutine[Any, Any, Result]]


@pytest.fixture
def orphans() -> Orphans:
    return Orphans()


@pytest.fixture
async def stage(database_url: str, orphans: Orphans) -> AsyncIterator[Stage]:
    def beside(behind: Behind) -> Beside:
        return Beside(playback=playback_api(behind), admin=admin_api(behind, orphans))

    async with api(database_url, beside=beside) as stage:
        await stage.started("show-1", fallback_policy=pb.FallbackPolicy(max_webrtc_viewers=1))
        yield stage


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[BroadcastClient]:
    async with BroadcastClient(f"127.0.0.1:{stage.port}", retry=RetryPolicy(attempts=3)) as client:
        yield client


@pytest.fixture
def ctl(stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    monkeypatch.setenv("BROADCAST_TARGET", f"127.0.0.1:{stage.port}")

    async def ctl(*argv: str) -> Result:
        capsys.readouterr()
        code = await run(argv)
        captured = capsys.readouterr()
        # What the replica logs goes the same way.
        lines = [line for line in captured.out.splitlines() if "[info" not in line and "[warning" not in line]
        return Result(code, "\n".join(lines), captured.err)

    return ctl


async def is_now(stage: Stage, state: str, fallback: Fallback = Fallback(), **status: Any) -> None:  # noqa: B008
    await stage.sql(
        "UPDATE broadcast SET state = $1, status = $2, fallback = $3 WHERE id = 'show-1'",
        state,
        msgspec.to_builtins(Status(playback_id="PB1", **status)),
        msgspec.to_builtins(fallback),
    )


async def stored(stage: Stage, *event_ids: str) -> list[int]:
    behind = Behind(
        database=stage.database,
        sealer=SEALER,
        rows=stage.rows,
        broadcasts=stage.broadcasts,
        changes=stage.changes,
        tail=stage.tail,
        wake=print,
    )
    inbox = inbox_of(behind)
    ids: list[int] = []
    for event_id in event_ids:
        room = {"name": "show-1", "sid": "RM_1"}
        body = {"id": event_id, "createdAt": "1793491200", "event": "room_started", "room": room}
        ids.append((await inbox.store(Provider.LIVEKIT, json.dumps(body).encode())).webhook_id)
    return ids


async def test_wake(ctl: Ctl, client: BroadcastClient, stage: Stage) -> None:
    await stage.sql("UPDATE broadcast SET due_at = NULL")
    result = await ctl("wake", "show-1")
    assert (result.code, result.out) == (0, "show-1 is looked at again; it was STARTING")
    assert await stage.sql("SELECT due_at IS NOT NULL FROM broadcast")
    assert (await client.admin.wake("show-1")).id == "show-1"
    with pytest.raises(BroadcastNotFound):
        await client.admin.wake("show-2")
    assert (await ctl("wake", "show-2")).code == 1
    assert (await ctl("--json", "wake", "show-1")).records[0]["id"] == "show-1"


async def test_orphans_and_reap(ctl: Ctl, client: BroadcastClient, orphans: Orphans) -> None:
    assert (await ctl("orphans")).out == "there are none"
    assert (await ctl("reap")).out == "there is nothing to remove"
    orphans.there = [orphan("LS1"), orphan("LS2"), orphan("LS3", removable=False)]
    orphans.incomplete = (Provider.LIVEKIT,)
    result = await ctl("orphans")
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0] == ["PROVIDER", "KIND", "ID", "BROADCAST", "AGE", "REMOVABLE"]
    assert rows[1] == ["mux", "stream", "LS1", "show-0", "2h00m", "yes"]
    assert rows[3][-2:] == ["too", "young"]
    assert "livekit could not be asked in full" in result.err

    dry = await ctl("reap", "--dry-run", "LS1")
    assert [line.split()[0] for line in dry.out.splitlines()[1:]] == ["would"]
    assert "livekit could not be asked in full" in dry.err
    assert len(orphans.there) == 3
    [record] = (await ctl("reap", "--json", "LS1")).records
    assert [each["external_id"] for each in record["removed"]] == ["LS1"]
    rest = await ctl("reap")
    assert [line.split()[0] for line in rest.out.splitlines()[1:]] == ["removed", "remains"]
    assert [each.external_id for each in (await client.admin.orphans()).orphans] == ["LS3"]
    orphans.there = []
    with pytest.raises(ProviderUnavailable) as caught:
        await client.admin.reap()
    assert caught.value.metadata == {"provider": "livekit"}


async def test_webhooks_and_replay(ctl: Ctl, client: BroadcastClient, stage: Stage) -> None:
    first, second, third = await stored(stage, "EV_1", "EV_2", "EV_3")
    result = await ctl("webhooks", "--limit", "2")
    assert [line.split()[0] for line in result.out.splitlines()] == [str(third), str(second)]
    assert "livekit" in result.out
    assert "accepted" in result.out
    assert "there are more than 2" in result.err
    assert "{" not in result.out

    filtered = ("--provider", "livekit", "--broadcast", "show-1", "--type", "room_started", "--outcome", "accepted")
    records = (await ctl("--json", "webhooks", *filtered, "--bodies", "--limit", "0")).records
    assert [each["event_id"] for each in records] == ["EV_3", "EV_2", "EV_1"]
    assert json.loads(records[0]["redacted_body"])["event"] == "room_started"
    for other in (("--provider", "mux"), ("--outcome", "foreign"), ("--type", "x"), ("--broadcast", "x")):
        assert (await ctl("webhooks", *other)).out == ""
    ids = [webhook.id async for webhook in client.admin.webhooks_all(page_size=2)]
    assert ids == [third, second, first]

    await stage.sql("UPDATE webhook SET apply_time = now()")
    assert "applied" in (await ctl("webhooks")).out
    replayed = await ctl("replay", str(first))
    assert replayed.out.split()[0] == str(first)
    assert "applied" not in replayed.out
    with pytest.raises(WebhookNotFound) as caught:
        await client.admin.replay(4711)
    assert caught.value.metadata == {"webhook_id": "4711"}
    with pytest.raises(SystemExit):
        await ctl("replay", "x")


async def test_join(ctl: Ctl, client: BroadcastClient, stage: Stage) -> None:
    assert (await ctl("join", "show-1", "ann")).out == "show-1 is STARTING: nothing to watch yet (STARTING)"
    await is_now(stage, "LIVE")
    assert (await ctl("join", "show-1", "ann")).out == "show-1 is LIVE: https://stream.mux.com/PB1.m3u8"
    await is_now(stage, "INTERRUPTED", ROOM)
    shown, token = (await ctl("join", "show-1", "ann")).out.splitlines()
    assert shown.startswith("show-1 is INTERRUPTED: in the room at wss://livekit.test until ")
    assert token.count(".") == 2
    [record] = (await ctl("--json", "join", "show-1", "ann")).records
    assert record["webrtc"]["token"].count(".") == 2

    begun = time.monotonic()
    with pytest.raises(ViewerLimit) as caught:
        await client.playback.join("show-1", "bob")
    assert caught.value.retry_after is not None
    assert time.monotonic() - begun < caught.value.retry_after, "the viewer is told at once"
    result = await ctl("join", "show-1", "bob")
    assert result.code == 1
    assert "VIEWER_LIMIT" in result.err

    recording = Recording(asset_id="A1", playback_id="PB2", status=RecordingStatus.READY)
    await is_now(stage, "ENDED", recordings=(recording,))
    assert (
        await ctl("join", "show-1", "ann")
    ).out == "show-1 is ENDED: over; the recordings are\nhttps://stream.mux.com/PB2.m3u8"
    await is_now(stage, "ENDED", recordings=(Recording(asset_id="A1"),))
    assert (await ctl("join", "show-1", "ann")).out == "show-1 is ENDED: over; its recording is being prepared"


async def test_audience(ctl: Ctl, stage: Stage) -> None:
    assert (await ctl("audience", "show-1")).out == "show-1 is STARTING: nobody measured how many watch"
    assert (await ctl("audience", "show-1", "--report", "7")).out == "show-1 has 7 viewers, for the next minute"

    async def told() -> str | None:
        out = (await ctl("audience", "show-1")).out
        return None if "nobody" in out else out

    # What was read is kept for a second.
    out = await eventually(told)
    number, _, row = out.splitlines()[:3]
    assert number == "show-1 has 7 viewers, as REPORTED says"
    assert row.split()[:2] == ["REPORTED", "7"]
    [record] = (await ctl("--json", "audience", "show-1")).records
    assert record["viewers"] == "7"
