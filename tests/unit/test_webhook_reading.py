"""What a verified body says, and that nothing it says makes reading it fail."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import telemetry
from service.domain.ports import Heard
from service.domain.provider import WEBHOOK_SENDERS, Provider
from service.domain.secret import Secret
from service.store.rows import heard_column, heard_of, postgres_text
from service.store.webhooks.stored import WebhookOutcome
from service.webhooks import reading
from service.webhooks.reading import Reader
from service.webhooks.worth import WORTH
from tests.webhook_bodies import EVERY, SECRETS, encoded, of

# A machine may be busy.
fuzzed = settings(deadline=None)

TAG = "bs1:test:"
READER = Reader(tag=TAG)
OURS = Reader(tag=TAG, mux_environment="j29sb4")
ACCEPTED, FOREIGN = WebhookOutcome.ACCEPTED, WebhookOutcome.FOREIGN
UNKNOWN, QUARANTINED = WebhookOutcome.UNKNOWN_TYPE, WebhookOutcome.QUARANTINED


def mux(type_: str = "video.live_stream.active", environment: Any = "j29sb4", **data: Any) -> bytes:
    return json.dumps(
        {
            "type": type_,
            "id": "5a3c2a2e-6f0b-4a51-9d0e-30f4ab4d2a11",
            "created_at": "2026-11-22T19:00:37.613000Z",
            "environment": {"name": "Test", "id": environment},
            "data": {"id": "LS1", "status": "active", "created_at": 1711134037, "passthrough": f"{TAG}first:0", **data},
        }
    ).encode()


def livekit(**event: Any) -> bytes:
    said = {"event": "room_started", "id": "EV_abcdefghijkl", "createdAt": "1764000000", "room": {"name": "first"}}
    return json.dumps({**said, **event}).encode()


@pytest.mark.parametrize(
    ("passthrough", "about"),
    [
        ("bs1:test:first:0", "first"),
        ("bs1:test:first:12", "first"),
        ("bs1:test:first:upload:0", "first"),
        ("bs1:test:first", "first"),
        ("bs1:prod:first:0", ""),
        ("bs1:test2:first:0", ""),
        ("bs1:test", ""),
        ("bs1:test:", ""),
        ("first", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_whom_a_mux_event_is_about(passthrough: object, about: str) -> None:
    read = READER.read(Provider.MUX, mux(passthrough=passthrough))
    assert (read.broadcast_id, read.outcome) == (about, ACCEPTED)


@pytest.mark.parametrize(
    ("event", "about"),
    [
        ({}, "first"),
        ({"room": {}, "egressInfo": {"egressId": "EG_1", "roomName": "second"}}, "second"),
        ({"room": {"name": "first", "sid": "RM_1"}, "egressInfo": {"egressId": "EG_1", "roomName": "x"}}, "first"),
        ({"room": None}, ""),
    ],
)
def test_whom_a_livekit_event_is_about(event: dict[str, Any], about: str) -> None:
    assert READER.read(Provider.LIVEKIT, livekit(**event)).broadcast_id == about


@pytest.mark.parametrize(
    ("environment", "outcome"), [("j29sb4", ACCEPTED), ("k30tc5", FOREIGN), ("", ACCEPTED), (None, ACCEPTED)]
)
def test_another_environment_of_mux_is_foreign_whatever_its_marks_say(
    environment: str | None, outcome: WebhookOutcome
) -> None:
    assert OURS.read(Provider.MUX, mux(environment=environment)).outcome is outcome
    assert READER.read(Provider.MUX, mux(environment=environment)).outcome is ACCEPTED


@pytest.mark.parametrize("provider", WEBHOOK_SENDERS)
def test_a_type_that_is_not_acted_on_is_unknown(provider: Provider) -> None:
    for type_ in [*(each for each, acted in WORTH[provider].items() if not acted), "something.new"]:
        body = livekit(event=type_) if provider is Provider.LIVEKIT else mux(type_)
        read = READER.read(provider, body)
        assert (read.outcome, read.type) == (UNKNOWN, type_)


BAD = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"no json",
    b"\xff\xfe",
    b"[" * 20_000,
    b'{"data":' * 20_000 + b"1" + b"}" * 20_000,
    b'{"id": 5, "type": "video.live_stream.active", "event": "room_started"}',
    b'{"id": "e", "type": "video.live_stream.active", "event": "room_started", "data": [], "room": [1]}',
    b'{"id": "e", "id": "f", "type": "video.live_stream.active", "event": "room_started"}',
    b'{"id": "e", "event": "room_started", "type": "video.live_stream.active", "x": NaN}',
    b'{"id": "e\\u0000", "event": "room_started", "type": "video.live_stream.active", "data": {"id": "x"}}',
    b'{"id": "\\ud800", "event": "room_started", "type": "video.live_stream.active", "data": {"id": "x"}}',
    b'{"id": "e", "event": "room_started", "type": "video.live_stream.active", "createdAt": 1' + b"0" * 5000 + b"}",
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body)[:50])
@pytest.mark.parametrize("provider", WEBHOOK_SENDERS)
def test_what_cannot_be_read_is_quarantined_under_the_hash_of_its_body(provider: Provider, body: bytes) -> None:
    read = READER.read(provider, body)
    assert (read.outcome, read.heard, read.type, read.broadcast_id) == (QUARANTINED, None, "", "")
    assert re.fullmatch("[0-9a-f]{64}", read.event_id)
    assert read.event_id != READER.read(provider, body + b" ").event_id
    json.loads(read.redacted)


def test_a_fault_of_ours_is_a_quarantine_and_says_nothing_of_the_body(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(body: bytes) -> Heard:
        raise KeyError(body.decode())

    monkeypatch.setitem(reading.HEARD, Provider.MUX, fails)
    read = READER.read(Provider.MUX, mux(stream_key="the-key-of-the-stream"))
    assert (read.outcome, read.redacted) == (QUARANTINED, "")
    told = capfd.readouterr()
    assert "KeyError" in told.out + told.err
    assert "the-key-of-the-stream" not in told.out + told.err


def test_what_a_pass_could_not_read_back_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    odd: Any = ["no", "text"]
    monkeypatch.setitem(
        reading.HEARD,
        Provider.MUX,
        lambda _: Heard(event_id="e", type="video.live_stream.active", provider_time=None, room_sid=odd),
    )
    assert READER.read(Provider.MUX, mux()).outcome is QUARANTINED


@pytest.mark.parametrize(("provider", "type_"), EVERY)
def test_every_type_is_read_and_no_secret_of_it_kept_in_clear(provider: Provider, type_: str) -> None:
    read = OURS.read(provider, encoded(of(provider, type_)))
    assert read.outcome is (ACCEPTED if WORTH[provider][type_] else UNKNOWN)
    assert read.type == type_
    kept = json.dumps(heard_column(read.heard)) + read.redacted
    assert not [secret for secret in SECRETS if secret in kept]
    # What LiveKit shows of a key tells outputs apart, and is no secret.
    assert ("{d8e...een}" in kept) == type_.startswith("egress_")


def test_a_secret_that_an_adapter_forgot_is_left_behind() -> None:
    read = READER.read(Provider.MUX, mux())
    assert read.heard is not None
    assert read.heard.stream is not None
    with_key = replace(read.heard, stream=replace(read.heard.stream, key=Secret("the-key-of-the-stream")))
    assert "the-key-of-the-stream" not in json.dumps(heard_column(with_key))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["first", "1e400"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    below: list[tuple[Any, ...]] = []
    if isinstance(value, dict | list):
        pairs: Any = value.items() if isinstance(value, dict) else enumerate(value)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
        for name, each in pairs:
            below += [(name,), *((name, *rest) for rest in paths(each))]
    return below


def with_value(event: Any, path: tuple[Any, ...], value: Any) -> None:
    *way, last = path
    with contextlib.suppress(LookupError, TypeError):
        for name in way:
            event = event[name]
        event[last] = value


@st.composite
def altered(draw: st.DrawFn, provider: Provider) -> Any:
    """A real one, a few places of which are something else."""
    event = copy.deepcopy(of(provider, draw(st.sampled_from(sorted(WORTH[provider])))))
    for path in draw(st.lists(st.sampled_from(paths(event)), max_size=3)):
        with_value(event, path, draw(json_values))
    return event


@fuzzed
@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read(body: bytes) -> None:
    for provider in WEBHOOK_SENDERS:
        check(provider, body)


@fuzzed
@given(altered(Provider.LIVEKIT))
def test_any_event_of_livekit_is_read(event: Any) -> None:
    check(Provider.LIVEKIT, json.dumps(event).encode())


@fuzzed
@given(altered(Provider.MUX))
def test_any_event_of_mux_is_read(event: Any) -> None:
    check(Provider.MUX, json.dumps(event).encode())


def check(provider: Provider, body: bytes) -> None:
    read = OURS.read(provider, body)
    assert (read.heard is None) == (read.outcome is QUARANTINED)
    assert 0 < len(read.event_id) <= 200
    for text in (read.event_id, read.type, read.redacted):
        assert postgres_text(text) == text
    if read.heard is not None:
        column = msgspec.json.decode(msgspec.json.encode(heard_column(read.heard)))
        assert heard_of({"heard": [[7, column]]}) == ((7, read.heard),)


@pytest.mark.parametrize(
    "begun",
    ["eyJ-", "eyJa.", "rtmp://", "rtmps://a/", "mux://{", "a://", "a://b:", "a://b:c@", "token'", "token = ", "?a://"],
)
def test_no_text_of_a_host_holds_up_everybody(begun: str) -> None:
    """Hosts write the metadata of participants, up to 64 kB; expressions that begin anew at every place took 14 s."""
    body = livekit(participant={"identity": "ann", "metadata": begun * (64_000 // len(begun))})
    # Of this thread alone: others use the machine as well.
    began = time.thread_time()
    assert READER.read(Provider.LIVEKIT, body).outcome is ACCEPTED
    assert time.thread_time() - began < 1.5


def test_the_page_says_what_is_acted_on() -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| (yes|no) \| \S", page, re.MULTILINE)
    assert dict(rows) == {type_: "yes" if acted else "no" for types in WORTH.values() for type_, acted in types.items()}
    assert len(rows) == len(dict(rows))


SIGNS = (
    *("eyJ", "-", ".", " ", "=", ":", "'", '"', "/", "@", "?", "a9", "é"),
    *("stream", "key", "_", "Bearer", "basic", "secret", "token", "passphrase", "password", "rtmp://a/b", "mux://x"),
)


@fuzzed
@given(st.lists(st.sampled_from(SIGNS)).map("".join))
def test_no_text_that_is_not_looked_at_closely_has_a_credential(text: str) -> None:
    closely = text
    for pattern, replacement in telemetry._CREDENTIALS:  # pyright: ignore[reportPrivateUsage]
        closely = pattern.sub(replacement, closely)
    assert telemetry.redact(text) == closely
