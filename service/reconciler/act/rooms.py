"""The steps of a room: create, ask whether it is there, delete.

A room is found by its name, and several environments and applications may share a project of LiveKit. So a room that
carries somebody else's mark is never used and never deleted, and neither is one of which nobody knows whose it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.domain.broadcast import seconds
from service.domain.errors import Outcome, ProviderError
from service.domain.observing.evidence import absent
from service.domain.observing.rooms import room_asked, room_created
from service.domain.planning.steps import AskForRoom, CreateRoom, DeleteRoom, RoomStep
from service.domain.provider import ROOMS
from service.domain.reasons import Operation
from service.domain.resources import Phase, Room
from service.domain.schedule import ahead_s
from service.failpoints import failpoint
from service.reconciler.act.call import delete
from service.reconciler.act.context import PassContext
from service.reconciler.act.outcomes import record_failure, retry_at, trouble_of
from service.reconciler.act.requests import room_wanted
from service.reconciler.act.tags import is_foreign, room_tag

if TYPE_CHECKING:
    from service.domain.ports import RoomSeen


async def carry_out(context: PassContext, step: RoomStep) -> None:
    match step:
        case CreateRoom():
            await _create(context, step)
        case AskForRoom():
            await _ask(context, _row(context, step))
        case DeleteRoom():
            await _delete(context, _row(context, step))


def _row(context: PassContext, step: RoomStep) -> Room:
    return next(room for room in context.resources.rooms if room.ordinal == step.ordinal)


async def _create(context: PassContext, step: CreateRoom) -> None:
    failpoint("room.create.before_intent")
    earlier = next((room for room in context.resources.rooms if room.ordinal == step.ordinal), None)
    room = earlier or Room(
        ordinal=step.ordinal, phase=Phase.INTENDED, intended_at=context.now(), changed_at=context.now()
    )
    if earlier is not None:
        room = replace(room, queued_s=context.queued_s(earlier))
    await context.intend(room, "room.create")
    try:
        seen = await context.providers.rooms.create(
            room_wanted(
                context.broadcast.id,
                context.providers.tag,
                context.timing,
                ahead_s=ahead_s(context.broadcast.spec, context.now()),
            )
        )
    except ProviderError as error:
        ambiguous = error.outcome is Outcome.AMBIGUOUS
        failed = replace(
            room,
            phase=Phase.UNKNOWN if ambiguous else Phase.INTENDED,
            failures=room.failures + 1,
            retry_at=retry_at(context, room.failures + 1, error),
            failed_at=context.now(),
            refused=error.outcome is Outcome.REFUSED,
        )
        await context.record([failed], trouble=trouble_of(error, context.now()))
        return
    failpoint("room.create.after_call")
    if _is_foreign(context, seen):
        error = ProviderError(
            f"the room {seen.name!r} belongs to another environment or application",
            provider=ROOMS,
            operation=Operation.CREATE_ROOM,
            outcome=Outcome.REFUSED,
            code="foreign_room",
        )
        # Gone, so that the end does not delete it.
        refused = replace(room, phase=Phase.GONE, changed_at=context.now(), failures=room.failures + 1, refused=True)
        await context.record([refused], trouble=trouble_of(error, context.now()))
        return
    learned = room_created(room, seen, context.resources.rooms, context.now())
    await context.record(learned.resources, events=learned.events, recovered=ROOMS)
    failpoint("room.create.after_record")


async def _ask(context: PassContext, room: Room) -> None:
    """The create may make a room. Its row is DELETING, or of this room, until the answer is recorded, so a pass that is
    cut off here leaves a room that the next one deletes or takes.
    """
    await context.intend(room, "room.ask")
    try:
        seen = await context.providers.rooms.create(
            room_wanted(context.broadcast.id, context.providers.tag, context.timing)
        )
    except ProviderError as error:
        await record_failure(context, room, error)
        return
    failpoint("room.ask.after_call")
    now = context.now()
    if _is_foreign(context, seen):
        # Ours is gone, and what has its name now is not deleted.
        leaving = room.phase is Phase.DELETING
        gone = replace(room, acked=True, doubted=False) if leaving else replace(room, forgotten_at=None)
        await context.record([gone], recovered=ROOMS)
        return
    learned = room_asked(room, seen, context.resources.rooms, now, context.timing)
    kept = learned.resources[0]
    assert isinstance(kept, Room)  # noqa: S101 - the row that was asked for comes first
    trouble = None
    if kept.phase is Phase.DELETING and kept.sid == room.sid:
        error = ProviderError(
            f"{ROOMS.display_name} answers that there is no such room, and answers a create with it: its store lost it",
            provider=ROOMS,
            operation=Operation.DELETE_ROOM,
            outcome=Outcome.MISSING,
            code="forgotten_room",
        )
        trouble, failures = trouble_of(error, now), room.failures + 1
        kept = replace(kept, failures=failures, retry_at=retry_at(context, failures, error), failed_at=now)
    elif kept.phase is Phase.PRESENT:
        kept = replace(kept, failures=0, retry_at=now + seconds(context.timing.forgotten_s), failed_at=None)
    await context.record(
        [kept, *learned.resources[1:]],
        events=learned.events,
        trouble=trouble,
        recovered=ROOMS if trouble is None else None,
    )
    failpoint("room.ask.after_record")


async def _delete(context: PassContext, room: Room) -> None:
    """The room of this name may be another one by now: ours may have closed, and somebody else's have been made. And
    LiveKit deletes by the name alone. So a room is deleted only if a list, or else a create, has just shown it as ours.

    A room that the list lacks is asked for by a create, which answers with its sid. One that was never seen to be ours
    has no sid: if nobody is inside either, there is none, and if somebody is, it is looked for again.
    """
    rooms, name = context.providers.rooms, context.broadcast.id
    asked = room.phase is Phase.DELETING and room.forgotten_at is not None
    try:
        seen = await rooms.get(name)
        hidden = seen is None and not room.sid and (await rooms.inside(name)).anybody
    except ProviderError as error:
        await record_failure(context, room, error)
        return
    now = context.now()
    if hidden:
        again = now + seconds(context.timing.lookup_s)
        await context.record([replace(absent(room, now), retry_at=again, failed_at=None)])
    elif seen is None and room.sid and not asked:
        doubted = replace(room, phase=Phase.DELETING, changed_at=now, acked=False, doubted=True, retry_at=None)
        await context.record([doubted])
    elif (seen is None and not room.sid) or (seen is not None and _is_foreign(context, seen)):
        # As good as deleted: the looks that follow must agree.
        leaving = replace(room, phase=Phase.DELETING, changed_at=now, acked=True, failures=0, retry_at=None)
        await context.record([leaving], recovered=ROOMS)
    else:
        await delete(context, room, rooms.delete, "room.delete", ROOMS)


def _is_foreign(context: PassContext, seen: RoomSeen) -> bool:
    return is_foreign(seen, room_tag(context.providers.tag, context.broadcast.id), context.resources.rooms)
