"""Tokens that let into LiveKit rooms. Signed here, no call is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from livekit import api

from service.domain.ports import HostRole, HostToken
from service.domain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from service.domain.ports import RoomWanted


SOURCES_OF: Final = {
    HostRole.HOST: ("camera", "microphone", "screen_share", "screen_share_audio"),
    # LiveKit's template gives the whole picture to a shared screen, whoever shares it.
    HostRole.CO_HOST: ("camera", "microphone"),
}
"""The sources that each may publish, in LiveKit's words."""


class Tokens:
    def __init__(
        self, url: str, api_key: str, api_secret: Secret, room_of: Callable[[str], RoomWanted] | None = None
    ) -> None:
        """*room_of*: a host who enters before the room was made makes it, with the server's defaults; a token can
        carry ours instead (livekit/livekit pkg/service/utils.go). Nothing secret may be in it: browsers can read it.
        """
        self._url = url
        self._room_of = room_of
        self._key = api_key
        self._secret = api_secret

    def issue(
        self, *, room_name: str, identity: str, display_name: str, ttl: timedelta, role: HostRole = HostRole.HOST
    ) -> HostToken:
        grants = _grants(room_name)
        grants.can_publish = True
        grants.can_publish_sources = [*SOURCES_OF[role]]
        grants.can_publish_data = role is HostRole.HOST
        return self._signed(grants, identity, display_name, ttl)

    def issue_viewer(self, *, room_name: str, identity: str, ttl: timedelta) -> HostToken:
        return self._signed(_grants(room_name), identity, "", ttl)

    def _signed(self, grants: api.VideoGrants, identity: str, display_name: str, ttl: timedelta) -> HostToken:
        expires = datetime.now(UTC) + ttl
        token = (
            self._token(grants.room)
            .with_identity(identity)
            .with_name(display_name)
            .with_ttl(ttl)
            .with_grants(grants)
            .to_jwt()
        )
        return HostToken(url=self._url, token=Secret(token), expire_time=expires)

    def _token(self, room_name: str) -> api.AccessToken:
        token = api.AccessToken(self._key, self._secret.reveal())
        if self._room_of is None:
            return token
        room = self._room_of(room_name)
        return token.with_room_config(
            api.RoomConfiguration(
                name=room.name,
                metadata=room.tag,
                empty_timeout=max(1, int(room.empty_timeout.total_seconds())),
                departure_timeout=max(1, int(room.departure_timeout.total_seconds())),
            )
        )


def _grants(room_name: str) -> api.VideoGrants:
    """To watch. Every grant is said: the SDK's defaults let everybody publish, subscribe and send data. Never
    `recorder` or `agent`: such a participant does not keep its room open (livekit/livekit#4052).
    """
    return api.VideoGrants(
        room_join=True,
        room=room_name,
        can_publish=False,
        can_subscribe=True,
        can_publish_data=False,
        can_update_own_metadata=False,
        room_create=False,
        room_list=False,
        room_record=False,
        room_admin=False,
        ingress_admin=False,
        hidden=False,
    )
