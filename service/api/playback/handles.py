"""The messages of handles: how viewers watch, with the tokens that they need."""

from datetime import datetime
from typing import TypeAlias

from broadcast.v1 import playback_service_pb2 as rpc
from service.api.messages.broadcast import playback_message, recording_message
from service.api.messages.enums import STATES
from service.api.messages.times import time_message
from service.domain.broadcast import Broadcast, PlaybackPolicy
from service.domain.ports import PlaybackToken, PlaybackTokens, TokenUse
from service.domain.reporting.handle import handle_of
from service.domain.reporting.playback import Hls, InTheRoom, NotYet, Over, Way

Answer: TypeAlias = rpc.JoinBroadcastResponse | rpc.PlaybackState


class Handles:
    def __init__(self, tokens: PlaybackTokens | None, playback_base_url: str) -> None:
        """*tokens*: None: there is no signing key, and whoever watches a signed broadcast needs a token of his own."""
        self._tokens = tokens
        self._playback_base_url = playback_base_url

    def state(self, broadcast: Broadcast, way: Way, now: datetime, *, until: datetime) -> rpc.PlaybackState:
        """For all viewers alike. *now*: of the database clock. *until*: tokens are good until then at least."""
        state = rpc.PlaybackState(
            broadcast_id=broadcast.id,
            state=STATES.number[broadcast.state],
            handle_generation=handle_of(broadcast, now).generation,
        )
        self.fill(state, broadcast, way, until=until)
        return state

    def fill(self, answer: Answer, broadcast: Broadcast, way: Way, *, until: datetime) -> None:
        """Set the handle of *answer*. *until*: as of `state`."""
        match way:
            case Hls():
                answer.hls.CopyFrom(self.hls(broadcast, until=until))
            case InTheRoom():
                answer.webrtc.SetInParent()
            case NotYet(reason=reason, eta=eta):
                answer.starting.reason = reason
                if eta is not None:
                    answer.starting.eta.FromTimedelta(eta)
            case Over(recordings=recordings) if recordings:
                for each in recordings:
                    tokens = self._signed(broadcast, each.playback_id, until=until)
                    playback = tokens.playback if tokens is not None else ""
                    answer.recording.recordings.append(recording_message(each, self._playback_base_url, playback))
                    if tokens is not None:
                        answer.recording.tokens[each.playback_id].CopyFrom(tokens)
            case Over(pending=pending):
                answer.ended.recording_pending = pending

    def hls(self, broadcast: Broadcast, *, until: datetime) -> rpc.HlsPlayback:
        """*until*: as of `state`."""
        tokens = self._signed(broadcast, broadcast.status.playback_id, until=until)
        playback = tokens.playback if tokens is not None else ""
        return rpc.HlsPlayback(
            playback=playback_message(broadcast, self._playback_base_url, playback),
            tokens=tokens,
        )

    def _signed(self, broadcast: Broadcast, playback_id: str, *, until: datetime) -> rpc.PlaybackTokens | None:
        """None: no token is needed, or there is no key."""
        if broadcast.spec.playback_policy is not PlaybackPolicy.SIGNED or self._tokens is None:
            return None
        playback, thumbnail, storyboard = (
            self._tokens.sign(playback_id, use, until=until)
            for use in (TokenUse.VIDEO, TokenUse.THUMBNAIL, TokenUse.STORYBOARD)
        )
        return rpc.PlaybackTokens(
            playback=_text(playback),
            thumbnail=_text(thumbnail),
            storyboard=_text(storyboard),
            expire_time=time_message(min(each.expire_time for each in (playback, thumbnail, storyboard))),
        )


def _text(token: PlaybackToken) -> str:
    return token.token.reveal()
