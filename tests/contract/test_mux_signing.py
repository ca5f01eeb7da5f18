"""Playback tokens: what the service signs is taken by the simulated Mux, and nothing else is."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import mux_python
import pytest

from service.domain.ports import TokenUse
from service.domain.secret import Secret
from service.providers.mux.signing import Signer, SigningKey
from tests.contract.mux_bench import Mux, running
from tests.signing import public_pem, signing_key_pem

NOW = datetime(2026, 11, 30, 12, 1, tzinfo=UTC)


def key(number: int = 0, id_: str = "k1") -> SigningKey:
    return SigningKey.of(id_, signing_key_pem(number))


def read(token: Secret, number: int = 0, audience: str = "v") -> dict[str, Any]:
    return jwt.decode(
        token.reveal(), public_pem(number), algorithms=["RS256"], audience=audience, options={"verify_exp": False}
    )


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("use", "audience"),
    [
        (TokenUse.VIDEO, "v"),
        (TokenUse.THUMBNAIL, "t"),
        (TokenUse.STORYBOARD, "s"),
        (TokenUse.COUNTS, "live_stream_id"),
    ],
)
def test_a_token_names_its_key_twice_and_says_what_it_is_for_and_until_when(use: TokenUse, audience: str) -> None:
    signed = Signer([key()]).sign("PB1", use, until=NOW)
    assert signed.expire_time == NOW + timedelta(minutes=4), "at a full five minutes"
    claims = read(signed.token, audience=audience)
    assert claims == {"sub": "PB1", "aud": audience, "exp": int(signed.expire_time.timestamp()), "kid": "k1"}
    assert jwt.get_unverified_header(signed.token.reveal()) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}


def test_the_first_key_signs() -> None:
    signed = Signer([key(1, "new"), key(0, "old")]).sign("PB1", TokenUse.VIDEO, until=NOW)
    assert read(signed.token, number=1)["kid"] == "new"


def test_viewers_of_the_same_minutes_share_a_token() -> None:
    signer = Signer([key()])
    first = signer.sign("PB1", TokenUse.VIDEO, until=NOW)
    assert signer.sign("PB1", TokenUse.VIDEO, until=NOW + timedelta(minutes=4)) is first
    for later in (
        signer.sign("PB1", TokenUse.VIDEO, until=NOW + timedelta(minutes=4, seconds=1)),
        signer.sign("PB1", TokenUse.THUMBNAIL, until=NOW),
        signer.sign("PB2", TokenUse.VIDEO, until=NOW),
    ):
        assert later.token != first.token


def test_few_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.providers.mux.signing._KEPT", 2)
    signer = Signer([key()])
    first = signer.sign("PB1", TokenUse.VIDEO, until=NOW)
    for n in range(2, 4):
        signer.sign(f"PB{n}", TokenUse.VIDEO, until=NOW)
    assert signer.sign("PB1", TokenUse.VIDEO, until=NOW) is not first


@pytest.mark.parametrize("form", ["pem", "base64", "base64 in lines", "escaped"])
def test_a_private_key_is_read_in_every_form_in_which_it_is_kept(form: str) -> None:
    pem = signing_key_pem()
    text = {
        "pem": pem,
        "base64": base64.b64encode(pem.encode()).decode(),
        "base64 in lines": base64.encodebytes(pem.encode()).decode(),
        "escaped": pem.replace("\n", "\\n"),
    }[form]
    assert SigningKey.of("k1", text) == key()


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "aHVudGVyMg==",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        public_pem(),
        "",
    ],
)
def test_what_is_no_private_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"PEM|RSA") as caught:
        SigningKey.of("k1", text)
    assert "hunter2" not in str(caught.value)
    assert "BEGIN" not in repr(key())


async def test_the_simulated_mux_takes_the_tokens_of_a_key_that_it_made() -> None:
    async with running() as mux:
        made = await mux.raw(signing_keys(mux).create_signing_key)
        signer = Signer([SigningKey.of(made["id"], made["private_key"])])
        signed, public = await live_ids(mux)
        for use, path in USES.items():
            token = signer.sign(signed, use, until=soon()).token.reveal()
            for other_use, other_path in USES.items():
                status = await got(mux, other_path.format(id=signed), token)
                assert status == (200 if other_use is use else 403), (use, other_use)
            assert await got(mux, path.format(id=signed), None) == 403
            assert await got(mux, path.format(id=public), token) == 403, "no token on a public id"
            assert await got(mux, path.format(id=public), None) == 200


async def test_once_a_key_is_registered_the_signature_the_key_and_the_end_are_looked_at() -> None:
    async with running() as mux:
        id_, private = mux.simulator.make_signing_key()
        other_id, _ = mux.simulator.make_signing_key()
        signed, _ = await live_ids(mux)
        pem = base64.b64decode(private).decode()
        claims = {"sub": signed, "aud": "v", "exp": int(time.time()) + 60}

        async def plays(claims: dict[str, Any], headers: dict[str, Any], pem: str = pem) -> bool:
            token = jwt.encode(claims, pem, algorithm="RS256", headers=headers)
            return (await mux.play(signed, token=token))[0] == 200

        assert await plays(claims, {"kid": id_})
        assert await plays({**claims, "kid": id_}, {})
        assert await plays({**claims, "kid": id_}, {"kid": id_})
        assert not await plays(claims, {})
        assert not await plays({**claims, "kid": other_id}, {"kid": id_})
        assert not await plays(claims, {"kid": other_id})
        assert not await plays(claims, {"kid": id_}, pem=signing_key_pem(1))
        assert not await plays({"sub": signed, "aud": "v"}, {"kid": id_}), "without an end"
        assert not await plays({**claims, "exp": int(time.time()) - 1}, {"kid": id_})
        keys = signing_keys(mux)
        assert {one["id"] for one in await mux.raw(keys.list_signing_keys)} == {id_, other_id}
        await asyncio.to_thread(keys.delete_signing_key, id_)
        assert not await plays(claims, {"kid": id_})


USES = {
    TokenUse.VIDEO: "playback/{id}.m3u8",
    TokenUse.THUMBNAIL: "image/{id}/thumbnail.png",
    TokenUse.STORYBOARD: "image/{id}/storyboard.vtt",
}


def signing_keys(mux: Mux) -> Any:
    """The generated code has no types."""
    return mux_python.SigningKeysApi(mux.client)


async def live_ids(mux: Mux) -> tuple[str, str]:
    """A signed and a public playback id of a live stream that is active."""
    stream = await mux.create(playback_policies=["signed", "public"])
    await mux.go_live(stream)
    signed, public = (one["id"] for one in stream["playback_ids"])
    return signed, public


async def got(mux: Mux, path: str, token: str | None) -> int:
    async with mux.http.get(f"{mux.base}/{path}", params={} if token is None else {"token": token}) as answer:
        return answer.status
