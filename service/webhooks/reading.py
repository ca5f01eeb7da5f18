"""From the body of a verified webhook to the facts in it, in the words of the domain, and the broadcast it is about.

Invariant: reading never raises. A webhook whose body cannot be read is stored as QUARANTINED.
"""

from __future__ import annotations

import hashlib
import traceback
from typing import TYPE_CHECKING

import structlog

from service.domain.ports import Unreadable
from service.domain.provider import ROOMS, Provider
from service.providers.livekit.webhooks import heard as livekit_heard
from service.providers.mux.webhooks import heard as mux_heard
from service.providers.text.redaction import redacted
from service.store.rows import heard_column, heard_of
from service.store.webhooks.inbox import Reading
from service.store.webhooks.stored import WebhookOutcome
from service.webhooks.worth import acted_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.domain.ports import Heard

log = structlog.get_logger(__name__)

HEARD: Mapping[Provider, Callable[[bytes], Heard]] = {
    Provider.LIVEKIT: livekit_heard,
    Provider.MUX: mux_heard,
}
# Characters. The id is part of an index, whose entries Postgres limits to about 2,700 bytes.
_LONGEST_ID = 200


class Reader:
    def __init__(self, *, tag: str, mux_environment: str = "") -> None:
        """*tag*: the beginning of the marks of this environment. *mux_environment*: Mux's id of our environment. Empty:
        webhooks of every environment of Mux are read.
        """
        self._tag = tag
        self._mux_environment = mux_environment

    def read(self, provider: Provider, body: bytes) -> Reading:
        """Read *body*. It never raises, because a provider sends a refused webhook again for a day. The outcome of a
        body that cannot be read is QUARANTINED.
        """
        digest = hashlib.sha256(body).hexdigest()
        try:
            heard, shown = HEARD[provider](body), redacted(body)
            if heard_of({"heard": [[0, heard_column(heard)]]}) != ((0, heard),):
                raise Unreadable("not what a pass would read")  # noqa: TRY301
        except Unreadable as unreadable:
            log.warning("webhook_unreadable", provider=provider, sha256=digest, why=str(unreadable))
            shown = redacted(body)
        except Exception as error:  # noqa: BLE001 - a fault of ours: once it is mended, a replay reads it again
            # The error's message may quote the body, so only its type and its place in the code are logged.
            where = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{where.filename}:{where.lineno}"
            log.error("webhook_not_read", provider=provider, sha256=digest, error=type(error).__name__, where=where)  # noqa: TRY400
            shown = ""
        else:
            return Reading(
                event_id=heard.event_id if 0 < len(heard.event_id) <= _LONGEST_ID else digest,
                type=heard.type,
                outcome=self._outcome(provider, heard),
                heard=heard,
                broadcast_id=self._broadcast(provider, heard.broadcast_hint),
                redacted=shown,
            )
        return Reading(event_id=digest, type="", outcome=WebhookOutcome.QUARANTINED, heard=None, redacted=shown)

    def _outcome(self, provider: Provider, heard: Heard) -> WebhookOutcome:
        if self._mux_environment and heard.environment not in ("", self._mux_environment):
            return WebhookOutcome.FOREIGN
        if not acted_on(provider, heard.type):
            return WebhookOutcome.UNKNOWN_TYPE
        return WebhookOutcome.ACCEPTED

    def _broadcast(self, provider: Provider, hint: str) -> str:
        """The id of the broadcast that *hint* names; empty: none of this environment. A room has the id as its name, a
        mark is `bs1:<environment>:<broadcast>:...`.
        """
        if provider is ROOMS:
            return hint
        return hint.removeprefix(self._tag).partition(":")[0] if hint.startswith(self._tag) else ""
