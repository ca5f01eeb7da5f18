"""LiveKit as it is: rooms, who publishes in them, and the calls that start and stop egresses.

Sources are those of the simulated LiveKit (`egress/egress.py`, `rooms.py`): lists lag behind what happens.
"""

from __future__ import annotations

from collections.abc import Callable

from service.domain.errors import Outcome
from service.domain.ports import (
    EgressSeen,
    EgressWanted,
    PublisherSeen,
    Push,
    RecordingWanted,
    RoomInside,
    RoomPeople,
    RoomSeen,
    RoomWanted,
)
from service.domain.reasons import Operation
from service.domain.resources import EgressStatus, OutputState
from tests.simulation.environment import Environment
from tests.simulation.providers.egresses import (
    CONNECTS_S,
    LIST_LAG_S,
    QUICK_S,
    STARTS_S,
    TrueEgress,
    TrueRoom,
    Workers,
    failure,
)
from tests.simulation.providers.mux import Mux


class LiveKit(Workers):
    def __init__(self, env: Environment, mux: Mux) -> None:
        super().__init__(env, mux)
        self.rooms: dict[str, TrueRoom] = {}
        self.room_of: Callable[[str], RoomWanted] | None = None
        """The room that a host's token carries. A host who enters a room that does not exist creates it so."""

    @property
    def stored(self) -> dict[str, TrueRoom]:
        """The rooms that the store knows of. Every call but a create looks here."""
        return {name: room for name, room in self.rooms.items() if not room.forgotten}

    def forget(self) -> None:
        """The store loses its data. Rooms and egresses go on. The store knows of each again when it changes."""
        for room in self.rooms.values():
            room.forgotten = True
            room.unlisted = room.hosts | room.silent | self.recorders(room.name)
        for egress in self.egresses.values():
            egress.forgotten = True

    def create_room(self, wanted: RoomWanted) -> RoomSeen:
        room = self.rooms.get(wanted.name)
        if room is None:
            env = self._env
            room = self.rooms[wanted.name] = TrueRoom(
                name=wanted.name,
                sid=env.id("RM_"),
                tag=wanted.tag,
                created_at=env.now(),
                departure_s=wanted.departure_timeout.total_seconds(),
            )
            env.effects.add("room.created", room.name, room.name, room.sid)
            made = room
            env.loop.call_later(wanted.empty_timeout.total_seconds(), lambda: self._left_alone(made, 0))
            env.tell("livekit", "room_started", room.name, room_sid=room.sid)
        return self.seen_room(room)

    def seen_room(self, room: TrueRoom) -> RoomSeen:
        return RoomSeen(
            name=room.name,
            sid=room.sid,
            tag=room.tag,
            publishers=len(room.hosts | room.silent),
            participants=len(room.hosts | room.silent),
            recorded=bool(self.recorders(room.name)),
            created_at=room.created_at,
        )

    def recorders(self, name: str) -> frozenset[str]:
        """An egress is a participant of the room, of kind EGRESS, with its id as identity, until its worker is gone."""
        room = self.rooms.get(name)
        return frozenset(e.id for e in self.egresses.values() if e.room is room and e.joined and e.runs)

    def people(self, name: str) -> RoomPeople:
        room = self.rooms.get(name)
        hosts = sorted(room.hosts - room.unlisted) if room is not None else []
        return RoomPeople(
            publishers=tuple(PublisherSeen(identity=host, name=host, joined_at=None, tracks=()) for host in hosts),
            viewers=len(room.silent - room.unlisted) if room is not None else 0,
        )

    def inside(self, name: str) -> RoomInside:
        room = self.rooms.get(name)
        people, recorders = self.people(name), self.recorders(name) - (room.unlisted if room is not None else set())
        anybody = bool(people.publishers or people.viewers or recorders)
        return RoomInside(people=people, recorders=recorders, recorded=bool(recorders), anybody=anybody)

    def delete_stored_room(self, name: str, by: str = "us") -> bool:
        if name not in self.stored:
            return False
        self.delete_room(name, by)
        return True

    def delete_room(self, name: str, by: str = "us") -> None:
        room = self.rooms.pop(name, None)
        if room is None:
            return
        room.closed = True
        room.hosts.clear()
        room.silent.clear()
        self._env.effects.add("room.deleted", name, name, by)
        for egress in self.egresses.values():
            if egress.room is room:
                self._source_lost(egress)
        self._env.tell("livekit", "room_finished", name, room_sid=room.sid)

    def join(self, name: str, identity: str) -> None:
        """A host enters with a token and publishes."""
        if name not in self.rooms:
            if self.room_of is None:
                return
            self.create_room(self.room_of(name))
        room = self.rooms[name]
        if identity in room.hosts:
            return
        room.hosts.add(identity)
        room.written(identity)
        room.silent.discard(identity)
        room.comings += 1
        self._env.effects.add("host.joined", name, name, identity)
        for egress in self.egresses.values():
            if egress.room is room:
                self._begin(egress)
        self._env.tell("livekit", "track_published", name, room_sid=room.sid)

    def leave(self, name: str, identity: str) -> None:
        room = self.rooms.get(name)
        if room is None or identity not in room.hosts | room.silent:
            return
        if identity in room.hosts:
            self._env.effects.add("host.left", name, name, identity)
        room.hosts.discard(identity)
        room.silent.discard(identity)
        room.written(identity)
        room.comings += 1
        if not room.hosts | room.silent:
            counted = room.comings
            self._env.loop.call_later(room.departure_s, lambda: self._left_alone(room, counted))
        self._env.tell("livekit", "participant_left", name, room_sid=room.sid)

    def unpublish(self, name: str, identity: str) -> None:
        """A host stops publishing and stays: the count of publishers in the list of rooms stays too."""
        room = self.rooms.get(name)
        if room is None or identity not in room.hosts:
            return
        room.hosts.discard(identity)
        room.silent.add(identity)
        room.written(identity)
        room.comings += 1
        self._env.effects.add("host.left", name, name, identity)
        self._env.tell("livekit", "track_unpublished", name, room_sid=room.sid)

    def _left_alone(self, room: TrueRoom, counted: int) -> None:
        if not room.closed and room.comings == counted:
            self.delete_room(room.name, "timeout")

    def start(self, wanted: EgressWanted) -> EgressSeen:
        env = self._env
        room = self.stored.get(wanted.room_name)
        if room is None:
            raise failure(Operation.START_EGRESS, Outcome.MISSING, "not_found")
        egress = TrueEgress(
            id=env.id("EG_"),
            room=room,
            wanted=wanted,
            started_at=env.now(),
            lag_s=env.rng.uniform(0, LIST_LAG_S),
            outputs=[self._output(push) for push in wanted.pushes],
        )
        self.egresses[egress.id] = egress
        if (stream := self._mux.by_key.get(egress.key)) is not None:
            stream.used = True
        env.effects.add("egress.started", egress.id, room.name, egress.key)
        return self.launch(egress)

    def record(self, wanted: RecordingWanted) -> EgressSeen:
        env = self._env
        room = self.stored.get(wanted.room_name)
        if room is None:
            raise failure(Operation.START_EGRESS, Outcome.MISSING, "not_found")
        egress = TrueEgress(
            id=env.id("EG_"),
            room=room,
            wanted=wanted,
            started_at=env.now(),
            lag_s=env.rng.uniform(0, LIST_LAG_S),
            outputs=[],
            file=wanted.file,
        )
        self.egresses[egress.id] = egress
        env.effects.add("recording.started", egress.id, room.name, wanted.file)
        return self.launch(egress)

    def launch(self, egress: TrueEgress) -> EgressSeen:
        self._changed(egress, "egress_started")
        self._choose_fate(egress)
        self._env.after(*self._env.rng.choice((QUICK_S, STARTS_S)), lambda: self._join(egress))
        return egress.shown[-1][1]

    def list_room(self, name: str) -> list[EgressSeen]:
        return self._listed(egress for egress in self.egresses.values() if egress.room.name == name)

    def get_egress(self, egress_id: str) -> EgressSeen | None:
        """By its id it is found as soon as it is stored."""
        egress = self.egresses.get(egress_id)
        return None if egress is None or egress.forgotten else next(iter(self._listed([egress])), egress.shown[-1][1])

    def list_active(self) -> list[EgressSeen]:
        return [seen for seen in self._listed(self.egresses.values()) if not seen.status.terminal]

    def stop(self, egress_id: str) -> None:
        egress = self.egresses.get(egress_id)
        if egress is None or egress.status.terminal or egress.status is EgressStatus.ENDING:
            return
        if egress.ghost:
            raise failure(Operation.STOP_EGRESS, Outcome.AMBIGUOUS, "deadline_exceeded")
        if egress.deaf_until is None:
            egress.deaf_until = self._env.loop.time() + egress.deaf_s
        if self._env.loop.time() < egress.deaf_until:
            raise failure(Operation.STOP_EGRESS, Outcome.UNAVAILABLE, "unavailable")
        self._env.effects.add("egress.stopped", egress.id, egress.room.name)
        self._wind_down(egress)

    def set_layout(self, egress_id: str, layout: str) -> None:
        egress = self._running(egress_id, Operation.SET_LAYOUT)
        self._env.effects.add("egress.layout", egress.id, egress.room.name, layout)

    def set_pushes(self, egress_id: str, add: list[Push], remove: list[Push]) -> EgressSeen:
        egress = self._running(egress_id, Operation.SET_OUTPUTS)
        missing = False
        for push in remove:
            url = push.url.reveal()
            output = next((o for o in egress.outputs if o.url == url and o.state is not OutputState.FINISHED), None)
            if output is None or output.state is OutputState.FAILED:
                missing = True
            else:
                output.become(OutputState.FINISHED, self._env.now())
        for push in add:
            output = self._output(push)
            egress.outputs.append(output)
            self._env.after(
                *self._env.rng.choice((QUICK_S, CONNECTS_S)), lambda output=output: self._push(egress, output)
            )
        self._env.effects.add("egress.outputs", egress.id, egress.room.name, f"+{len(add)} -{len(remove)}")
        self._changed(egress, "egress_updated")
        if missing:
            raise failure(Operation.SET_OUTPUTS, Outcome.MISSING, "not_found")
        return egress.shown[-1][1]
