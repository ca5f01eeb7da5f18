"""The words that programs rely on: their texts stay, they can be read back, and every source has its word."""

import json
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from docs.generate import KINDS, RELEASED
from service.domain.broadcast import Fallback, FallbackMode, State
from service.domain.errors import Outcome
from service.domain.observing.streams import STATUS_SEEN
from service.domain.planning.steps import WRITTEN_OFF
from service.domain.reasons import Action, Actor, Blocked, EventReason, FallbackReason, Fault
from service.domain.reporting.record import STATE_ENTERED
from service.domain.resources import (
    END_FAULTS,
    Egress,
    EgressStatus,
    Kind,
    LocalRecording,
    Phase,
    StreamStatus,
)
from service.domain.words import Word, as_stored
from service.reconciler.act.outcomes import REFUSAL_FAULTS
from service.store.rows import RESOURCE_COLUMNS, Rows
from service.store.sealing import Sealer
from tests.unit.health_facts import NOW

GIVEN_OUT: dict[str, list[str]] = json.loads(RELEASED.read_text())
"""By the name of the kind: the texts of the last release. `make released` writes them."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_was_given_out_stays(kind: type[StrEnum]) -> None:
    assert {*GIVEN_OUT[kind.__name__]} - {*kind} == set(), "it is stored, and programs rely on it"


def test_every_kind_of_words_is_kept_at_a_release() -> None:
    assert {kind.__name__ for kind in KINDS} == {*GIVEN_OUT}
    assert {*Word.__subclasses__()} <= {*KINDS}


@pytest.mark.parametrize("kind", [Action, Actor, Blocked, EventReason, FallbackReason, Fault])
def test_every_word_has_a_sentence(kind: type[Word]) -> None:
    assert all(word.meaning for word in kind)
    assert len({word.meaning for word in kind}) == len(kind)


def test_a_text_of_another_version_is_read_and_shown_unchanged() -> None:
    undeclared = as_stored(EventReason, "SOMETHING_NEW")
    assert undeclared == "SOMETHING_NEW"
    assert undeclared not in [*EventReason]
    assert f"{undeclared}" == str(undeclared) == "SOMETHING_NEW"
    assert as_stored(EventReason, "ENDING") is EventReason.ENDING


@pytest.mark.parametrize("text", ["GHOST", "", "SOMETHING_NEW"])
def test_words_go_through_jsonb_and_back(text: str) -> None:
    rows = Rows(Sealer([b"k" * 32]))
    for made in (
        Egress(ordinal=0, phase=Phase.GONE, intended_at=NOW, changed_at=NOW, fault=as_stored(Fault, text)),
        LocalRecording(ordinal=0, phase=Phase.GONE, intended_at=NOW, changed_at=NOW, fault=as_stored(Fault, text)),
    ):
        values = rows.resource_values("show", made)
        row: dict[str, Any] = dict(zip(RESOURCE_COLUMNS.split(", "), values, strict=True))
        assert row["detail"]["fault"] == text
        assert type(row["detail"]["fault"]) is str
        assert rows.resource("show", row) == made
    fallback = Fallback(modes=(FallbackMode.LOCAL_RECORDING,), reason=as_stored(FallbackReason, text))
    stored = msgspec.json.encode(fallback)
    assert msgspec.json.decode(stored)["reason"] == text
    assert msgspec.json.decode(stored, type=Fallback) == fallback


def test_every_source_of_a_word_has_one() -> None:
    assert {*STATE_ENTERED} == {*State}
    assert {*STATUS_SEEN} == {*StreamStatus}
    assert {*END_FAULTS} == {
        EgressStatus.COMPLETE,
        EgressStatus.FAILED,
        EgressStatus.ABORTED,
        EgressStatus.LIMIT_REACHED,
    }
    assert {*REFUSAL_FAULTS} == {*Outcome} - {Outcome.AMBIGUOUS}
    # A room is created again by its name.
    assert {*WRITTEN_OFF} == {*Kind} - {Kind.ROOM}
