"""An intake as the service has it: a real port, a real database, real signatures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp

from service.domain.secret import Secret
from service.store.database import Database
from service.store.sealing import Sealer
from service.store.webhooks.inbox import Inbox
from service.webhooks.connections import HEADERS_WITHIN_S, Connections
from service.webhooks.delivery import Deliveries
from service.webhooks.intake import Intake
from service.webhooks.reading import Reader
from tests.integration.store_stage import KEYS, Store, store
from tests.webhook_bodies import ENVIRONMENT, LIVEKIT_KEY, LIVEKIT_SECRET, MUX_SECRET, TAG, encoded, headers

NEXT_MUX_SECRET, NEXT_KEY = "the-next-mux-webhook-secret", "nextkey"
NEXT_SECRET = "the-next-secret-of-at-least-thirty-two-bytes"


@dataclass(kw_only=True)
class Hooks:
    base: str
    http: aiohttp.ClientSession
    store: Store
    inbox: Inbox
    deliveries: Deliveries
    ready: bool = True

    async def is_ready(self) -> bool:
        return self.ready

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    async def get(self, path: str) -> int:
        async with self.http.get(self.base + path) as answer:
            return answer.status

    async def post(self, provider: str, body: Any, sent: Mapping[str, str]) -> int:
        async with self.http.post(f"{self.base}/webhooks/{provider}", data=body, headers=sent) as answer:
            await answer.read()
            return answer.status

    async def send(self, provider: str, body: bytes | dict[str, Any], **signing: Any) -> int:
        """Signed as the provider does."""
        raw = body if isinstance(body, bytes) else encoded(body)
        return await self.post(provider, raw, headers(provider, raw, **signing))

    async def rows(self) -> list[dict[str, Any]]:
        return await self.store.all("SELECT * FROM webhook ORDER BY id")

    async def outcomes(self) -> list[str]:
        return [row["outcome"] for row in await self.rows()]

    async def due(self) -> set[str]:
        return {row["id"] for row in await self.store.all("SELECT id FROM broadcast WHERE due_at IS NOT NULL")}

    async def dump(self) -> str:
        """Every row as text, bytes in hexadecimal."""
        rows = await self.store.all("SELECT to_jsonb(webhook) AS row FROM webhook")
        return json.dumps(rows)


@contextlib.asynccontextmanager
async def hooks(
    database_url: str,
    *,
    size: int = 4,
    statement_timeout_s: float = 30,
    most_connections: int = 512,
    headers_within_s: float = HEADERS_WITHIN_S,
) -> AsyncGenerator[Hooks]:
    async with store(database_url) as opened, aiohttp.ClientSession() as http:
        patience = timedelta(seconds=statement_timeout_s)
        database = await Database.connect(database_url, size=size, statement_timeout=patience)
        reader = Reader(tag=TAG, mux_environment=ENVIRONMENT)
        inbox = Inbox(database, Sealer(KEYS), reader.read)
        deliveries = Deliveries(
            inbox,
            livekit_secrets={LIVEKIT_KEY: Secret(LIVEKIT_SECRET), NEXT_KEY: Secret(NEXT_SECRET)},
            mux_secrets=[Secret(MUX_SECRET), Secret(NEXT_MUX_SECRET)],
        )
        connections = Connections(most_connections, headers_within_s=headers_within_s)
        stage = Hooks(base="", http=http, store=opened, inbox=inbox, deliveries=deliveries)
        intake = Intake(
            deliver=deliveries.deliver, ready=stage.is_ready, host="127.0.0.1", port=0, connections=connections
        )
        stage.base = f"http://127.0.0.1:{await intake.start()}"
        try:
            yield stage
        finally:
            await intake.stop()
            await database.close()
