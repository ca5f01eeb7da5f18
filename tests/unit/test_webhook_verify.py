"""Whether a webhook is the provider's, told from anything an attacker may send instead."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from livekit import api

from service.domain.secret import NO_SECRET, Secret
from service.webhooks.verify import Refusal, from_livekit, from_mux, only

# A machine may be busy.
fuzzed = settings(deadline=None)

GOOD = None
NOT_SIGNED, TWICE, MALFORMED = Refusal.NOT_SIGNED, Refusal.TWICE_SIGNED, Refusal.MALFORMED
STALE, FORGED, OTHER_BODY = Refusal.STALE, Refusal.FORGED, Refusal.OTHER_BODY

# Of Mux's own SDK tests.
VECTOR = "854ece4c22acef7c66b57d4e504153bc512595e8e9c772ece2a68150548c19a7"
MUX, NOW, BODY = Secret("SuperSecret123"), 1565125718, b'{"test":"body"}'
HEADER = f"t={NOW},v1={VECTOR}"


def signed(secret: str, body: bytes = BODY, at: int | str = NOW) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def test_the_vector_of_mux() -> None:
    assert signed("SuperSecret123") == VECTOR
    assert from_mux(HEADER, BODY, [MUX], now=NOW) is GOOD


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        (f"t={NOW},v1={VECTOR}", GOOD),
        (f" t={NOW} , v1={VECTOR} ", GOOD),
        (f"v1={VECTOR},t={NOW}", GOOD),
        (f"t={NOW},v1={'0' * 64},v1={VECTOR}", GOOD),
        (f"t={NOW},v1={VECTOR},v1={'0' * 64}", GOOD),
        (f"t={NOW},v1=,v1={VECTOR},v0=x,junk", GOOD),
        (f"t={NOW},v1=é,v1={VECTOR}", GOOD),
        ("", MALFORMED),
        (",", MALFORMED),
        ("=", MALFORMED),
        (VECTOR, MALFORMED),
        ("\x00", MALFORMED),
        (f"v1={VECTOR}", MALFORMED),
        (f"t=,v1={VECTOR}", MALFORMED),
        (f"t={NOW},t={NOW},v1={VECTOR}", MALFORMED),
        (f"t={NOW},t={NOW - 1},v1={VECTOR}", MALFORMED),
        (f"t=-{NOW},v1={VECTOR}", MALFORMED),
        (f"t={NOW}.0,v1={VECTOR}", MALFORMED),
        (f"t=+{NOW},v1={VECTOR}", MALFORMED),
        (f"t={NOW}_0,v1={VECTOR}", MALFORMED),
        (f"t=٢{NOW},v1={VECTOR}", MALFORMED),
        (f"t={'9' * 5000},v1={VECTOR}", MALFORMED),
        (f"t={'9' * 13},v1={VECTOR}", MALFORMED),
        (f"t={NOW},{'v1=0,' * 200}v1={VECTOR}", MALFORMED),
        (f"t={NOW}", FORGED),
        (f"t={NOW},v1=", FORGED),
        (f"t={NOW},v0={VECTOR}", FORGED),
        (f"t={NOW},V1={VECTOR}", FORGED),
        (f"t={NOW},v1={VECTOR.upper()}", FORGED),
        (f"t={NOW},v1={VECTOR[:-1]}", FORGED),
        (f"t={NOW},v1={VECTOR}0", FORGED),
        (f"t={NOW},v1={VECTOR[:-1]}8", FORGED),
        (f"t={NOW},v1=\udcff\udcfe", FORGED),
        (f"t={NOW},v1=é{VECTOR}", FORGED),
        (f"t={NOW - 1},v1={VECTOR}", FORGED),
        (f"t={NOW - 10_000},v1={signed('SuperSecret123', at=NOW - 10_000)}", STALE),
    ],
)
def test_forms_of_the_mux_header(header: str, refusal: Refusal | None) -> None:
    assert from_mux(header, BODY, [MUX], now=NOW) is refusal


@pytest.mark.parametrize("place", range(len(BODY)))
def test_any_altered_byte_is_noticed(place: int) -> None:
    altered = bytearray(BODY)
    altered[place] ^= 1
    assert from_mux(HEADER, bytes(altered), [MUX], now=NOW) is FORGED


def test_a_longer_or_shorter_body_is_noticed() -> None:
    for body in (b"", BODY[:-1], BODY + b" ", b"." + BODY):
        assert from_mux(HEADER, body, [MUX], now=NOW) is FORGED


@pytest.mark.parametrize(
    ("age_s", "refusal"), [(0, GOOD), (300, GOOD), (-300, GOOD), (301, STALE), (-301, STALE), (86_400, STALE)]
)
def test_a_mux_signature_holds_for_five_minutes_to_both_sides(age_s: int, refusal: Refusal | None) -> None:
    assert from_mux(HEADER, BODY, [MUX], now=NOW + age_s) is refusal


def test_a_time_that_was_not_signed_does_not_make_an_old_body_new() -> None:
    later = NOW + 10_000
    assert from_mux(f"t={later},v1={VECTOR}", BODY, [MUX], now=later) is FORGED


def test_mux_secrets_that_are_being_rotated() -> None:
    old, new = Secret("old"), Secret("new")
    by_old = f"t={NOW},v1={signed('old')}"
    assert from_mux(by_old, BODY, [new, old], now=NOW) is GOOD
    assert from_mux(by_old, BODY, [old, new], now=NOW) is GOOD
    assert from_mux(by_old, BODY, [new], now=NOW) is FORGED
    assert from_mux(f"t={NOW},v1={signed('third')},v1={signed('new')}", BODY, [old, new], now=NOW) is GOOD


def test_without_a_secret_nothing_verifies() -> None:
    """Above all not what is signed with the empty key, which everybody has."""
    by_nobody = f"t={NOW},v1={signed('')}"
    assert from_mux(by_nobody, BODY, [], now=NOW) is FORGED
    assert from_mux(by_nobody, BODY, [NO_SECRET], now=NOW) is FORGED
    assert from_mux(by_nobody, BODY, [NO_SECRET, MUX], now=NOW) is FORGED
    assert from_mux(HEADER, BODY, [NO_SECRET, MUX], now=NOW) is GOOD
    claims = {"iss": KEY, "exp": 9999999999, "nbf": 0, "sha256": HASH}
    forged = raw_token(b'{"alg":"HS256"}', json.dumps(claims).encode(), secret="")
    for secrets in ({}, {KEY: NO_SECRET}, {"": NO_SECRET}):
        assert from_livekit(forged, EVENT, secrets) is FORGED


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
    assert from_livekit(sdk_token(), EVENT, SECRETS) is GOOD
    for scheme in ("Bearer ", "bearer ", "BEARER   "):
        assert from_livekit(f"{scheme}{sdk_token()}", EVENT, SECRETS) is GOOD
    assert from_livekit(sdk_token(key="second", secret=SECRETS["second"].reveal()), EVENT, SECRETS) is GOOD
    assert from_livekit(token(), EVENT, SECRETS) is GOOD


def test_what_is_a_little_late_or_early_verifies() -> None:
    now = int(time.time())
    assert from_livekit(token(exp=now - 50), EVENT, SECRETS) is GOOD
    assert from_livekit(token(nbf=now + 50), EVENT, SECRETS) is GOOD


def unsigned(**header: Any) -> str:
    payload = {"iss": KEY, "exp": int(time.time()) + 300, "nbf": 0, "sha256": HASH}
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT", **header}, payload))
    return b".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts), b""]).decode()


NESTED = b"[" * 3000
HS256 = b'{"alg":"HS256"}'
BEYOND = b'{"iss":"devkey","nbf":0,"exp":9999999999}'


def other_hash() -> str:
    return base64.b64encode(hashlib.sha256(b"x").digest()).decode()


@pytest.mark.parametrize(
    ("forged", "refusal"),
    [
        pytest.param(lambda: "", MALFORMED, id="nothing"),
        pytest.param(lambda: "Bearer ", MALFORMED, id="bearer of nothing"),
        pytest.param(lambda: f"Basic {sdk_token()}", MALFORMED, id="another scheme"),
        pytest.param(lambda: "a.b.c", MALFORMED, id="no token"),
        pytest.param(lambda: "é" * 20, MALFORMED, id="not ascii"),
        pytest.param(lambda: "\udcff.\udcff.\udcff", MALFORMED, id="not utf-8"),
        pytest.param(lambda: sdk_token(sha256="") + "x" * 5000, MALFORMED, id="huge"),
        pytest.param(lambda: sdk_token()[:-1], None, id="truncated"),
        pytest.param(unsigned, FORGED, id="alg none"),
        pytest.param(lambda: unsigned(alg="None"), FORGED, id="alg None"),
        pytest.param(lambda: unsigned(alg=""), FORGED, id="alg empty"),
        pytest.param(lambda: unsigned(alg=["HS256"]), None, id="alg list"),
        pytest.param(lambda: unsigned(alg=None), None, id="alg null"),
        pytest.param(lambda: token(secret="b" * 40), FORGED, id="another secret"),
        pytest.param(lambda: token(secret="x" * 40, iss="second"), FORGED, id="the secret of another key"),
        pytest.param(lambda: token(iss="second"), FORGED, id="our secret, another key's name"),
        pytest.param(lambda: token(iss="nobody"), FORGED, id="unknown issuer"),
        pytest.param(lambda: token(iss=""), FORGED, id="empty issuer"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":["devkey"],"nbf":0,"exp":9999999999}'), None, id="issuer list"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":{},"nbf":0,"exp":9999999999}'), None, id="issuer object"),
        pytest.param(lambda: token(drop="iss"), FORGED, id="no issuer"),
        pytest.param(lambda: token(drop="exp"), MALFORMED, id="no end"),
        pytest.param(lambda: token(drop="nbf"), MALFORMED, id="no beginning"),
        pytest.param(lambda: token(exp=int(time.time()) - 70), STALE, id="over"),
        pytest.param(lambda: token(nbf=int(time.time()) + 70), STALE, id="not begun"),
        pytest.param(lambda: token(drop="sha256"), OTHER_BODY, id="no hash"),
        pytest.param(lambda: token(sha256=""), OTHER_BODY, id="empty hash"),
        pytest.param(lambda: token(sha256=None), OTHER_BODY, id="null hash"),
        pytest.param(lambda: token(sha256=[HASH]), OTHER_BODY, id="list of hash"),
        pytest.param(lambda: token(sha256=hashlib.sha256(EVENT).hexdigest()), OTHER_BODY, id="hex hash"),
        pytest.param(lambda: token(sha256=other_hash()), OTHER_BODY, id="wrong hash"),
        pytest.param(lambda: token(sha256="\ud800"), OTHER_BODY, id="hash that is no text"),
        pytest.param(lambda: raw_token(HS256, b"[1]"), MALFORMED, id="list of claims"),
        pytest.param(lambda: raw_token(b'["HS256"]', b"{}"), MALFORMED, id="list for a header"),
        pytest.param(lambda: raw_token(NESTED[:200], b"{}"), MALFORMED, id="broken header"),
        pytest.param(lambda: raw_token(NESTED[:2500], b"{}"), MALFORMED, id="deep header"),
        pytest.param(lambda: raw_token(HS256, NESTED[:2500]), MALFORMED, id="deep claims"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":"devkey","nbf":0,"exp":1e400}'), MALFORMED, id="endless"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":"devkey","nbf":0,"exp":[]}'), MALFORMED, id="end list"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":"devkey","nbf":0,"exp":NaN}'), MALFORMED, id="end nan"),
        pytest.param(lambda: raw_token(HS256, b'{"iss":"devkey","nbf":1e400,"exp":9999999999}'), MALFORMED, id="never"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256","b64":false}', BEYOND), MALFORMED, id="detached"),
        pytest.param(lambda: raw_token(b'{"alg":"HS256","kid":{}}', b"{}"), MALFORMED, id="kid object"),
    ],
)
def test_what_livekit_did_not_sign(forged: Callable[[], str], refusal: Refusal | None) -> None:
    """*refusal* None: whichever."""
    header = forged()
    for each in (header, f"Bearer {header}"):
        refused = from_livekit(each, EVENT, SECRETS)
        assert refused is not GOOD
        assert refusal in (refused, None)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_no_other_algorithm_is_taken_with_the_right_secret(algorithm: str) -> None:
    assert from_livekit(token(secret=LONG), EVENT, {KEY: Secret(LONG)}) is GOOD
    assert from_livekit(token(secret=LONG, algorithm=algorithm), EVENT, {KEY: Secret(LONG)}) is FORGED


def test_a_public_key_is_no_shared_secret() -> None:
    """RS/HS confusion: neither what RSA signed verifies, nor what a public key signed as if it were a secret."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert from_livekit(token(secret=private, algorithm="RS256"), EVENT, SECRETS) is FORGED
    # Were the public key our secret by mistake, everybody could sign: PyJWT refuses it as one.
    claims = {"iss": KEY, "exp": 9999999999, "nbf": 0, "sha256": HASH}
    confused = raw_token(HS256, json.dumps(claims).encode(), public.decode())
    assert from_livekit(confused, EVENT, {KEY: Secret(public.decode())}) is FORGED
    assert from_livekit(confused, EVENT, SECRETS) is FORGED


