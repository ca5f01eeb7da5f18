"""The video files of the sandbox: the boxes of an MP4 without any picture. Egresses write them and Mux reads them."""

import json
import struct
from typing import Any

_FTYP = b"isom\x00\x00\x02\x00isomiso2mp41"
_BYTES_A_SECOND, _MOST_BYTES = 1000, 256 * 1024


def mp4(duration_s: float) -> bytes:
    about = json.dumps({"duration_s": duration_s}).encode()
    media = bytes(min(int(duration_s * _BYTES_A_SECOND), _MOST_BYTES))
    return _box(b"ftyp", _FTYP) + _box(b"udta", about) + _box(b"mdat", media)


def duration_of(content: bytes) -> float | None:
    """In seconds; None: this is not a video."""
    if content[4:8] != b"ftyp":
        return None
    at = 0
    while at + 8 <= len(content):
        size = int(struct.unpack(">I", content[at : at + 4])[0])
        if content[at + 4 : at + 8] == b"udta":
            about: Any = json.loads(content[at + 8 : at + size])
            return float(about["duration_s"])
        at += max(size, 8)
    return None


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content
