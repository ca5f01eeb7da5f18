"""The players that report to the provider of streams."""

from datetime import datetime
from typing import Protocol


class Engagement(Protocol):
    async def viewers(self, stream_id: str, *, now: datetime) -> int:
        """How many unique viewers watch the live stream now, of those whose player reports to the provider.

        *now*: by the database clock; the request is good for some minutes from then. Zero: no player reports.
        """
        ...
