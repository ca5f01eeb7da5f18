"""Who is refused when a replica is full, and when the streams of a connection end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from service.api.admission import Admission
from service.api.connection_ages import ConnectionAges, grace_s
from service.domain.errors import Overloaded

LOUD, QUIET = "ipv4:10.0.0.1", "ipv4:10.0.0.2"


def test_the_peer_that_fills_a_replica_is_refused_before_the_others() -> None:
    admission = Admission(unary_limit=8, stream_limit=8)
    with contextlib.ExitStack() as under_way:
        for port in range(8):
            under_way.enter_context(admission.unary(peer=f"{LOUD}:{port}"))
        with pytest.raises(Overloaded):
            under_way.enter_context(admission.unary(peer=f"{LOUD}:9"))
        for port in range(2):
            under_way.enter_context(admission.unary(peer=f"{QUIET}:{port}"))
        # The reserve has an end too.
        with pytest.raises(Overloaded):
            under_way.enter_context(admission.unary(peer=f"{QUIET}:2"))
    with admission.unary(peer=f"{LOUD}:1"):
        pass


async def test_the_peer_that_fills_the_streams_is_refused_before_the_others() -> None:
    admission = Admission(unary_limit=8, stream_limit=1)

    async def opened(peer: str) -> None:
        with admission.stream(peer=peer):
            pass

    with admission.stream(peer=f"{LOUD}:1"):
        with pytest.raises(Overloaded):
            await asyncio.create_task(opened(f"{LOUD}:2"))
        await asyncio.create_task(opened(f"{QUIET}:1"))


def test_streams_end_after_the_connection_took_no_more_calls_and_before_it_is_cut() -> None:
    now = 0.0
    ages = ConnectionAges(100, clock=lambda: now)
    for number in range(200):
        ages.heard(f"peer:{number}")
    # gRPC: 90 to 110 s until it takes no more calls, and the grace from then on.
    ends = [ages.ends_in(f"peer:{number}") for number in range(200)]
    assert min(ends) > 110
    assert max(ends) < 90 + grace_s(100)
    assert max(ends) - min(ends) > 5
    now = 60.0
    ages.heard("peer:0")
    assert ages.ends_in("peer:0") == pytest.approx(ends[0] - 60)
    # Another connection from the same port.
    now = 151.0
    ages.heard("peer:0")
    assert ages.ends_in("peer:0") > 100
