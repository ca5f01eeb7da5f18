"""The canary: secrets planted everywhere are looked for in everything that leaves the process, in every spelling."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest
from aiohttp import web
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from broadcast.v1.broadcast_pb2 import (
    DESTINATION_CARRIER_EGRESS,
    DESTINATION_CARRIER_MUX,
    BroadcastSpec,
    Destination,
    DestinationCarrier,
)
from broadcast_client import BroadcastClient, BroadcastError
from broadcast_sandbox.faults import Fault
from tests.e2e.show import Show, watching
from tests.ports import free_port
from tests.stack import LIVEKIT_SECRET, MUX_SECRET, WEBHOOK_SECRET, Stack, running_stack, serving
from tests.waiting import eventually

DESTINATION_KEY = "canary-destination-key-5f1e"
DATABASE_PASSWORD = "canary-database-password-77"
OTHER = "rtmps://93.184.215.14:443/app"
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
    found.append(quote(secret, safe="").encode())
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


def fails_once(stack: Stack, operation: str, message: str, *, status: int = 500) -> None:
    simulator = stack.mux if operation.islower() else stack.livekit
    simulator.faults.add(Fault(kind="error", operation=operation, status=status, message=message))


def spec_with(
    destination: str = OTHER, carrier: DestinationCarrier.ValueType = DESTINATION_CARRIER_EGRESS
) -> BroadcastSpec:
    return BroadcastSpec(
        title="canary",
        destinations=[Destination(name="other", url=destination, stream_key=DESTINATION_KEY, carrier=carrier)],
    )


async def a_troubled_broadcast(stack: Stack, client: BroadcastClient, said: list[str]) -> tuple[str, str]:
    """One whole broadcast on which providers fail while they echo secrets. Answers its id and its host's token."""
    fails_once(stack, "create_live_stream", f"Basic {base64.b64encode(f'token:{MUX_SECRET}'.encode()).decode()}")
    show = await Show.create(stack, client, spec_with())
    async with watching(client, show.id) as watched:
        said.append(MessageToJson(await show.ready()))
        [stream] = stack.mux.store.streams.values()
        # livekit/egress pkg/errors/errors.go names the whole url.
        fails_once(stack, "StartRoomCompositeEgress", f'invalid url "{OTHER}/{DESTINATION_KEY}"')
        fails_once(stack, "StartRoomCompositeEgress", f"invalid url mux://{stream.stream_key}: invalid scheme")
        access = await client.issue_host_access(show.id, "ann")
        await stack.control("join", token=access.token, publish=["camera", "microphone"])
        said.append(MessageToJson(await show.until("LIVE", within=40)))
        fails_once(stack, "UpdateStream", f"stream {OTHER}/{DESTINATION_KEY} not found", status=404)
        await client.update(show.id, mask=["spec.destinations"], spec=BroadcastSpec())
        said.append(MessageToJson(await show.settled()))
        said.append(MessageToJson(await show.ended()))
    said += [MessageToJson(broadcast) for broadcast in watched.broadcasts]
    said += [MessageToJson(event) async for event in client.events_all(show.id)]
    assert stack.livekit.faults.hits == {"error": 3}
    assert stack.mux.faults.hits == {"error": 1}
    return show.id, access.token


async def refused_broadcasts(stack: Stack, client: BroadcastClient, said: list[str]) -> None:
    """Refused by a provider for good, and by ourselves."""
    told = f"simulcast_targets[0].stream_key: {DESTINATION_KEY} is refused"
    fails_once(stack, "create_live_stream", told, status=400)
    show = await Show.create(stack, client, spec_with(carrier=DESTINATION_CARRIER_MUX))
    await client.start(show.id)
    said.append(MessageToJson(await show.over("FAILED")))

    fails_once(stack, "StartRoomCompositeEgress", f"invalid url {OTHER}/{DESTINATION_KEY}: no", status=400)
    show = await Show.create(stack, client, spec_with())
    await show.ready()
    await stack.host_joins(show.id)
    failed = await show.over("FAILED")
    assert failed.status.last_error.message, "nothing is told, so nothing can leak"
    said.append(MessageToJson(failed))

    for destination in (
        "rtmp://10.0.0.1/app",
        "http://example.com/app",
        f"{OTHER}/{DESTINATION_KEY}?{DESTINATION_KEY}",
    ):
        with pytest.raises(BroadcastError) as refused:
            await client.create(spec_with(destination))
        error = refused.value
        if DESTINATION_KEY not in destination:
            # What the caller puts into an address is told to this caller.
            said.append(f"{error!r} {error} {error.metadata} {error.violations}")


async def test_no_secret_leaves_and_one_trace_holds_it_all(database_url: str, tmp_path: Path) -> None:
    dsn = urlsplit(database_url)
    with_password = urlunsplit(dsn._replace(netloc=dsn.netloc.replace("@", f":{DATABASE_PASSWORD}@")))
    async with collecting() as (collector, endpoint), running_stack(database_url) as stack:
        process = await stack.process(
            tmp_path / "service.log",
            DATABASE_URL=with_password,
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
        broadcast_id, token = await a_troubled_broadcast(stack, client, said)
        await refused_broadcasts(stack, client, said)
        made = [token, *stack.mux.store.keys, *stack.mux.store.old_keys]
        await eventually(lambda: bool(collector.metrics) and _whole_trace(collector.spans))
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
    assert len(made) > 4
    planted = [LIVEKIT_SECRET, MUX_SECRET, WEBHOOK_SECRET, DESTINATION_KEY, DATABASE_PASSWORD, *made]
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
    assert any(spelling in quote(b"?" + secret).encode() for spelling in spellings(secret))


def _whole_trace(spans: list[Span]) -> bool:
    """The RPC that asked, the pass that did it and the provider calls it made are one trace."""
    start = next((span for span in spans if span.name.endswith("/StartBroadcast")), None)
    if start is None:
        return False
    trace = [span for span in spans if span.trace_id == start.trace_id]
    names = {span.name for span in trace}
    passes = {span.span_id for span in trace if span.name == "pass" and span.parent_span_id == start.span_id}
    return bool(passes) and {"livekit CreateRoom", "mux create_live_stream", "step CreateStream"} <= names
