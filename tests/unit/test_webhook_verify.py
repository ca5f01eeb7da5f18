"""Whether a webhook is the provider's, told from anything an attacker may send instead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import example, given
from hypothesis import strategies as st
from livekit import api

from service.domain.secret import Secret
from service.webhooks.intake import livekit_broadcast, mux_broadcast
from service.webhooks.verify import from_livekit, from_mux

# Of Mux's own SDK tests.
VECTOR = "854ece4c22acef7c66b57d4e504153bc512595e8e9c772ece2a68150548c19a7"
MUX, NOW, BODY = Secret("SuperSecret123"), 1565125718, b'{"test":"body"}'
HEADER = f"t={NOW},v1={VECTOR}"


def signed(secret: str, body: bytes = BODY, at: int | str = NOW) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def test_the_vector_of_mux() -> None:
    assert signed("SuperSecret123") == VECTOR
    assert from_mux(HEADER, BODY, [MUX], now=NOW)


@pytest.mark.parametrize(
    "header",
    [
        f"t={NOW},v1={VECTOR}",
        f" t={NOW} , v1={VECTOR} ",
        f"v1={VECTOR},t={NOW}",
        f"t={NOW},v1={'0' * 64},v1={VECTOR}",
        f"t={NOW},v1={VECTOR},v1={'0' * 64}",
        f"t={NOW},v1=,v1={VECTOR},v0=x,junk",
        f"t={NOW},v1=é,v1={VECTOR}",
    ],
)
def test_mux_forms_that_verify(header: str) -> None:
    assert from_mux(header, BODY, [MUX], now=NOW)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ",",
        "=",
        f"t={NOW}",
        f"v1={VECTOR}",
        f"t=,v1={VECTOR}",
        f"t={NOW},v1=",
        f"t={NOW},v0={VECTOR}",
        f"t={NOW},V1={VECTOR}",
        f"t={NOW},v1={VECTOR.upper()}",
        f"t={NOW},v1={VECTOR[:-1]}",
        f"t={NOW},v1={VECTOR}0",
        f"t={NOW},v1={VECTOR[:-1]}8",
        f"t={NOW},v1=\udcff\udcfe",
        f"t={NOW},v1=é{VECTOR}",
        f"t={NOW},t={NOW},v1={VECTOR}",
        f"t={NOW},t={NOW - 1},v1={VECTOR}",
        f"t={NOW - 1},v1={VECTOR}",
        f"t=-{NOW},v1={VECTOR}",
        f"t={NOW}.0,v1={VECTOR}",
        f"t=+{NOW},v1={VECTOR}",
        f"t={NOW}_0,v1={VECTOR}",
        f"t=٢{NOW},v1={VECTOR}",
        f"t={'9' * 5000},v1={VECTOR}",
        f"t={'9' * 13},v1={VECTOR}",
        f"t={NOW},{'v1=0,' * 1000}v1={VECTOR}",
        "\x00",
        VECTOR,
    ],
)
def test_mux_forms_that_do_not(header: str) -> None:
    assert from_mux(header, BODY, [MUX], now=NOW) is False


@pytest.mark.parametrize("place", range(len(BODY)))
def test_any_altered_byte_is_noticed(place: int) -> None:
    altered = bytearray(BODY)
    altered[place] ^= 1
    assert not from_mux(HEADER, bytes(altered), [MUX], now=NOW)


def test_a_longer_or_shorter_body_is_noticed() -> None:
    for body in (b"", BODY[:-1], BODY + b" ", b"." + BODY):
        assert not from_mux(HEADER, body, [MUX], now=NOW)


@pytest.mark.parametrize(
    ("age_s", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False), (86_400, False)]
)
def test_a_mux_signature_holds_for_five_minutes_to_both_sides(age_s: int, good: bool) -> None:  # noqa: FBT001
    assert from_mux(HEADER, BODY, [MUX], now=NOW + age_s) is good


def test_a_time_that_was_not_signed_does_not_make_an_old_body_new() -> None:
    later = NOW + 10_000
    assert not from_mux(f"t={later},v1={VECTOR}", BODY, [MUX], now=later)


def test_mux_secrets_that_are_being_rotated() -> None:
    old, new = Secret("old"), Secret("new")
    by_old = f"t={NOW},v1={signed('old')}"
    assert from_mux(by_old, BODY, [new, old], now=NOW)
    assert from_mux(by_old, BODY, [old, new], now=NOW)
    assert not from_mux(by_old, BODY, [new], now=NOW)
    assert not from_mux(by_old, BODY, [], now=NOW)
    assert from_mux(f"t={NOW},v1={signed('third')},v1={signed('new')}", BODY, [old, new], now=NOW)


KEY, SECRET = "devkey", "a-secret-of-at-least-thirty-two-bytes"
LONG = "a-secret-of-at-least-sixty-four-bytes-which-every-hash-takes-without-a-warning"
SECRETS = {KEY: Secret(SECRET), "second": Secret("another-secret-of-at-least-thirty-two-bytes")}
EVENT = b'{"event":"room_started","room":{"name":"first"}}'
HASH = base64.b64encode(hashlib.sha256(EVENT).digest()).decode()


def sdk_token(*, key: str = KEY, secret: str = SECRET, sha256: str = HASH, ttl_s: float = 300) -> str:
    return api.AccessToken(key, secret).with_sha256(sha256).with_ttl(timedelta(seconds=ttl_s)).to_jwt()


def token(*, secret: Any = SECRET, algorithm: str = "HS256", drop: str = "", **claims: Any) -> str:
    now = int(time.time())
    whole: dict[str, Any] = {"iss": KEY, "exp": now + 300, "nbf": now, "sha256": HASH, **claims}
    whole.pop(drop, None)
    return jwt.encode(whole, secret, algorithm=algorithm)


def raw_token(header: bytes, payload: bytes, secret: str = SECRET) -> str:
    """Signed as it should be, whatever it says."""

    def encoded(part: bytes) -> bytes:
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    signing = encoded(header) + b"." + encoded(payload)
    signature = hmac.new(secret.encode(), signing, hashlib.sha256).digest()
    return (signing + b"." + encoded(signature)).decode()


def test_what_the_sdk_signs_verifies() -> None:
    assert from_livekit(sdk_token(), EVENT, SECRETS)
    assert from_livekit(f"Bearer {sdk_token()}", EVENT, SECRETS)
    assert from_livekit(f"  {sdk_token()} ", EVENT, SECRETS)
    assert from_livekit(sdk_token(key="second", secret=SECRETS["second"].reveal()), EVENT, SECRETS)
    assert from_livekit(token(), EVENT, SECRETS)


def test_what_is_a_little_late_or_early_verifies() -> None:
    now = int(time.time())
    assert from_livekit(token(exp=now - 50), EVENT, SECRETS)
    assert from_livekit(token(nbf=now + 50), EVENT, SECRETS)


def unsigned(**header: Any) -> str:
    payload = {"iss": KEY, "exp": int(time.time()) + 300, "sha256": HASH}
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT", **header}, payload))
    return b".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts), b""]).decode()


NESTED = b"[" * 3000


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(lambda: "", id="nothing"),
        pytest.param(lambda: "Bearer ", id="bearer of nothing"),
        pytest.param(lambda: "a.b.c", id="no token"),
        pytest.param(lambda: "é" * 20, id="not ascii"),
        pytest.param(lambda: "\udcff.\udcff.\udcff", id="not utf-8"),
        pytest.param(lambda: sdk_token(sha256="") + "x" * 5000, id="huge"),
        pytest.param(unsigned, id="alg none"),
        pytest.param(lambda: unsigned(alg="None"), id="alg None"),
        pytest.param(lambda: unsigned(alg=""), id="alg empty"),
        pytest.param(lambda: unsigned(alg=["HS256"]), id="alg list"),
        pytest.param(lambda: unsigned(alg=None), id="alg null"),
        pytest.param(lambda: token(secret="b" * 40), id="another secret"),
        pytest.param(lambda: token(secret="x" * 40, iss="second"), id="the secret of another key"),
        pytest.param(lambda: token(iss="second"), id="our secret, another key's name"),
        pytest.param(lambda: token(iss="nobody"), id="unknown issuer"),
        pytest.param(lambda: token(iss=""), id="empty issuer"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":["devkey"],"exp":9999999999}'), id="issuer list"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":{},"exp":9999999999}'), id="issuer object"),
        pytest.param(lambda: token(drop="iss"), id="no issuer"),
        pytest.param(lambda: token(drop="exp"), id="no end"),
        pytest.param(lambda: token(exp=int(time.time()) - 70), id="over"),
        pytest.param(lambda: token(nbf=int(time.time()) + 70), id="not begun"),
        pytest.param(lambda: token(drop="sha256"), id="no hash"),
        pytest.param(lambda: token(sha256=""), id="empty hash"),
        pytest.param(lambda: token(sha256=None), id="null hash"),
        pytest.param(lambda: token(sha256=[HASH]), id="list of hash"),
        pytest.param(lambda: token(sha256=hashlib.sha256(EVENT).hexdigest()), id="hex hash"),
        pytest.param(lambda: token(sha256=base64.b64encode(hashlib.sha256(b"x").digest()).decode()), id="wrong hash"),
        pytest.param(lambda: token(sha256="\ud800"), id="hash that is no text"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b"[1]"), id="list of claims"),
        pytest.param(lambda: raw_token(b'["HS256"]', b"{}"), id="list for a header"),
        pytest.param(lambda: raw_token(NESTED[:200], b"{}"), id="broken header"),
        pytest.param(lambda: raw_token(NESTED[:2500], b"{}"), id="deep header"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', NESTED[:2500]), id="deep claims"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":"devkey","exp":1e400}'), id="endless"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":"devkey","exp":[]}'), id="end list"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":"devkey","exp":NaN}'), id="end nan"),
        pytest.param(
            lambda: raw_token(b'{"alg":"HS256"}', b'{"iss":"devkey","exp":9999999999,"nbf":1e400}'), id="never begun"
        ),
        pytest.param(
            lambda: raw_token(b'{"alg":"HS256","b64":false}', b'{"iss":"devkey","exp":9999999999}'), id="detached"
        ),
        pytest.param(lambda: raw_token(b'{"alg":"HS256","kid":{}}', b"{}"), id="kid object"),
    ],
)
def test_what_livekit_did_not_sign(forged: Any) -> None:
    header = forged()
    assert from_livekit(header, EVENT, SECRETS) is False
    assert from_livekit(f"Bearer {header}", EVENT, SECRETS) is False


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_no_other_algorithm_is_taken_with_the_right_secret(algorithm: str) -> None:
    assert from_livekit(token(secret=LONG), EVENT, {KEY: Secret(LONG)})
    assert not from_livekit(token(secret=LONG, algorithm=algorithm), EVENT, {KEY: Secret(LONG)})


def test_a_public_key_is_no_shared_secret() -> None:
    """RS/HS confusion: neither what RSA signed verifies, nor what a public key signed as if it were a secret."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert not from_livekit(token(secret=private, algorithm="RS256"), EVENT, SECRETS)
    # Were the public key our secret by mistake, everybody could sign: PyJWT refuses it as one.
    confused = raw_token(
        b'{"alg":"HS256"}', json.dumps({"iss": KEY, "exp": 9999999999, "sha256": HASH}).encode(), public.decode()
    )
    assert not from_livekit(confused, EVENT, {KEY: Secret(public.decode())})
    assert not from_livekit(confused, EVENT, SECRETS)


