"""The canary: secrets planted everywhere are looked for in everything that leaves the process, in every spelling."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import urllib.parse
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
from aiohttp import web
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from broadcast.v1.broadcast_pb2 import BroadcastSpec, Destination
from broadcast_client import BroadcastClient, BroadcastError
from service.sandbox.faults import Fault
from tests.e2e.show import Show
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, WEBHOOK_SECRET, Stack, free_port, running_stack, serving
from tests.waiting import eventually

DESTINATION_KEY = "canary-destination-key-5f1e"
SEALING_KEY = b"canary-sealing-key-of-32-bytes!!"


class Collector:
    """A receiver of OTLP over HTTP that keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []

    async def receive_traces(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        self.traces.append(ExportTraceServiceRequest.FromString(body))
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def receive_metrics(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        return web.Response(body=b"", content_type="application/x-protobuf")

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextlib.asynccontextmanager
async def collecting() -> AsyncGenerator[tuple[Collector, str]]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive_traces)
    app.router.add_post("/v1/metrics", collector.receive_metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def spellings(secret: bytes) -> list[bytes]:
    """As it is, in hex, URL-encoded, and in base64 wherever in a text it may begin."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    found.append(urllib.parse.quote(secret, safe="").encode())
    for lead in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The characters at both ends mix with what stands around the secret.
            coded = encode(b"\0" * lead + secret).rstrip(b"=")
            found.append(coded[4 if lead else 0 : len(coded) - 2])
    return [spelling for spelling in found if len(spelling) >= 8]


async def dump(database_url: str) -> bytes:
    """Every row of every table, bytes as hex."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        lines: list[str] = []
        for table in tables:
            rows = await connection.fetch(f'SELECT t::text AS row FROM "{table["tablename"]}" t')  # noqa: S608 - of our own schema
            lines += [f"{table['tablename']} {row['row']}" for row in rows]
        return "\n".join(lines).encode()
    finally:
        await connection.close()


async def a_troubled_broadcast(stack: Stack, client: BroadcastClient, said: list[str]) -> tuple[str, list[str]]:
    """One whole broadcast on which providers fail while they echo secrets. Answers its id and what secrets it made."""
    spec = BroadcastSpec(
        title="canary",
        destinations=[
            Destination(name="other", url="rtmps://93.184.215.14:443/app", stream_key=DESTINATION_KEY),
        ],
    )
    echo = f'invalid url "rtmps://93.184.215.14:443/app/{DESTINATION_KEY}"'
    stack.livekit.faults.add(
        Fault(kind="error", operation="StartRoomCompositeEgress", status=500, message=echo, times=1)
    )
    stack.mux.faults.add(
        Fault(kind="error", operation="create_live_stream", status=500, message=f"Basic {MUX_SECRET}", times=1)
    )
    show = await Show.create(stack, client, spec)
    said.append(MessageToJson(await show.ready()))
    access = await client.issue_host_access(show.id, "ann")
    keys = [stream.stream_key for stream in stack.mux.store.streams.values()]
    await stack.control("join", token=access.token, publish=["camera", "microphone"])
    said.append(MessageToJson(await show.until("READY", "LIVE")))
    said.append(MessageToJson(await show.until("LIVE", within=30)))
    keys += [stream.stream_key for stream in stack.mux.store.streams.values()]
    try:
        await client.create(
            BroadcastSpec(
                title="x", destinations=[Destination(name="a", url="rtmp://10.0.0.1/app", stream_key=DESTINATION_KEY)]
            )
        )
    except BroadcastError as error:
        said.append(f"{error!r} {error} {error.metadata} {error.violations}")
    said.append(MessageToJson(await show.ended()))
    said.extend([MessageToJson(event) async for event in client.events_all(show.id)])
    assert stack.livekit.faults.hits.get("error") == 1
    assert stack.mux.faults.hits.get("error") == 1
    return show.id, [access.token, *keys]


async def test_no_secret_leaves_and_one_trace_holds_it_all(database_url: str, tmp_path: Path) -> None:
    async with collecting() as (collector, endpoint), running_stack(database_url) as stack:
        process = await stack.process(
            tmp_path / "service.log",
            LOG_LEVEL="debug",
            BROADCAST_SECRET_KEYS=base64.b64encode(SEALING_KEY).decode(),
            HTTP_PORT=stack.environment["WEBHOOK_PORT"],
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_BSP_SCHEDULE_DELAY="200",
            OTEL_METRIC_EXPORT_INTERVAL="500",
        )
        await serving(process)
        client = await stack.client(process.target)
        said: list[str] = []
        broadcast_id, made = await a_troubled_broadcast(stack, client, said)
        await eventually(lambda: bool(collector.metrics) and _whole_trace(collector.spans), within=15)
        process.tell(signal.SIGTERM)
        await process.process.wait()
        output = process.output.read_bytes()
        effects = json.dumps([effect.as_json() for effect in stack.effects()]).encode()
        database = await dump(database_url)

    assert broadcast_id.encode() in output, "the log tells of the broadcast, so it is worth searching"
    assert broadcast_id.encode() in database
    everything = {
        "log": output,
        "traces and metrics": b"\n".join(collector.bodies),
        "answers": "\n".join(said).encode(),
        "database": database,
        "effects": effects,
    }
    planted = [LIVEKIT_SECRET, MUX_SECRET, WEBHOOK_SECRET, DESTINATION_KEY, *made]
    for secret in [*(text.encode() for text in planted), SEALING_KEY]:
        for place, text in everything.items():
            for spelling in spellings(secret):
                assert spelling not in text, f"{secret!r} is in the {place} as {spelling!r}"


def test_the_canary_can_sing() -> None:
    """Each spelling is found where it is: a search that finds nothing proves nothing otherwise."""
    secret = b"a-secret-to-be-found"
    for lead in range(3):
        text = base64.b64encode(b"x" * lead + secret + b"yy")
        assert any(spelling in text for spelling in spellings(secret))
    assert any(spelling in secret.hex().encode() for spelling in spellings(secret))
    assert any(spelling in urllib.parse.quote(b"?" + secret).encode() for spelling in spellings(secret))


def _whole_trace(spans: list[Span]) -> bool:
    """The RPC that asked, the pass that did it and the provider calls it made are one trace."""
    start = next((span for span in spans if span.name.endswith("/StartBroadcast")), None)
    if start is None:
        return False
    trace = [span for span in spans if span.trace_id == start.trace_id]
    names = {span.name for span in trace}
    passes = {span.span_id for span in trace if span.name == "pass" and span.parent_span_id == start.span_id}
    return bool(passes) and {"livekit CreateRoom", "mux create_live_stream", "step CreateStream"} <= names
