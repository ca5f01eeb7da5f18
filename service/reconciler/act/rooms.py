"""The steps of a room: create, delete."""

from __future__ import annotations

from dataclasses import replace

from service.domain.errors import Outcome, ProviderError
from service.domain.lifecycle import Event
from service.domain.planning.steps import CreateRoom, DeleteRoom, RoomStep
from service.domain.provider import ROOMS
from service.domain.reasons import EventReason
from service.domain.resources import Phase, Room
from service.failpoints import failpoint
from service.reconciler.act.call import delete
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import retry_at, trouble_of
from service.reconciler.act.requests import room_wanted


async def carry_out(context: PassContext, step: RoomStep) -> None:
    match step:
        case CreateRoom():
            await _create(context, step)
        case DeleteRoom():
            room = next(room for room in context.resources.rooms if room.ordinal == step.ordinal)
            await delete(context, room, context.providers.rooms.delete, "room.delete", ROOMS)


async def _create(context: PassContext, step: CreateRoom) -> None:
    failpoint("room.create.before_intent")
    earlier = next((room for room in context.resources.rooms if room.ordinal == step.ordinal), None)
    room = earlier or Room(
        ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=context.now(), changed_at=context.now()
    )
    await context.intend(room, "room.create")
    try:
        seen = await context.providers.rooms.create(
            room_wanted(context.broadcast.id, context.providers.tag, context.timing)
        )
    except ProviderError as error:
        ambiguous = error.outcome is Outcome.AMBIGUOUS
        failed = replace(
            room,
            phase=Phase.UNKNOWN if ambiguous else Phase.INTENDED,
            failures=room.failures + 1,
            retry_at=retry_at(context, room.failures + 1, error),
            refused=error.outcome is Outcome.REFUSED,
        )
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("room.create.after_call")
    present = replace(
        room,
        phase=Phase.PRESENT,
        external_id=seen.name,
        sid=seen.sid,
        changed_at=context.now(),
        failures=0,
        retry_at=None,
        # The answer counts those who ever published: who does now is for a look to say.
        host_publishing=False if seen.publishers == 0 else None,
        host_since=context.now(),
        observed_at=context.now(),
    )
    await context.record(
        [present],
        events=[Event(reason=EventReason.ROOM_CREATED, message=seen.sid)],
        recovered=ROOMS,
    )
    failpoint("room.create.after_record")
