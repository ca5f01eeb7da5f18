"""Assets that Mux makes of a file at a url: fetched over HTTP, then `ready` or `errored`.

The error texts are not documented.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from broadcast_sandbox.clock import ScaledClock
from broadcast_sandbox.effects import EffectLog
from broadcast_sandbox.faults import FaultTable
from broadcast_sandbox.mp4 import duration_of
from broadcast_sandbox.mux.model import Asset
from broadcast_sandbox.mux.settings import MuxSimulatorSettings
from broadcast_sandbox.mux.store import MuxStore

_WITHIN = aiohttp.ClientTimeout(total=5)
"""Real seconds."""


class MuxUploads:
    def __init__(
        self,
        *,
        settings: MuxSimulatorSettings,
        clock: ScaledClock,
        effects: EffectLog,
        faults: FaultTable,
        store: MuxStore,
        emit: Callable[[str, Asset], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._effects = effects
        self._faults = faults
        self._store = store
        self._emit = emit
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, asset: Asset, url: str) -> None:
        self._store.add_asset(asset)
        self._effects.append("upload.created", asset.id, passthrough=asset.passthrough)
        self._emit("created", asset)
        task = asyncio.get_running_loop().create_task(self._make(asset, url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, asset: Asset, url: str) -> None:
        await self._clock.sleep(self._settings.upload_s)
        duration_s, error = await self._fetched(url)
        if self._faults.take("upload", asset.fault_target, "upload_fail") is not None:
            error = "The input could not be processed"
        if not error:
            await self._clock.sleep(self._settings.upload_s)
        if asset.id not in self._store.assets:
            return
        asset.duration_s = duration_s
        asset.status = "errored" if error else "ready"
        asset.error = error
        self._effects.append(f"upload.{asset.status}", asset.id, passthrough=asset.passthrough, duration_s=duration_s)
        self._emit(asset.status, asset)

    async def _fetched(self, url: str) -> tuple[float | None, str]:
        """Duration in seconds (None: not a video, or not fetched) and the error text, empty if there is none."""
        try:
            async with aiohttp.ClientSession(timeout=_WITHIN) as http, http.get(url) as response:
                if response.status != 200:
                    return None, f"The input file could not be downloaded: status {response.status}"
                duration_s = duration_of(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None, "The input file could not be downloaded"
        return duration_s, "" if duration_s is not None else "The input file is no video"
