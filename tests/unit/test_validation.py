"""Where a destination and a slate may point, what a key may be, and which fields of a spec exclude each other."""

import re

import pytest

from service.domain.broadcast import Carrier, Destination, LatencyMode, Spec, StaticRendition
from service.domain.secret import Secret
from service.domain.validation import (
    alike_of,
    combination_violations,
    destination_violations,
    host_of,
    is_public,
    look_alikes,
    missing_keys,
    slate_violations,
)


def wrong(url: str = "rtmp://live.example.com/app", key: str = "key") -> list[str]:
    violations = destination_violations([Destination(name="one", url=url)], {"one": Secret(key)})
    assert all(violation.description for violation in violations)
    return [violation.field for violation in violations]


@pytest.mark.parametrize(
    "url",
    [
        "rtmp://live.example.com/app",
        "rtmps://live.example.com:443/app",
        "rtmps://a.rtmps.youtube.com:443/live2",
        "rtmps://live-api-s.facebook.com:443/rtmp",
        "rtmp://live.example.com./a/b/c",
        "rtmp://LIVE.Example.com/app",
        "rtmp://xn--bcher-kva.example/app",
        "rtmp://93.184.216.34/app",
        "rtmp://93.184.216.34:1935/app",
        "rtmp://[2606:2800:220:1:248:1893:25c8:1946]:1935/app",
        "rtmp://[64:ff9b::5db8:d822]/app",
        "rtmp://10.example.com/app",
        "rtmp://my-local.org/app",
    ],
)
def test_good_urls(url: str) -> None:
    assert wrong(url) == []
    # What the egress of LiveKit takes for an address to push to (livekit/egress pkg/config, `^(rtmps?://)...`).
    assert re.fullmatch(r"(rtmps?://)(.*/)(.*/)(\S*)", f"{url}/key")


INSIDE = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "2130706433",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "192.168.257",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::1]",
    "[2001:db8::1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "printer.local",
    "metadata.google.internal",
    "host.docker.internal",
    "postgres.default.svc.cluster.local",
    "router.home.arpa",
    "postgres",
]


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("port", ["", ":1935"])
def test_addresses_inside(host: str, port: str) -> None:
    assert wrong(f"rtmp://{host}{port}/app") == ["spec.destinations[0].url"]
    assert [each.field for each in slate_violations(f"https://{host}{port}/slate.png")] == ["spec.slate_url"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://images.example.com/slate.png",
        "http://images.example.com:8080/a%20b.png?sig=a%2Fb&v=2",
        "https://93.184.216.34/slate.jpg",
        "https://images.example.com",
        "https://xn--bcher-kva.example/slate.png",
    ],
)
def test_good_slates(url: str) -> None:
    assert slate_violations(url) == []


@pytest.mark.parametrize(
    "url",
    [
        "images.example.com/slate.png",
        "rtmp://images.example.com/slate.png",
        "file:///etc/passwd",
        "HTTPS://images.example.com/slate.png",
        "https://user:password@images.example.com/slate.png",
        "https://images.example.com@10.0.0.1/slate.png",
        "https://images.example.com/slate.png#top",
        "https://images.example.com/a b.png",
        "https://images.example.com/\n.png",
        "https://bücher.example/slate.png",
        "https://images.example.com:0/slate.png",
        "https://images.example.com?x/slate.png",
        "https:///slate.png",
        "https://images\\.example.com/slate.png",
    ],
)
def test_bad_slates(url: str) -> None:
    [violation] = slate_violations(url)
    assert violation.field == "spec.slate_url"
    assert violation.description


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (Spec(captions_language="en", latency_mode=LatencyMode.LOW), "spec.captions_language"),
        (Spec(audio_only=True, static_rendition=StaticRendition.HIGHEST), "spec.static_rendition"),
        (Spec(slate_url="https://images.example.com/slate.png", reconnect_window_s=0), "spec.slate_url"),
    ],
)
def test_fields_that_exclude_each_other(spec: Spec, field: str) -> None:
    assert [each.field for each in combination_violations(spec)] == [field]


