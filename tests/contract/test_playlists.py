"""What a player finds at a playback address, and what every sort of answer and silence is taken for."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import traceback
from collections.abc import AsyncGenerator, Awaitable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import Outcome, ProviderError
from service.domain.ports import PlaylistSeen
from service.providers.hls import Hls
from tests.contract.mux_bench import running
from tests.contract.provider_wire import Answer, Fate, Wire, refused_url, reply, wire
from tests.waiting import eventually

KIND = "application/vnd.apple.mpegurl"
TOKEN = "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"
MULTIVARIANT = """#EXTM3U
#EXT-X-VERSION:5
#EXT-X-INDEPENDENT-SEGMENTS

#EXT-X-STREAM-INF:BANDWIDTH=2516370,AVERAGE-BANDWIDTH=2516370,RESOLUTION=1280x720,CODECS="mp4a.40.2,avc1.640020"
renditions/high.m3u8?skid=default&signature=sig-of-the-rendition
#EXT-X-STREAM-INF:BANDWIDTH=500000,RESOLUTION=480x270
renditions/low.m3u8
"""
MEDIA = """#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:5
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-DISCONTINUITY-SEQUENCE:2
#EXT-X-PROGRAM-DATE-TIME:2026-11-22T12:00:00.000Z
#EXTINF:5,
https://chunk.example/41.ts?skid=default&signature=s41
#EXT-X-DISCONTINUITY
#EXTINF:4.96,
https://chunk.example/42.ts?skid=default&signature=s42
"""
SEEN = PlaylistSeen(
    status=200,
    media_sequence=41,
    last_segment="https://chunk.example/42.ts",
    segments=2,
    discontinuities=3,
    ended=False,
    target_duration_s=5,
)


@contextlib.asynccontextmanager
async def player(longest_s: float = 20) -> AsyncGenerator[Hls]:
    hls = Hls(longest_call=timedelta(seconds=longest_s))
    try:
        yield hls
    finally:
        await hls.close()


@contextlib.asynccontextmanager
async def answering(*answers: Answer, longest_s: float = 20) -> AsyncGenerator[tuple[Hls, Wire, str]]:
    async with wire(*answers) as edge, player(longest_s) as hls:
        yield hls, edge, f"{edge.url}/PB1.m3u8?token={TOKEN}"


async def refusal(call: Awaitable[object]) -> ProviderError:
    """What the call raises; no form in which it can be printed shows a token."""
    with pytest.raises(ProviderError) as caught:
        await call
    error = caught.value
    printed = "".join(traceback.format_exception(error))
    for shown in (str(error), repr(error), error.message, error.code, repr(error.args), printed):
        assert TOKEN not in shown
        assert "sig-of" not in shown
    return error


def playlist(text: str, status: int = 200, **headers: str) -> bytes:
    return reply(status, text, KIND, **headers)


async def test_the_first_rendition_is_looked_at() -> None:
    async with answering(playlist(MULTIVARIANT), playlist(MEDIA)) as (hls, edge, url):
        assert await hls.look(url) == SEEN
    assert [sent.path for sent in edge.requests] == [
        f"/PB1.m3u8?token={TOKEN}",
        "/renditions/high.m3u8?skid=default&signature=sig-of-the-rendition",
    ]


async def test_a_media_playlist_at_the_address_itself_will_do() -> None:
    async with answering(playlist(MEDIA)) as (hls, edge, url):
        assert await hls.look(url) == SEEN
    assert len(edge.requests) == 1


async def test_what_is_not_said_is_nothing() -> None:
    """RFC 8216: no EXT-X-MEDIA-SEQUENCE means that the first segment's number is 0."""
    async with answering(playlist("#EXTM3U\r\n#EXTINF:2,\r\na.ts\r\n#EXT-X-ENDLIST\r\n")) as (hls, _, url):
        seen = await hls.look(url)
    assert seen == PlaylistSeen(status=200, media_sequence=0, last_segment="a.ts", segments=1, ended=True)


@pytest.mark.parametrize("status", [403, 404, 412, 429, 500, 503])
@pytest.mark.parametrize("of", ["address", "rendition"])
async def test_a_refusal_is_told_by_its_status(status: int, of: str) -> None:
    """412 is what Mux answers before a stream is active and after it is idle, 403 without the right token."""
    refused = reply(status, "<html>no</html>", "text/html")
    answers = [refused] if of == "address" else [playlist(MULTIVARIANT), refused]
    async with answering(*answers) as (hls, _, url):
        assert await hls.look(url) == PlaylistSeen(status=status)


async def test_a_redirect_within_the_host_is_followed_and_renditions_are_found_from_there() -> None:
    moved = reply(302, "", Location="/elsewhere/PB1.m3u8")
    async with answering(moved, playlist(MULTIVARIANT), playlist(MEDIA)) as (hls, edge, url):
        assert await hls.look(url) == SEEN
    assert edge.requests[-1].path.startswith("/elsewhere/renditions/high.m3u8")


