"""The ports of the sandbox and of the service on top of it, and whether they are free."""

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass


class PortTaken(Exception):
    """The text names the port, its purpose and the option that chooses another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    purpose: str
    number: int
    option: str
    """The command line option or environment variable that chooses another."""
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPorts:
    livekit: Port
    mux: Port
    storage: Port
    grpc: Port
    http: Port

    @property
    def of_simulators(self) -> tuple[Port, ...]:
        return self.livekit, self.mux, self.storage

    @property
    def of_service(self) -> tuple[Port, ...]:
        return self.grpc, self.http


def port_number(text: str) -> int:
    """Raises ValueError for anything but 1 to 65535: an address with the port is printed before it listens."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number <= 65535:
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return number


def check_free(ports: Iterable[Port]) -> None:
    """Raises PortTaken for the first that is in use, or that two of *ports* want."""
    with contextlib.ExitStack() as held:
        for port in ports:
            family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
            try:
                held.enter_context(socket.create_server((port.host, port.number), family=family))
            except OSError as error:
                text = f"port {port.number} for {port.purpose} cannot be used ({error.strerror or error})"
                raise PortTaken(f"{text}: choose another with {port.option}") from None
