"""Egresses, and what becomes of each: it joins, connects, ends, or breaks in one of the ways that are known.

A start waits for media without a limit, a stop is answered before the end, a worker that dies leaves a record that is
ACTIVE for ever and answers no stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from service import telemetry
from service.domain.errors import Outcome, ProviderError
from service.domain.ports import EgressSeen, EgressWanted, OutputSeen, Push, RecordingWanted
from service.domain.provider import Provider
from service.domain.reasons import Operation
from service.domain.resources import EgressStatus, OutputState
from tests.simulation.environment import Environment
from tests.simulation.faults import Kind
from tests.simulation.providers.mux import LiveStream, Mux, Session

LIST_LAG_S = 1.5
STARTS_S, CONNECTS_S = (0.5, 4.0), (0.2, 1.5)
"""With a browser, which an audio-only egress needs not."""
QUICK_S = (0.05, 0.5)
DRAINED_S = 30.0
"""The end of a stream that does not come is waited for so long (livekit/egress pkg/pipeline/controller.go)."""
PIPELINE_S = 3.0
"""An egress holds so many seconds of media. A stop sends them, and a live stream that throws it out loses them
(measured with livekit/egress 1.14.1: a jitter buffer of 2 s, a mixer of 2.75 s)."""
MUX = "mux://"
_SHOWN = "rtmps://global-live.mux.com:443/app/"
FATES = (
    Kind.EGRESS_FAILED,
    Kind.EGRESS_ABORTED,
    Kind.EGRESS_COMPLETE,
    Kind.EGRESS_LIMIT,
    Kind.EGRESS_STUCK,
    Kind.EGRESS_WEDGED,
    Kind.EGRESS_NO_MEDIA,
    Kind.EGRESS_NOT_CONNECTED,
    Kind.EGRESS_GHOST,
    Kind.EGRESS_DEAF,
    Kind.OUTPUT_FAILED,
    Kind.RTMP_LOST,
)
_ENDS = {
    Kind.EGRESS_FAILED: (EgressStatus.FAILED, "Internal error"),
    Kind.EGRESS_ABORTED: (EgressStatus.ABORTED, "Start signal not received"),
    Kind.EGRESS_COMPLETE: (EgressStatus.COMPLETE, "End reason: Service terminated"),
    Kind.EGRESS_LIMIT: (EgressStatus.LIMIT_REACHED, "Session limit reached"),
}


def failure(operation: Operation, outcome: Outcome, code: str) -> ProviderError:
    return ProviderError("simulated", provider=Provider.LIVEKIT, operation=operation, outcome=outcome, code=code)


@dataclass(eq=False, slots=True, kw_only=True)
class TrueRoom:
    name: str
    sid: str
    tag: str
    created_at: datetime
    departure_s: float
    hosts: set[str] = field(default_factory=set[str])
    """Those who publish."""
    silent: set[str] = field(default_factory=set[str])
    """Hosts who published, stopped, and are still inside: LiveKit's flag of a publisher stays set."""
    comings: int = 0
    """Counts who came and went, to tell a timer of before."""
    closed: bool = False
    forgotten: bool = False
    """The store does not know of it."""
    unlisted: set[str] = field(default_factory=set[str])
    """Those inside that the store does not know of."""

    def written(self, identity: str) -> None:
        """The server writes the room and the participant into the store."""
        self.forgotten = False
        self.unlisted.discard(identity)


@dataclass(eq=False, slots=True, kw_only=True)
class TrueOutput:
    name: str
    address: str
    url: str
    state: OutputState = OutputState.CONNECTING
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def become(self, state: OutputState, now: datetime) -> None:
        """One that never started is said to have started when it ended (livekit/egress pkg/config/output_stream.go)."""
        if state is OutputState.ACTIVE:
            self.started_at = self.started_at or now
        elif self.state in (OutputState.CONNECTING, OutputState.ACTIVE):
            self.ended_at = now
            self.started_at = self.started_at or now
        self.state = state


