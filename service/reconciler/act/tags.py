"""Our marks at the providers: a resource of an unanswered create is found by its mark, and nothing without one is ours.

Every mark begins with the prefix of the environment (`Providers.tag`), and every object key with `Providers.files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.domain.resources import Upload


def stream_tag(prefix: str, broadcast_id: str, ordinal: int) -> str:
    return f"{prefix}{broadcast_id}:{ordinal}"


def upload_tag(prefix: str, broadcast_id: str, upload: Upload) -> str:
    """Not the live stream's: the recordings that Mux makes of it carry that one."""
    return f"{prefix}{broadcast_id}:upload-{upload.ordinal}-{upload.attempt}"


def is_upload_tag(tag: str) -> bool:
    return tag.rpartition(":")[2].startswith("upload-")


def file_of(prefix: str, broadcast_id: str, ordinal: int) -> str:
    """Each attempt has its own, by which it is recognised."""
    return f"{prefix}{broadcast_id}/{ordinal}.mp4"
