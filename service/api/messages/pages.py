"""How much one page of a list holds: so many entries as were asked for, and so many bytes as every client takes."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

PAGE_BYTES = 3 << 20
"""A gRPC client takes 4 MiB in one message unless it was told otherwise. The rest is for tokens and for the lengths of
the entries.
"""
_Entry = TypeVar("_Entry", bound=Message)


def fitting(entries: Iterable[_Entry]) -> list[_Entry]:
    """The first of *entries* that fit into one page: at least one, or a list would never end. A page that holds fewer
    than were found has a token for the next one.
    """
    page: list[_Entry] = []
    room = PAGE_BYTES
    for entry in entries:
        room -= entry.ByteSize()
        if room < 0 and page:
            break
        page.append(entry)
    return page
