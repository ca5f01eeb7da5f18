"""Memory that was freed goes back to the system, where the C library would keep it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import AsyncGenerator

import pytest

from service.app import memory
from tests.waiting import eventually

_resident = memory._resident_bytes  # pyright: ignore[reportPrivateUsage]


@contextlib.asynccontextmanager
async def giving_back(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    monkeypatch.setattr(memory, "_EVERY_S", 0.05)
    task = asyncio.create_task(memory.give_back())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def scattered() -> bytes:
    """Takes 200 MB in small pieces and frees all but the last, which keeps the heap from shrinking by itself."""
    pieces = [bytes(2000) for _ in range(100_000)]
    return pieces[-1]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
async def test_what_was_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _resident()
    last = scattered()
    kept = _resident() - before
    assert kept > 100 << 20, "the heap shrank by itself: this proves nothing"
    del last
    ctypes.CDLL(None).malloc_trim(0)
    async with giving_back(monkeypatch):
        last = scattered()
        assert _resident() - before > kept / 2
        await eventually(lambda: _resident() - before < kept / 4)
    del last


async def test_a_c_library_without_a_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(_name: None) -> object:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", without)
    await asyncio.wait_for(memory.give_back(), 5)
