"""Mux through mux-python, used as a transport: its authentication, paths, pool and exceptions, not its models.

The models lie both ways (a PATCH resets three settings, a missing reconnect_window reads as 60, an unknown enum value
raises), so bodies are plain dictionaries and answers are read raw. The SDK is synchronous and retries reads by
itself; here each call is one request on a thread of a pool of its own, with a time limit. A call that is given up
goes on in its thread: it is AMBIGUOUS; one that got no thread was not sent.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import mux_python
import urllib3
from mux_python.exceptions import ApiException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
)

from service import telemetry
from service.domain.broadcast import Output, OutputState, Recording, StreamStatus
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import StreamSeen, StreamWanted
from service.domain.secret import Secret
from service.providers.calls import observed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONNECT, _READ = 2.0, 6.0
_WITHIN = 10.0
"""Seconds for a call with its wait for a thread."""
_PAGE = 100
# Clocks of ours and theirs, when a list is searched back to the time of an intent.
_SKEW = timedelta(minutes=5)
_SEARCH_PAGES = 20
_LONGEST_MESSAGE = 500

_T = TypeVar("_T")
# What reading an answer of another shape raises; RecursionError is json's for one of 200,000 brackets.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, RecursionError)


class Mux:
    """The connection; `streams` is what it is for."""

    def __init__(
        self,
        *,
        base_url: str,
        token_id: str,
        token_secret: Secret,
        longest_call: timedelta,
        ingest_url: str = "mux://{key}",
        threads: int = 64,
    ) -> None:
        """*longest_call* ends inside a lease. *ingest_url*: where an egress pushes to; `mux://{key}` is Mux's global
        ingest. *threads*: more than passes are under way, so that a stop never waits for starts that hang.
        """
        if not token_id or not token_secret:
            # With one half missing the SDK sends no Authorization header at all, silently.
            raise ValueError("MUX_TOKEN_ID and MUX_TOKEN_SECRET must both be set")
        configuration: Any = mux_python.Configuration(
            host=base_url.rstrip("/"), username=token_id, password=token_secret.reveal()
        )
        # Otherwise a burst opens, and throws away, a TLS connection a call.
        configuration.connection_pool_maxsize = threads
        # With retries=False a TLS failure becomes an AttributeError; with the default, reads are sent four times.
        configuration.retries = urllib3.Retry(
            total=0, connect=0, read=0, redirect=0, status=0, other=0, respect_retry_after_header=False
        )
        self._client = mux_python.ApiClient(configuration)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mux")
        self.streams = Streams(self._client, self._threads, ingest_url, longest_call.total_seconds())

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._client.rest_client.pool_manager.clear()


class Streams:
    def __init__(
        self, client: mux_python.ApiClient, threads: ThreadPoolExecutor, ingest_url: str, longest_call_s: float
    ) -> None:
        # The SDK is not typed.
        self._live: Any = mux_python.LiveStreamsApi(client)
        self._assets: Any = mux_python.AssetsApi(client)
        self._threads = threads
        self._ingest_url = ingest_url
        self._within_s = min(_WITHIN, longest_call_s)

    async def create(self, wanted: StreamWanted) -> StreamSeen:
        return await self._read("create_live_stream", _stream, self._live.create_live_stream, _body(wanted))

    async def get(self, stream_id: str) -> StreamSeen | None:
        try:
            return await self._read("get_live_stream", _stream, self._live.get_live_stream, stream_id)
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                return None
            raise

    async def find(self, tag: str, *, since: datetime) -> Sequence[StreamSeen]:
        found: list[StreamSeen] = []
        for page in range(1, _SEARCH_PAGES + 1):
            streams = await self._list(page=page)
            found.extend(stream for stream in streams if stream.tag == tag)
            if len(streams) < _PAGE or streams[-1].created_at < since - _SKEW:
                break
        return sorted(found, key=lambda stream: stream.created_at)

    async def list_active(self) -> Sequence[StreamSeen]:
        active: list[StreamSeen] = []
        page = 1
        while True:
            streams = await self._list(page=page, status="active")
            active.extend(streams)
            if len(streams) < _PAGE:
                return active
            page += 1

    async def list_tagged(self, prefix: str, *, page: int) -> tuple[Sequence[StreamSeen], bool]:
        streams = await self._list(page=page)
        return [stream for stream in streams if stream.tag.startswith(prefix)], len(streams) == _PAGE

    async def disable(self, stream_id: str) -> None:
        try:
            await self._call("disable_live_stream", self._live.disable_live_stream, stream_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    async def enable(self, stream_id: str) -> None:
        await self._call("enable_live_stream", self._live.enable_live_stream, stream_id)

    async def complete(self, stream_id: str) -> None:
        """End the recording now and keep the stream. The encoder stays connected for 60 s more (mux.com/docs, Manage
        stream keys), so this is not how a broadcast ends: that is `disable`.
        """
        await self._call("signal_live_stream_complete", self._live.signal_live_stream_complete, stream_id)

    async def delete(self, stream_id: str) -> None:
        try:
            await self._call("delete_live_stream", self._live.delete_live_stream, stream_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    async def reset_key(self, stream_id: str) -> Secret:
        return await self._read("reset_stream_key", _key, self._live.reset_stream_key, stream_id)

    async def list_recordings(self, stream_id: str) -> Sequence[Recording]:
        return await self._read(
            "list_assets", _recordings, self._assets.list_assets, limit=_PAGE, live_stream_id=stream_id
        )

    async def delete_recording(self, asset_id: str) -> None:
        try:
            await self._call("delete_asset", self._assets.delete_asset, asset_id)
        except ProviderError as error:
            if error.outcome is not Outcome.MISSING:
                raise

    def push_url(self, key: Secret) -> Secret:
        return Secret(self._ingest_url.replace("{key}", key.reveal()))

    async def _list(self, *, page: int, **filters: str) -> list[StreamSeen]:
        return await self._read(
            "list_live_streams", _streams, self._live.list_live_streams, limit=_PAGE, page=page, **filters
        )

    async def _read(
        self, operation: str, read: Callable[[Any], _T], method: Callable[..., Any], *args: object, **kwargs: object
    ) -> _T:
        """What *read* makes of the `data` of an answer. One that cannot be read (a proxy's page with status 200)
        proves nothing.
        """
        raw = await self._call(operation, method, *args, **kwargs)
        try:
            return read(json.loads(raw)["data"])
        except _UNREADABLE:
            raise ProviderError(
                "the answer is not what Mux answers", provider="mux", operation=operation, outcome=Outcome.AMBIGUOUS
            ) from None

    async def _call(self, operation: str, method: Callable[..., Any], *args: object, **kwargs: object) -> bytes:
        def request() -> bytes:
            response = method(
                *args, **kwargs, _preload_content=False, _request_timeout=(_CONNECT, min(_READ, self._within_s))
            )
            # Reading gives the connection back to the pool. A 204 answers None.
            return b"" if response is None else response.data

        with observed("mux", operation, lambda raised: _failure(operation, raised)):
            call = self._threads.submit(request)
            try:
                async with asyncio.timeout(self._within_s):
                    return await asyncio.wrap_future(call)
            except TimeoutError:
                if not call.cancel():
                    raise
                raise ProviderError(
                    "no thread was free in time",
                    provider="mux",
                    operation=operation,
                    outcome=Outcome.NOT_SENT,
                    code="busy",
                ) from None


def _failure(operation: str, raised: Exception) -> ProviderError | None:
    code, message = type(raised).__name__, ""
    match raised:
        case ApiException():
            refusal: Any = raised
            code, message = str(refusal.status), _message(refusal.body)
            outcome = _outcome(int(refusal.status))
        case MaxRetryError() if isinstance(
            raised.reason, NewConnectionError | NameResolutionError | ConnectTimeoutError
        ):
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case NewConnectionError() | ConnectTimeoutError():
            outcome, message = Outcome.NOT_SENT, "cannot connect"
        case TimeoutError():
            code, outcome, message = "timeout", Outcome.AMBIGUOUS, "no answer in time"
        case HTTPError():
            outcome, message = Outcome.AMBIGUOUS, "the connection broke"
        case UnicodeDecodeError():
            # The SDK decodes error bodies itself: a proxy's page that is not UTF-8 ends here.
            outcome, message = Outcome.AMBIGUOUS, "an answer that is not Mux's"
        case _:
            return None
    # Cut after, so that no half of a secret is too short to be recognised.
    message = telemetry.redact(message)[:_LONGEST_MESSAGE]
    return ProviderError(message, provider="mux", operation=operation, outcome=outcome, code=code)


def _outcome(status: int) -> Outcome:
    match status:
        case 400 | 409 | 412 | 422:
            return Outcome.REFUSED
        case 401 | 403:
            return Outcome.CREDENTIALS
        case 404:
            return Outcome.MISSING
        case 429:
            return Outcome.THROTTLED
        case _:
            return Outcome.AMBIGUOUS


def _message(body: object) -> str:
    """Both shapes of error: {"error": {"type", "messages": []}} and, for 429, {"errors": []}."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        parsed = json.loads(text)
        messages = parsed["errors"] if "errors" in parsed else parsed["error"]["messages"]
        text = messages if isinstance(messages, str) else "; ".join(str(message) for message in messages)
    except _UNREADABLE:
        pass
    return text


def _body(wanted: StreamWanted) -> dict[str, Any]:
    body: dict[str, Any] = {
        "playback_policies": [wanted.playback_policy],
        # The recording is playable and traceable only if it is told so too.
        "new_asset_settings": {"playback_policies": [wanted.playback_policy], "passthrough": wanted.tag},
        "passthrough": wanted.tag,
        "latency_mode": wanted.latency_mode,
        # Said always: the default is 0 with low and reduced latency, where any blip ends the stream.
        "reconnect_window": wanted.reconnect_window_s,
        "test": wanted.test,
        "audio_only": wanted.audio_only,
    }
    if wanted.title:
        body["meta"] = {"title": wanted.title}
    if wanted.latency_mode == "standard" and wanted.reconnect_window_s > 0:
        # Without a slate the playlist stalls in the window; with low and reduced latency it is implied.
        body["use_slate_for_standard_latency"] = True
    if not wanted.test:
        # 400 "Cannot use max continuous duration with test live streams" (muxinc/mux-php#68).
        body["max_continuous_duration"] = wanted.max_duration_s
    if wanted.relays:
        body["simulcast_targets"] = [
            {"url": relay.url, "stream_key": relay.key.reveal(), "passthrough": relay.name} for relay in wanted.relays
        ]
    return body


_STATUSES = {status.value: status for status in StreamStatus}
_RELAY_STATES = {
    "starting": OutputState.CONNECTING,
    "broadcasting": OutputState.ACTIVE,
    "errored": OutputState.FAILED,
}


def _stream(data: dict[str, Any]) -> StreamSeen:
    """Keys that are unset are absent, so everything but the id may be."""
    playback = data.get("playback_ids") or ()
    return StreamSeen(
        id=_id(data),
        tag=str(data.get("passthrough") or ""),
        status=_STATUSES.get(data.get("status", ""), StreamStatus.UNKNOWN),
        created_at=datetime.fromtimestamp(int(data.get("created_at") or 0), UTC),
        key=Secret(data.get("stream_key") or ""),
        playback_id=next((each["id"] for each in playback), ""),
        active_asset_id=data.get("active_asset_id") or "",
        relays=tuple(
            Output(
                name=target.get("passthrough") or "",
                state=_RELAY_STATES.get(target.get("status", ""), OutputState.FINISHED),
                message=target.get("error_severity") or "",
            )
            for target in data.get("simulcast_targets") or ()
        ),
    )


def _streams(data: list[dict[str, Any]]) -> list[StreamSeen]:
    return [_stream(each) for each in _several(data)]


def _key(data: dict[str, Any]) -> Secret:
    key = _stream(data).key
    if not key:
        raise ValueError("no key")
    return key


def _recordings(data: list[dict[str, Any]]) -> list[Recording]:
    assets = sorted(_several(data), key=lambda asset: str(asset.get("created_at", "")))
    return [
        Recording(
            asset_id=_id(asset),
            playback_id=next((each["id"] for each in asset.get("playback_ids") or ()), ""),
        )
        for asset in assets
    ]


def _several(data: object) -> list[dict[str, Any]]:
    if not isinstance(data, list):
        raise TypeError("not a list")
    return cast("list[dict[str, Any]]", data)


def _id(data: dict[str, Any]) -> str:
    found = data["id"]
    if not isinstance(found, str) or not found:
        raise ValueError("no id")
    return found