def test_a_token_is_of_its_body_alone() -> None:
    for body in (b"", EVENT[:-1], EVENT + b"\n", EVENT.replace(b"first", b"third")):
        assert from_livekit(sdk_token(), body, SECRETS) is OTHER_BODY


def test_the_token_of_a_participant_signs_no_webhook() -> None:
    """It is signed with the same secret, and every host and viewer has one."""
    grants = api.VideoGrants(room_join=True, room="first")
    participants = api.AccessToken(KEY, SECRET).with_identity("ann").with_grants(grants).to_jwt()
    assert from_livekit(participants, EVENT, SECRETS) is OTHER_BODY


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("Mux-Signature", HEADER)], HEADER),
        ([("MUX-SIGNATURE", f" {HEADER} "), ("Authorization", "x")], HEADER),
        ([], NOT_SIGNED),
        ([("Authorization", HEADER)], NOT_SIGNED),
        ([("Mux-Signature", "")], NOT_SIGNED),
        ([("Mux-Signature", "  ")], NOT_SIGNED),
        ([("Mux-Signature", HEADER), ("mux-signature", HEADER)], TWICE),
        ([("Mux-Signature", ""), ("Mux-Signature", HEADER)], TWICE),
    ],
)
def test_one_header_is_read(headers: list[tuple[str, str]], found: str | Refusal) -> None:
    assert only(headers, "mux-signature") == found


