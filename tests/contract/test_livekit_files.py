"""Egresses into a file: what the adapter sends, and what a simulated LiveKit makes of it in a simulated S3."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from livekit import api
from yarl import URL

from broadcast_sandbox.faults import Fault
from broadcast_sandbox.mp4 import duration_of
from broadcast_sandbox.storage.s3 import S3Simulator, S3SimulatorSettings
from service.domain.broadcast import PRESETS
from service.domain.errors import Outcome
from service.domain.ports import EgressSeen, RecordingWanted
from service.domain.resources import EgressStatus
from service.domain.secret import Secret
from service.providers.livekit.client import LiveKit, heard
from service.providers.storage.links import Storage, StorageSettings
from service.providers.text.redaction import redacted
from tests.contract.livekit_stage import KEY, SECRET, Stage, staged, until
from tests.contract.provider_wire import Fate, reply, wire
from tests.contract.test_livekit_adapter import livekit_at, message, refusal, twirp
from tests.waiting import eventually

ACCESS, STORAGE_SECRET = "AKIASTORAGE4711", "storage-secret/+of=the-test"
FILE = "recordings/first/1.mp4"
STORAGE = StorageSettings(
    bucket="shows",
    access_key=Secret(ACCESS),
    secret_key=Secret(STORAGE_SECRET),
    endpoint="http://127.0.0.1:9",
    region="eu-central-1",
    force_path_style=True,
)
WANTED = RecordingWanted(room_name="first", encoding=PRESETS["720P_30"], audio_only=False, layout="speaker", file=FILE)


async def test_a_recording_is_an_mp4_in_the_storage_and_no_stream() -> None:
    """An EncodedFileOutput with an S3Upload: access_key, secret, endpoint, region, bucket, force_path_style."""
    async with (
        wire(message(api.EgressInfo(egress_id="EG_1"))) as provider,
        livekit_at(provider.url, storage=STORAGE) as livekit,
    ):
        await livekit.egresses.record(WANTED)
    [sent] = provider.requests
    assert sent.path == "/twirp/livekit.Egress/StartRoomCompositeEgress"
    asked = api.RoomCompositeEgressRequest.FromString(sent.body)
    assert (asked.room_name, asked.layout, asked.audio_only) == ("first", "speaker", False)
    assert (asked.advanced.width, asked.advanced.video_bitrate, asked.advanced.key_frame_interval) == (1280, 2500, 2.0)
    assert not asked.stream_outputs
    assert list(asked.file_outputs) == [
        api.EncodedFileOutput(
            file_type=api.EncodedFileType.MP4,
            filepath=FILE,
            disable_manifest=True,
            s3=api.S3Upload(
                access_key=ACCESS,
                secret=STORAGE_SECRET,
                region="eu-central-1",
                endpoint="http://127.0.0.1:9",
                bucket="shows",
                force_path_style=True,
            ),
        )
    ]


async def test_without_a_storage_nothing_is_sent() -> None:
    async with wire(message(api.EgressInfo(egress_id="EG_1"))) as provider, livekit_at(provider.url) as livekit:
        error = await refusal(livekit.egresses.record(WANTED))
        assert (error.outcome, error.code) == (Outcome.REFUSED, "no_storage")
        assert not provider.requests


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (twirp(400, "invalid_argument", f"bad s3 {ACCESS} {STORAGE_SECRET}"), Outcome.REFUSED),
        (twirp(503, "unavailable", "no response from servers"), Outcome.UNAVAILABLE),
        (twirp(429, "resource_exhausted", "quota"), Outcome.THROTTLED),
        (twirp(404, "not_found", "requested room does not exist"), Outcome.MISSING),
        (twirp(500, STORAGE_SECRET, STORAGE_SECRET), Outcome.AMBIGUOUS),
        (reply(401, "invalid API key\n", "text/plain"), Outcome.CREDENTIALS),
        (message(api.EgressInfo()), Outcome.AMBIGUOUS),
        (Fate.CLOSE, Outcome.AMBIGUOUS),
        (Fate.HANG, Outcome.AMBIGUOUS),
    ],
)
async def test_failures_are_those_of_a_start_and_show_no_key(answer: Any, outcome: Outcome) -> None:
    async with (
        wire(answer) as provider,
        livekit_at(provider.url, storage=STORAGE, longest_s=0.5 if answer is Fate.HANG else 20) as livekit,
    ):
        error = await refusal(livekit.egresses.record(WANTED))
        assert error.outcome is outcome
        for secret in (ACCESS, STORAGE_SECRET):
            assert secret not in f"{error!r} {error} {error.message} {error.code} {error.args}"
        assert len(provider.requests) == 1


@dataclass(slots=True, kw_only=True)
class Studio:
    stage: Stage
    storage: S3Simulator
    settings: StorageSettings
    livekit: LiveKit

    async def record(self, file: str = FILE) -> EgressSeen:
        return await self.livekit.egresses.record(
            RecordingWanted(room_name="first", encoding=PRESETS["720P_30"], audio_only=False, layout="grid", file=file)
        )

    async def seen(self, egress_id: str) -> EgressSeen:
        [egress] = [each for each in await self.livekit.egresses.list_room("first") if each.id == egress_id]
        return egress

    async def reaches(self, egress_id: str, status: EgressStatus) -> EgressSeen:
        async def there() -> EgressSeen | None:
            seen = await self.seen(egress_id)
            return seen if seen.status is status else None

        return await eventually(there)


@contextlib.asynccontextmanager
async def studio(**settings: Any) -> AsyncGenerator[Studio]:
    storage = S3Simulator(S3SimulatorSettings(bucket="shows", access_key=ACCESS, secret_key=STORAGE_SECRET))
    await storage.start()
    given = StorageSettings(
        bucket="shows",
        access_key=Secret(ACCESS),
        secret_key=Secret(STORAGE_SECRET),
        endpoint=storage.base_url,
        force_path_style=True,
    )
    try:
        async with staged(**settings) as stage:
            livekit = LiveKit(
                url=stage.simulator.base_url,
                api_key=KEY,
                api_secret=Secret(SECRET),
                longest_call=timedelta(seconds=20),
                storage=given,
            )
            await stage.room("first")
            yield Studio(stage=stage, storage=storage, settings=given, livekit=livekit)
            await livekit.close()
    finally:
        await storage.stop()


async def test_a_recording_that_is_stopped_lies_in_the_storage() -> None:
    async with studio() as set_:
        await set_.stage.host("first")
        started = await set_.record()
        assert (started.status, started.file, started.file_bytes, started.outputs) == (
            EgressStatus.STARTING,
            FILE,
            0,
            (),
        )
        await set_.reaches(started.id, EgressStatus.ACTIVE)
        assert not set_.storage.objects
        began = set_.stage.simulator.clock.now()
        await until(lambda: set_.stage.simulator.clock.now() > began + 20)
        await set_.livekit.egresses.stop(started.id)
        ended = await set_.reaches(started.id, EgressStatus.COMPLETE)
        content = set_.storage.objects[FILE].content
        assert (ended.file, ended.file_bytes) == (FILE, len(content))
        assert ended.file_duration_s == pytest.approx(duration_of(content), abs=0.001)
        assert ended.file_duration_s > 20
        url = URL(Storage(set_.settings).url_of(ended.file).reveal(), encoded=True)
        async with set_.stage.http.get(url) as response:
            assert (response.status, await response.read()) == (200, content)
        told = [body for body in set_.stage.receiver.bodies if body["event"] == "egress_ended"]
        [egress] = [heard(json.dumps(body).encode()).egress for body in told]
        assert egress is not None
        assert (egress.file, egress.file_bytes, egress.status) == (FILE, len(content), EgressStatus.COMPLETE)


async def test_the_keys_of_the_storage_are_shown_to_nobody() -> None:
    """Credentials are redacted as "{access_key}" and "{secret}" in the record and in webhooks."""
    async with studio() as set_:
        await set_.stage.host("first")
        egress = await set_.record()
        await set_.reaches(egress.id, EgressStatus.ACTIVE)
        listed = await set_.stage.egress(egress.id)
        assert listed.room_composite.file_outputs[0].s3.access_key == "{access_key}"
        assert listed.room_composite.file_outputs[0].s3.secret == "{secret}"
        everything = f"{listed} {set_.stage.receiver.bodies} {set_.stage.simulator.effects.after(0)}"
        everything += "".join(redacted(json.dumps(body).encode()) for body in set_.stage.receiver.bodies)
        assert FILE in everything
        assert STORAGE_SECRET not in everything
        assert ACCESS not in everything


async def test_a_file_ends_complete_when_its_room_closes() -> None:
    """A room composite ends COMPLETE, "Source closed", when its room does."""
    async with studio() as set_:
        await set_.stage.host("first")
        egress = await set_.record()
        await set_.reaches(egress.id, EgressStatus.ACTIVE)
        await set_.livekit.rooms.delete("first")
        ended = await set_.reaches(egress.id, EgressStatus.COMPLETE)
        assert "Source closed" in ended.error
        assert FILE in set_.storage.objects


async def test_a_storage_that_refuses_fails_the_egress() -> None:
    async with studio() as set_:
        set_.storage.add_fault(Fault(kind="error", operation="PutObject", status=503))
        await set_.stage.host("first")
        egress = await set_.record()
        await set_.reaches(egress.id, EgressStatus.ACTIVE)
        await set_.livekit.egresses.stop(egress.id)
        ended = await set_.reaches(egress.id, EgressStatus.FAILED)
        assert "upload failed" in ended.error
        assert (ended.file, ended.file_bytes) == (FILE, 0)
        assert not set_.storage.objects
        assert set_.storage.faults.hits["error"] == 1


async def test_wrong_keys_fail_the_egress_and_are_seen_by_the_storage() -> None:
    async with studio() as set_:
        set_.livekit.egresses._storage = StorageSettings(  # pyright: ignore[reportPrivateUsage]
            bucket="shows",
            access_key=Secret(ACCESS),
            secret_key=Secret("of yesterday"),
            endpoint=set_.storage.base_url,
            force_path_style=True,
        )
        await set_.stage.host("first")
        egress = await set_.record()
        await set_.reaches(egress.id, EgressStatus.ACTIVE)
        await set_.livekit.egresses.stop(egress.id)
        await set_.reaches(egress.id, EgressStatus.FAILED)
        [refused] = set_.storage.effects.of("object.refused")
        assert refused.detail["code"] == "SignatureDoesNotMatch"


async def test_a_worker_that_dies_leaves_no_file_and_a_record_that_is_active_for_ever() -> None:
    async with studio() as set_:
        await set_.stage.host("first")
        egress = await set_.record()
        await set_.reaches(egress.id, EgressStatus.ACTIVE)
        set_.stage.fault("egress_ghost", "egress")
        await until(lambda: set_.stage.simulator.effects.of("egress.ghost"))
        await set_.livekit.rooms.delete("first")
        assert (await set_.seen(egress.id)).status is EgressStatus.ACTIVE
        assert not set_.storage.objects


@pytest.mark.parametrize("dies", ["the egress", "the recording"])
async def test_of_two_in_a_room_the_list_of_people_tells_which_is_left(dies: str) -> None:
    """Provider facts, LiveKit 4.9: `active_recording` stays while any of them is there; each is a participant."""
    async with studio() as set_:
        await set_.stage.host("first")
        egress_id = (await set_.stage.start("first")).egress_id
        file_id = (await set_.record()).id
        for each in (egress_id, file_id):
            await set_.reaches(each, EgressStatus.ACTIVE)
        rooms = set_.livekit.rooms
        assert (await rooms.inside("first")).recorders == {egress_id, file_id}
        dead, left = (egress_id, file_id) if dies == "the egress" else (file_id, egress_id)
        status, _ = await set_.stage.post("/_control/egress", egress_id=dead, end="ghost")
        assert status == 200
        assert (await rooms.inside("first")).recorders == {left}
        room = await rooms.get("first")
        assert room is not None
        assert (room.recorded, room.publishers) == (True, 1)
        assert [(await set_.seen(each)).status for each in (dead, left)] == [EgressStatus.ACTIVE] * 2
        status, _ = await set_.stage.post("/_control/egress", egress_id=left, end="ghost")
        assert (await rooms.inside("first")).recorders == frozenset()
        room = await rooms.get("first")
        assert room is not None
        assert not room.recorded


async def test_nobody_publishes_and_the_recording_waits() -> None:
    """Without a published track a room composite stays STARTING; stopped then, it is ABORTED and makes no file."""
    async with studio() as set_:
        egress = await set_.record()
        began = set_.stage.simulator.clock.now()
        await until(lambda: set_.stage.simulator.clock.now() > began + 30)
        assert (await set_.seen(egress.id)).status is EgressStatus.STARTING
        await set_.livekit.egresses.stop(egress.id)
        await set_.reaches(egress.id, EgressStatus.ABORTED)
        assert not set_.storage.objects
