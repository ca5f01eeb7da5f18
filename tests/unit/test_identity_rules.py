"""LiveKit takes identities of 256 bytes, so the contract counts bytes too."""

from typing import Any

import protovalidate
import pytest

from broadcast.v1 import broadcast_service_pb2 as rpc

_THREE_BYTES = "\u20ac"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (rpc.IssueHostAccessRequest, "identity"),
        (rpc.StartBroadcastRequest, "host_identity"),
        (rpc.ReportHostStatsRequest, "identity"),
    ],
)
def test_an_identity_has_at_most_256_bytes(message: Any, field: str) -> None:
    def violated(identity: str) -> set[str]:
        found = protovalidate.collect_violations(message(broadcast_id="show", **{field: identity}))
        paths = [each.proto.field for each in found]
        return {path.elements[0].field_name for path in paths if path is not None} - {"stats"}

    assert violated(_THREE_BYTES * 85 + "x") == set()
    assert violated(_THREE_BYTES * 85 + "xx") == {field}
    assert violated(_THREE_BYTES * 126) == {field}, "378 bytes in 126 characters"
