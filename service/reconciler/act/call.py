"""The writes around a call, as every step of a pass makes them; and the delete, which three kinds of steps share.

Invariant: intent before the call, record after it, the fence in every write, one change at a provider a step. Any line
may be the last one that runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service.domain.errors import ProviderError
from service.domain.resources import Phase, Room, Stream, Upload
from service.failpoints import failpoint
from service.reconciler.act.outcomes import record_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.domain.provider import Provider
    from service.reconciler.act.context import PassContext


async def delete(
    context: PassContext,
    resource: Room | Stream | Upload,
    call: Callable[[str], Coroutine[Any, Any, bool | None]],
    point: str,
    provider: Provider,
) -> None:
    """Delete *resource* at its *provider* by *call*. It is DELETING afterwards, and GONE when it was seen absent.

    *call* answers False where the provider says that there is no such resource. A room is doubted then, unless it was
    never seen: nothing was heard of its end.
    """
    leaving = replace(resource, phase=Phase.DELETING, changed_at=context.now(), acked=False)
    await context.intend(leaving, point)
    try:
        deleted = await call(resource.external_id or context.broadcast.id)
    except ProviderError as error:
        await record_failure(context, leaving, error)
        return
    failpoint(f"{point}.after_call")
    if isinstance(leaving, Room) and leaving.sid and deleted is False:
        await context.record([replace(leaving, doubted=True)])
        return
    await context.record([replace(leaving, acked=True, failures=0, retry_at=None)], recovered=provider)
    failpoint(f"{point}.after_record")
