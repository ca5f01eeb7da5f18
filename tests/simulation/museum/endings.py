"""Exhibits: what keeps a show, its recording and its viewers from being cut off too early or too late."""

# A protection is taken away where it is, and that is seldom a public place.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from service.domain.planning import fallback
from service.domain.planning import live as plan_live
from service.domain.planning.ending import End
from service.domain.resource_set import ResourceSet
from service.domain.resources import AnyResource, Phase
from service.domain.timing import Timing
from tests.simulation.providers import calls

if TYPE_CHECKING:
    from service.domain.broadcast import Broadcast
    from service.domain.resources import Stream
    from tests.simulation.museum.exhibit import Exhibits


def _without_disable() -> contextlib.AbstractContextManager[Any]:
    async def nothing(self: calls.Streams, stream_id: str) -> None: ...

    return patch.object(calls.Streams, "disable", nothing)


def _without_patience() -> contextlib.AbstractContextManager[Any]:
    """A host who left is given a minute to come back."""
    decided = plan_live.host_deadline

    def early(broadcast: Broadcast, resource_set: ResourceSet, timing: Timing) -> datetime | None:
        return decided(broadcast, resource_set, replace(timing, host_return_s=60.0))

    return patch.object(plan_live, "host_deadline", early)


def _without_uploads() -> contextlib.AbstractContextManager[Any]:
    """Files of fallbacks stay in our storage once the broadcast is over."""

    def nothing(_self: End) -> None: ...

    return patch.object(End, "plan_uploads", nothing)


def _without_proof() -> contextlib.AbstractContextManager[Any]:
    """Viewers are sent back as soon as pictures are there again."""

    def at_once(self: fallback._Decider) -> bool:
        return self.resource_set.playable

    return patch.object(fallback._Decider, "over", at_once)


def _without_drain() -> contextlib.AbstractContextManager[Any]:
    """The live stream is disabled before the egress is stopped, whatever is known of it."""

    def never(_self: End) -> bool:
        return False

    return patch.object(End, "egress_drains", never)


def _without_last_viewers() -> contextlib.AbstractContextManager[Any]:
    """The live stream is deleted as soon as nothing runs."""

    def at_once(_self: End, _stream: Stream) -> bool:
        return True

    return patch.object(End, "seen_to_the_end", at_once)


def _without_fence_at_the_end() -> contextlib.AbstractContextManager[Any]:
    """A broadcast is over when its egress and its room are gone, whatever its live stream takes."""

    def without_streams(self: ResourceSet) -> list[AnyResource]:
        return [each for each in self.running if each.phase is not Phase.GONE and each not in self.streams]

    return patch.object(ResourceSet, "left", property(without_streams))


EXHIBITS: Final[Exhibits] = {
    "no disable at the end": _without_disable,
    "no patience with a host who left": _without_patience,
    "no uploads after the end": _without_uploads,
    "no proof before viewers are sent back": _without_proof,
    "the last seconds thrown away": _without_drain,
    "no wait for the last viewers": _without_last_viewers,
    "over before the live stream is disabled": _without_fence_at_the_end,
}
