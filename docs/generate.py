"""Writes the tables of the documentation that are made from declarations in the code.

A table stands between `<!-- made by make docs: NAME -->` and `<!-- end -->`. Text outside of such blocks is written by
hand and stays. Raises ValueError for a block with an unknown name, without an end, or missing in its document.

At a release it also keeps the texts of all words that programs rely on: a test holds that none of them goes away.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from service.domain.broadcast import EndReason
from service.domain.delivery import DeliveryReason
from service.domain.explain.causes import CauseCode
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
from service.settings.usage import table as settings_table

DOCS: Final = Path(__file__).resolve().parent
RELEASED: Final = DOCS / "released-words.json"
KINDS: Final[tuple[type[StrEnum], ...]] = (
    Action,
    Actor,
    Blocked,
    CauseCode,
    ConditionReason,
    DeliveryReason,
    EndReason,
    EventReason,
    FallbackReason,
    Fault,
    HealthReason,
    Operation,
)
"""The kinds of words that are stored or shown to callers."""

_BLOCK: Final = re.compile(r"(<!-- made by make docs: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    parser.add_argument("--released", action="store_true", help="keep the texts of all words as given out, then end")
    arguments = parser.parse_args()
    check = arguments.check
    if arguments.released:
        RELEASED.write_text(json.dumps({kind.__name__: [*kind] for kind in KINDS}, indent=2) + "\n")
        return 0
    stale: list[str] = []
    for name in BLOCKS:
        present = (DOCS / name).read_text()
        fresh = filled(name, present)
        if fresh == present:
            continue
        stale.append(name)
        if not check:
            (DOCS / name).write_text(fresh)
    if check and stale:
        print("not what `make docs` writes:", *stale, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def filled(name: str, document: str) -> str:
    """*document*, the text of docs/*name*, with fresh tables in its blocks."""
    tables = BLOCKS[name]
    missing = tables.keys() - {block[1] for block in _BLOCK.findall(document)}
    if missing or document.count("<!-- made by") != len(_BLOCK.findall(document)):
        raise ValueError(f"docs/{name}: a block has no end, or there is none of {sorted(missing)}")

    def fill(block: re.Match[str]) -> str:
        if block[2] not in tables:
            raise ValueError(f"docs/{name}: nothing makes a block {block[2]}")
        return f"{block[1]}\n{tables[block[2]]()}\n\n{block[4]}"

    return _BLOCK.sub(fill, document)


def rows(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    titles = [*head]
    first, *rest = ("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in (titles, *lines))
    return "\n".join([first, "|" + "---|" * len(titles), *rest])


def words(kind: type[Word], head: str, meaning: str) -> Callable[[], str]:
    """A table of the words of *kind*. A word with an empty text is the absence of one, and is left out."""

    def made() -> str:
        return rows((head, meaning), ((f"`{word.value}`", _sentence(word.meaning)) for word in kind if word.value))

    return made


def causes() -> str:
    return rows(
        ("code", "when", "who is to look", "what to do"),
        ((f"`{code.value}`", code.when, code.blame.value, code.remedy) for code in CauseCode),
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text[0].upper()}{text[1:]}."


BLOCKS: Final[Mapping[str, Mapping[str, Callable[[], str]]]] = {
    "events.md": {
        "actors": words(Actor, "actor", "who made it happen"),
        "events": words(EventReason, "reason", "what happened"),
        "fallback-reasons": words(FallbackReason, "reason", "why"),
        "delivery-reasons": words(DeliveryReason, "reason", "why an egress runs, or does not"),
    },
    "explain.md": {
        "causes": causes,
        "actions": words(Action, "action", "what the service does, or waits for"),
        "operations": words(Operation, "operation", "what the provider was asked to do"),
    },
    "health.md": {
        "health-reasons": words(HealthReason, "reason", "why the part is in its state"),
        "condition-reasons": words(ConditionReason, "reason", "why the condition is met, not met or unknown"),
        "faults": words(Fault, "fault", "why the egress, or the local recording, counts as failed"),
        "blocked": words(Blocked, "reason", "why no egress is started now"),
    },
    "operations.md": {"settings": settings_table},
}
"""The blocks of each document, by their names."""


if __name__ == "__main__":
    raise SystemExit(main())
