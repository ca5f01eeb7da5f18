"""A replica with another environment, other accounts or other keys does not start on the database of others."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from service.domain.broadcast import Spec
from service.domain.secret import Secret
from service.store.bound import Owner, Refused, check, forget_keys
from tests.integration.store_stage import KEYS, NOBODYS, store
from tests.stack import running_stack

PROD = Owner(environment="prod", accounts={"livekit": ["lk.example key a"], "mux": ["token t", "environment e"]})
NEW = b"n" * 32


@pytest.mark.parametrize(
    ("environment", "livekit", "mux", "told"),
    [
        ("staging", "lk.example key a", "token t", "environment 'prod', not 'staging'"),
        ("prod", "lk.example key b", "token t", "livekit account lk.example key a, not lk.example key b"),
        ("prod", "other.example key a", "token t", "livekit account"),
        ("prod", "lk.example key a", "token u", "mux account"),
    ],
)
async def test_another_owner_is_refused_in_one_line_that_says_how_to_rebind(
    database_url: str, environment: str, livekit: str, mux: str, told: str
) -> None:
    async with store(database_url) as one:
        await check(one.database, PROD, KEYS)
        other = Owner(environment=environment, accounts={"livekit": [livekit], "mux": [mux]})
        with pytest.raises(Refused) as caught:
            await check(one.database, other, KEYS)
        assert told in str(caught.value)
        assert "migrate --rebind" in str(caught.value)
        assert "\n" not in str(caught.value)
        await check(one.database, PROD, KEYS)


async def test_a_new_token_of_the_same_mux_environment_is_the_same_account(database_url: str) -> None:
    async with store(database_url) as one:
        await check(one.database, PROD, KEYS)
        rotated = Owner(environment="prod", accounts={**PROD.accounts, "mux": ["token new", "environment e"]})
        await check(one.database, rotated, KEYS)


async def test_keys_that_open_nothing_of_what_is_stored_are_refused(database_url: str) -> None:
    async with store(database_url) as one:
        await check(one.database, PROD, KEYS)
        with pytest.raises(Refused, match="BROADCAST_SECRET_KEYS: none of the keys opens"):
            await check(one.database, PROD, [NEW])


async def test_a_database_of_an_earlier_version_is_judged_by_what_is_sealed_in_it(database_url: str) -> None:
    async with store(database_url) as one:
        await one.started("show", Spec(), {"youtube": Secret("a-key")})
        with pytest.raises(Refused, match="broadcast/show"):
            await check(one.database, PROD, [NEW])
        await check(one.database, PROD, KEYS)


async def test_keys_are_rotated_in_two_steps_and_the_old_one_is_forgotten_at_the_end(database_url: str) -> None:
    old = KEYS[0]
    async with store(database_url) as one:
        for keys in ([old], [old, NEW], [NEW, old], [old, NEW], [NEW, old]):
            await check(one.database, PROD, keys)
        assert await one.sql("SELECT count(*) FROM sealing_key") == 2
        with pytest.raises(Refused, match="forget-keys"):
            await check(one.database, PROD, [NEW])
        await one.broadcasts.create("show", Spec(), {"youtube": Secret("a-key")}, {}, NOBODYS)
        with pytest.raises(Refused, match="broadcast/show"):
            await forget_keys(one.database, [NEW])
        await one.sql("UPDATE broadcast SET target = 'ENDED', state = 'ENDED'")
        assert await forget_keys(one.database, [NEW]) == 1
        await check(one.database, PROD, [NEW])
        with pytest.raises(Refused):
            await check(one.database, PROD, [old])


async def test_nothing_is_written_once_all_is_bound(database_url: str) -> None:
    """A database that is full or read-only is no reason to refuse a restart."""
    async with store(database_url) as one:
        await check(one.database, PROD, KEYS)
        for table in ("bound", "sealing_key"):
            await one.sql(f"CREATE RULE refuse_{table} AS ON INSERT TO {table} DO INSTEAD SELECT 1 / 0")
        await check(one.database, PROD, KEYS)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BROADCAST_ENVIRONMENT", "staging"),
        ("MUX_TOKEN_ID", "another"),
        ("BROADCAST_SECRET_KEYS", base64.b64encode(NEW).decode()),
    ],
)
async def test_serve_ends_with_one_line(database_url: str, tmp_path: Path, variable: str, value: str) -> None:
    async with running_stack(database_url, webhooks=False) as stack:
        replica = await stack.replica()
        await replica.end()
        process = await stack.process(tmp_path / "out", **{variable: value, "LOG_LEVEL": "error"})
        assert await asyncio.wait_for(process.process.wait(), 30) == 1
        [line] = process.output.read_text().splitlines()
        assert line.startswith(("DATABASE_URL: this database is bound to", "BROADCAST_SECRET_KEYS: none of the keys"))
        assert base64.b64encode(NEW).decode() not in line
