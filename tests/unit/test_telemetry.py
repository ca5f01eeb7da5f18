"""Nothing secret in any log, whoever wrote the line: a table of what is cut out, and of what is left alone."""

from __future__ import annotations

import ast
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.domain.secret import Secret
from service.telemetry import configure_logs, context_of, redact, trace_id, traceparent, tracer

KEY = "5bd28537-9a3b-1f2e-bbb5-bbb506401234"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJkZXZrZXkifQ.c2lnbmF0dXJl-_x"
BASIC = "dG9rZW46c2VjcmV0LW9mLXRoZS10ZXN0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"rtmps://global-live.mux.com:443/app/{KEY}", "rtmps://global-live.mux.com:443/app/***"),
        (f"rtmp://a.example/{KEY}", "rtmp://a.example/***"),
        (f"rtmp://a.example/x/y/z/{KEY}", "rtmp://a.example/x/y/z/***"),
        (f"RTMPS://a.example/app/{KEY}", "RTMPS://a.example/app/***"),
        (f"rtmp://[2606:4700::1111]:1935/app/{KEY}", "rtmp://[2606:4700::1111]:1935/app/***"),
        (f"srt://a.example/app/{KEY}", "srt://a.example/app/***"),
        (f"invalid url rtmps://a.example/app/{KEY}: why", "invalid url rtmps://a.example/app/*** why"),
        (f'{{"url": "rtmp://a.example/b/{KEY}", "x": 1}}', '{"url": "rtmp://a.example/b/***", "x": 1}'),
        (f"'rtmp://a.example/b/{KEY}'", "'rtmp://a.example/b/***"),
        ("rtmp://a.example/b/key,with}odd'signs&more", "rtmp://a.example/b/***"),
        ("rtmp://a.example/b/{abc...xyz}but-more", "rtmp://a.example/b/***"),
        (f"a rtmp://a/b/{KEY} b rtmp://c/d/{KEY} e", "a rtmp://a/b/*** b rtmp://c/d/*** e"),
        (f"mux://{KEY}", "mux://***"),
        (f"Mux://{KEY}, and more", "Mux://*** and more"),
        (f"twitch://live_{KEY}", "twitch://***"),
        (f"token {JWT} refused", "token *** refused"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer ***"),
        (f"{{'Authorization': 'Basic {BASIC}'}}", "{'Authorization': 'Basic ***'}"),
        (f"authorization: basic {BASIC}==", "authorization: basic ***"),
        ("postgresql://broadcast:hunter2@db:5432/broadcast", "postgresql://broadcast:***@db:5432/broadcast"),
        ("postgres://broadcast:hun@ter2@db/broadcast", "postgres://broadcast:***@db/broadcast"),
        ("postgres://:hunter2@db/broadcast", "postgres://:***@db/broadcast"),
        ("https://ann:hunter2@a.example/x", "https://ann:***@a.example/x"),
        ("postgresql://db/broadcast?password=hunter2&x=1", "postgresql://db/broadcast?password=***&x=1"),
        (f"stream_key={KEY}", "stream_key=***"),
        (f"stream_key = {KEY}, next", "stream_key = ***, next"),
        (f'{{"stream_key":"{KEY}","status":"idle"}}', '{"stream_key":"***","status":"idle"}'),
        (f"{{'stream_key': '{KEY}', 'status': 'idle'}}", "{'stream_key': '***', 'status': 'idle'}"),
        (f'"{{\\"stream_key\\": \\"{KEY}\\"}}"', '"{\\"stream_key\\": \\"***\\"}"'),
        (f"streamKey: {KEY}", "streamKey: ***"),
        (f"Stream key: {KEY}", "Stream key: ***"),
        (f"stream-key: {KEY}", "stream-key: ***"),
        ("srt_passphrase=abcdefghij", "srt_passphrase=***"),
        ("LIVEKIT_API_SECRET=abc MUX_TOKEN_SECRET=def", "LIVEKIT_API_SECRET=*** MUX_TOKEN_SECRET=***"),
        ("signing_secret: abc", "signing_secret: ***"),
        ("a\nb\tc\x00d\x1b[31me\u2028f\x7fg", "a b c d [31me f g"),
        (f"rtmp://a/b/{KEY}\x00tail", "rtmp://a/b/***"),
    ],
)  # fmt: skip
def test_what_is_cut_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no response from servers",
        "twirp error unknown: requested room does not exist",
        "egress with status EGRESS_COMPLETE cannot be stopped",
        "https://api.mux.com/video/v1/live-streams/abc123?limit=100",
        "https://a.example:8080/x@y",
        "2026-11-01T12:00:00+00:00",
        "rtmps://global-live.mux.com:443/app/{5bd...234}",
        "rtmps://global-live.mux.com:443/app/{5bd...234}: Connection error",
        "('rtmp://a.example/b/{...}', 'rtmp://a.example/b/{a...c}'), mux://{5bd...234}",
        '{"url": "rtmp://a.example/x/live/{ab...yz}", "error": ""}',
        "rtmp://a.example/app/",
        "must begin with rtmp:// or rtmps://",
        "mux create_live_stream: 400: Cannot use max continuous duration with test live streams",
        "postgresql://db/broadcast",
        "the key of the stream was reset",
        "grüße 日本 🎥",
        '{"stream_key": "", "status": "idle"}',
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.~!$&'()*+,;=:@%{}[]|^`<>#?", min_size=12))
def test_a_key_of_any_signs_is_cut_out_whole(key: str) -> None:
    for url in (f"rtmps://a.example/app/{key}", f"rtmp://a.example/{key}", f"mux://{key}"):
        shown = redact(f"invalid url {url}")
        assert "***" in shown
        assert key not in shown
        assert key[-8:] not in shown