def test_a_token_is_of_its_body_alone() -> None:
    for body in (b"", EVENT[:-1], EVENT + b"\n", EVENT.replace(b"first", b"third")):
        assert not from_livekit(sdk_token(), body, SECRETS)
    assert not from_livekit(sdk_token(), EVENT, {})


headers = st.text() | st.text("tv1=, .0123456789abcdef") | st.text(st.characters(codec=None, categories=["Cs", "L"]))


@given(headers, st.binary())
@example(f"t={NOW},v1=\udcff", BODY)
def test_no_header_makes_mux_verification_fail_otherwise(header: str, body: bytes) -> None:
    assert from_mux(header, body, [MUX], now=NOW) is False
    assert from_mux(f"t={NOW},v1={header}", body, [MUX], now=NOW) is False


@given(headers | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()), st.binary())
def test_no_header_makes_livekit_verification_fail_otherwise(header: str, body: bytes) -> None:
    assert from_livekit(header, body, SECRETS) is False
    assert from_livekit(f"{header}.{header}.{header}", body, SECRETS) is False


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["room", "name", "egressInfo", "roomName", "data", "passthrough", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["iss", "exp", "nbf", "iat", "sha256", "sub", "aud", "jti"]), json_values))
def test_no_claims_of_a_known_signer_make_verification_fail_otherwise(claims: dict[str, Any]) -> None:
    signed_claims = raw_token(b'{"alg":"HS256"}', json.dumps({"iss": KEY, "exp": 9999999999, **claims}).encode())
    assert from_livekit(signed_claims, EVENT, SECRETS) is False


