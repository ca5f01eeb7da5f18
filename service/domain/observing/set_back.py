"""Rows with times that lie ahead of the database's clock, because that clock was set back. Pure.

Every deadline of a plan counts from such a time, and every look is judged by whether it came after one. Ahead of the
clock it would hold up the plan for as long as the clock was set back, and a step whose outcome no look seems to follow
would be done again and again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, cast

from service.domain.resources import AnyResource

_STEP = timedelta(seconds=1)
"""Less is the difference between two clocks that go well: a replica adds its own time to the database's."""
_TO_COME = frozenset({"retry_at", "title_retry_at"})
"""The times of a resource that may lie ahead."""
_OF_PROVIDERS = frozenset({"heard_at", "started_at", "ended_at"})
"""Times by a provider's clock, which was not set back."""


def moved_back(resources: Sequence[AnyResource], now: datetime) -> tuple[AnyResource, ...]:
    """Those of *resources* with times ahead of *now*, by the database's clock. All these times are moved by one span,
    so that the latest is *now*: the order of what happened and the time between stay as they were.
    """
    ahead = max((moment for each in resources for moment in _past(each)), default=now) - now
    if ahead < _STEP:
        return ()
    moved = [_moved(each, now, ahead) for each in resources]
    return tuple(new for new, old in zip(moved, resources, strict=True) if new != old)


def _past(resource: AnyResource) -> list[datetime]:
    """All its times of what happened."""
    found: list[datetime] = []
    for name, value in _times(resource).items():
        if isinstance(value, Mapping):
            found += value.values()
        elif name not in _TO_COME:
            found.append(value)
    return found


def _times(resource: AnyResource) -> dict[str, datetime | Mapping[str, datetime]]:
    """Its fields that are a time of the database's clock, or such times by a name."""
    values: dict[str, Any] = {
        field.name: getattr(resource, field.name) for field in fields(resource) if field.name not in _OF_PROVIDERS
    }
    return {
        name: cast("datetime | Mapping[str, datetime]", value)
        for name, value in values.items()
        if isinstance(value, datetime) or (isinstance(value, Mapping) and _all_times(cast("Mapping[Any, Any]", value)))
    }


def _all_times(values: Mapping[Any, Any]) -> bool:
    return bool(values) and all(isinstance(value, datetime) for value in values.values())


def _moved(resource: AnyResource, now: datetime, by: timedelta) -> AnyResource:
    def earlier(moment: datetime) -> datetime:
        return moment - by if moment > now else moment

    changes: dict[str, Any] = {
        name: {key: earlier(moment) for key, moment in value.items()} if isinstance(value, Mapping) else earlier(value)
        for name, value in _times(resource).items()
    }
    return replace(resource, **changes)
