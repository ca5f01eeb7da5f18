"""Texts for people: one form for a failed call, an outage and a moment, and no value as Python prints it."""

import ast
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from service.domain.broadcast import (
    Broadcast,
    Condition,
    ConditionType,
    DestinationState,
    DestinationStatus,
    ProviderTrouble,
    Spec,
    State,
    Status,
)
from service.domain.health.model import noted
from service.domain.provider import Provider
from service.domain.reasons import ConditionReason, EventReason, Operation
from service.domain.reporting.record import FIELDS_TOLD, tell
from service.domain.resources import Recording, RecordingStatus
from service.domain.sentences import coded, failed_call, no_answer
from service.domain.situation import Outage, Situation
from tests.simulation.environment import T0

SERVICE = Path(__file__).parents[2] / "service"
TROUBLE = ProviderTrouble(
    provider=Provider.LIVEKIT,
    operation=Operation.CREATE_ROOM,
    code="503",
    message="503 Service Unavailable",
    retryable=True,
    time=T0,
)


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("503", "503 Service Unavailable", "503 Service Unavailable"),
        ("503", "503", "503"),
        ("503", "busy", "503 busy"),
        ("503", "", "503"),
        ("", "busy", "busy"),
        ("", "", ""),
        ("timeout", "no answer in time", "timeout no answer in time"),
        ("not_found", "twirp error not_found: no such room", "twirp error not_found: no such room"),
        # A number that is somewhere in the text is not the code.
        ("12", "room 12a is full", "12 room 12a is full"),
    ],
)
def test_a_code_is_told_once(code: str, message: str, told: str) -> None:
    assert coded(code, message) == told


def test_a_failed_call_names_its_provider_as_people_do() -> None:
    assert failed_call(TROUBLE) == "LiveKit CreateRoom: 503 Service Unavailable"
    assert failed_call(replace(TROUBLE, code="", message="")) == "LiveKit CreateRoom"
    away = Outage(since=T0, code="timeout", message="no answer in time")
    assert no_answer(Provider.MUX, away) == "Mux does not answer since 00:00:00 UTC: timeout no answer in time"
    assert no_answer(Provider.MUX, Outage(since=T0)) == "Mux does not answer since 00:00:00 UTC"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (T0, "2026-11-01 00:00:00Z"), (0.25, "0.25"), (2.0, "2"), (7, "7")],
)
def test_evidence_is_no_repr(value: object, text: str) -> None:
    [evidence] = noted(("name", value, T0))
    assert evidence.value == text


def changed(**values: Any) -> str:
    """The message of STATUS_CHANGED after a pass that changes these fields of the status."""
    stored = Broadcast(id="b", spec=Spec(), create_time=T0, update_time=T0)
    situation = Situation(broadcast=stored, resources=(), now=T0)
    _, [event] = tell(stored, situation, (), lambda _: (State.CREATED, replace(stored.status, **values)))
    assert event.reason is EventReason.STATUS_CHANGED
    return event.message


def test_a_change_of_the_status_is_told_in_sentences() -> None:
    condition = Condition(
        type=ConditionType.ROOM_READY, met=None, reason=ConditionReason.NOT_LISTED, message="so", transition_time=T0
    )
    assert changed(conditions=(condition,)) == "ROOM_READY is unknown (NOT_LISTED): so"
    assert changed(egress_id="EG_1", observed_generation=2) == (
        "the providers have generation 2 of the spec; the id of the egress is EG_1"
    )
    recording = Recording(asset_id="AS1", status=RecordingStatus.PREPARING)
    assert changed(recordings=(recording,)) == "recording AS1 is preparing"
    one = DestinationStatus(name="one", state=DestinationState.CONNECTING)
    assert changed(destinations=(one,)) == "destination one is connecting"


def test_every_field_of_the_status_has_its_sentence() -> None:
    assert {*FIELDS_TOLD} == {field.name for field in fields(Status)} - {"conditions", "next_attempt_time"}
    for say in FIELDS_TOLD.values():
        assert say(Status())
        assert say(Status(last_error=TROUBLE, egress_id="EG_1", state_time=T0))


def texts() -> Iterator[tuple[Path, ast.JoinedStr]]:
    for path in [*(SERVICE / "domain").rglob("*.py"), *(SERVICE / "api").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield path, node


def test_no_sentence_names_a_provider_by_the_text_that_is_stored() -> None:
    """`{ROOMS}` and `{trouble.provider}` make "livekit"; a name of evidence goes on with an underscore."""
    found: list[str] = []
    for path, text in texts():
        for value, after in zip(text.values, [*text.values[1:], None], strict=True):
            if not isinstance(value, ast.FormattedValue):
                continue
            named = ast.unparse(value.value)
            follows = after.value if isinstance(after, ast.Constant) else ""
            is_provider = named in ("ROOMS", "STREAMS", "STORAGE", "provider") or named.endswith(".provider")
            if is_provider and str(follows).startswith((" ", ":", ".")):
                found.append(f"{path.relative_to(SERVICE)}:{text.lineno} {ast.unparse(text)}")
    # The exception of an adapter: its text is for logs, which keep the stored name.
    assert [each for each in found if not each.startswith("domain/errors.py")] == []