@dataclass(eq=False, slots=True, kw_only=True)
class TrueEgress:
    id: str
    room: TrueRoom
    wanted: EgressWanted | RecordingWanted | None
    """None: nobody asked us for it."""
    started_at: datetime
    lag_s: float
    outputs: list[TrueOutput]
    file: str = ""
    status: EgressStatus = EgressStatus.STARTING
    ended_at: datetime | None = None
    error: str = ""
    updated_ns: int = 0
    joined: bool = False
    ghost: bool = False
    deaf_s: float = 0.0
    """So long after the first stop it answers none."""
    deaf_until: float | None = None
    drains: bool = False
    """Its pipeline does not empty: it ends only when the time for that is over."""
    no_media: bool = False
    stuck: bool = False
    stopped_at: float | None = None
    """When it began to end."""
    hangs: bool = False
    """Its connection never comes about, because the other side does not answer."""
    forgotten: bool = False
    """The store does not know of it."""
    strange: bool = False
    """Of another application in the same project."""
    session: Session | None = None
    stream: LiveStream | None = None
    shown: list[tuple[float, EgressSeen]] = field(default_factory=list[tuple[float, EgressSeen]])

    @property
    def main(self) -> TrueOutput | None:
        return next((output for output in self.outputs if output.url.startswith(MUX)), None)

    @property
    def key(self) -> str:
        main = self.main
        return main.url.removeprefix(MUX) if main is not None else ""

    @property
    def runs(self) -> bool:
        return not self.status.terminal and not self.ghost

    @property
    def gave_up(self) -> bool:
        """Its way to the live stream failed, and it never tries again."""
        main = self.main
        return main is None or main.state in (OutputState.FAILED, OutputState.FINISHED)


