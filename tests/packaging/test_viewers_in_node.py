"""Viewers from Node: the recipe of docs/clients.md against the whole service, and playback tokens in the hands of
`jose` and of Mux's own SDK.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from broadcast.v1.broadcast_pb2 import PLAYBACK_POLICY_SIGNED, BroadcastSpec
from service.domain.ports import TokenUse
from service.providers.mux.signing import Signer, SigningKey
from tests.contract.mux_bench import running
from tests.e2e.show import Show
from tests.stack import running_stack

ROOT = Path(__file__).parents[2]
NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "network")


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(200):
        out, _ = await process.communicate()
    told = out.decode()
    if process.returncode and any(each in told for each in NO_REGISTRY):
        pytest.skip("!!! SKIPPED: no package registry can be reached")
    assert process.returncode == 0, told
    return told


async def installed(folder: Path) -> Path:
    if not shutil.which("npm"):
        pytest.skip("!!! SKIPPED: there is no npm here")
    await run("npm", "ci", "--no-audit", "--no-fund", "--fetch-retries", "0", cwd=folder)
    return folder


@pytest.mark.registry
@pytest.mark.timeout(300)
async def test_tokens_are_taken_by_jose_and_those_of_mux_node_by_the_simulated_mux(tmp_path: Path) -> None:
    folder = await installed(Path(shutil.copytree(ROOT / "tests/packaging/node", tmp_path / "node")))
    async with running() as mux:
        key_id, private = mux.simulator.make_signing_key()
        stream = await mux.create(playback_policies=["signed"])
        await mux.go_live(stream)
        playback_id = stream["playback_ids"][0]["id"]
        key = SigningKey.of(key_id, private)
        token = Signer([key]).sign(playback_id, TokenUse.VIDEO, until=datetime.now(UTC) + timedelta(hours=1))
        public = (
            key.load()
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        given = {
            "token": token.token.reveal(),
            "publicPem": public.decode(),
            "keyId": key_id,
            "privateKey": private,
            "playbackId": playback_id,
            "base": mux.base,
        }
        told = await run("node", "verify.mjs", json.dumps(given), cwd=folder)
    assert told.splitlines() == [
        "jose: RS256 true true",
        "service: video 200",
        "mux-node: video 200",
        "mux-node: thumbnail 200",
        "mux-node: storyboard 200",
    ]


@pytest.mark.registry
@pytest.mark.timeout(300)
async def test_the_recipe_of_a_viewer_runs(tmp_path: Path, database_url: str) -> None:
    for folder in ("protos", "clients/node"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("node_modules", "*.py", "*.pyi")
        )
    folder = await installed(tmp_path / "clients/node")
    async with running_stack(database_url) as stack:
        stack.environment["MUX_SIGNING_KEYS"] = ":".join(stack.mux.make_signing_key())
        replica = await stack.replica()
        client = await stack.client(replica.target)
        show = await Show.create(
            stack, client, BroadcastSpec(playback_policy=PLAYBACK_POLICY_SIGNED), broadcast_id="first"
        )
        live = await show.live()
        told = await run("node", "viewer.js", replica.target, "first", cwd=folder)
        assert told.splitlines() == [
            "watches by: hls",
            f"plays: {live.status.playback.playback_id} with tokens",
            "session 1 is SESSION_STATUS_INVALID",
            "left",
        ]
        joined = await client.playback.join("first", "bob")
        async with stack.http.get(joined.hls.playback.hls_url) as answer:
            assert answer.status == 200, "the address that a viewer is given plays"
        await show.ended()