headers = st.text() | st.text("tv1=, .0123456789abcdef") | st.text(st.characters(codec=None, categories=["Cs", "L"]))


@fuzzed
@given(headers, st.binary())
@example(f"t={NOW},v1=\udcff", BODY)
def test_no_header_makes_mux_verification_fail_otherwise(header: str, body: bytes) -> None:
    assert from_mux(header, body, [MUX], now=NOW) is not GOOD
    assert from_mux(f"t={NOW},v1={header}", body, [MUX], now=NOW) in (FORGED, MALFORMED)


@fuzzed
@given(headers | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()), st.binary())
def test_no_header_makes_livekit_verification_fail_otherwise(header: str, body: bytes) -> None:
    assert from_livekit(header, body, SECRETS) is not GOOD
    assert from_livekit(f"{header}.{header}.{header}", body, SECRETS) is not GOOD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@fuzzed
@given(st.dictionaries(st.sampled_from(["iss", "exp", "nbf", "iat", "sha256", "sub", "aud", "jti"]), json_values))
def test_no_claims_of_a_known_signer_make_verification_fail_otherwise(claims: dict[str, Any]) -> None:
    said = {"iss": KEY, "exp": 9999999999, "nbf": 0, **claims}
    assert from_livekit(raw_token(HS256, json.dumps(said).encode()), EVENT, SECRETS) is not GOOD


@fuzzed
@given(st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "sub", "aud", "jti", "crit", "iss"]), json_values))
def test_no_claims_beside_the_right_hash_make_verification_raise(claims: dict[str, Any]) -> None:
    said = {"iss": KEY, "exp": 9999999999, "nbf": 0, **claims, "sha256": HASH}
    answer = from_livekit(raw_token(HS256, json.dumps(said).encode()), EVENT, SECRETS)
    assert answer is GOOD or isinstance(answer, Refusal)
    assert answer is not GOOD or said["iss"] == KEY
