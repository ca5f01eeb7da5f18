"""Our marks at the providers: a resource of an unanswered create is found by its mark, and nothing without one is ours.

Every mark begins with the prefix of the environment (`Providers.tag`), and every object key with `Providers.files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.domain.ports import RoomSeen
    from service.domain.resources import Room, Upload


def room_tag(prefix: str, broadcast_id: str) -> str:
    return f"{prefix}{broadcast_id}"


def is_foreign(seen: RoomSeen, tag: str, known: Sequence[Room]) -> bool:
    """Whether *seen*, a room with the name of ours, belongs to another environment or application.

    *tag*: the mark that ours carries. *known*: the rows of our rooms; a room that one of them holds is ours whatever
    its mark says, because an application may write its own metadata into it. A room without any mark counts as ours:
    LiveKit makes one for a host whose token is older than marks in tokens.
    """
    return seen.tag not in ("", tag) and seen.sid not in {room.sid for room in known}


def stream_tag(prefix: str, broadcast_id: str, ordinal: int) -> str:
    return f"{prefix}{broadcast_id}:{ordinal}"


def pool_tag(prefix: str, entry_id: str) -> str:
    """Of a live stream that belongs to no broadcast yet. No id of a broadcast has a dot."""
    return f"{prefix}pool.{entry_id}:0"


def pool_id(prefix: str, tag: str) -> str:
    """The entry of the pool that *tag* is the mark of. Empty: of none."""
    owner = tag.removeprefix(prefix).rpartition(":")[0] if tag.startswith(prefix) else ""
    return owner.removeprefix("pool.") if owner.startswith("pool.") else ""


def upload_tag(prefix: str, broadcast_id: str, upload: Upload) -> str:
    """Not the live stream's: the recordings that Mux makes of it carry that one."""
    return f"{prefix}{broadcast_id}:upload-{upload.ordinal}-{upload.attempt}"


def is_upload_tag(tag: str) -> bool:
    return tag.rpartition(":")[2].startswith("upload-")


def file_of(prefix: str, broadcast_id: str, ordinal: int) -> str:
    """Each attempt has its own, by which it is recognised."""
    return f"{prefix}{broadcast_id}/{ordinal}.mp4"