@given(st.dictionaries(st.sampled_from(["room", "egressInfo", "data", "x"]), json_values))
def test_any_json_is_about_some_broadcast_or_none(event: dict[str, Any]) -> None:
    for found in (livekit_broadcast(event), mux_broadcast(event, "bs1:test:"), mux_broadcast(event, "")):
        assert isinstance(found, str)
        assert found.isprintable()


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"room": {"name": "first"}}, "first"),
        ({"egressInfo": {"roomName": "first"}}, "first"),
        ({"room": {"name": ""}, "egressInfo": {"roomName": "first"}}, "first"),
        ({"room": {"name": "a\x00b"}}, ""),
        ({"room": "first"}, ""),
        ({}, ""),
    ],
)
def test_whom_a_livekit_event_is_about(event: dict[str, Any], found: str) -> None:
    assert livekit_broadcast(event) == found


@pytest.mark.parametrize(
    ("passthrough", "found"),
    [
        ("bs1:test:first:0", "first"),
        ("bs1:test:fi:rst:12", "fi:rst"),
        ("bs1:prod:first:0", ""),
        ("bs1:test2:first:0", ""),
        ("bs1:test:", ""),
        ("bs1:test:first", ""),
        ("first", ""),
        ("bs1:test:a\x00b:0", ""),
        (None, ""),
        (["bs1:test:first:0"], ""),
    ],
)
def test_whom_a_mux_event_is_about(passthrough: object, found: str) -> None:
    assert mux_broadcast({"data": {"passthrough": passthrough}}, "bs1:test:") == found
