"""One whole broadcast, from create to ENDED, and how long each part of it took."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Mapping
from typing import Annotated

from cyclopts import Parameter
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broadcast.v1.broadcast_pb2 import (
    BROADCAST_STATE_ENDED,
    BROADCAST_STATE_FAILED,
    BROADCAST_STATE_UNSPECIFIED,
    DELIVERY_POLICY_MANUAL,
    BroadcastSpec,
    BroadcastState,
    ConditionType,
)
from broadcast.v1.broadcast_service_pb2 import HostAccess
from broadcast_client.client import BroadcastClient
from broadcast_client.ctl import livekit
from broadcast_client.ctl.arguments import DestinationList, Identity, Labels, NewId, span
from broadcast_client.ctl.broadcasts import SpecOptions
from broadcast_client.ctl.output import Output
from broadcast_client.ctl.render import human, state
from broadcast_client.ctl.session import OK, InSession
from broadcast_client.ctl.timeline import END, PARTS, Stage, Timeline
from broadcast_client.errors import BroadcastClientError, BroadcastError
from broadcast_client.values import broadcast_filter
from broadcast_client.watch import Change, Snapshot

_OVER = (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED)
_MOST_START_WAIT = 30.0
_MOST_STOP_WAIT = 60.0
_BAR = 48


async def demo(
    *,
    id: NewId = "",
    host: Identity = "demo-host",
    live_for: Annotated[float, span()] = 5.0,
    timeout: Annotated[float, span("for READY, LIVE and ENDED each")] = 120.0,  # noqa: ASYNC109 - of each of several waits
    livekit_control: Annotated[
        str,
        Parameter(metavar="URL", help="of the LiveKit simulator, which plays the host; else a person is asked to"),
    ] = "http://127.0.0.1:7880",
    spec: SpecOptions = None,
    label: Labels = (),
    destination: DestinationList = (),
    session: InSession,
) -> int:
    """Run one whole broadcast and show what took how long."""
    wanted = BroadcastSpec()
    if spec:
        spec.fill(wanted)
    wanted.destinations.extend(destination)
    await _run(
        session.client,
        session.out,
        spec=wanted,
        broadcast_id=id,
        labels=dict(label),
        host=host,
        live_for=live_for,
        timeout=timeout,
        livekit_control=livekit_control,
    )
    return OK


async def _run(
    client: BroadcastClient,
    out: Output,
    *,
    spec: BroadcastSpec,
    broadcast_id: str,
    labels: Mapping[str, str],
    host: str,
    live_for: float,
    timeout: float,  # noqa: ASYNC109 - of each of several waits
    livekit_control: str,
) -> None:
    """Run one broadcast and show its timeline. Whatever happens, the broadcast is stopped at the end.

    Raises:
        BroadcastClientError: it did not go as it should.
    """
    spec.title = spec.title or "broadcastctl demo"
    created = await client.create(spec, broadcast_id=broadcast_id, labels=labels)
    view = View(out, created.id)
    try:
        with view.shown(), _one_error():
            async with asyncio.TaskGroup() as group:
                watching = asyncio.Event()
                following = group.create_task(_follow(client, created.id, view, watching))
                # Every change from here on is seen. A watch that opens later may find the parts gone again.
                await watching.wait()
                started = await client.start(created.id, wait=min(timeout, _MOST_START_WAIT), host_identity=host)
                await client.wait_until(created.id, ("READY", "LIVE"), timeout=timeout)
                if spec.delivery_policy == DELIVERY_POLICY_MANUAL:
                    await client.set_on_air(created.id, True)
                await _let_host_in(view, started.host_access, livekit_control)
                live = await client.wait_until(created.id, "LIVE", timeout=timeout)
                view.note(f"LIVE for {human(live_for)}: {live.status.playback.hls_url}")
                await asyncio.sleep(live_for)
                await client.stop(created.id, note="the demo is over", wait=min(timeout, _MOST_STOP_WAIT))
                await client.wait_until(created.id, ("ENDED", "FAILED"), timeout=timeout)
                await following
    finally:
        if END not in view.timeline.stages:
            await _stop(client, created.id, out)
        # A room that is deleted puts its participants out; this is for a simulator that keeps them.
        with contextlib.suppress(BroadcastClientError):
            await livekit.leave(livekit_control, created.id, host)
    view.summarize()


class View:
    """The timeline as it grows: bars on a terminal, one JSON object a stage for programs."""

    def __init__(self, out: Output, broadcast_id: str) -> None:
        self.timeline = Timeline()
        self.state: BroadcastState.ValueType = BROADCAST_STATE_UNSPECIFIED
        self._out = out
        self._id = broadcast_id
        self._began = time.monotonic()
        self._waits: dict[ConditionType.ValueType, str] = {}

    @contextlib.contextmanager
    def shown(self) -> Generator[None, None, None]:
        if self._out.as_json or not self._out.console.is_terminal:
            yield
            return
        with Live(console=self._out.console, get_renderable=self._bars, refresh_per_second=10):
            yield

    def take(self, item: Snapshot | Change) -> None:
        status = item.broadcast.status
        self.state = status.state
        self._waits = {each.type: each.message or each.reason for each in status.conditions}
        for stage in self.timeline.update(item.broadcast):
            if self._out.as_json:
                self._out.record({"broadcast_id": self._id, **_record(stage)})
            elif not self._out.console.is_terminal:
                self._out.line(f"{stage.done:7.2f}s  {stage.name}")

    def note(self, text: str) -> None:
        """One more line, on a terminal above the bars. Never wrapped: it may be a URL."""
        if self._out.as_json:
            self._out.complain(text)
        else:
            self._out.line(text)

    def summarize(self) -> None:
        if self._out.as_json:
            return
        table = Table("STAGE", "TOOK", "AT", box=None, pad_edge=False)
        table.columns[1].justify = table.columns[2].justify = "right"
        for stage in sorted(self.timeline.stages.values(), key=lambda stage: stage.done):
            table.add_row(stage.name, human(stage.took), f"{stage.done:.2f}s")
        self._out.line(self._id, state(self.state))
        self._out.console.print(table)

    def _bars(self) -> Table:
        done = [stage.done for stage in self.timeline.stages.values()]
        now = max([time.monotonic() - self._began, 0.1, *done])
        if END in self.timeline.stages:
            now = max(done)
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_row(self._id, state(self.state), human(now))
        for part in PARTS:
            stage = self.timeline.stages.get(part.name)
            if stage:
                bar, took = _bar(stage.began, stage.done, now, "green"), f"{stage.took:.2f}s"
            elif self.timeline.is_running(part):
                bar, took = _bar(self.timeline.begin(part), now, now, "yellow"), self._waits.get(part.condition, "")
            else:
                bar, took = Text("·" * _BAR, style="dim"), ""
            table.add_row(part.name, bar, took)
        return table


def _bar(began: float, until: float, whole: float, style: str) -> Text:
    left = min(_BAR - 1, int(began / whole * _BAR))
    width = max(1, min(_BAR - left, round((until - began) / whole * _BAR)))
    bar = Text()
    bar.append("·" * left, style="dim")
    bar.append("━" * width, style=style)
    bar.append("·" * (_BAR - left - width), style="dim")
    return bar


def _record(stage: Stage) -> dict[str, object]:
    return {
        "stage": stage.name,
        "began_seconds": round(stage.began, 3),
        "done_seconds": round(stage.done, 3),
        "took_seconds": round(stage.took, 3),
    }


async def _follow(client: BroadcastClient, broadcast_id: str, view: View, watching: asyncio.Event) -> None:
    """*watching*: is set when the watch has begun."""
    async with client.watch(broadcast_filter(ids=[broadcast_id]), heartbeat_interval=5) as watch:
        async for item in watch:
            watching.set()
            if isinstance(item, Snapshot | Change):
                view.take(item)
                if view.state in _OVER:
                    return


async def _let_host_in(view: View, access: HostAccess, control: str) -> None:
    if await livekit.join(control, access.token):
        return
    view.note(f"No LiveKit simulator at {control}. Enter as the host with a browser, camera and microphone on:")
    view.note(livekit.person_url(access))


async def _stop(client: BroadcastClient, broadcast_id: str, out: Output) -> None:
    try:
        await client.stop(broadcast_id, note="the demo failed", timeout=5)
    except BroadcastError as error:
        out.complain(f"{broadcast_id} could not be stopped ({error.reason or error.code.name}): stop it")


@contextlib.contextmanager
def _one_error() -> Generator[None, None, None]:
    """The first error of a task group instead of the group."""
    try:
        yield
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
