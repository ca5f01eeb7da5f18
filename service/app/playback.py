"""PlaybackService of one replica, and what it is made of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from service.api.playback.board import Board
from service.api.playback.handles import Handles
from service.api.playback.sessions import Sessions
from service.api.services.playback import PlaybackApi
from service.api.streams.playback import PlaybackWatches
from service.domain.audience.rhythm import keep_alive_s
from service.providers.budget import Bucket, Rank
from service.store.past_starts import PastStarts
from service.store.shown import ShownBroadcasts
from service.store.viewers import Viewers

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.streams.change_log import Tail
    from service.app.shared import Shared
    from service.store.audience.counts import AudienceCounts


def playback_api(shared: Shared, tail: Tail, audience: AudienceCounts, saw: Callable[[str, str], None]) -> PlaybackApi:
    """*tail*: the one that the server of the replica reads. *saw*: as of PlaybackApi."""
    settings, database = shared.settings, shared.database
    handles = Handles(shared.playback_tokens, settings.playback_base_url)
    past_starts = PastStarts(database)
    return PlaybackApi(
        board=Board(ShownBroadcasts(database, shared.rows), tail),
        viewers=Viewers(database),
        tokens=shared.viewer_tokens,
        sessions=Sessions(settings.secret_keys, environment=settings.environment, life=settings.session),
        handles=handles,
        watches=PlaybackWatches(
            broadcasts=shared.broadcasts,
            changes=shared.changes,
            tail=tail,
            handles=handles,
            past_starts=past_starts,
            now=database.now,
            tokens_live=settings.session,
        ),
        audience=audience,
        saw=saw,
        rooms=shared.moderation,
        spare=partial(shared.providers.budget.spare, Bucket.ROOMS, Rank.START),
        past_starts=past_starts,
        keep_alive_s=keep_alive_s(settings.timing),
    )
