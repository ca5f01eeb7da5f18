"""Word: the class of the words that programs rely on, each with its sentence. They are declared in `reasons.py`."""

from enum import StrEnum
from typing import Self, TypeVar


class Word(StrEnum):
    """A text for programs with a sentence for people. Compares, sorts and encodes as its text."""

    meaning: str

    def __new__(cls, text: str, meaning: str) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.meaning = meaning
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """A stored text that another version of the service wrote, and that this one does not declare, stays as it is:
        it equals no member and is shown to callers unchanged. So it never keeps a row from being read.
        """
        if not isinstance(value, str):
            return None
        undeclared = str.__new__(cls, value)
        undeclared._value_ = value
        undeclared._name_ = "UNDECLARED"
        undeclared.meaning = ""
        return undeclared


_W = TypeVar("_W", bound=Word)


def as_stored(kind: type[_W], text: str) -> _W:
    """The word of a row: the member with *text*, or, if another version wrote it, a word that equals no member."""
    return kind(text)
