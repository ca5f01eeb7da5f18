"""The host of a demo, played by the LiveKit simulator through its control endpoint."""

import asyncio
import http.client
import json
from urllib.parse import quote, urlsplit

from broadcast.v1.broadcast_service_pb2 import HostAccess
from broadcast_client.errors import BroadcastClientError

_TIMEOUT = 5.0
# What a LiveKit that is no simulator answers to an address it does not know.
_ABSENT = (404, 405, 501)


class SimulatorError(BroadcastClientError):
    """The LiveKit simulator is there, and refuses."""


async def join(control: str, token: str) -> bool:
    """Let a simulated host enter and publish camera and microphone.

    Returns:
        False: there is no simulator at this URL.

    Raises:
        SimulatorError: it refused.
    """
    return await asyncio.to_thread(
        _post, control, "/_control/join", {"token": token, "publish": ["camera", "microphone"]}
    )


async def leave(control: str, room: str, identity: str) -> None:
    """Let the simulated host leave. That it is gone already is no error."""
    await asyncio.to_thread(_post, control, "/_control/leave", {"room": room, "identity": identity})


def person_url(access: HostAccess) -> str:
    """Where a person enters as the host, with a browser. Holds the token."""
    return (
        "https://meet.livekit.io/custom"
        f"?liveKitUrl={quote(access.livekit_url, safe='')}&token={quote(access.token, safe='')}"
    )


def _post(control: str, path: str, body: dict[str, object]) -> bool:
    url = urlsplit(control)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    # http.client and not urllib.request, which would send what is meant for this machine through a proxy.
    connection = kind(url.hostname or "127.0.0.1", url.port, timeout=_TIMEOUT)
    try:
        connection.request("POST", url.path.rstrip("/") + path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if answer.status in _ABSENT:
        return False
    if answer.status >= http.HTTPStatus.BAD_REQUEST:
        raise SimulatorError(f"LiveKit simulator: {path}: {answer.status} {text}")
    return True
