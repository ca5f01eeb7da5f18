"""Webhooks on their way: sent again until somebody answers with success, and sometimes after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.faults import Kind

if TYPE_CHECKING:
    from tests.simulation.environment import Environment, Hint
    from tests.simulation.replica import Replica

WAITS_S = {"livekit": (1.0, 2.0, 4.0, 8.0), "mux": (5.0, 20.0, 60.0, 180.0)}
"""Before each attempt after the first. LiveKit makes four more (livekit/protocol webhook); Mux goes on for a day, less
and less often (mux.com/docs, Listen for webhooks), of which a world has minutes."""
ANSWER_WITHIN_S = 5.0
LATE_S, AGAIN_S = (2.0, 200.0), (0.05, 60.0)
_SOON_S = (0.05, 2.0)


@dataclass(slots=True)
class Deliveries:
    env: Environment
    replicas: Callable[[], list[Replica]]
    accepted: Callable[[Hint], None]
    """Told of every delivery that was answered with success, whether its sender hears of it or not."""
    sent_again: int = field(default=0)

    def send(self, hint: Hint) -> None:
        env = self.env
        late = env.faults.hits(Kind.WEBHOOK_LATE, "webhook")
        env.after(*(LATE_S if late else _SOON_S), lambda: self._begin(hint))
        # Mux may send one twice that was answered at once (mux.com/docs, Listen for webhooks).
        if env.faults.hits(Kind.WEBHOOK_TWICE, "webhook"):
            env.after(*AGAIN_S, lambda: self._begin(hint))

    def _begin(self, hint: Hint) -> None:
        # It belongs to no replica: the sender does not die with the replica that caused the webhook.
        Context().run(self.env.loop.create_task, self._until_answered(hint), name="sender of webhooks")

    def once(self, hint: Hint) -> None:
        Context().run(self.env.loop.create_task, self.attempt(hint), name="sender of webhooks")

    async def _until_answered(self, hint: Hint) -> None:
        for wait in WAITS_S[hint.provider]:
            if await self.attempt(hint):
                return
            await asyncio.sleep(wait * self.env.rng.uniform(0.9, 1.1))
            self.sent_again += 1
        await self.attempt(hint)

    async def attempt(self, hint: Hint) -> bool:
        """Whether its sender was told that it was taken."""
        alive = [replica for replica in self.replicas() if replica.alive]
        if not alive:
            return False
        receiving = self.env.rng.choice(alive).receive(hint)
        await asyncio.wait({receiving}, timeout=ANSWER_WITHIN_S)
        if not receiving.done() or receiving.cancelled() or not receiving.result():
            return False
        self.accepted(hint)
        return not self.env.faults.hits(Kind.WEBHOOK_UNANSWERED, "webhook")
