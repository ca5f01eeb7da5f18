"""The form of an exhibit: a context within which one protection is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

Exhibit = Callable[[], AbstractContextManager[Any]]
Exhibits = Mapping[str, Exhibit]
"""By the name of the protection."""
