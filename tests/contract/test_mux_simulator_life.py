"""A live stream of the Mux simulator from connect to idle, as encoders and viewers see it."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from broadcast_sandbox.clock import ScaledClock
from tests.contract.mux_bench import Mux, running
from tests.waiting import eventually


@pytest.fixture
async def mux() -> AsyncIterator[Mux]:
    async with running() as mux:
        yield mux


async def test_a_broadcast_from_connect_to_idle(mux: Mux) -> None:
    """Provider facts, Mux 2.2 and 2.3: order of the events and what the payloads hold."""
    settings = {"playback_policies": ["public"], "passthrough": "b/1"}
    stream = await mux.create(passthrough="b/1", reconnect_window=5, new_asset_settings=settings)
    encoder = await mux.publish(stream["stream_key"])
    await mux.effect("ingest.connected", stream["id"])
    before = await mux.get(stream["id"])
    assert before["status"] == "idle"
    await encoder.media()
    await mux.effect("asset.ready", stream["id"])
    live = await mux.get(stream["id"])
    assert (live["status"], live["active_ingest_protocol"]) == ("active", "rtmp")
    assert live["active_asset_id"] == before["active_asset_id"]
    await encoder.leave()
    await mux.effect("asset.completed", stream["id"])
    after = await mux.get(stream["id"])
    assert after["status"] == "idle"
    assert "active_asset_id" not in after
    assert after["recent_asset_ids"] == [live["active_asset_id"]]

    await eventually(lambda: "asset.live_stream_completed" in mux.receiver.types())
    assert mux.receiver.types("live_stream.") == [
        f"live_stream.{name}" for name in ("created", "connected", "recording", "active", "disconnected", "idle")
    ]
    assert mux.receiver.types("asset.") == ["asset.created", "asset.ready", "asset.live_stream_completed"]
    assert mux.kinds("stream.", "asset.") == [
        "stream.created",
        "asset.created",
        "stream.active",
        "asset.ready",
        "stream.disconnected",
        "stream.idle",
        "asset.completed",
    ]
    active, idle = mux.receiver.of("live_stream.active")[0], mux.receiver.of("live_stream.idle")[0]
    assert active["object"] == {"type": "live", "id": stream["id"]}
    assert active["environment"] == {"name": "sandbox", "id": "sbx001"}
    assert active["attempts"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", active["created_at"])
    assert active["data"]["created_at"] == int(stream["created_at"])
    assert (active["data"]["connected"], active["data"]["recording"]) == (True, True)
    assert active["data"]["stream_key"] == stream["stream_key"]
    assert idle["data"]["active_asset_id"] == live["active_asset_id"]
    recorded = mux.receiver.of("asset.live_stream_completed")[0]
    assert (recorded["data"]["live_stream_id"], recorded["data"]["passthrough"]) == (stream["id"], "b/1")
    connected = mux.receiver.of("live_stream.connected")[0]["data"]
    assert (connected["status"], connected["connected"], connected["recording"]) == ("idle", True, False)


async def test_no_effect_and_no_state_shows_a_stream_key(mux: Mux) -> None:
    stream = await mux.create(simulcast_targets=[{"url": "rtmp://a.test/x", "stream_key": "target-secret-key"}])
    await mux.go_live(stream)
    new = await mux.raw(mux.streams.reset_stream_key, stream["id"])
    assert await mux.publish_refused(stream["stream_key"]) == 403
    shown = json.dumps([(await mux.control("GET", path))[1] for path in ("/_effects", "/_state")])
    for secret in (stream["stream_key"], new["stream_key"], stream["srt_passphrase"], "target-secret-key"):
        assert secret not in shown
    assert f"{new['stream_key'][:3]}...{new['stream_key'][-3:]}" in shown


async def test_reconnect_inside_the_window_continues_the_same_asset(mux: Mux) -> None:
    """Provider facts, Mux 2.4 and 16.20: active throughout; after the window idle and then a new asset."""
    stream = await mux.create(reconnect_window=1800)
    first = await mux.go_live(stream)
    asset = (await mux.get(stream["id"]))["active_asset_id"]
    await first.leave()
    await mux.effect("stream.disconnected", stream["id"])
    assert (await mux.get(stream["id"]))["status"] == "active"
    second = await mux.publish(stream["stream_key"])
    await second.media()
    await mux.effect("ingest.connected", stream["id"], 2)
    between = await mux.get(stream["id"])
    assert (between["status"], between["active_asset_id"]) == ("active", asset)
    await mux.pass_time(2000)
    assert mux.kinds("stream.idle", "asset.created") == ["asset.created"]

    await second.leave()
    await mux.effect("stream.disconnected", stream["id"], 2)
    await mux.pass_time(2000)
    assert (await mux.effect("stream.idle", stream["id"]))["reason"] == "reconnect window"
    third = await mux.go_live(stream)
    assert (await mux.effect("asset.created", stream["id"], 2))["asset"] != asset
    await third.leave()
    tail = ["active", "disconnected", "connected", "disconnected", "idle", "connected", "recording", "active"]
    await eventually(lambda: mux.receiver.types("live_stream.")[3:11] == [f"live_stream.{name}" for name in tail])


async def test_without_a_window_a_disconnect_ends_the_broadcast(mux: Mux) -> None:
    """Provider facts, Mux 2.4: the default of reduced and low latency is 0."""
    stream = await mux.create(latency_mode="low")
    encoder = await mux.go_live(stream)
    await encoder.leave()
    await mux.effect("stream.idle", stream["id"])
    assert mux.kinds("ingest.disconnected", "stream.")[-3:] == [
        "ingest.disconnected",
        "stream.disconnected",
        "stream.idle",
    ]


async def test_complete_ends_at_once_and_keeps_the_connection_sixty_seconds() -> None:
    """Provider facts, Mux 2.5 and 16.6 (fact sheet 2.5: complete keeps the connection 60 s)."""
    async with running() as mux:
        idle = await mux.create()
        done = await asyncio.to_thread(mux.streams.signal_live_stream_complete, idle["id"])
        assert done is not None
        stream = await mux.create()
        encoder = await mux.go_live(stream)
        at = mux.simulator.clock.now()
        assert await mux.raw(mux.streams.signal_live_stream_complete, stream["id"]) == {}
        assert (await mux.get(stream["id"]))["status"] == "idle"
        await eventually(lambda: "asset.live_stream_completed" in mux.receiver.types())
        assert mux.kinds("ingest.disconnected") == []
        assert await encoder.cut()
        assert 50 < mux.simulator.clock.now() - at < 200
        assert (await mux.effect("ingest.disconnected", stream["id"]))["reason"] == "completed"


async def test_a_reconnect_after_complete_starts_a_new_asset() -> None:
    """Provider facts, Mux 0.13: why the egress is stopped before complete."""
    async with running() as mux:
        stream = await mux.create()
        encoder = await mux.go_live(stream)
        await asyncio.to_thread(mux.streams.signal_live_stream_complete, stream["id"])
        await encoder.leave()
        await mux.effect("ingest.disconnected", stream["id"])
        await mux.go_live(stream)
        assert mux.kinds("asset.created") == ["asset.created"] * 2


async def test_a_reconnect_during_the_grace_can_be_refused() -> None:
    """Provider facts, Mux 16.6: undocumented, so an option."""
    async with running(scale=10, connect_to_active_s=1, reconnect_after_complete="reject") as mux:
        stream = await mux.create()
        encoder = await mux.go_live(stream)
        await asyncio.to_thread(mux.streams.signal_live_stream_complete, stream["id"])
        assert await mux.publish_refused(stream["stream_key"]) == 403
        await encoder.leave()
        await mux.effect("ingest.disconnected", stream["id"])
        await mux.go_live(stream)


async def test_disable_cuts_the_encoder_and_refuses_until_enable(mux: Mux) -> None:
    """Provider facts, Mux 2.5 and 16.7."""
    stream = await mux.create(reconnect_window=1800)
    encoder = await mux.go_live(stream)
    assert await mux.raw(mux.streams.disable_live_stream, stream["id"]) == {}
    assert await encoder.cut()
    assert (await mux.get(stream["id"]))["status"] == "disabled"
    assert await mux.publish_refused(stream["stream_key"]) == 403
    rejected = await mux.effect("ingest.rejected", stream["id"])
    assert rejected["reason"] == "disabled"
    assert rejected["key"] == f"{stream['stream_key'][:3]}...{stream['stream_key'][-3:]}"
    await asyncio.to_thread(mux.streams.enable_live_stream, stream["id"])
    assert (await mux.get(stream["id"]))["status"] == "idle"
    await mux.go_live(stream)
    await eventually(lambda: {"live_stream.disabled", "live_stream.enabled"} <= set(mux.receiver.types()))


@pytest.mark.parametrize("closes", [False, True])
async def test_key_reset_refuses_the_old_key(closes: bool) -> None:  # noqa: FBT001
    """Provider facts, Mux 2.5 and 16.9; what happens to the connected encoder is undocumented."""
    async with running(reset_closes_publisher=closes) as mux:
        stream = await mux.create(reconnect_window=1800)
        encoder = await mux.go_live(stream)
        new = await asyncio.to_thread(mux.streams.reset_stream_key, stream["id"])
        assert new.data.stream_key not in (None, stream["stream_key"])
        assert await mux.publish_refused(stream["stream_key"]) == 403
        assert (await mux.effect("ingest.rejected", stream["id"]))["reason"] == "old key"
        await eventually(lambda: "live_stream.updated" in mux.receiver.types())
        assert (await mux.control("GET", "/_state"))[1]["streams"][0]["connected"] is not closes
        if closes:
            assert await encoder.cut()
        else:
            await encoder.leave()
            await mux.effect("ingest.disconnected", stream["id"])
        await mux.publish(new.data.stream_key)
        await mux.effect("ingest.connected", stream["id"], 2)


async def test_unknown_key_is_refused(mux: Mux) -> None:
    """Provider facts, Mux 10."""
    assert await mux.publish_refused("00000000-0000-0000-0000-000000000000") == 403
    assert (await mux.effect("ingest.rejected", ""))["reason"] == "unknown key"


async def test_connected_without_media_is_cut_after_five_minutes_and_never_active() -> None:
    """Provider facts, Mux 2.2, 2.4 and 16.19."""
    async with running(scale=1000) as mux:
        stream = await mux.create(reconnect_window=10)
        encoder = await mux.publish(stream["stream_key"])
        at = mux.simulator.clock.now()
        assert await encoder.cut()
        assert mux.simulator.clock.now() - at > 250
        assert (await mux.effect("ingest.disconnected", stream["id"]))["reason"] == "no media"
        await mux.effect("stream.idle", stream["id"])
        assert mux.kinds("stream.active", "asset.ready", "asset.completed") == []
        await eventually(lambda: "live_stream.idle" in mux.receiver.types())
        assert mux.receiver.types("live_stream.") == [
            f"live_stream.{name}" for name in ("created", "connected", "disconnected", "idle")
        ]


async def test_media_that_stops_leads_to_the_cut_and_media_that_returns_prevents_it() -> None:
    """Provider facts, Mux 2.4: the 5 minutes count from the last media."""
    async with running(scale=500) as mux:
        stream = await mux.create(reconnect_window=1800)
        encoder = await mux.go_live(stream)
        await encoder.media(False)
        await eventually(lambda: (not mux.simulator.store.streams[stream["id"]].recording) or None)
        await encoder.media(True)
        await eventually(lambda: mux.simulator.store.streams[stream["id"]].recording or None)
        await mux.pass_time(400)
        assert mux.kinds("ingest.disconnected") == []
        await encoder.media(False)
        assert await encoder.cut()
        assert (await mux.get(stream["id"]))["status"] == "active"
        assert mux.receiver.types().count("live_stream.recording") == 1


async def test_test_streams_end_disabled_after_five_minutes() -> None:
    """Provider facts, Mux 1.3: 5 minutes active, then disabled; the recording goes after 24 h."""
    async with running(scale=1000) as mux:
        stream = await mux.create(test=True)
        encoder = await mux.go_live(stream)
        assert await encoder.cut()
        assert (await mux.effect("stream.disabled", stream["id"]))["reason"] == "test_limit"
        assert (await mux.get(stream["id"]))["status"] == "disabled"
        mux.simulator.clock.scale = 1_000_000
        await mux.effect("asset.deleted", stream["id"])


async def test_maximum_duration_cuts_the_encoder_and_a_reconnect_is_a_new_asset() -> None:
    """Provider facts, Mux 4.2: cut, no reconnect window for the old asset."""
    async with running() as mux:
        stream = await mux.create(max_continuous_duration=60, reconnect_window=1800)
        encoder = await mux.go_live(stream)
        assert await encoder.cut()
        assert (await mux.effect("stream.idle", stream["id"]))["reason"] == "max_continuous_duration"
        await mux.go_live(stream)
        assert mux.kinds("asset.created") == ["asset.created"] * 2


async def test_second_publisher_is_accepted_and_told_of() -> None:
    """Provider facts, Mux 4.2: undocumented at Mux, so it must be visible here."""
    async with running() as mux:
        stream = await mux.create(reconnect_window=1800)
        first = await mux.go_live(stream)
        second = await mux.publish(stream["stream_key"])
        double = await mux.effect("ingest.double", stream["id"])
        assert (double["connection"], double["others"]) == (2, [1])
        await first.leave()
        await mux.effect("ingest.disconnected", stream["id"])
        assert mux.kinds("stream.disconnected") == []
        await second.leave()
        await mux.effect("stream.disconnected", stream["id"])


async def test_second_publisher_can_be_rejected() -> None:
    """Provider facts, Mux 4.2."""
    async with running(second_publisher="reject") as mux:
        stream = await mux.create()
        await mux.go_live(stream)
        assert await mux.publish_refused(stream["stream_key"]) == 403
        assert mux.kinds("ingest.double") == []


def test_provider_time_does_not_jump_with_its_scale() -> None:
    clock = ScaledClock(1_000_000)
    time.sleep(0.001)
    passed = clock.now()
    assert passed >= 1000
    clock.scale = 1
    after = clock.now()
    assert after >= passed
    assert clock.now() - after < 60


async def test_latency_mode_changes_only_while_idle(mux: Mux) -> None:
    """Provider facts, Mux 1.4."""
    stream = await mux.create()
    changed = await mux.raw(mux.streams.update_live_stream, stream["id"], {"latency_mode": "reduced"})
    assert changed["latency_mode"] == "reduced"
    await mux.go_live(stream)
    status, _ = await mux.refused(mux.streams.update_live_stream, stream["id"], {"latency_mode": "low"})
    assert status == 400


def media_sequence(playlist: str) -> int:
    found = re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", playlist)
    assert found
    return int(found[1])


async def test_live_playlist_is_there_only_while_active_and_moves_only_with_media() -> None:
    """Provider facts, Mux 6 and 16.22: 412 before, 200 while active, end mark after idle, 404 after the deletion."""
    async with running() as mux:
        stream = await mux.create(playback_policies=["public"], reconnect_window=1800)
        playback_id = stream["playback_ids"][0]["id"]
        assert (await mux.play(playback_id))[0] == 412
        encoder = await mux.publish(stream["stream_key"])
        await mux.effect("ingest.connected", stream["id"])
        assert (await mux.play(playback_id))[0] == 412
        await encoder.media()
        await mux.effect("stream.active", stream["id"])
        status, first = await mux.play(playback_id)
        assert status == 200
        assert first.startswith("#EXTM3U")
        assert ".ts" in first

        async def moved() -> bool:
            return media_sequence((await mux.play(playback_id))[1]) > media_sequence(first)

        await eventually(moved)
        await encoder.leave()
        await mux.effect("stream.disconnected", stream["id"])
        stalled = (await mux.play(playback_id))[1]
        await mux.pass_time(6)
        assert await mux.play(playback_id) == (200, stalled)
        assert "#EXT-X-ENDLIST" not in stalled

        await asyncio.to_thread(mux.streams.signal_live_stream_complete, stream["id"])
        status, ended = await mux.play(playback_id)
        assert status == 200
        assert "#EXT-X-ENDLIST" in ended

        # A disable does not take the end mark away, and no time does: viewers are behind.
        await asyncio.to_thread(mux.streams.disable_live_stream, stream["id"])
        await mux.pass_time(300)
        assert await mux.play(playback_id) == (200, ended)
        await asyncio.to_thread(mux.streams.delete_live_stream, stream["id"])
        assert (await mux.play(playback_id))[0] == 404


async def test_only_playback_ids_play(mux: Mux) -> None:
    """Provider facts, Mux 6: a live stream id is 404."""
    stream = await mux.create(playback_policies=["public"])
    assert (await mux.play(stream["id"]))[0] == 404


async def test_recording_plays_by_its_own_playback_id(mux: Mux) -> None:
    """Provider facts, Mux 6: DVR while live, then VOD."""
    stream = await mux.create(reconnect_window=0, new_asset_settings={"playback_policies": ["public"]})
    encoder = await mux.go_live(stream)
    asset_id = (await mux.effect("asset.ready", stream["id"]))["asset"]
    playback_id = (await mux.raw(mux.assets.get_asset, asset_id))["playback_ids"][0]["id"]
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in (await mux.play(playback_id))[1]
    await encoder.leave()
    await mux.effect("asset.completed", stream["id"])
    assert "#EXT-X-PLAYLIST-TYPE:VOD" in (await mux.play(playback_id))[1]


def token(claims: dict[str, Any], key: rsa.RSAPrivateKey | None = None, kid: str = "k1") -> str:
    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    head = {"alg": "RS256", "typ": "JWT", "kid": kid}
    signed = f"{part(json.dumps(head).encode())}.{part(json.dumps(claims).encode())}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()) if key is not None else b"none"
    return f"{signed}.{part(signature)}"


async def test_signed_playback_needs_a_token_and_nothing_else() -> None:
    """Provider facts, Mux 6 and 16.22: no token, other id, expired, extra parameter, token on a public id."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    async with running(signing_keys={"k1": pem.decode()}) as mux:
        stream = await mux.create(playback_policies=["public", "signed"])
        public, signed = (one["id"] for one in stream["playback_ids"])
        await mux.go_live(stream)
        claims = {"sub": signed, "aud": "v", "exp": time.time() + 60}
        good = token(claims, key)
        assert (await mux.play(signed, token=good))[0] == 200
        assert (await mux.play(signed))[0] == 403
        assert (await mux.play(signed, token=good, max_resolution="720p"))[0] == 403
        assert (await mux.play(public, token=good))[0] == 403
        for bad in (
            token(claims | {"sub": public}, key),
            token(claims | {"exp": time.time() - 1}, key),
            token(claims | {"aud": "t"}, key),
            token(claims),
            token(claims, key, kid="k2"),
            "no.jwt",
            good[:-5],
        ):
            assert (await mux.play(signed, token=bad))[0] == 403


async def test_without_signing_keys_the_signature_is_not_looked_at(mux: Mux) -> None:
    stream = await mux.create(playback_policies=["signed"])
    playback_id = stream["playback_ids"][0]["id"]
    assert (await mux.play(playback_id, token=token({"sub": playback_id})))[0] == 412
    assert (await mux.play(playback_id, token=token({"sub": "other"})))[0] == 403