class Workers:
    """The egress workers: each egress, and what happens to it by itself."""

    def __init__(self, env: Environment, mux: Mux) -> None:
        self._env = env
        self._mux = mux
        self.egresses: dict[str, TrueEgress] = {}
        self.hangs_next = False
        """Whether the next egress never connects."""
        self.workers = -1
        """How many egresses can run at once. Below 0: any number."""

    def worker_is_free(self) -> bool:
        return self.workers < 0 or sum(egress.runs for egress in self.egresses.values()) < self.workers

    def end(self, egress: TrueEgress, kind: Kind) -> None:
        """By itself, in one of the ways of an end."""
        if egress.runs:
            self._end(egress, *_ENDS[kind])

    @property
    def ours(self) -> list[TrueEgress]:
        """Without those of other applications."""
        return [egress for egress in self.egresses.values() if not egress.strange]

    @property
    def beside_another(self) -> list[TrueEgress]:
        """Active egresses that share their room with another active one."""
        active = [e for e in self.ours if e.runs and e.joined and e.status is EgressStatus.ACTIVE]
        return [e for e in active if any(other is not e and other.room is e.room for other in active)]

    def become_ghost(self, egress: TrueEgress) -> None:
        if egress.runs and egress.status is EgressStatus.ACTIVE:
            if egress in self.beside_another:
                self._env.effects.add("egress.hidden", egress.id, egress.room.name)
            egress.ghost = True
            self._env.effects.add("egress.ghost", egress.id, egress.room.name)
            self._disconnect(egress)

    def wedge(self, egress: TrueEgress, *, monitored: bool = True) -> None:
        """Its connection takes no media any more. *monitored*: LiveKit notices it after 30 to 35 s (egress, sink
        watch). Otherwise it stays ACTIVE for ever, and drains to its limit when it is stopped: so it was measured after
        a receiver that was away for 8 s (egress 1.14.1 with GStreamer 1.26.2).
        """
        if egress.session is not None and egress.stream is not None:
            self._mux.media_stopped(egress.stream, egress.session)
            if monitored:
                self._env.after(30, 35, lambda: self.end(egress, Kind.EGRESS_FAILED))
            else:
                egress.drains = True

    def lose_connection(self, egress: TrueEgress) -> None:
        """The network: it connects again by itself, with the key it has."""
        if egress.session is not None:
            self._disconnect(egress)
            self._env.after(2, 15, lambda: self._connect(egress))

    def fail_output(self, egress: TrueEgress) -> None:
        main = egress.main
        if main is not None and egress.status is EgressStatus.ACTIVE and main.state is OutputState.ACTIVE:
            self._output_failed(egress, main)

    def fail_destination(self, egress: TrueEgress, name: str) -> None:
        """The latest output of that name. Those before it failed already."""
        self._output_failed(egress, [each for each in egress.outputs if each.name == name][-1])

    def _output(self, push: Push) -> TrueOutput:
        return TrueOutput(name=push.name, address=self.address_of(push), url=push.url.reveal())

    def _choose_fate(self, egress: TrueEgress) -> None:
        env = self._env
        egress.hangs, self.hangs_next = self.hangs_next, False
        for fate in FATES:
            if env.faults.hits(fate, "egress"):
                match fate:
                    case Kind.EGRESS_STUCK:
                        egress.stuck = True
                    case Kind.EGRESS_NO_MEDIA:
                        egress.no_media = True
                    case Kind.EGRESS_NOT_CONNECTED:
                        egress.hangs = True
                    case _:
                        env.after(2, 120, lambda fate=fate: self._meet(egress, fate))
                return

    def _meet(self, egress: TrueEgress, fate: Kind) -> None:
        """In calm nothing breaks any more that was to break later."""
        if self._env.faults.enabled:
            self.befall(egress, fate)

    def befall(self, egress: TrueEgress, fate: Kind) -> None:
        match fate:
            case Kind.EGRESS_WEDGED:
                self.wedge(egress, monitored=self._env.rng.random() < 0.5)
            case Kind.EGRESS_GHOST | Kind.ONE_OF_TWO:
                self.become_ghost(egress)
            case Kind.OUTPUT_FAILED:
                self.fail_output(egress)
            case Kind.RTMP_LOST:
                self.lose_connection(egress)
            case Kind.EGRESS_NO_MEDIA:
                if egress.session is not None and egress.stream is not None:
                    self._mux.media_stopped(egress.stream, egress.session)
            case Kind.EGRESS_DEAF:
                # Some answer their stop late, some never.
                egress.deaf_s = self._env.rng.choice((self._env.rng.uniform(5, 25), 10_000.0))
            case Kind.EGRESS_STUCK:
                egress.stuck = not egress.joined
            case Kind.EGRESS_NOT_CONNECTED:
                egress.hangs = egress.session is None
            case _:
                self.end(egress, fate)

    def _join(self, egress: TrueEgress) -> None:
        if egress.status is EgressStatus.STARTING and not egress.stuck:
            egress.joined = True
            self._begin(egress)

    def _begin(self, egress: TrueEgress) -> None:
        """Becomes ACTIVE once somebody publishes. The wait has no limit."""
        if not egress.joined or egress.status is not EgressStatus.STARTING or not egress.room.hosts:
            return
        egress.status = EgressStatus.ACTIVE
        self._env.effects.add("egress.active", egress.id, egress.room.name)
        self._changed(egress, "egress_updated")
        for output in egress.outputs:
            self._env.after(
                *self._env.rng.choice((QUICK_S, CONNECTS_S)), lambda output=output: self._push(egress, output)
            )

    def _push(self, egress: TrueEgress, output: TrueOutput) -> None:
        if not egress.runs or output.state is not OutputState.CONNECTING:
            return
        if output is egress.main and not egress.hangs:
            self._connect(egress)
        elif output is egress.main:
            pass
        elif self._env.faults.hits(Kind.OUTPUT_FAILED, "destination"):
            self._output_failed(egress, output)
        else:
            output.become(OutputState.ACTIVE, self._env.now())
            self._changed(egress, "egress_updated")

    def _connect(self, egress: TrueEgress) -> None:
        main = egress.main
        if not egress.runs or main is None or egress.gave_up or egress.session is not None:
            return
        session = Session(publisher=egress.id, cut=lambda: self._cut(egress), sends=not egress.no_media)
        stream = self._mux.connect(egress.key, session)
        if stream is None:
            self._env.effects.add("rtmp.refused", egress.id, egress.room.name)
            self._env.after(0.2, 3.0, lambda: self._output_failed(egress, main))
            return
        egress.session, egress.stream = session, stream
        main.become(OutputState.ACTIVE, self._env.now())
        self._changed(egress, "egress_updated")

    def _cut(self, egress: TrueEgress) -> None:
        """Thrown out by the live stream; it tries once more."""
        egress.session = egress.stream = None
        self._env.after(0.5, 5.0, lambda: self._connect(egress))

    def _disconnect(self, egress: TrueEgress) -> None:
        if egress.session is not None and egress.stream is not None:
            stream, session = egress.stream, egress.session
            egress.session = egress.stream = None
            self._mux.disconnect(stream, session)

    def _output_failed(self, egress: TrueEgress, output: TrueOutput) -> None:
        if not egress.runs or output.state in (OutputState.FAILED, OutputState.FINISHED):
            return
        output.become(OutputState.FAILED, self._env.now())
        if output is egress.main:
            self._disconnect(egress)
        living = [o for o in egress.outputs if o.state in (OutputState.CONNECTING, OutputState.ACTIVE)]
        if not living and egress.status is not EgressStatus.ENDING:
            self._end(egress, EgressStatus.FAILED, f"no output is left: {self._env.canaries.echo('livekit')}")
        else:
            self._changed(egress, "egress_updated")

    def _source_lost(self, egress: TrueEgress) -> None:
        if egress.runs and egress.status is not EgressStatus.ENDING:
            self._wind_down(egress)

    def _wind_down(self, egress: TrueEgress) -> None:
        if egress.status is EgressStatus.STARTING:
            self._end(egress, EgressStatus.ABORTED, "Stop called before pipeline could start")
            return
        egress.status = EgressStatus.ENDING
        egress.stopped_at = self._env.loop.time()
        self._changed(egress, "egress_updated")
        longest = 25.0 if self._env.rng.random() < 0.1 else PIPELINE_S + 1.0
        within = (DRAINED_S, DRAINED_S + 1) if egress.drains else (PIPELINE_S, longest)
        self._env.after(*within, lambda: self._end(egress, EgressStatus.COMPLETE, ""))

    def _end(self, egress: TrueEgress, status: EgressStatus, error: str) -> None:
        if not egress.runs:
            return
        self._disconnect(egress)
        egress.status, egress.error, egress.ended_at = status, error, self._env.now()
        for output in egress.outputs:
            if output.state is not OutputState.FAILED:
                output.become(OutputState.FINISHED, self._env.now())
        self._env.effects.add("egress.ended", egress.id, egress.room.name, str(status))
        self._changed(egress, "egress_ended")

    def _running(self, egress_id: str, operation: Operation) -> TrueEgress:
        egress = self.egresses.get(egress_id)
        if egress is None or egress.status.terminal:
            raise failure(operation, Outcome.MISSING, "not_found")
        if egress.ghost:
            raise failure(operation, Outcome.AMBIGUOUS, "deadline_exceeded")
        return egress

    def _changed(self, egress: TrueEgress, webhook: str) -> None:
        egress.updated_ns = max(egress.updated_ns + 1, int(self._env.loop.time() * 1e9))
        seen = EgressSeen(
            id=egress.id,
            room_name=egress.room.name,
            status=egress.status,
            started_at=egress.started_at,
            ended_at=egress.ended_at,
            updated_ns=egress.updated_ns,
            outputs=tuple(
                OutputSeen(
                    address=output.address, state=output.state, started_at=output.started_at, ended_at=output.ended_at
                )
                for output in egress.outputs
            ),
            # LiveKit echoes urls in its errors, and the adapter redacts them.
            error=telemetry.redact(egress.error),
            file=egress.file,
            file_bytes=1000 if egress.file and egress.status is EgressStatus.COMPLETE else 0,
        )
        egress.shown.append((self._env.loop.time(), seen))
        egress.forgotten = False
        self._env.tell("livekit", webhook, egress.room.name, egress=seen)

    def _listed(self, egresses: Iterable[TrueEgress]) -> list[EgressSeen]:
        now = self._env.loop.time()
        found: list[EgressSeen] = []
        for egress in egresses:
            if egress.forgotten:
                continue
            for at, seen in reversed(egress.shown):
                if at + egress.lag_s <= now:
                    found.append(seen)
                    break
        return found

    @staticmethod
    def address_of(push: Push) -> str:
        url = push.url.reveal()
        if url.startswith(MUX):
            url = _SHOWN + url.removeprefix(MUX)
        base, _, key = url.rpartition("/")
        return f"{base}/{{{key[:3]}...{key[-3:]}}}"
