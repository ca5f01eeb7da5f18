"""The channel of a client, and the event loop that it belongs to."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import grpc

from broadcast_client.errors import WrongEventLoop
from broadcast_client.retry import closed

_Stub = TypeVar("_Stub")

# gRPC's own pause between connection attempts grows to two minutes: far longer than a service takes to restart.
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class Connection:
    """One channel. It is made with the first call, and belongs to the event loop of that call for good."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, str | int]],
    ) -> None:
        self._target = target
        self._credentials = credentials
        self._options = list({**dict(_OPTIONS), **dict(options)}.items())
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: dict[Callable[[grpc.aio.Channel], Any], Any] = {}
        self.is_closed = False

    def stub(self, kind: Callable[[grpc.aio.Channel], _Stub]) -> _Stub:
        """The stub of this class, on the channel. Call it inside a running event loop.

        Raises:
            WrongEventLoop: an earlier call ran in another event loop.
            CallCancelled: the client was closed before its first call.
        """
        channel = self._open()
        if kind not in self._stubs:
            self._stubs[kind] = kind(channel)
        return cast("_Stub", self._stubs[kind])

    def _open(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._channel is None:
            if self.is_closed:
                raise closed("connect")
            self._loop = loop
            self._channel = (
                grpc.aio.secure_channel(self._target, self._credentials, options=self._options)
                if self._credentials
                else grpc.aio.insecure_channel(self._target, options=self._options)
            )
        elif self._loop is not loop:
            raise WrongEventLoop(
                "this client belongs to another event loop: make one BroadcastClient for each asyncio.run"
            )
        return self._channel

    async def close(self) -> None:
        """Close the channel. In another event loop than its own it cannot be closed, and is only refused to callers."""
        self.is_closed = True
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            await self._channel.close()
