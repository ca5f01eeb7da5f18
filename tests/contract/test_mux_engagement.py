"""Engagement counts: what the simulated Mux answers to the tokens of the service, and what is taken for no count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import TokenUse
from service.providers.mux.engagement import Counts
from service.providers.mux.signing import Signer, SigningKey
from tests.contract.mux_bench import running
from tests.contract.provider_wire import Fate, reply, wire
from tests.signing import signing_key_pem

NOW = datetime.now(UTC)
SIGNER = Signer([SigningKey.of("k1", signing_key_pem())])


async def test_viewers_of_a_live_stream_and_of_nothing_else() -> None:
    # Not the time of the import: a token is good for a few minutes, and the suite takes longer.
    now = datetime.now(UTC)
    async with running() as mux:
        id_, private = mux.simulator.make_signing_key()
        signer = Signer([SigningKey.of(id_, private)])
        counts = Counts(signer, base_url=mux.base, longest_call=timedelta(seconds=5))
        stranger = Counts(SIGNER, base_url=mux.base, longest_call=timedelta(seconds=5))
        try:
            stream = await mux.create(playback_policies=["signed"])
            assert await counts.viewers(stream["id"], now=now) == 0
            mux.simulator.store.viewers[stream["id"]] = 94
            assert await counts.viewers(stream["id"], now=now) == 94
            for refused in (counts.viewers("another", now=now), stranger.viewers(stream["id"], now=now)):
                with pytest.raises(ProviderError) as caught:
                    await refused
                assert caught.value.outcome is Outcome.CREDENTIALS
            token = signer.sign(stream["id"], TokenUse.VIDEO, until=now + timedelta(minutes=1)).token.reveal()
            async with mux.http.get(f"{mux.base}/counts", params={"token": token}) as answer:
                assert answer.status == 403, "a token for another use"
        finally:
            await counts.close()
            await stranger.close()


@pytest.mark.parametrize(
    "answer",
    [
        reply(500, "broken"),
        reply(404),
        reply(200, "<html>"),
        reply(200, {}),
        reply(200, {"data": "many"}),
        reply(200, {"data": [{"viewers": -1}]}),
        reply(200, {"data": [{"viewers": "94"}]}),
        reply(200, {"data": [{"viewers": True}]}),
        reply(200, {"data": [{"viewers": 10**15}]}),
        reply(200, b'{"data": [{}]}'),
        reply(302, location="https://elsewhere.example/"),
        Fate.CLOSE,
        Fate.RESET,
        Fate.HANG,
    ],
    ids=repr,
)
async def test_what_is_no_count_is_told_without_the_token(answer: Any) -> None:
    async with wire(answer) as provider:
        counts = Counts(SIGNER, base_url=provider.url, longest_call=timedelta(seconds=0.5))
        try:
            with pytest.raises(ProviderError) as caught:
                await counts.viewers("LS1", now=NOW)
        finally:
            await counts.close()
    assert caught.value.outcome is Outcome.AMBIGUOUS
    assert "eyJ" not in f"{caught.value} {caught.value.code}"
