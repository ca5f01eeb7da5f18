"""One RPC while it is answered: the facts that its span, its measure, its line in the log and its error are made of."""

import time
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

TEXT_LIMIT = 80
"""Characters of a text of the caller that are kept: it goes to the log and to nothing else."""


@dataclass(slots=True, kw_only=True)
class Call:
    """Holds no message, so that nothing secret of a request or response reaches a log."""

    service: str = ""
    """With its package."""
    method: str
    """Without its service: no two services have a method of the same name."""
    streaming: bool = False
    peer: str = ""
    """Address of the caller, as gRPC writes it."""
    begun: float = field(default_factory=time.perf_counter)
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    """Of the error, as in the contract. Empty: no error."""
    violations: str = ""
    """The fields of the request that are wrong."""
    trace_id: str = ""
    """Set for a fault of the service: the caller is told to look it up."""
    broadcast_id: str = ""
    request_id: str = ""
    webhook_id: int = 0
    messages: int = 0
    """Sent on a stream so far."""
    failure: status_pb2.Status | None = None
    """The error to send. None: none so far."""

    def asks(self, request: Message) -> None:
        """Take the ids of *request*."""
        for name in ("broadcast_id", "request_id"):
            value = getattr(request, name, "")
            if isinstance(value, str) and value:
                setattr(self, name, value[:TEXT_LIMIT])
        self.webhook_id = getattr(request, "webhook_id", 0)

    def answers(self, response: Message) -> None:
        """Take the ids that *request* did not have: the service makes them."""
        self.broadcast_id = self.broadcast_id or getattr(getattr(response, "broadcast", None), "id", "")
        self.webhook_id = self.webhook_id or getattr(response, "webhook_id", 0)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.begun
