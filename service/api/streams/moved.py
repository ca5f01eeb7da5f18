"""A signal for many waiters: something may have changed, look again."""

import asyncio


class Moved:
    """`count` grows with every notice. A waiter reads it before it looks and passes it to `wait`, so no notice between
    the two is missed.

    Each waiter has a future of its own: a shared one would be cancelled for all by the first waiter that is cancelled.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[bool]] = set()

    def notify(self) -> None:
        """Wake all waiters. To be called in the thread of the event loop."""
        self.count += 1
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            _answer(future, moved=True)

    async def wait(self, timeout: float, *, since: int | None = None) -> bool:  # noqa: ASYNC109 - no error, an answer
        """True when there was a notice, at once if `count` is past *since*; False after *timeout* seconds."""
        if since is not None and self.count != since:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        expiry = loop.call_later(timeout, lambda: _answer(future, moved=False))
        self._waiting.add(future)
        try:
            return await future
        finally:
            expiry.cancel()
            self._waiting.discard(future)


def _answer(future: asyncio.Future[bool], *, moved: bool) -> None:
    if not future.done():
        future.set_result(moved)
