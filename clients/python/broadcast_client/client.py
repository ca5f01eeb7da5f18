"""The client: one channel, all services of the contract, the watches, and the wait for a state."""
# ruff: noqa: ASYNC109
# A deadline is part of a gRPC call, not only of the wait for it.

import asyncio
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

import grpc

from broadcast.v1.broadcast_pb2 import BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED, Broadcast
from broadcast.v1.broadcast_service_pb2 import CHANGE_TYPE_REMOVED, BroadcastFilter
from broadcast_client.caller import Caller
from broadcast_client.connection import Connection
from broadcast_client.errors import BroadcastEndedEarly, BroadcastNotFound, WaitTimeout
from broadcast_client.retry import RetryPolicy
from broadcast_client.services.admin import Admin
from broadcast_client.services.broadcasts import BroadcastCalls
from broadcast_client.services.playback import Playback
from broadcast_client.values import Seconds, State, broadcast_filter, broadcast_state, state_name
from broadcast_client.watch import Change, Snapshot, SnapshotComplete, Watch
from broadcast_client.watch_health import HealthWatch
from broadcast_client.watch_playback import PlaybackWatch


class BroadcastClient(BroadcastCalls):
    """BroadcastService over one channel. `admin` and `playback` are the other services, on the same channel.

    A client belongs to the event loop of its first call. A call in another event loop raises WrongEventLoop.

    Every method that makes a call raises a BroadcastError; `errors` has the tree, and a method names only the errors
    that are particular to it. `timeout` is the deadline of one try in seconds; None: the client's. A call is tried
    again only where a second try does no harm (see `retry`). Writes take a `request_id`: the service makes the write
    once for each id, so a caller that chooses the id may repeat the call in another process. None: the client makes a
    new id.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 10.0,
        retry: RetryPolicy | None = None,
        options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        """Make a client. It connects with its first call.

        Args:
            target: gRPC name of the service, such as "dns:///broadcast.internal:443".
            credentials: TLS credentials. None: the connection is plaintext.
            timeout: deadline of one try of a unary call, in seconds. The `wait` of a call is added to it.
            retry: when calls and watches are tried again. None: RetryPolicy().
            options: further gRPC channel options. They replace options of the same name that the client sets.
        """
        self._policy = retry or RetryPolicy()
        connection = Connection(target, credentials=credentials, options=options)
        super().__init__(connection, Caller(policy=self._policy, timeout=timeout))
        self.admin = Admin(self._connection, self._call)
        self.playback = Playback(self._connection, self._call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel. Calls and watches that are under way raise CallCancelled, and so do later calls."""
        await self._connection.close()

    def watch(
        self,
        filter: BroadcastFilter | None = None,
        *,
        resume_token: str = "",
        heartbeat_interval: Seconds = 15.0,
    ) -> Watch:
        """Watch broadcasts: every change in the order of commits. The watch survives breaks of the connection.

        Args:
            filter: selects the broadcasts, see `broadcast_filter`. None: all.
            resume_token: token of an earlier item or of `list`, with the same filter. The watch goes on from there.
                Empty: the watch begins with a snapshot of every broadcast that matches.
            heartbeat_interval: time between two heartbeats of the service, 1 s to 60 s. After three intervals without
                a message the watch connects again.

        The errors are raised while the watch is iterated: a BroadcastError that another connection does not mend, or
        that ends the tries of the first connection.
        """
        return Watch(
            lambda request: self._stub.WatchBroadcasts(request),  # noqa: PLW0108 - the stub needs a running event loop
            filter=filter or BroadcastFilter(),
            resume_token=resume_token,
            heartbeat_interval=heartbeat_interval,
            policy=self._policy,
            is_closed=lambda: self._connection.is_closed,
        )

    def watch_health(self, filter: BroadcastFilter | None = None, *, interval: Seconds = 5.0) -> HealthWatch:
        """Watch health: of every broadcast that matches, then of those whose health changed.

        The watch survives breaks of the connection, and raises as `watch` does.

        Args:
            filter: selects the broadcasts, see `broadcast_filter`. None: all.
            interval: shortest time between two messages, 1 s to 60 s.
        """
        return HealthWatch(
            lambda request: self._stub.WatchHealth(request),  # noqa: PLW0108 - as above
            filter=filter or BroadcastFilter(),
            interval=interval,
            policy=self._policy,
            is_closed=lambda: self._connection.is_closed,
        )

    def watch_playback(
        self,
        filter: BroadcastFilter | None = None,
        *,
        resume_token: str = "",
        heartbeat_interval: Seconds = 15.0,
    ) -> PlaybackWatch:
        """Watch how viewers watch: the handle of every broadcast that matches, then each that changed.

        One watch serves all viewers of a backend. It survives breaks of the connection, and raises as `watch` does.

        Args:
            filter: selects the broadcasts, see `broadcast_filter`. None: all.
            resume_token: token of an earlier item, with the same filter. Empty: every handle is told first.
            heartbeat_interval: as of `watch`.
        """
        return PlaybackWatch(
            lambda request: self.playback.stub.WatchPlayback(request),  # noqa: PLW0108 - as above
            filter=filter or BroadcastFilter(),
            resume_token=resume_token,
            heartbeat_interval=heartbeat_interval,
            policy=self._policy,
            is_closed=lambda: self._connection.is_closed,
        )

    async def wait_until(
        self, broadcast_id: str, state: State | Collection[State], *, timeout: float = 60.0
    ) -> Broadcast:
        """Wait until a broadcast is in *state*, or in one of several states, and answer the broadcast.

        A state that the broadcast has already left does not count. If a host may be publishing before the call, wait
        for ("READY", "LIVE") instead of "READY".

        Args:
            broadcast_id: id of the broadcast.
            state: the wanted state or states.
            timeout: seconds to wait at most.

        Raises:
            BroadcastEndedEarly: the broadcast is ENDED or FAILED, and that was not waited for.
            WaitTimeout: `timeout` seconds have passed.
            BroadcastNotFound: there is no such broadcast, or it was deleted meanwhile.
        """
        wanted = {broadcast_state(each) for each in _each(state)}
        last: Broadcast | None = None
        try:
            async with asyncio.timeout(timeout), self.watch(broadcast_filter(ids=[broadcast_id])) as watch:
                async for item in watch:
                    match item:
                        case Change(type=kind) if kind == CHANGE_TYPE_REMOVED:
                            raise _missing(broadcast_id)
                        case Snapshot() | Change():
                            last = item.broadcast
                        case SnapshotComplete() if last is None:
                            raise _missing(broadcast_id)
                        case _:
                            continue
                    if last.status.state in wanted:
                        return last
                    if last.status.state in (BROADCAST_STATE_ENDED, BROADCAST_STATE_FAILED):
                        raise BroadcastEndedEarly(broadcast=last)
        except TimeoutError:
            pass
        names = " or ".join(sorted(state_name(each) for each in wanted))
        seen = state_name(last.status.state) if last else "not seen"
        raise WaitTimeout(
            f"{broadcast_id} is {seen}, not {names}, after {timeout:g} s", broadcast_id=broadcast_id, broadcast=last
        )


def _each(state: State | Collection[State]) -> Collection[State]:
    return [state] if isinstance(state, (str, int)) else state


def _missing(broadcast_id: str) -> BroadcastNotFound:
    return BroadcastNotFound(
        "there is no such broadcast",
        code=grpc.StatusCode.NOT_FOUND,
        method="WatchBroadcasts",
        reason="BROADCAST_NOT_FOUND",
        metadata={"broadcast_id": broadcast_id},
    )
