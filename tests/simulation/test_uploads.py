"""A file that a fallback recorded is given to Mux, again if Mux could make nothing of it, and never as two assets."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.broadcast import PlaybackPolicy
from service.domain.ports import UploadWanted
from service.domain.resources import RecordingStatus
from service.domain.secret import Secret
from tests.simulation.providers.network import Outage
from tests.simulation.replica import TAG
from tests.simulation.stage import ID, Stage, play

UPLOAD = "upload.created"


async def recorded(stage: Stage) -> None:
    """Mux is away for so long that a file is written, and is back."""
    await stage.live()
    stage.shared.at_mux.outage = Outage(until=stage.now + 300, mode="refused")
    await stage.until(lambda: bool(stage.recording), 250)
    await stage.until(lambda: UPLOAD in kinds(stage), 600)


def kinds(stage: Stage) -> list[str]:
    return [effect.kind for effect in stage.world.env.effects.log]


def made(stage: Stage) -> list[float]:
    return [effect.time for effect in stage.world.env.effects.log if effect.kind == UPLOAD]


def tags(stage: Stage) -> list[str]:
    """The recordings that Mux has."""
    return [asset.tag.removeprefix(f"{TAG}{ID}:") for asset in stage.mux.uploads]


def status(stage: Stage) -> list[RecordingStatus]:
    return [each.status for each in stage.broadcast.status.recordings if each.uploaded]


@pytest.mark.parametrize("webhooks", [True, False], ids=["webhooks", "no webhooks"])
@pytest.mark.parametrize("after_the_end", [True, False], ids=["after the end", "on air"])
def test_mux_can_make_nothing_of_the_file(webhooks: bool, after_the_end: bool) -> None:  # noqa: FBT001 - parameters
    async def scene(stage: Stage) -> None:
        stage.mux.upload_errored = 1.0
        await recorded(stage)
        if after_the_end:
            await stage.stop()
        most = 0

        def given_up() -> bool:
            nonlocal most
            most = max(most, len(stage.mux.uploads))
            return status(stage) == [RecordingStatus.ERRORED]

        await stage.until(given_up, 900)
        first, second, third = made(stage)
        assert second - first >= 60
        assert third - second >= 300
        assert most == 1, "one asset at a time"
        assert stage.reasons.count("UPLOAD_ERRORED") == 2
        assert stage.reasons.count("RECORDING_ERRORED") >= 1
        assert tags(stage) == ["upload-0-2"], "what tells why is kept, and has an owner"
        await stage.all_the_while(lambda: len(made(stage)) == 3, 900)

    play(scene, webhooks=webhooks, storage=True)


def test_mux_can_make_it_at_the_second_attempt() -> None:
    async def scene(stage: Stage) -> None:
        stage.mux.upload_errored = 1.0
        await recorded(stage)
        stage.mux.upload_errored = 0.0
        await stage.until(lambda: status(stage) == [RecordingStatus.READY], 300)
        assert tags(stage) == ["upload-0-1"]

    play(scene, storage=True)


def test_one_that_lands_after_it_was_given_up_is_swept_and_nothing_else_is() -> None:
    async def scene(stage: Stage) -> None:
        stage.mux.upload_errored = 0.0
        await recorded(stage)
        await stage.until(lambda: status(stage) == [RecordingStatus.READY], 300)
        await asyncio.sleep(700)

        def lands(tag: str) -> str:
            wanted = UploadWanted(tag=tag, url=Secret("x"), title="", playback_policy=PlaybackPolicy.PUBLIC)
            return stage.mux.upload(wanted).asset_id

        lands("bs1:prod:show:upload-0-0")
        lands("a customer's")
        stays = set(stage.mux.assets)
        late, landed = lands(f"{TAG}{ID}:upload-0-0"), stage.now
        await stage.until(lambda: late not in stage.mux.assets, 3600)
        assert stage.now - landed >= 900
        assert set(stage.mux.assets) == stays, "they have an owner, are recorded from the live stream, or are not ours"

    play(scene, storage=True)
