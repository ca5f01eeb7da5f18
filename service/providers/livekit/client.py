"""LiveKit through livekit-api: rooms, egresses, tokens, and what its webhooks say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from livekit import api

from service.providers.http.client import HttpClient
from service.providers.livekit.calls import LiveKitCalls
from service.providers.livekit.egress import Egresses
from service.providers.livekit.rooms import Rooms
from service.providers.livekit.tokens import Tokens
from service.providers.livekit.twirp import Twirp
from service.providers.livekit.webhooks import heard

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from service.domain.ports import RoomWanted
    from service.domain.secret import Secret
    from service.providers.storage.links import StorageSettings

__all__ = ["LiveKit", "heard"]


class LiveKit:
    """The connection; `rooms`, `egresses` and `tokens` are what it is for."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        api_secret: Secret,
        longest_call: timedelta,
        longest_start: timedelta | None = None,
        room_of: Callable[[str], RoomWanted] | None = None,
        public_url: str = "",
        storage: StorageSettings | None = None,
        template_url: str = "",
    ) -> None:
        """*longest_call* ends inside a lease. *longest_start*: the same of a start of an egress, for callers who renew
        the lease meanwhile; None: as any other call. *room_of*: the room of a name, see `Tokens`. *public_url*: what
        browsers connect to, where it is not *url*. *storage*: where `Egresses.record` has files put.
        *template_url*: the page that egresses record; empty: LiveKit's own.

        To be built inside a running event loop.
        """
        self._http = HttpClient()
        # The SDK's failover would send StartEgress again.
        self._api = api.LiveKitAPI(url, api_key, api_secret.reveal(), failover=False)
        for service in (self._api.room, self._api.egress):
            # Typed as the SDK's own client, which has no limits and no interface.
            service._client = cast("Any", Twirp(self._http, url))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
        calls = LiveKitCalls(
            longest_call.total_seconds(),
            (longest_start or longest_call).total_seconds(),
            hidden=(storage.secret_key, storage.access_key) if storage else (),
        )
        self.rooms = Rooms(self._api, calls)
        self.egresses = Egresses(self._api, calls, storage, template_url)
        self.tokens = Tokens(public_url or re.sub("^http", "ws", url), api_key, api_secret, room_of)

    async def close(self) -> None:
        await self._http.close()
        await self._api.aclose()
