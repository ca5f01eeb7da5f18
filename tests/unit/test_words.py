"""The words that programs rely on are the same in the code, the documentation and the comments of the contract."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import pytest

from docs.generate import BLOCKS, DOCS, filled
from service.domain.broadcast import EndReason
from service.domain.explain.causes import Blame
from service.domain.provider import ROOMS, STREAMS
from service.domain.reasons import (
    Action,
    Actor,
    Blocked,
    ConditionReason,
    EventReason,
    FallbackReason,
    Fault,
    HealthReason,
    Operation,
)
from service.domain.words import Word

PROTOS = Path(__file__).parents[2] / "protos" / "broadcast" / "v1"
WORDS: tuple[type[Word], ...] = (
    Action,
    Actor,
    Blocked,
    ConditionReason,
    EventReason,
    FallbackReason,
    Fault,
    HealthReason,
    Operation,
)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_tables_of_the_documentation_are_those_of_the_code(name: str) -> None:
    document = (DOCS / name).read_text()
    assert filled(name, document) == document, "`make docs` writes it anew"


@pytest.mark.parametrize(
    "document",
    [
        "no block at all",
        "<!-- made by make docs: settings -->\nno end",
        "<!-- made by make docs: settings -->\n<!-- end -->\n<!-- made by make docs: nothing -->\n<!-- end -->",
    ],
)
def test_a_block_that_cannot_be_filled_is_an_error(document: str) -> None:
    with pytest.raises(ValueError, match=r"docs/operations\.md"):
        filled("operations.md", document)


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_every_word_has_a_text_of_its_own_and_a_meaning(kind: type[Word]) -> None:
    # A second member with the text of another would be an alias, and no member.
    assert [*kind.__members__] == [word.name for word in kind]
    assert all(len(word.meaning) > len("it.") for word in kind)


@pytest.mark.parametrize(
    ("file", "message", "field", "words"),
    [
        ("event", "BroadcastEvent", "actor", set(Actor)),
        ("health", "Cause", "blame", set(Blame)),
        ("broadcast", "ProviderError", "provider", {ROOMS, STREAMS}),
        ("broadcast", "Fallback", "reason", {FallbackReason.EGRESS_FAILING, FallbackReason.STREAMS_UNREACHABLE}),
    ],
)
def test_a_comment_of_the_contract_names_every_word(file: str, message: str, field: str, words: set[StrEnum]) -> None:
    assert quoted(file, message, field) == words


@pytest.mark.parametrize(
    ("file", "message", "field", "words"),
    [
        ("event", "BroadcastEvent", "reason", EventReason),
        ("broadcast", "BroadcastStatus", "state_reason", [*ConditionReason, *EndReason]),
        ("broadcast", "ProviderError", "operation", Operation),
        ("health", "NextAction", "action", Action),
    ],
)
def test_the_examples_in_a_comment_of_the_contract_exist(
    file: str, message: str, field: str, words: Iterable[StrEnum]
) -> None:
    assert quoted(file, message, field)
    assert quoted(file, message, field) <= set(words)


def quoted(file: str, message: str, field: str) -> set[str]:
    """The words in quotation marks in the comment of a field."""
    text = (PROTOS / f"{file}.proto").read_text()
    _, found, body = text.partition(f"\nmessage {message} {{\n")
    assert found, message
    match = re.search(rf"((?:  //.*\n)+)  [\w.]+ {field} = \d+", body.partition("\n}")[0])
    assert match is not None, field
    return set(re.findall(r'"(\w+)"', match[1]))
