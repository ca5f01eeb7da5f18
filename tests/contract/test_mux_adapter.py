"""Mux behind its adapter: what is sent, and what every sort of answer and silence is taken for (provider facts,
Mux 13.3).

The real SDK over HTTP, against the simulator, or against a server that answers what the simulator cannot.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broadcast_sandbox.faults import Fault
from broadcast_sandbox.mux.server import MuxSimulator, MuxSimulatorSettings
from service.domain.broadcast import LatencyMode, PlaybackPolicy, StaticRendition
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import Relay, StreamWanted
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.resources import OutputState, StreamStatus
from service.domain.secret import Secret
from service.providers.mux import calls as mux_calls
from service.providers.mux.client import Mux, Streams
from service.providers.text.readable import LONGEST_MESSAGE
from tests.contract.provider_wire import Answer, Fate, Wire, refused_url, reply, self_signed, wire
from tests.waiting import eventually

TOKEN_SECRET = "token-secret-of-the-test/+="
BASIC = base64.b64encode(f"token:{TOKEN_SECRET}".encode()).decode()
KEY = "5bd28537-9a3b-1f2e-bbb5-bbb506401234"
TARGET_KEY = "key-of-a-relay-4711"
WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def wanted(**changes: Any) -> StreamWanted:
    values: dict[str, Any] = {
        "tag": "bs1:test:first:0",
        "title": "First light",
        "playback_policy": PlaybackPolicy.SIGNED,
        "latency_mode": LatencyMode.REDUCED,
        "reconnect_window_s": 120.0,
        "max_duration_s": 7200,
        "test": False,
        "audio_only": False,
    }
    return StreamWanted(**{**values, **changes})


def stream(**changes: Any) -> dict[str, Any]:
    return {"id": "LS1", "created_at": "1793491200", "stream_key": KEY, "status": "idle", **changes}


OK = reply(201, {"data": stream()})


@contextlib.asynccontextmanager
async def mux_at(url: str, *, longest_s: float = 20, threads: int = 16) -> AsyncGenerator[Mux]:
    mux = Mux(
        base_url=url,
        token_id="token",
        token_secret=Secret(TOKEN_SECRET),
        longest_call=timedelta(seconds=longest_s),
        threads=threads,
    )
    try:
        yield mux
    finally:
        await mux.close()


@contextlib.asynccontextmanager
async def answering(*answers: Answer, **options: Any) -> AsyncGenerator[tuple[Streams, Wire]]:
    async with wire(*answers) as provider, mux_at(provider.url, **options) as mux:
        yield mux.streams, provider


async def refusal(call: Awaitable[object]) -> ProviderError:
    """What the call raises; no form in which it can be printed shows a secret."""
    with pytest.raises(ProviderError) as caught:
        await call
    error = caught.value
    assert error.provider is Provider.MUX
    assert error.operation in tuple(Operation), "it is not declared"
    printed = "".join(traceback.format_exception(error))
    for shown in (str(error), repr(error), error.message, error.code, repr(error.args), printed):
        for secret in (TOKEN_SECRET, BASIC, KEY, TARGET_KEY):
            assert secret not in shown
    return error


async def threads_are_done(streams: Streams) -> None:
    """A thread goes on after its call was given up; whatever it sends is sent after this."""
    await asyncio.to_thread(streams._calls.threads.shutdown)  # pyright: ignore[reportPrivateUsage]


# Every call of the port, by its HTTP method.
CALLS: dict[str, Callable[[Streams], Awaitable[object]]] = {
    "POST create": lambda streams: streams.create(wanted()),
    "POST reset": lambda streams: streams.reset_key("LS1"),
    "GET one": lambda streams: streams.get("LS1"),
    "GET find": lambda streams: streams.find("bs1:test:first:0", since=WHEN),
    "GET active": lambda streams: streams.list_active(),
    "GET tagged": lambda streams: streams.list_tagged("bs1:", page=1),
    "GET recordings": lambda streams: streams.list_recordings("LS1", page=1),
    "GET recording": lambda streams: streams.recording("AS1"),
    "PATCH title": lambda streams: streams.set_title("LS1", "Other", owner_id="ann", broadcast_id="first"),
    "PUT disable": lambda streams: streams.disable("LS1"),
    "PUT enable": lambda streams: streams.enable("LS1"),
    "PUT complete": lambda streams: streams.complete("LS1"),
    "DELETE stream": lambda streams: streams.delete("LS1"),
    "DELETE recording": lambda streams: streams.delete_recording("AS1"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
# The texts of the operations, by the same names: they are stored in `last_error`.
OPERATIONS = {
    "POST create": "create_live_stream",
    "POST reset": "reset_stream_key",
    "GET one": "get_live_stream",
    "GET find": "list_live_streams",
    "GET active": "list_live_streams",
    "GET tagged": "list_live_streams",
    "GET recordings": "list_assets",
    "GET recording": "get_asset",
    "PATCH title": "update_live_stream",
    "PUT disable": "disable_live_stream",
    "PUT enable": "enable_live_stream",
    "PUT complete": "signal_live_stream_complete",
    "DELETE stream": "delete_live_stream",
    "DELETE recording": "delete_asset",
}


async def test_create_sends_what_is_wanted_and_nothing_that_the_models_would_add() -> None:
    async with answering(OK) as (streams, provider):
        await streams.create(wanted())
    [sent] = provider.requests
    assert (sent.method, sent.path) == ("POST", "/video/v1/live-streams")
    assert sent.headers["authorization"] == f"Basic {BASIC}"
    assert sent.json == {
        "playback_policies": ["signed"],
        "new_asset_settings": {
            "playback_policies": ["signed"],
            "passthrough": "bs1:test:first:0",
            "meta": {"title": "First light"},
        },
        "passthrough": "bs1:test:first:0",
        "latency_mode": "reduced",
        "reconnect_window": 120.0,
        "test": False,
        "audio_only": False,
        "meta": {"title": "First light"},
        "max_continuous_duration": 7200,
    }


async def test_recordings_get_the_title_the_owner_and_the_id_of_the_broadcast() -> None:
    async with answering(OK) as (streams, provider):
        await streams.create(wanted(owner_id="ann", broadcast_id="first"))
    [sent] = provider.requests
    named = {"title": "First light", "creator_id": "ann", "external_id": "first"}
    assert sent.json["new_asset_settings"]["meta"] == named


@pytest.mark.parametrize(
    ("title", "owner_id", "named"),
    [
        ("Second light", "ann", {"title": "Second light", "creator_id": "ann", "external_id": "first"}),
        # It takes the old one away.
        ("", "", {"title": "", "external_id": "first"}),
    ],
)
async def test_another_title_changes_nothing_else(title: str, owner_id: str, named: dict[str, str]) -> None:
    async with answering(OK) as (streams, provider):
        await streams.set_title("LS1", title, owner_id=owner_id, broadcast_id="first")
    [sent] = provider.requests
    assert (sent.method, sent.path) == ("PATCH", "/video/v1/live-streams/LS1")
    assert sent.json == {"meta": {"title": title}, "new_asset_settings": {"meta": named}}


async def test_a_live_stream_of_the_pool_gets_its_mark_with_its_names() -> None:
    async with answering(OK) as (streams, provider):
        await streams.set_title("LS1", "A show", owner_id="ann", broadcast_id="first", tag="bs1:test:first:0")
    [sent] = provider.requests
    assert sent.json["passthrough"] == "bs1:test:first:0"
    assert sent.json["meta"] == {"title": "A show"}


@pytest.mark.parametrize(
    ("changes", "added", "absent"),
    [
        ({"test": True}, {"test": True}, {"max_continuous_duration"}),
        (
            {"title": ""},
            {"new_asset_settings": {"playback_policies": ["signed"], "passthrough": "bs1:test:first:0"}},
            {"meta"},
        ),
        ({"reconnect_window_s": 0.0}, {"reconnect_window": 0.0}, {"use_slate_for_standard_latency"}),
        ({"latency_mode": LatencyMode.LOW}, {"latency_mode": "low"}, {"use_slate_for_standard_latency"}),
        (
            {"latency_mode": LatencyMode.STANDARD},
            {"latency_mode": "standard", "use_slate_for_standard_latency": True},
            set[str](),
        ),
        (
            {"latency_mode": LatencyMode.STANDARD, "reconnect_window_s": 0.0},
            {"latency_mode": "standard", "reconnect_window": 0.0},
            {"use_slate_for_standard_latency"},
        ),
        ({"audio_only": True}, {"audio_only": True}, set[str]()),
        (
            {"static_rendition": StaticRendition.AUDIO_ONLY},
            {
                "new_asset_settings": {
                    "playback_policies": ["signed"],
                    "passthrough": "bs1:test:first:0",
                    "meta": {"title": "First light"},
                    "static_renditions": [{"resolution": "audio-only"}],
                }
            },
            set[str](),
        ),
        ({"captions_language": "pt"}, {"generated_subtitles": [{"language_code": "pt"}]}, set[str]()),
        (
            {"slate_url": "https://images.example.com/slate.png?v=2"},
            {"reconnect_slate_url": "https://images.example.com/slate.png?v=2"},
            set[str](),
        ),
        (
            {"relays": (Relay(name="tube", url="rtmps://a.example/live", key=Secret(TARGET_KEY)),)},
            {"simulcast_targets": [{"url": "rtmps://a.example/live", "stream_key": TARGET_KEY, "passthrough": "tube"}]},
            set[str](),
        ),
    ],
)
async def test_create_by_what_is_wanted(changes: dict[str, Any], added: dict[str, Any], absent: set[str]) -> None:
    async with answering(OK) as (streams, provider):
        await streams.create(wanted())
        await streams.create(wanted(**changes))
    plain, sent = (request.json for request in provider.requests)
    assert {name: sent[name] for name in added} == added
    assert not absent & set(sent)
    untouched = set(plain) - set(added) - absent
    assert {name: sent[name] for name in untouched} == {name: plain[name] for name in untouched}


@every_call
async def test_a_refused_connection_was_not_sent(call: Callable[[Streams], Awaitable[object]]) -> None:
    async with mux_at(refused_url()) as mux:
        assert (await refusal(call(mux.streams))).outcome is Outcome.NOT_SENT


async def test_a_name_that_does_not_resolve_was_not_sent() -> None:
    async with mux_at("http://mux.invalid") as mux:
        assert (await refusal(mux.streams.create(wanted()))).outcome is Outcome.NOT_SENT


@every_call
@pytest.mark.parametrize("fate", [Fate.CLOSE, Fate.RESET, Fate.HALF])
async def test_a_connection_that_breaks_after_the_request_is_ambiguous(
    call: Callable[[Streams], Awaitable[object]], fate: Fate
) -> None:
    async with answering(fate) as (streams, provider):
        assert (await refusal(call(streams))).outcome is Outcome.AMBIGUOUS
    assert len(provider.requests) == 1


@pytest.mark.parametrize("by", ["read timeout", "limit of the call"])
async def test_silence_is_ambiguous_in_time_and_nothing_is_sent_twice(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_calls, "_READ", 0.3 if by == "read timeout" else 40)
    monkeypatch.setattr(mux_calls, "_WITHIN", 40)
    async with answering(Fate.HANG, longest_s=40 if by == "read timeout" else 0.3) as (streams, provider):
        async with asyncio.timeout(20):
            errors = await asyncio.gather(*(refusal(call(streams)) for call in CALLS.values()))
        assert [error.outcome for error in errors] == [Outcome.AMBIGUOUS] * len(CALLS)
        assert [error.operation for error in errors] == [OPERATIONS[name] for name in CALLS]
        assert by != "read timeout" or all(error.code.endswith("Error") for error in errors)
        await threads_are_done(streams)
        assert sorted(sent.method for sent in provider.requests) == sorted(name.split()[0] for name in CALLS)


def refused(status: int, body: object, kind: str = "application/json", **headers: str) -> bytes:
    return reply(status, body, kind, **headers)


def shape(*messages: str) -> dict[str, Any]:
    return {"error": {"type": "invalid_parameters", "messages": list(messages)}}


HTML = "<html>\n<head><title>502 Bad Gateway</title></head>\n<body><hr><center>nginx</center></body></html>"


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        (refused(400, shape("no", "never")), Outcome.REFUSED, "no; never"),
        (refused(409, shape("busy")), Outcome.REFUSED, "busy"),
        (refused(412, shape("not now")), Outcome.REFUSED, "not now"),
        (refused(422, {"errors": ["wrong"]}), Outcome.REFUSED, "wrong"),
        (refused(401, shape("Unauthorized request")), Outcome.CREDENTIALS, "Unauthorized request"),
        (refused(403, shape("Forbidden")), Outcome.CREDENTIALS, "Forbidden"),
        (refused(404, shape("gone")), Outcome.MISSING, "gone"),
        (refused(429, {"errors": ["Too many requests, retry later."]}), Outcome.THROTTLED, "Too many requests"),
        (refused(429, shape("slow down")), Outcome.THROTTLED, "slow down"),
        (refused(429, {"errors": ["later"]}, Retry_After="30"), Outcome.THROTTLED, "later"),
        (refused(500, shape("oops")), Outcome.AMBIGUOUS, "oops"),
        (refused(503, shape("away"), Retry_After="30"), Outcome.AMBIGUOUS, "away"),
        (refused(502, HTML, "text/html"), Outcome.AMBIGUOUS, "502 Bad Gateway: nginx"),
        (refused(503, "no healthy upstream", "text/plain"), Outcome.AMBIGUOUS, "503 Service Unavailable: no healthy u"),
        (refused(502, b"<html>\xff\xfe d\xe9faillante</html>", "text/html"), Outcome.AMBIGUOUS, ""),
        (refused(500, b""), Outcome.AMBIGUOUS, "500 Internal Server Error"),
        (refused(400, "null"), Outcome.REFUSED, "null"),
        (refused(400, {"error": "text"}), Outcome.REFUSED, "text"),
        (refused(400, {"error": {"messages": "as one text"}}), Outcome.REFUSED, "as one text"),
        (refused(400, {"errors": None}), Outcome.REFUSED, "errors"),
        (refused(500, b"[" * 200_000), Outcome.AMBIGUOUS, ""),
    ],
)
async def test_what_mux_refuses(answer: bytes, outcome: Outcome, said: str) -> None:
    async with answering(answer) as (streams, provider):
        for number, call in enumerate((streams.create(wanted()), streams.list_active(), streams.enable("LS1")), 1):
            error = await refusal(call)
            assert error.outcome is outcome
            assert said in error.message
            assert len(error.message) <= LONGEST_MESSAGE
            assert "<" not in error.message
            assert len(provider.requests) == number


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b"",
        b"\xff\xfe",
        "null",
        "[]",
        "[" * 200_000,
        {},
        {"data": None},
        {"data": "text"},
        {"data": 5},
        {"data": {}},
        {"data": {"id": ""}},
        {"data": {"id": None}},
        {"data": [None]},
        {"data": ["LS1"]},
        {"data": [{"status": "idle"}]},
        {"data": [stream(created_at="yesterday")]},
        {"data": [stream(created_at=10**30)]},
        {"data": [stream(status=["idle"])]},
        {"data": [stream(playback_ids=[{}])]},
        {"data": stream(id=7)},
        {"data": stream(created_at="yesterday")},
        {"data": stream(playback_ids="none")},
        {"data": stream(simulcast_targets=[None])},
    ],
    ids=lambda body: repr(body)[:40],
)
async def test_a_200_without_what_was_asked_for_proves_nothing(body: Any) -> None:
    async with answering(reply(200, body, "text/html")) as (streams, provider):
        calls = [streams.create(wanted()), streams.reset_key("LS1"), streams.get("LS1")]
        lists: list[Awaitable[object]] = [streams.list_active(), streams.find("x", since=WHEN)]
        if not (isinstance(body, dict) and isinstance(body.get("data"), list)):  # pyright: ignore[reportUnknownMemberType]
            lists.append(streams.list_recordings("LS1", page=1))
        for call in (*calls, *lists):
            assert (await refusal(call)).outcome is Outcome.AMBIGUOUS
    assert len(provider.requests) == len(calls) + len(lists)


@pytest.mark.parametrize("data", [None, {}, {"id": "AS1"}, "text", [None], [{}], [{"id": "A", "playback_ids": [7]}]])
async def test_recordings_that_cannot_be_read_prove_nothing(data: object) -> None:
    async with answering(reply(200, {"data": data})) as (streams, _):
        assert (await refusal(streams.list_recordings("LS1", page=1))).outcome is Outcome.AMBIGUOUS


async def test_a_reset_that_tells_no_key_is_no_new_key() -> None:
    keyless = {name: value for name, value in stream().items() if name != "stream_key"}
    async with answering(reply(200, {"data": keyless})) as (streams, _):
        assert (await refusal(streams.reset_key("LS1"))).outcome is Outcome.AMBIGUOUS


async def test_what_is_new_or_absent_in_an_answer_is_no_error() -> None:
    strange = stream(
        status="hibernating",
        playback_ids=None,
        simulcast_targets=[{"id": "T", "status": "dreaming", "passthrough": "tube"}],
        connected=True,
        anything={"deep": []},
        active_ingest_protocol="whip",
    )
    bare = {"id": "LS2"}
    async with answering(reply(200, {"data": strange}), reply(200, {"data": bare})) as (streams, _):
        first, second = await streams.get("LS1"), await streams.get("LS2")
    assert first is not None
    assert second is not None
    assert (first.status, first.playback_id, first.relays[0].state) == (StreamStatus.UNKNOWN, "", OutputState.FINISHED)
    assert (first.created_at, first.key) == (datetime.fromtimestamp(1793491200, UTC), Secret(KEY))
    assert (second.id, second.status, second.tag, second.key) == ("LS2", StreamStatus.UNKNOWN, "", Secret(""))


async def test_what_is_not_there_is_deleted_and_disabled_but_not_found() -> None:
    async with answering(refused(404, shape("not here"))) as (streams, provider):
        assert await streams.get("LS1") is None
        await streams.delete("LS1")
        await streams.disable("LS1")
        await streams.delete_recording("AS1")
        for call in (streams.enable("LS1"), streams.complete("LS1"), streams.reset_key("LS1"), streams.list_active()):
            assert (await refusal(call)).outcome is Outcome.MISSING
    assert len(provider.requests) == 8


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with wire(OK) as elsewhere, answering(reply(status, Location=f"{elsewhere.url}/x")) as (streams, provider):
        for call in CALLS.values():
            assert (await refusal(call(streams))).outcome is Outcome.AMBIGUOUS
        assert len(provider.requests) == len(CALLS)
        assert not elsewhere.requests


@pytest.mark.parametrize("server", ["self-signed", "plain"])
async def test_a_failure_of_tls_is_an_error_of_the_provider(server: str, tmp_path: Path) -> None:
    tls = self_signed(tmp_path) if server == "self-signed" else None
    async with (
        wire(OK if tls else Fate.PLAIN, tls=tls) as provider,
        mux_at(provider.url.replace("http://", "https://")) as mux,
    ):
        for call in CALLS.values():
            error = await refusal(call(mux.streams))
            assert error.outcome in (Outcome.AMBIGUOUS, Outcome.NOT_SENT)
        assert not provider.requests


async def test_errors_that_echo_secrets_do_not_carry_them_on() -> None:
    echo = f"bad url rtmps://a.example/live/{TARGET_KEY}, stream_key={KEY}, Authorization: Basic {BASIC}"
    body = {"error": {"type": "invalid_parameters", "messages": [echo]}}
    for answer in (refused(400, body), refused(500, echo, "text/plain"), refused(400, json.dumps(body))):
        async with answering(answer) as (streams, _):
            error = await refusal(streams.create(wanted()))
            assert "rtmps://a.example/live/***" in error.message


async def _worst_lag(stop: asyncio.Event) -> float:
    """The longest time for which nothing else of the event loop ran."""
    worst = 0.0
    while not stop.is_set():
        before = time.monotonic()
        await asyncio.sleep(0)
        worst = max(worst, time.monotonic() - before)
        await asyncio.sleep(0.002)
    return worst


async def test_a_hung_mux_does_not_hold_up_the_event_loop() -> None:
    lags: list[float] = []
    # Two cores are shared with others: what blocks does so every time.
    while not lags or (lags[-1] >= 0.05 and len(lags) < 30):
        async with answering(Fate.HANG, longest_s=0.4) as (streams, provider):
            stop = asyncio.Event()
            watching = asyncio.create_task(_worst_lag(stop))
            calls = [asyncio.create_task(refusal(streams.get(f"LS{n}"))) for n in range(16)]
            await eventually(lambda: len(provider.requests) == 16)
            errors = await asyncio.gather(*calls)
            stop.set()
            lags.append(await watching)
            assert {error.outcome for error in errors} == {Outcome.AMBIGUOUS}
    assert lags[-1] < 0.05, lags


async def test_more_calls_than_threads_end_in_time_and_what_got_no_thread_was_not_sent() -> None:
    async with answering(Fate.HANG, longest_s=0.4, threads=4) as (streams, provider):
        errors = await asyncio.gather(*(refusal(streams.create(wanted())) for _ in range(20)))
        await threads_are_done(streams)
        outcomes = [error.outcome for error in errors]
        begun = outcomes.count(Outcome.AMBIGUOUS)
        await eventually(lambda: len(provider.requests) >= begun)
        assert len(provider.requests) == begun >= 4
        # Who waits for a thread until there is one is sent in the end.
        assert outcomes.count(Outcome.NOT_SENT) == 20 - begun > 0


async def test_a_burst_answers_every_caller_its_own_and_reuses_connections() -> None:
    async with simulated() as (simulator, streams):
        made = await asyncio.gather(*(streams.create(wanted(tag=f"bs1:test:b{n}:0")) for n in range(40)))
        assert [each.tag for each in made] == [f"bs1:test:b{n}:0" for n in range(40)]
        assert len({each.id for each in made}) == len(simulator.effects.of("stream.created")) == 40


@contextlib.asynccontextmanager
async def simulated() -> AsyncGenerator[tuple[MuxSimulator, Streams]]:
    simulator = MuxSimulator(
        MuxSimulatorSettings(
            token_id="token",
            token_secret=TOKEN_SECRET,
            webhook_url=None,
            webhook_secret="unused",
            post_rate=0,
            other_rate=0,
        )
    )
    url = await simulator.start()
    try:
        async with mux_at(url) as mux:
            yield simulator, mux.streams
    finally:
        await simulator.stop()


@pytest.mark.parametrize("rendition", list(StaticRendition))
@pytest.mark.parametrize("language", ["en", "es", "it", "pt", "de", "fr"])
async def test_a_stream_takes_renditions_captions_and_a_slate(rendition: StaticRendition, language: str) -> None:
    slate = "https://images.example.com/slate.png"
    async with simulated() as (simulator, streams):
        made = await streams.create(
            wanted(static_rendition=rendition, captions_language=language, slate_url=slate, owner_id="ann")
        )
        stored = simulator.store.streams[made.id]
        assert stored.new_asset_settings["static_renditions"] == [{"resolution": rendition.replace("_", "-")}]
        assert stored.extra["generated_subtitles"] == [{"language_code": language}]
        assert stored.extra["reconnect_slate_url"] == slate


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("latency_mode", list(LatencyMode))
async def test_the_life_of_a_stream(latency_mode: LatencyMode, test: bool) -> None:  # noqa: FBT001
    relay = Relay(name="tube", url="rtmps://a.example/live", key=Secret(TARGET_KEY))
    async with simulated() as (_, streams):
        made = await streams.create(wanted(latency_mode=latency_mode, test=test, relays=(relay,)))
        assert made.playback_id
        assert made.tag == "bs1:test:first:0"
        assert streams.push_url(made.key) == Secret(f"mux://{made.key.reveal()}")
        assert await streams.get(made.id) == made
        assert await streams.find(made.tag, since=made.created_at) == [made]
        assert await streams.list_tagged("bs1:test:", page=1) == ([made], False)
        assert await streams.list_tagged("bs1:prod:", page=1) == ([], False)
        fresh = await streams.reset_key(made.id)
        assert fresh != made.key
        await streams.disable(made.id)
        seen = await streams.get(made.id)
        assert seen is not None
        assert (seen.status, seen.key) == (StreamStatus.DISABLED, fresh)
        await streams.enable(made.id)
        assert await streams.list_recordings(made.id, page=1) == ([], False)
        await streams.delete(made.id)
        assert await streams.get(made.id) is None


async def test_a_search_goes_back_to_its_time_and_finds_all_oldest_first() -> None:
    async with simulated() as (simulator, streams):
        tags = ["mine" if n in (3, 150, 151, 249) else f"other{n}" for n in range(250)]
        made = await asyncio.gather(*(streams.create(wanted(tag=tag)) for tag in tags))
        found = await streams.find("mine", since=datetime.now(UTC))
        assert {each.id for each in found} == {each.id for each in made if each.tag == "mine"}
        assert [each.created_at for each in found] == sorted(each.created_at for each in found)
        # What is older than the search goes back to is not read: one page, and no more.
        for each in simulator.store.streams.values():
            each.created_at -= 3600
        simulator.faults.add(Fault(kind="latency", operation="list_live_streams", times=-1))
        assert len(await streams.find("mine", since=datetime.now(UTC))) <= 4
        assert simulator.faults.hits["latency"] == 1


@pytest.mark.parametrize("kind", ["lost_reply", "reset", "late_effect"])
async def test_an_ambiguous_create_is_found_by_its_mark_if_it_happened(kind: Any) -> None:
    async with simulated() as (simulator, streams):
        simulator.faults.add(Fault(kind=kind, operation="create_live_stream", delay_s=0.05))
        began = datetime.now(UTC)
        assert (await refusal(streams.create(wanted()))).outcome is Outcome.AMBIGUOUS
        if kind == "late_effect":
            await eventually(lambda: simulator.effects.of("stream.created"))
        found = await streams.find("bs1:test:first:0", since=began)
        assert [each.id for each in found] == [effect.id for effect in simulator.effects.of("stream.created")]
        assert len(found) == (kind != "reset")


@pytest.mark.parametrize(("token_id", "secret"), [("", "x"), ("x", ""), ("", "")])
def test_half_a_token_is_refused_at_once(token_id: str, secret: str) -> None:
    with pytest.raises(ValueError, match="MUX_TOKEN_ID"):
        Mux(base_url="http://x", token_id=token_id, token_secret=Secret(secret), longest_call=timedelta(seconds=1))