@given(st.text())
def test_what_is_redacted_is_one_line_of_text(text: str) -> None:
    shown = redact(text)
    assert shown == "" or shown.isprintable()


@pytest.mark.parametrize(
    "text",
    ["rtmp://" * 20_000, "rtmp://a/" + "b/" * 50_000, "eyJ" * 50_000, "postgres://" + "a:" * 50_000, "token=" * 30_000,
     "Basic " * 30_000, "stream_key" + " " * 100_000, '"' * 100_000, "secret" + "\\\"'" * 40_000, "a" * 200_000,
     "://:" * 40_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 2


class Lines:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def text(self) -> str:
        return self._capsys.readouterr().err

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield Lines(capsys)
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def log(name: str = "test") -> Any:
    return structlog.get_logger(name)


def test_a_line_is_json_with_its_fields(lines: Lines) -> None:
    configure_logs("info", json=True)
    log().info("pass", broadcast_id="first", steps=["CreateRoom"], duration_ms=1.5, put_off=0, none=None)
    log().debug("not shown")
    [line] = lines.json()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "pass",
        "level": "info",
        "broadcast_id": "first",
        "steps": ["CreateRoom"],
        "duration_ms": 1.5,
        "put_off": 0,
        "none": None,
    }


def test_every_field_is_redacted_however_deep(lines: Lines) -> None:
    configure_logs("info", json=True)
    url = f"rtmp://a.example/app/{KEY}"
    log().warning(
        f"event {url}",
        text=url,
        listed=[url, (url,)],
        deep={"a": {"b": [url]}, url: 1},
        error=ValueError(url),
        raw=url.encode(),
        several={url},
        secret=Secret(KEY),
    )
    text = lines.text()
    assert KEY not in text
    line = json.loads(text)
    assert line["text"] == "rtmp://a.example/app/***"
    assert line["deep"]["a"] == {"b": ["rtmp://a.example/app/***"]}
    assert line["listed"][1] == ["rtmp://a.example/app/***"]


def test_a_line_cannot_be_broken_in_two(lines: Lines) -> None:
    configure_logs("info", json=True)
    log().info('a\n{"event": "forged"}\r\n\x1b[2J', field="b\nc")
    [line] = lines.json()
    assert line["event"].startswith('a {"event": "forged"}')
    assert line["field"] == "b c"


def fail() -> None:
    raise RuntimeError(f"invalid url rtmp://a.example/app/{KEY}") from ValueError(f"inner stream_key={KEY}")


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_are_shown_without_secrets(lines: Lines, as_json: bool) -> None:  # noqa: FBT001
    configure_logs("info", json=as_json)
    try:
        fail()
    except RuntimeError:
        log().exception("failed")
    text = lines.text()
    assert "RuntimeError" in text
    assert "in fail" in text
    assert "rtmp://a.example/app/***" in text
    assert "stream_key=***" in text
    assert KEY not in text


def test_what_libraries_log_goes_the_same_way(lines: Lines) -> None:
    configure_logs("info", json=True)
    library = logging.getLogger("some.library")
    library.info("chatter")
    library.warning("pool of %s is full: %s", "a.example", f"Bearer {JWT}")
    try:
        fail()
    except RuntimeError:
        library.exception("failed with %s", f"mux://{KEY}")
    first, second = lines.json()
    assert (first["event"], first["level"]) == ("pool of a.example is full: Bearer ***", "warning")
    assert (first["library"], second["library"]) == ("some.library", "some.library")
    assert (second["event"], second["level"], second["error"]) == ("failed with mux://***", "error", "RuntimeError")


@pytest.mark.parametrize(
    ("level", "message", "args"),
    [
        (30, "%d pools", ("many",)),
        (30, "100%", ()),
        (30, "{} %s %s", ("one",)),
        (30, {"not": "text"}, ()),
        (35, "between two levels", ()),
        (99, "above all levels", ()),
        (40, "a %s", ("\ud800",)),
    ],
)
def test_no_log_call_of_a_library_fails(lines: Lines, level: int, message: object, args: tuple[object, ...]) -> None:
    configure_logs("info", json=True)
    logging.getLogger("some.library").log(level, message, *args)
    logging.getLogger("some.library").warning("and on it goes")
    assert len(found := lines.json()) == 2
    assert found[1]["event"] == "and on it goes"


@pytest.mark.parametrize(("level", "shown"), [("debug", 2), ("warning", 1), ("error", 0)])
def test_the_level_holds_for_ours_and_libraries(lines: Lines, level: str, shown: int) -> None:
    configure_logs(level, json=True)
    log().debug("ours")
    log().warning("ours")
    assert len(lines.json()) == shown
    logging.getLogger("some.library").warning("theirs")
    assert len(lines.json()) == (level != "error")


def test_a_trace_goes_over_a_row_and_comes_back(lines: Lines) -> None:
    del lines
    assert traceparent() is None
    assert trace_id() == ""
    assert context_of(None) is None
    stored = f"00-{'a' * 32}-{'b' * 16}-01"
    with tracer.start_as_current_span("pass", context=context_of(stored)):
        assert trace_id() in ("a" * 32, "")
    for broken in ("", "junk", "00-x-y-01", f"00-{'0' * 32}-{'0' * 16}-00"):
        with tracer.start_as_current_span("pass", context=context_of(broken)):
            assert trace_id() != "a" * 32


SERVICE = Path(__file__).parents[2] / "service"


def measured() -> Iterator[tuple[str, frozenset[str]]]:
    """Every place that measures: the instrument, and the names of its attributes."""
    for file in SERVICE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        named = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id="telemetry"), attr=instrument),
                        attr="add" | "record" | "set",
                    ),
                    args=[_, *rest],
                ):
                    given = named[rest[0].id] if rest and isinstance(rest[0], ast.Name) else (*rest, None)[0]
                    keys = given.keys if isinstance(given, ast.Dict) else []
                    yield instrument, frozenset(str(key.value) for key in keys if isinstance(key, ast.Constant))
                case _:
                    pass


def test_instruments_say_by_what_they_measure() -> None:
    said = {
        name: re.search(r".*\bby ([a-z ,]+)\.", description)
        for name, description in re.findall(
            r"^([A-Z_]+) = _meter\.create_\w+\(.*?description=\"(.*?)\"",
            (SERVICE / "telemetry.py").read_text(),
            re.DOTALL | re.MULTILINE,
        )
    }
    by = {name: set(re.split(r", | and ", found[1])) if found else set[str]() for name, found in said.items()}
    places = list(measured())
    assert {name for name, _ in places} == set(by)
    assert [(name, set(keys)) for name, keys in places if keys != by[name]] == []
