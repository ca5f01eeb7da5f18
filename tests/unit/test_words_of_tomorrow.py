"""Words of another version: a text that a newer one stored is read, kept as it is, and equals no member."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from service.domain.broadcast import ProviderTrouble
from service.domain.provider import STREAMS, Provider
from service.domain.reasons import Operation
from service.domain.situation import Outage
from service.domain.words import as_stored

TROUBLE = ProviderTrouble(
    provider=STREAMS,
    operation=Operation.CREATE_STREAM,
    code="429",
    message="slow down",
    retryable=True,
    time=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_the_trouble_with_a_provider_of_tomorrow_is_read_and_written_unchanged() -> None:
    stored = {**msgspec.to_builtins(TROUBLE), "provider": "cloud", "operation": "makeStream"}
    trouble = msgspec.convert(stored, ProviderTrouble)
    assert (trouble.provider, trouble.operation) == ("cloud", "makeStream")
    assert trouble.provider not in tuple(Provider)
    assert trouble.operation not in tuple(Operation)
    assert not trouble.operation.starts_egress
    assert f"{trouble.provider} {trouble.operation}" == "cloud makeStream"
    assert msgspec.to_builtins(trouble) == stored
    assert msgspec.convert(stored, ProviderTrouble) == trouble != replace(trouble, operation=Operation.CREATE_STREAM)


def test_a_declared_word_is_read_as_its_member() -> None:
    read = msgspec.convert(msgspec.to_builtins(TROUBLE), ProviderTrouble)
    assert read.provider is STREAMS
    assert read.operation is Operation.CREATE_STREAM
    assert as_stored(Operation, "StopEgress") is Operation.STOP_EGRESS


def test_outages_may_be_of_a_provider_of_tomorrow() -> None:
    since = {"since": "2026-01-01T00:00:00Z"}
    outages = msgspec.convert({"cloud": since, "mux": since}, dict[Provider, Outage])
    assert list(outages) == ["cloud", STREAMS]


@pytest.mark.parametrize("kind", [Operation, Provider])
def test_what_is_no_text_is_no_word(kind: type[Operation | Provider]) -> None:
    with pytest.raises(ValueError, match="5"):
        kind(5)  # pyright: ignore[reportArgumentType]
