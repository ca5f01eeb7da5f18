"""What is said of a field that breaks a rule of the contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broadcast.v1.broadcast_service_pb2 import CreateBroadcastRequest, IssueHostAccessRequest
from service.api.transport.validation import METHODS, PATTERNS, RequestParser
from service.domain.errors import InvalidField

PROTOS = Path(__file__).parents[2] / "protos" / "broadcast"
SERVICE = "/broadcast.v1.BroadcastService"


def test_every_pattern_of_the_contract_has_words() -> None:
    written = {
        found.encode().decode("unicode_escape")
        for file in PROTOS.rglob("*.proto")
        for found in re.findall(r'pattern(?:: | = )"(.*?)"', file.read_text())
    }
    assert written == set(PATTERNS)


def test_nobody_has_to_read_a_regular_expression() -> None:
    parser = RequestParser()
    request = CreateBroadcastRequest(request_id="a b", broadcast_id="X", labels={"Ü": "ä"})
    request.spec.destinations.add(name="A", url="rtmps://live.example.com/app")
    with pytest.raises(InvalidField) as caught:
        parser.parse(METHODS[f"{SERVICE}/CreateBroadcast"], request.SerializeToString())
    said = {violation.field: violation.description for violation in caught.value.violations}
    assert set(said) == {"request_id", "broadcast_id", 'labels["Ü"]', "spec.destinations[0].name"}
    assert said["request_id"] == "may only have A-Z, a-z, 0-9, ., _, : and -"
    with pytest.raises(InvalidField, match=r"^identity: must not be empty, nor contain control characters$"):
        parser.parse(
            METHODS[f"{SERVICE}/IssueHostAccess"],
            IssueHostAccessRequest(broadcast_id="x", identity="a\nb").SerializeToString(),
        )
    assert not any("regex" in each or "^" in each for each in said.values())