@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(latency_mode=LatencyMode.LOW, reconnect_window_s=0),
        Spec(captions_language="en", latency_mode=LatencyMode.STANDARD),
        Spec(audio_only=True, static_rendition=StaticRendition.AUDIO_ONLY),
        Spec(static_rendition=StaticRendition.HIGHEST, slate_url="https://images.example.com/slate.png"),
    ],
)
def test_fields_that_go_together(spec: Spec) -> None:
    assert combination_violations(spec) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "live.example.com/app",
        "//live.example.com/app",
        "http://live.example.com/app",
        "RTMP://live.example.com/app",
        "srt://live.example.com/app",
        "rtmp:live.example.com/app",
        "rtmp:///app",
        "rtmp://:1935/app",
        "rtmp://live.example.com",
        "rtmp://live.example.com/",
        "rtmp://live.example.com/app/",
        "rtmp://live.example.com//app",
        "rtmp://live.example.com/../app",
        "rtmp://user@live.example.com/app",
        "rtmp://user:pass@live.example.com/app",
        "rtmp://live.example.com@127.0.0.1/app",
        "rtmp://127.0.0.1#@live.example.com/app",
        "rtmp://127.0.0.1\\@live.example.com/app",
        "rtmp://live.example.com/app?key=1",
        "rtmp://live.example.com/app#here",
        "rtmp://live.example.com:0/app",
        "rtmp://live.example.com:65536/app",
        "rtmp://live.example.com:/app",
        "rtmp://live.example.com:19a/app",
        "rtmp://live.example.com:-1/app",
        "rtmp://live.example.com:1935:1935/app",
        "rtmp://live.example.com/a b",
        "rtmp://live.example.com/a\tb",
        "rtmp://live.example.com/a\nb",
        "rtmp://live.example.com\u2024/app",
        "rtmp://１27.0.0.1/app",  # noqa: RUF001 - the odd digit is the case
        "rtmp://b\u00fccher.example/app",
        "rtmp://%31%32%37.0.0.1/app",
        "rtmp://live..example.com/app",
        "rtmp://.example.com/app",
        "rtmp://-live.example.com/app",
        "rtmp://1.2.3.4.5/app",
        "rtmp://999.1.1.1/app",
        "rtmp://08.1.1.1/app",
        "rtmp://example.0x1/app",
        "rtmp://[::1/app",
        "rtmp://[fe80::1%25eth0]/app",
        "rtmp://[1.2.3.4]/app",
        "rtmp://[]/app",
        "rtmp://[2606:2800::1]x/app",
        f"rtmp://{'a' * 64}.example.com/app",
        f"rtmp://{'a.' * 130}com/app",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    assert wrong(url) == ["spec.destinations[0].url"]


@pytest.mark.parametrize("key", ["abcd-efgh", "live_1_x?bandwidthtest=true", "FB-1-0-Abc?s_bl=1&s_sc=2", "~!x"])
def test_good_keys(key: str) -> None:
    assert wrong(key=key) == []


@pytest.mark.parametrize("key", ["a b", "a/b", "a\nb", " a", "\u00e4", "a\x00", "a\x7f"])
def test_bad_keys(key: str) -> None:
    assert wrong(key=key) == ["spec.destinations[0].stream_key"]


def test_both_are_told_and_by_index() -> None:
    good = Destination(name="good", url="rtmp://live.example.com/app")
    bad = Destination(name="bad", url="rtmp://localhost/app")
    keys = {"good": Secret("k"), "bad": Secret("a b")}
    violations = destination_violations([good, bad], keys)
    assert [each.field for each in violations] == ["spec.destinations[1].url", "spec.destinations[1].stream_key"]
    assert "a b" not in str(violations)


def test_a_key_is_required() -> None:
    destinations = [Destination(name=name, url="rtmp://live.example.com/app") for name in ("one", "two", "three")]
    violations = missing_keys(destinations, {"one": Secret("k"), "two": Secret("")})
    assert [each.field for each in violations] == ["spec.destinations[1].stream_key", "spec.destinations[2].stream_key"]
    assert {each.description for each in violations} == {"is required"}


def test_what_is_to_be_resolved() -> None:
    assert host_of("rtmp://LIVE.example.com.:1935/app") == "live.example.com"
    assert host_of("rtmp://93.184.216.34/app") is None
    assert host_of("rtmp://[2606:2800:220:1:248:1893:25c8:1946]/app") is None


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_answers_of_a_resolver(address: str, public: bool) -> None:  # noqa: FBT001 - a table
    assert is_public(address) is public


_LIVE = "rtmp://live.example.com/app"


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("studio-main-2026-stage", "studio-back-2026-stage", True),
        ("the-same", "the-same", True),
        ("abc", "axc", True),
        ("abcdefgh", "abXXXXgh", True),
        ("k", "xy", True),
        ("abcdefghi", "abcdefghX", False),
        ("abcdefghi", "Xbcdefghi", False),
        # As many characters are shown as the length of the key allows.
        ("abcdefgh", "abcdefefgh", False),
    ],
)
def test_two_keys_that_livekit_shows_alike_are_refused(first: str, second: str, alike: bool) -> None:  # noqa: FBT001
    """One would be told for the other, and who removes what is told FAILED would cut off the one that lives."""
    destinations = [Destination(name="one", url=_LIVE), Destination(name="two", url=_LIVE)]
    keys = {"one": Secret(first), "two": Secret(second)}
    violations = look_alikes(destinations, keys)
    assert [each.field for each in violations] == ["spec.destinations[1].stream_key"] * alike
    assert all("'one'" in each.description and second not in each.description for each in violations)
    assert alike_of("two", destinations, keys) == ({"one", "two"} if alike else {"two"})


def test_other_places_may_have_keys_that_look_alike() -> None:
    destinations = [
        Destination(name="one", url=_LIVE),
        Destination(name="two", url=f"{_LIVE}2"),
        Destination(name="three", url=_LIVE, carrier=Carrier.STREAM),
    ]
    assert look_alikes(destinations, {each.name: Secret("studio-main-2026-stage") for each in destinations}) == []
