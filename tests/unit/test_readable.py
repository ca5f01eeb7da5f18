"""What an error says, for people: one short line, whatever a load balancer or a proxy answers."""

import time

import pytest

from service.providers.text.readable import LONGEST_MESSAGE, readable

NGINX = """<html>\r
<head><title>503 Service Temporarily Unavailable</title></head>\r
<body>\r
<center><h1>503 Service Temporarily Unavailable</h1></center>\r
<hr><center>nginx</center>\r
</body>\r
</html>\r
<!-- a padding to disable MSIE and Chrome friendly error page -->\r
"""
CLOUDFLARE = """<!DOCTYPE html>
<!--[if lt IE 7]> <html class="no-js ie6 oldie" lang="en-US"> <![endif]-->
<head><title>api.mux.com | 502: Bad gateway</title><style>body{margin:0;padding:0}</style></head>
<BODY><div id="cf-wrapper"><header><h1>Bad gateway <span>Error&nbsp;code 502</span></h1></header>
<SCRIPT>window._cf = {"token": "abc > def"};</SCRIPT>
<p>The web server reported a <b>bad gateway</b>&nbsp;error.</p></div></BODY>"""
XML = """<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"""
KEY = "5bd28537-7491-4ffa-b726-bbb506401234"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (NGINX, 503, "503 Service Temporarily Unavailable nginx"),
        (
            CLOUDFLARE,
            502,
            "502 Bad Gateway: Bad gateway Error code 502 The web server reported a bad gateway error.",
        ),
        (XML, 503, "503 Service Unavailable: SlowDown Reduce your rate."),
        ("upstream connect error\n", 503, "503 Service Unavailable: upstream connect error"),
        ("", 504, "504 Gateway Timeout"),
        ("", 599, "599"),
        ("<html>", 500, "500 Internal Server Error"),
        ("<p>cut off <scr", 500, "500 Internal Server Error: cut off"),
        # A provider's own words stay as they are: what looks like a tag in them is none.
        ("title: must be < 512 & not <nil>", None, "title: must be < 512 & not <nil>"),
        ("several\nlines\x00", None, "several lines"),
        ("", None, ""),
    ],
)
def test_it_is_one_line_that_can_be_read(text: str, status: int | None, said: str) -> None:
    assert readable(text, status) == said


def test_it_is_short() -> None:
    assert len(readable("word " * 1000)) == LONGEST_MESSAGE
    assert readable("word " * 1000, 503).endswith("…")
    assert readable("a" * LONGEST_MESSAGE) == "a" * LONGEST_MESSAGE


@pytest.mark.parametrize(
    "text",
    [
        f"<html><body>cannot push to rtmps://global-live.mux.com/app/{KEY}</body></html>",
        f"<p>cannot push to rtmps://global-live.mux.com/app/<b>{KEY}</b></p>",
        f"<p>cannot push to rtmps:&#x2F;&#x2F;global-live.mux.com&#x2F;app&#x2F;{KEY}</p>",
        f"<p><i>stream_key</i>=<b>{KEY}</b></p>",
        f"<p>GET https://storage.example/file?X-Amz-Signature={KEY}</p>",
        f"<p>Authorization: Basic&nbsp;{KEY}</p>",
        # Half of a key is no key to the redaction, so nothing is cut before it.
        f"<p>{'a ' * 80}rtmps://global-live.mux.com/app/{KEY}</p>",
    ],
)
def test_no_secret_is_in_it(text: str) -> None:
    for status in (None, 503):
        said = readable(text, status)
        assert KEY[:4] not in said, said
        assert "<" not in said


@pytest.mark.parametrize("piece", ["<!--", "<", "<head>", "<script ", "&", "&#", "rtmp://", "<a>&lt;", "\n "])
def test_a_long_page_takes_no_longer_than_its_length(piece: str) -> None:
    page = "<p>" + piece * 50_000
    began = time.process_time()
    readable(page, 500)
    assert time.process_time() - began < 1
