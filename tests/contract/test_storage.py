"""The storage of recordings: what is signed here opens in an S3 that checks every signature, and nothing else does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from yarl import URL

from broadcast_sandbox.faults import Fault
from broadcast_sandbox.storage.s3 import Object, S3Simulator, S3SimulatorSettings
from broadcast_sandbox.storage.signature import Keys, Request, SignatureError, check, signed
from service.domain.secret import Secret
from service.providers.storage.links import Storage, StorageSettings
from service.settings.declared import SettingError
from service.settings.settings import from_environment
from tests.waiting import eventually

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCESS = "AKIAIOSFODNN7EXAMPLE"
FILE = "recordings/first take/0+1~ü.mp4"


def storage_at(url: str, **changes: object) -> StorageSettings:
    settings = StorageSettings(
        bucket="shows",
        access_key=Secret(ACCESS),
        secret_key=Secret(SECRET),
        endpoint=url,
        force_path_style=True,
    )
    return replace(settings, **changes)  # pyright: ignore[reportArgumentType]


@contextlib.asynccontextmanager
async def s3() -> AsyncGenerator[S3Simulator]:
    simulator = S3Simulator(S3SimulatorSettings(bucket="shows", access_key=ACCESS, secret_key=SECRET))
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


def stored(content: bytes) -> Object:
    return Object(content=content, content_type="video/mp4", put_at=datetime.now(UTC))


async def fetched(url: str, method: str = "GET") -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http, http.request(method, URL(url, encoded=True)) as response:
        return response.status, await response.read()


async def test_who_has_the_address_reads_the_file_and_no_other() -> None:
    async with s3() as simulator:
        simulator.objects = {FILE: stored(b"moving pictures"), "recordings/other.mp4": stored(b"not yours")}
        url = Storage(storage_at(simulator.base_url)).url_of(FILE).reveal()
        assert await fetched(url) == (200, b"moving pictures")
        path = urlsplit(url).path
        for other in (
            url.replace(path, "/shows/recordings/other.mp4"),
            url.replace("X-Amz-Expires=86400", "X-Amz-Expires=86401"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
        ):
            assert (await fetched(other))[0] == 403
        assert (await fetched(url, "PUT"))[0] == 403
        assert simulator.objects[FILE].content == b"moving pictures"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"secret_key": Secret("another")}, 403, b"SignatureDoesNotMatch"),
        ({"access_key": Secret("another")}, 403, b"InvalidAccessKeyId"),
        ({"region": "eu-west-1"}, 400, b"AuthorizationHeaderMalformed"),
        ({"bucket": "another"}, 404, b"NoSuchBucket"),
    ],
)
async def test_what_is_set_wrong_is_refused(changes: dict[str, object], status: int, code: bytes) -> None:
    async with s3() as simulator:
        simulator.objects[FILE] = stored(b"moving pictures")
        told, body = await fetched(Storage(storage_at(simulator.base_url, **changes)).url_of(FILE).reveal())
    assert told == status
    assert code in body


async def test_a_file_that_is_not_there_is_404() -> None:
    async with s3() as simulator:
        assert (await fetched(Storage(storage_at(simulator.base_url)).url_of(FILE).reveal()))[0] == 404


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"endpoint": "", "force_path_style": False}, "https://shows.s3.us-east-1.amazonaws.com/a/b.mp4"),
        ({"endpoint": "", "region": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com/shows/a/b.mp4"),
        ({"force_path_style": False}, "https://shows.minio.example:9000/a/b.mp4"),
        ({}, "https://minio.example:9000/shows/a/b.mp4"),
    ],
)
def test_addresses_of_both_styles(changes: dict[str, object], expected: str) -> None:
    settings = storage_at("https://minio.example:9000", **changes)
    assert Storage(settings).url_of("a/b.mp4").reveal().partition("?")[0] == expected


def test_an_address_holds_for_a_day_and_shows_no_secret_key() -> None:
    url = Storage(storage_at("https://minio.example")).url_of(FILE)
    query = dict(parse_qsl(urlsplit(url.reveal()).query))
    assert query["X-Amz-Expires"] == "86400"
    assert SECRET not in url.reveal()
    assert ACCESS not in repr(url)
    assert SECRET not in repr(storage_at(""))


AWS_EXAMPLE = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)
KEYS = Keys(access_key=ACCESS, secret_key=SECRET, region="us-east-1")
AT = datetime(2013, 5, 24, tzinfo=UTC)


def request(query: str = AWS_EXAMPLE, path: str = "/test.txt", method: str = "GET") -> Request:
    host = {"host": "examplebucket.s3.amazonaws.com"}
    return Request(method=method, path=path, query=tuple(parse_qsl(query)), headers=host)


def test_the_simulated_s3_takes_the_example_of_the_documentation() -> None:
    """docs.aws.amazon.com, Authenticating Requests: Using Query Parameters."""
    check(request(), KEYS, AT + timedelta(hours=23))


@pytest.mark.parametrize(
    ("wrong", "at"),
    [
        (request(), AT + timedelta(hours=25)),
        (request(), AT - timedelta(hours=1)),
        (request(path="/test2.txt"), AT),
        (request(method="PUT"), AT),
        (request(AWS_EXAMPLE + "&versionId=1"), AT),
        (request(AWS_EXAMPLE.replace("86400", "604801")), AT),
        (request(AWS_EXAMPLE.replace("host&", "host%3Brange&")), AT),
        (request(""), AT),
    ],
)
def test_the_simulated_s3_takes_nothing_else(wrong: Request, at: datetime) -> None:
    with pytest.raises(SignatureError):
        check(wrong, KEYS, at)


def test_a_signed_header_holds_for_its_request_alone() -> None:
    put = Request(method="PUT", path="/shows/a.mp4", headers={"host": "h", "content-type": "video/mp4"})
    sent = replace(put, headers=signed(put, KEYS, AT))
    check(sent, KEYS, AT)
    for wrong, at in (
        (replace(sent, path="/shows/b.mp4"), AT),
        (replace(sent, headers={**sent.headers, "content-type": "text/html"}), AT),
        (sent, AT + timedelta(minutes=16)),
        (replace(sent, headers={"host": "h"}), AT),
    ):
        with pytest.raises(SignatureError):
            check(wrong, KEYS, at)


@pytest.mark.parametrize(("kind", "status"), [("error", 500), ("reset", None)])
async def test_faults_of_the_storage(kind: str, status: int | None) -> None:
    async with s3() as simulator:
        simulator.objects[FILE] = stored(b"x")
        simulator.faults.add(Fault(kind=kind, operation="GetObject", times=-1))  # pyright: ignore[reportArgumentType]
        url = Storage(storage_at(simulator.base_url)).url_of(FILE).reveal()
        if status is None:
            with pytest.raises(aiohttp.ClientError):
                await fetched(url)
        else:
            assert (await fetched(url))[0] == status
        simulator.faults.clear()
        assert (await fetched(url))[0] == 200


async def test_an_outage_of_the_storage_is_ended_through_its_own_door() -> None:
    async with s3() as simulator, aiohttp.ClientSession() as http:
        simulator.objects[FILE] = stored(b"x")
        url = Storage(storage_at(simulator.base_url)).url_of(FILE).reveal()
        simulator.add_fault(Fault(kind="outage", detail={"how": "error"}))
        await eventually(lambda: simulator.frontend.outage)
        assert (await fetched(url))[0] == 503
        async with http.delete(f"{simulator.base_url}/_faults") as response:
            assert response.status == 204
        await eventually(lambda: simulator.frontend.outage is None)
        assert (await fetched(url))[0] == 200


REQUIRED = {
    "DATABASE_URL": "postgresql://db/broadcast",
    "LIVEKIT_URL": "wss://livekit.example",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "livekit-secret",
    "MUX_TOKEN_ID": "id",
    "MUX_TOKEN_SECRET": "mux-secret",
    "BROADCAST_SECRET_KEYS": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
}
S3 = {
    "BROADCAST_S3_BUCKET": "shows",
    "BROADCAST_S3_ACCESS_KEY": ACCESS,
    "BROADCAST_S3_SECRET_KEY": SECRET,
}


def test_settings_of_the_storage() -> None:
    assert from_environment(REQUIRED).storage is None
    assert from_environment({**REQUIRED, **S3}).storage == StorageSettings(
        bucket="shows", access_key=Secret(ACCESS), secret_key=Secret(SECRET)
    )
    more = {
        "BROADCAST_S3_REGION": "eu-central-1",
        "BROADCAST_S3_ENDPOINT": "https://minio.example:9000/",
        "BROADCAST_S3_PREFIX": "/live/2026/",
        "BROADCAST_S3_FORCE_PATH_STYLE": "true",
    }
    assert from_environment({**REQUIRED, **S3, **more}).storage == StorageSettings(
        bucket="shows",
        access_key=Secret(ACCESS),
        secret_key=Secret(SECRET),
        region="eu-central-1",
        endpoint="https://minio.example:9000",
        prefix="live/2026",
        force_path_style=True,
    )


@pytest.mark.parametrize("missing", sorted(S3))
def test_the_storage_is_set_whole_or_not_at_all(missing: str) -> None:
    with pytest.raises(SettingError, match=f"^{missing} is not set$"):
        from_environment({**REQUIRED, **S3, missing: ""})


@pytest.mark.parametrize("alone", ["REGION", "ENDPOINT", "PREFIX", "FORCE_PATH_STYLE"])
def test_a_detail_alone_asks_for_the_rest(alone: str) -> None:
    with pytest.raises(SettingError, match=r"^BROADCAST_S3_BUCKET is not set$"):
        from_environment({**REQUIRED, f"BROADCAST_S3_{alone}": "true"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUCKET", "Shows"),
        ("BUCKET", "a/b"),
        ("REGION", "eu central"),
        ("ENDPOINT", "minio.example"),
        ("ENDPOINT", "https://minio.example/shows"),
        ("ENDPOINT", "https://minio.example/?a=1"),
        ("PREFIX", "{room_name}"),
        ("PREFIX", "a//b"),
        ("PREFIX", "a" * 201),
        ("FORCE_PATH_STYLE", "perhaps"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_shown(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^BROADCAST_S3_{name}: ") as caught:
        from_environment({**REQUIRED, **S3, f"BROADCAST_S3_{name}": value})
    assert SECRET not in str(caught.value)
