"""Mux through mux-python: live streams, uploads, and what its webhooks say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import mux_python

from service.providers.http.pool import BoundedPool
from service.providers.mux.calls import MuxCalls, limits
from service.providers.mux.streams import Streams
from service.providers.mux.uploads import Uploads
from service.providers.mux.webhooks import heard

if TYPE_CHECKING:
    from datetime import timedelta

    from service.domain.secret import Secret

__all__ = ["Mux", "Streams", "Uploads", "heard"]


class Mux:
    """The connection; `streams` and `uploads` are what it is for."""

    def __init__(
        self,
        *,
        base_url: str,
        token_id: str,
        token_secret: Secret,
        longest_call: timedelta,
        ingest_url: str = "mux://{key}",
        threads: int = 64,
    ) -> None:
        """*longest_call* ends inside a lease. *ingest_url*: where an egress pushes to; `mux://{key}` is Mux's global
        ingest. *threads*: more than passes are under way, so that a stop never waits for starts that hang.
        """
        if not token_id or not token_secret:
            # With one half missing the SDK sends no Authorization header at all, silently.
            raise ValueError("MUX_TOKEN_ID and MUX_TOKEN_SECRET must both be set")
        configuration: Any = mux_python.Configuration(
            host=base_url.rstrip("/"), username=token_id, password=token_secret.reveal()
        )
        self._client = mux_python.ApiClient(configuration)
        # The pool of the SDK has no limits, sends a read up to four times, and follows redirects. A connection for each
        # thread: otherwise a burst opens, and throws away, a TLS connection a call.
        self._pool = BoundedPool(limits(), connections=threads)
        self._client.rest_client.pool_manager = self._pool
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="mux")
        calls = MuxCalls(self._threads, longest_call.total_seconds())
        self.streams = Streams(self._client, calls, ingest_url)
        self.uploads = Uploads(self._client, calls)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._pool.clear()
