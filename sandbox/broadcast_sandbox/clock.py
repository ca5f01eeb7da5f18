"""The providers' time: 60 s of it pass in 60 / scale real seconds. Time stamps are still those of the wall clock."""

import asyncio
import contextlib
import time


class ScaledClock:
    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError("scale must be greater than 0")
        self._scale = scale
        self._changed = asyncio.Event()
        self._passed = 0.0
        self._counted_at = time.monotonic()

    @property
    def scale(self) -> float:
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        """Takes effect on sleeps that are under way too. Raises ValueError unless it is greater than 0."""
        if scale <= 0:
            raise ValueError("scale must be greater than 0")
        self._passed = self.now()
        self._counted_at = time.monotonic()
        self._scale = scale
        self._changed.set()
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Seconds of the provider's time since the clock was made, with every change of the scale counted."""
        return self._passed + (time.monotonic() - self._counted_at) * self._scale

    async def sleep(self, seconds: float) -> None:
        """Sleep for *seconds* of the provider's time."""
        loop = asyncio.get_running_loop()
        left = seconds
        while left > 0:
            scale, changed, began = self._scale, self._changed, loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left / scale)
            left -= (loop.time() - began) * scale
            if left < 1e-4:
                return
