"""Identities of participants in a LiveKit room, and which of them a caller may not choose.

LiveKit disconnects a participant when another one enters with the same identity. A host with the identity of an egress
would end the egress, and a host with the identity of a viewer would put the viewer out.
"""

from typing import Final

from service.domain.errors import InvalidField, Violation

_EGRESS_PREFIX: Final = "EG_"
"""LiveKit gives an egress its id as identity."""
_VIEWER_PREFIX: Final = "viewer:"


def viewer_identity(viewer_id: str) -> str:
    return f"{_VIEWER_PREFIX}{viewer_id}"


def check_host_identity(identity: str, field: str) -> None:
    """Of a host that is to enter. Raises InvalidField, which names *field*."""
    _check(identity, field, _EGRESS_PREFIX, _VIEWER_PREFIX)


def check_reporter_identity(identity: str, field: str) -> None:
    """Of a participant who publishes and whose browser reports its measurements: neither an egress nor a viewer does.
    Raises InvalidField, which names *field*.
    """
    _check(identity, field, _EGRESS_PREFIX, _VIEWER_PREFIX)


def _check(identity: str, field: str, *taken: str) -> None:
    for prefix in taken:
        if identity.startswith(prefix):
            raise InvalidField(Violation(field=field, description=f'must not begin with "{prefix}"'))
