"""Who is on stage, and moderation: the only calls of an RPC that change anything at a provider.

Each of them may be repeated, and nothing of it is state of the service. A removal or a mute is told in the story of
the broadcast before the call is made, so nothing is done to a person without an entry that says it.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from broadcast.v1 import broadcast_service_pb2 as rpc
from broadcast.v1.participant_pb2 import PARTICIPANT_KIND_UNSPECIFIED, Participant
from service import telemetry
from service.api.messages.enums import PARTICIPANT_KINDS
from service.api.messages.health import track_message
from service.api.messages.pages import fitting
from service.api.messages.times import time_message
from service.api.streams.moved import Moved
from service.domain import lifecycle
from service.domain.errors import (
    InvalidField,
    Outcome,
    ParticipantNotFound,
    ProviderError,
    ProviderUnavailable,
    ServiceError,
    UnmuteRefused,
    Violation,
)
from service.domain.lifecycle import Event
from service.domain.ports import Moderation, ParticipantKind, ParticipantSeen, TrackKind, TrackSeen
from service.domain.provider import ROOMS
from service.domain.reasons import EventReason
from service.store.broadcasts import Broadcasts, Request

_T = TypeVar("_T")

_LIMITED_FOR: Final = timedelta(seconds=1)
_AWAY_FOR: Final = timedelta(seconds=2)
_WHY: Final = {
    Outcome.NOT_SENT: "cannot be reached",
    Outcome.CREDENTIALS: "refuses the credentials of the service",
    Outcome.THROTTLED: "takes no more calls now",
    Outcome.UNAVAILABLE: "did not find who holds the room",
    Outcome.AMBIGUOUS: "did not answer, so the call may have had its effect: repeat it",
}
_REFUSED: Final = "refused the call"


class StageApi:
    def __init__(
        self,
        *,
        broadcasts: Broadcasts,
        moderation: Moderation,
        spare: Callable[[], Awaitable[bool]],
        moved: Moved,
    ) -> None:
        """*spare*: takes one token of the limit of calls to the provider of rooms, and answers whether there was one.
        *moved*: as of `ApiServer`.
        """
        self._broadcasts = broadcasts
        self._moderation = moderation
        self._spare = spare
        self._moved = moved

    async def participants(self, request: rpc.ListParticipantsRequest) -> rpc.ListParticipantsResponse:
        """Raises BroadcastNotFound, StateForbids, ProviderUnavailable, StoreUnavailable, as do the others."""
        there = await self._everybody(request.broadcast_id)
        wanted = [each for each in there if each.tracks or not request.publishers_only]
        wanted.sort(key=lambda each: (not each.tracks, each.joined_at is None, each.joined_at, each.identity))
        return rpc.ListParticipantsResponse(
            participants=fitting(_participant_message(each) for each in wanted), participant_count=len(wanted)
        )

    async def remove(self, request: rpc.RemoveParticipantRequest) -> rpc.RemoveParticipantResponse:
        """Raises ParticipantNotFound, InvalidField too."""
        broadcast_id, identity = request.broadcast_id, request.identity
        try:
            seen = await self._participant(broadcast_id, identity)
            if seen.kind is ParticipantKind.RECORDER:
                why = "is an egress or another recorder, which is no person: StopBroadcast or SetOnAir ends an egress"
                raise InvalidField(Violation(field="identity", description=why))
            await self._tell(broadcast_id, EventReason.REMOVAL_REQUESTED, identity, request.note)
            try:
                await self._ask(self._moderation.remove(broadcast_id, identity))
            except ProviderError as error:
                if error.outcome is Outcome.MISSING:
                    raise _nobody(broadcast_id, identity) from None
                raise _away(error) from None
        except ParticipantNotFound:
            if not request.allow_missing:
                raise
        return rpc.RemoveParticipantResponse()

    async def mute(self, request: rpc.MuteParticipantRequest) -> rpc.MuteParticipantResponse:
        """Raises ParticipantNotFound, UnmuteRefused too."""
        broadcast_id, identity, muted = request.broadcast_id, request.identity, not request.unmute
        # A mute of somebody who is not there is answered after 3 s, as if the server were away.
        seen = await self._participant(broadcast_id, identity)
        tracks = _chosen(broadcast_id, seen, request.track_sids)
        changing = [track for track in tracks if track.muted is not muted]
        if changing:
            reason = EventReason.MUTE_REQUESTED if muted else EventReason.UNMUTE_REQUESTED
            what = f"{identity} ({', '.join(f'{track.source} {track.sid}' for track in changing)})"
            await self._tell(broadcast_id, reason, what, request.note)
        for track in changing:
            await self._mute(broadcast_id, identity, track.sid, muted=muted)
        return rpc.MuteParticipantResponse(tracks=[track_message(replace(track, muted=muted)) for track in tracks])

    async def _mute(self, broadcast_id: str, identity: str, track_sid: str, *, muted: bool) -> None:
        try:
            found = await self._ask(self._moderation.mute(broadcast_id, identity, track_sid, muted=muted))
        except ProviderError as error:
            if error.outcome is Outcome.MISSING:
                raise _nobody(broadcast_id, identity) from None
            if error.outcome is Outcome.REFUSED and not muted:
                name = error.provider.display_name
                raise UnmuteRefused(
                    f"{name} lets only {identity!r} unmute the track: room.enable_remote_unmute is not on",
                    broadcast_id=broadcast_id,
                    identity=identity,
                ) from None
            raise _away(error) from None
        if not found:
            raise _no_track(broadcast_id, identity, track_sid)

    async def _everybody(self, broadcast_id: str) -> list[ParticipantSeen]:
        lifecycle.check_running(await self._broadcasts.get(broadcast_id))
        try:
            return list(await self._ask(self._moderation.participants(broadcast_id)))
        except ProviderError as error:
            raise _away(error) from None

    async def _participant(self, broadcast_id: str, identity: str) -> ParticipantSeen:
        there = await self._everybody(broadcast_id)
        found = next((each for each in there if each.identity == identity), None)
        if found is None:
            raise _nobody(broadcast_id, identity)
        return found

    async def _ask(self, call: Coroutine[Any, Any, _T]) -> _T:
        """The answer of *call*, which is not made where the limit of calls is used up."""
        try:
            allowed = await self._spare()
        except BaseException:
            call.close()
            raise
        if not allowed:
            call.close()
            error = ProviderUnavailable(
                f"the limit of calls to {ROOMS.display_name} is used up for now", provider=ROOMS
            )
            error.retry_after = _LIMITED_FOR
            raise error
        return await call

    async def _tell(self, broadcast_id: str, reason: EventReason, what: str, note: str) -> None:
        event = Event(reason=reason, message=f"{what}: {note}" if note else what)
        await self._broadcasts.change(
            broadcast_id,
            lambda stored, _now: lifecycle.tell(stored, event),
            # Not one of the writes that are recognised: each copy of the call asks the provider again.
            Request(id="", method="", digest=b""),
            trace_context=telemetry.traceparent(),
        )
        self._moved.notify()


def _chosen(broadcast_id: str, seen: ParticipantSeen, sids: Iterable[str]) -> list[TrackSeen]:
    """The tracks *sids* of *seen*; without any, every track with sound. Raises ParticipantNotFound."""
    by_sid = {track.sid: track for track in seen.tracks}
    for sid in sids:
        if sid not in by_sid:
            raise _no_track(broadcast_id, seen.identity, sid)
    return [by_sid[sid] for sid in sids] or [track for track in seen.tracks if track.kind is TrackKind.AUDIO]


def _participant_message(seen: ParticipantSeen) -> Participant:
    return Participant(
        identity=seen.identity,
        display_name=seen.name,
        kind=PARTICIPANT_KIND_UNSPECIFIED if seen.kind is None else PARTICIPANT_KINDS.number[seen.kind],
        joined_time=time_message(seen.joined_at),
        tracks=[track_message(track) for track in seen.tracks],
        publishable_sources=seen.may_publish,
    )


def _nobody(broadcast_id: str, identity: str) -> ServiceError:
    return ParticipantNotFound(
        f"nobody in the room of {broadcast_id!r} is {identity!r}", broadcast_id=broadcast_id, identity=identity
    )


def _no_track(broadcast_id: str, identity: str, sid: str) -> ServiceError:
    return ParticipantNotFound(
        f"{identity!r} does not publish the track {sid!r}", broadcast_id=broadcast_id, identity=identity
    )


def _away(error: ProviderError) -> ProviderUnavailable:
    """Without the text of the provider, which may quote a token."""
    what = f"{error.operation}: {error.code or error.outcome}"
    why = f"{error.provider.display_name} {_WHY.get(error.outcome, _REFUSED)} ({what})"
    away = ProviderUnavailable(why, provider=error.provider)
    away.retry_after = error.retry_after or _AWAY_FOR
    return away
