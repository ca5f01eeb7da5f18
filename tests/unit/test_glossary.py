"""docs/glossary.md and the names in the code are held to each other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The rows of the table of the glossary with this first column."""
    table = GLOSSARY.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def classes() -> Iterator[tuple[Path, str]]:
    """Every class of the service, and every alias of a type at the top of a module."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield path, node.name
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                yield path, node.targets[0].id


def parts(name: str) -> set[str]:
    """The words in a name, in lower case, also each two neighbours as one: `RoomSeen` has room and seen."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_"))


def test_every_word_that_names_a_class_exists() -> None:
    there = {name for _, name in classes()}
    named = {name for row in rows("word") for name in re.findall(r"`([A-Z]\w+)`", row[2])}
    assert len(named) > 25
    assert named - there == set()


def test_a_word_is_explained_once() -> None:
    words = [row[0] for row in rows("word")]
    assert len(words) == len(set(words)) > 25


def test_no_name_has_a_word_that_is_not_used() -> None:
    banned = {word for row in rows("not") for word in row[0].split(", ")}
    assert "surroundings" in banned
    assert banned & {row[0] for row in rows("word")} == set()
    found = [(path.name, name) for path, name in classes() if parts(name) & banned]
    found += [(path.name, "") for path in (ROOT / "service").rglob("*.py") if parts(path.stem) & banned]
    assert found == []