@pytest.mark.parametrize("of", ["address", "rendition", "name of the rendition"])
async def test_no_other_host_is_asked(of: str) -> None:
    async with wire(playlist(MEDIA)) as other:
        away = reply(302, "", Location=f"{other.url}/PB1.m3u8")
        answers = {
            "address": [away],
            "rendition": [playlist(MULTIVARIANT), away],
            "name of the rendition": [playlist(MULTIVARIANT.replace("renditions/high", f"{other.url}/high"))],
        }[of]
        async with answering(*answers) as (hls, _, url):
            error = await refusal(hls.look(url))
        assert (error.outcome, error.code) == (Outcome.AMBIGUOUS, "elsewhere")
        assert not other.requests


async def test_a_circle_of_redirects_ends() -> None:
    async with answering(reply(302, "", Location="/PB1.m3u8")) as (hls, edge, url):
        assert (await refusal(hls.look(url))).code == "elsewhere"
    assert len(edge.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, "<html>captive portal</html>", "text/html"),
        reply(200, b"", KIND),
        reply(200, b"#EXTM3U\n\xff\xfe", KIND),
        playlist(MEDIA + "#" * 300_000),
        playlist(MEDIA.replace("41", "soon", 1)),
        playlist(MEDIA.replace("41", "9" * 400, 1)),
        playlist(MEDIA.replace("TARGETDURATION:5", "TARGETDURATION:nan")),
        playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n"),
        playlist("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:41\n"),
        playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://[::1/a.m3u8\n"),
    ],
    ids=["html", "empty", "not text", "large", "words", "digits", "nan", "no rendition", "no segment", "no address"],
)
async def test_what_is_no_playlist_says_nothing(answer: bytes) -> None:
    async with answering(answer) as (hls, _, url):
        error = await refusal(hls.look(url))
    assert (error.outcome, error.code) == (Outcome.AMBIGUOUS, "no_playlist")


async def test_a_packed_playlist_is_unpacked_and_no_further_than_a_playlist_may_be_large() -> None:
    packed = reply(200, gzip.compress(MEDIA.encode()), KIND, Content_Encoding="gzip")
    async with answering(packed) as (hls, edge, url):
        assert await hls.look(url) == SEEN
    assert edge.requests[0].headers["accept-encoding"] == "gzip"
    bomb = gzip.compress(b"#EXTM3U\n" + bytes(200_000_000))
    for body, encoding in (
        (bomb, "gzip"),
        (gzip.compress(MEDIA.encode())[:-20], "gzip"),
        (MEDIA.encode(), "gzip"),
        (MEDIA.encode(), "br"),
    ):
        async with answering(reply(200, body, KIND, Content_Encoding=encoding)) as (hls, _, url):
            assert (await refusal(hls.look(url))).code == "no_playlist"


async def test_nobody_there_is_not_sent() -> None:
    async with player() as hls:
        assert (await refusal(hls.look(f"{refused_url()}/PB1.m3u8?token={TOKEN}"))).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize("fate", [Fate.CLOSE, Fate.RESET, Fate.HALF])
async def test_a_connection_that_breaks_is_ambiguous(fate: Fate) -> None:
    async with answering(fate) as (hls, _, url):
        assert (await refusal(hls.look(url))).outcome is Outcome.AMBIGUOUS


@pytest.mark.parametrize("of", ["address", "rendition"])
async def test_silence_ends_in_time(of: str) -> None:
    answers: list[Answer] = [Fate.HANG] if of == "address" else [playlist(MULTIVARIANT), Fate.HANG]
    async with answering(*answers, longest_s=0.3) as (hls, _, url), asyncio.timeout(20):
        error = await refusal(hls.look(url))
    assert (error.outcome, error.code) == (Outcome.AMBIGUOUS, "timeout")


@settings(max_examples=150)
@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*MULTIVARIANT.splitlines(), *MEDIA.splitlines()])).map("\n".join)
)
def test_no_playlist_makes_anything_but_an_answer_or_a_provider_error(text: str) -> None:
    async def look() -> None:
        body = "#EXTM3U\n" + text
        async with answering(reply(200, body.encode(errors="replace"), KIND)) as (hls, _, url):
            with contextlib.suppress(ProviderError):
                assert (await hls.look(url)).status == 200

    asyncio.run(look())


async def test_the_playlist_of_a_live_stream_is_seen_to_advance_and_to_end() -> None:
    async with running() as mux, player() as hls:
        stream = await mux.create(playback_policies=["public"], reconnect_window=0)
        url = f"{mux.base}/playback/{stream['playback_ids'][0]['id']}.m3u8"
        assert await hls.look(url) == PlaylistSeen(status=412)
        encoder = await mux.go_live(stream)
        first = await hls.look(url)
        assert (first.status, first.ended, first.target_duration_s) == (200, False, 2)

        async def advanced() -> bool:
            now = await hls.look(url)
            moved = (now.media_sequence or 0) > (first.media_sequence or 0)
            return moved and now.last_segment != first.last_segment

        await eventually(advanced)
        await encoder.leave()
        await mux.effect("stream.idle", stream["id"])
        assert (await hls.look(url)).ended
