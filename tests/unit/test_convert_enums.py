"""Every value of an enum of the domain has its value in the contract, and the other way round."""

import importlib
import pkgutil
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, cast

import pytest
from google.protobuf.descriptor import EnumDescriptor

import broadcast.v1
from service.api.messages import enums
from service.api.messages.enums import EnumTable
from service.domain import broadcast as domain
from service.domain.provider import WEBHOOK_SENDERS

TABLES: Final = {
    name: cast("EnumTable[Any, Any]", value) for name, value in vars(enums).items() if isinstance(value, EnumTable)
}
WITHOUT_A_TABLE: Final = {
    "ChangeType",  # the API's own: how a change stands to a filter
    "ErrorReason",  # one for each class of error; see test_convert.py
    "SessionStatus",  # the API's own: what became of a session
    "RecordingOrigin",  # a boolean in the domain
}


def contract() -> Iterator[EnumDescriptor]:
    for module in pkgutil.iter_modules(broadcast.v1.__path__, "broadcast.v1."):
        if module.name.endswith("_pb2"):
            yield from importlib.import_module(module.name).DESCRIPTOR.enum_types_by_name.values()


def members(table: EnumTable[Any, Any]) -> set[Any]:
    """All that the domain has of the type of the table."""
    if table is enums.PRESETS:
        return set(domain.PRESETS)
    if table is enums.WEBHOOK_PROVIDERS:
        return set(WEBHOOK_SENDERS)
    return set(cast("type[Enum]", type(next(iter(table.number)))))


@pytest.mark.parametrize("name", TABLES)
def test_every_value_of_the_domain_is_told(name: str) -> None:
    table = TABLES[name]
    assert set(table.number) == members(table)
    assert {table.member[number]: number for number in table.member} == table.number
    for member, number in table.number.items():
        told = table.descriptor.values_by_number[number].name
        assert told.endswith(f"_{member.upper()}")


@pytest.mark.parametrize("descriptor", list(contract()), ids=lambda each: each.name)
def test_every_value_of_the_contract_is_one_of_the_domain(descriptor: EnumDescriptor) -> None:
    tables = [table for table in TABLES.values() if table.descriptor.full_name == descriptor.full_name]
    if not tables:
        assert descriptor.name in WITHOUT_A_TABLE
        return
    numbers = {number for table in tables for number in table.member}
    assert numbers == set(descriptor.values_by_number) - {0}
