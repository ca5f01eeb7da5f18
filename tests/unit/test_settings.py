"""The environment, read once: whatever is wrong with it names its variable and shows no secret."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.domain.broadcast import LatencyMode, PlaybackPolicy
from service.domain.cost.prices import Prices
from service.domain.measurements import PROBED_S, SEEN_S
from service.domain.pool import Profile
from service.domain.secret import Secret
from service.domain.timing import Timing
from service.providers.budget import Limit, Limits
from service.providers.mux.signing import SigningKey
from service.providers.storage.links import StorageSettings
from service.settings.declared import SettingError
from service.settings.settings import Settings, from_environment, grpc_target, variables
from service.settings.usage import table
from service.store.rows import OUTAGES
from tests.signing import signing_key_pem

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
KEY, OLD_KEY = b"k" * 32, b"o" * 32
PEM = signing_key_pem().strip()
PEM_IN_BASE64 = base64.b64encode(PEM.encode()).decode()
SECRETS = {
    "DATABASE_URL": "postgresql://broadcast:hunter2@db/broadcast",
    "LIVEKIT_API_SECRET": "livekit-secret-4711",
    "MUX_TOKEN_SECRET": "mux-secret-0815",
    "BROADCAST_SECRET_KEYS": base64.b64encode(KEY).decode(),
}
REQUIRED = {
    **SECRETS,
    "LIVEKIT_URL": "wss://livekit.example",
    "LIVEKIT_API_KEY": "key",
    "MUX_TOKEN_ID": "id",
}

# Addresses that are read in another way than their author meant, because of a sign in the password.
MISREAD_URLS = [
    "postgresql://u:hunter2#more@db/d",
    "postgresql://u:hunter2/more@db/d",
    "postgresql://u:hunter2?more@db/d",
    "postgresql://u:12?hunter2@db/d",
    "postgresql://u:12/hunter2@db/d",
    "postgresql://u:a@hunter2@db/d",
    "postgresql://u:hunter2[@db/d",
    "postgresql://u:pass@db:hunter2/d",
    "postgresql://u:pass@db:99999/hunter2",
    "postgresql://u:pass@a,b:hunter2/d",
    "postgresql://u:pass@db/d?hunter2",
    "postgresql://u:pass@db/d?sslmode=disable&hunter2",
]


def refusal(**changes: str) -> str:
    """The message, which shows no secret that was set."""
    with pytest.raises(SettingError) as caught:
        from_environment({**REQUIRED, **changes})
    message = str(caught.value)
    for name in SECRETS:
        if value := {**REQUIRED, **changes}[name]:
            assert value not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def test_the_least_that_is_needed_and_the_defaults() -> None:
    settings = from_environment(REQUIRED)
    assert settings.database_url == Secret(SECRETS["DATABASE_URL"])
    assert settings.secret_keys == (KEY,)
    required = {"database_url", "livekit_url", "livekit_api_key", "livekit_api_secret", "mux_token_id"}
    optional = [f for f in dataclasses.fields(Settings) if f.name not in {*required, "mux_token_secret", "secret_keys"}]
    for each in optional:
        default: Any = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        assert getattr(settings, each.name) == default, each.name


@pytest.mark.parametrize("value", [None, "", "  "])
@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_what_is_missing_is_named(name: str, value: str | None) -> None:
    environment = {**REQUIRED, name: value}
    with pytest.raises(SettingError, match=f"^{name} is not set$"):
        from_environment({key: text for key, text in environment.items() if text is not None})


SHORT_KEY = base64.b64encode(b"s" * 16).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("DATABASE_URL", url) for url in MISREAD_URLS),
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("DATABASE_URL", "postgresql://u:hunter2@[::1/d"),
        ("DATABASE_URL", "hunter2"),
        ("LIVEKIT_URL", "livekit.example"),
        ("LIVEKIT_URL", "rtmp://livekit.example"),
        ("LIVEKIT_URL", "https://"),
        ("LIVEKIT_URL", "https://[::1"),
        ("LIVEKIT_PUBLIC_URL", "livekit.example"),
        ("MUX_BASE_URL", "api.mux.com"),
        ("MUX_INGEST_URL", "rtmps://ingest.example/app/"),
        ("PLAYBACK_BASE_URL", "stream.mux.com"),
        ("BROADCAST_POOL", "reduced=5"),
        ("BROADCAST_POOL", "ultra:public=5"),
        ("BROADCAST_POOL", "reduced:public"),
        ("BROADCAST_POOL", "reduced:public=0"),
        ("BROADCAST_POOL", "reduced:public=101"),
        ("BROADCAST_POOL", "reduced:public=five"),
        ("BROADCAST_POOL", "reduced:public=1,reduced:public:window-120=1"),
        ("BROADCAST_POOL", "reduced:public:audio:audio=1"),
        ("BROADCAST_POOL", "reduced:public:window-1801=1"),
        ("BROADCAST_POOL", "reduced:public:duration-59=1"),
        ("BROADCAST_SECRET_KEYS", "no base64 at all!"),
        ("BROADCAST_SECRET_KEYS", "schlüssel"),
        ("BROADCAST_SECRET_KEYS", SHORT_KEY),
        ("BROADCAST_SECRET_KEYS", f"{SECRETS['BROADCAST_SECRET_KEYS']},{SHORT_KEY}"),
        ("BROADCAST_SECRET_KEYS", ","),
        ("BROADCAST_ENVIRONMENT", "Prod"),
        ("BROADCAST_ENVIRONMENT", "a:b"),
        ("BROADCAST_ENVIRONMENT", "a\nb"),
        ("BROADCAST_ENVIRONMENT", "x" * 33),
        ("GRPC_PORT", "http"),
        ("GRPC_PORT", "65536"),
        ("GRPC_PORT", "-1"),
        ("HTTP_PORT", "80.5"),
        ("HTTP_PORT", "9" * 5000),
        ("GRPC_REFLECTION", "perhaps"),
        ("DATABASE_LISTEN", "2"),
        ("LOG_LEVEL", "chatty"),
        ("DATABASE_POOL", "many"),
        ("DATABASE_POOL", "0"),
        ("DATABASE_POOL", "1"),
        ("DATABASE_POOL", "-3"),
        ("BROADCAST_LEASE_S", "1.9"),
        ("BROADCAST_LEASE_S", "soon"),
        ("BROADCAST_LEASE_S", "inf"),
        ("BROADCAST_OBSERVE_S", "0"),
        ("BROADCAST_OBSERVE_S", "nan"),
        ("BROADCAST_OBSERVE_S", "120"),
        ("BROADCAST_OBSERVE_S", "15.1"),
        ("BROADCAST_PROBE_S", "15.1"),
        ("BROADCAST_PRICE_EGRESS", "-0.02"),
        ("BROADCAST_PRICE_EGRESS", "0.0000000001"),
        ("BROADCAST_PRICE_EGRESS", "1e3"),
        ("BROADCAST_PRICE_EGRESS", "nan"),
        ("BROADCAST_PRICE_EGRESS", "0,02"),
        ("BROADCAST_COSTS_KEPT_S", "0"),
        ("BROADCAST_SWEEP_S", "-1"),
        ("BROADCAST_SWEEP_S", "1e300"),
        ("BROADCAST_SWEEP_GRACE_S", "infinity"),
        ("BROADCAST_DRAIN_S", "1,5"),
        ("BROADCAST_LIMIT_MUX_POST", "0/5"),
        ("BROADCAST_LIMIT_MUX_POST", "/5"),
        ("BROADCAST_LIMIT_MUX_POST", "1/0.5"),
        ("BROADCAST_LIMIT_MUX_POST", "0.5"),
        ("BROADCAST_LIMIT_MUX_OTHER", "5/nan"),
        ("BROADCAST_LIMIT_MUX_OTHER", "5/inf"),
        ("BROADCAST_LIMIT_MUX_OTHER", "inf/5"),
        ("BROADCAST_LIMIT_MUX_OTHER", "1e-300/5"),
        ("BROADCAST_LIMIT_LIVEKIT", "5/6/7"),
        ("BROADCAST_LIMIT_LIVEKIT", "fast"),
        ("BROADCAST_TIMING_HOST_WAIT_S", "0"),
        ("BROADCAST_TIMING_HOST_WAIT_S", "inf"),
        ("BROADCAST_TIMING_EGRESS_GRACE_S", "x"),
        ("BROADCAST_TIMING_STARTS_LIMIT", "2.5"),
        ("BROADCAST_TIMING_STARTS_LIMIT", "0"),
        ("BROADCAST_TIMING_STARTS_LIMIT", "-1"),
        ("BROADCAST_TIMING_FALLBACK_FAULTS", "0"),
        ("BROADCAST_TIMING_FALLBACK_FAULTS", "1.5"),
        ("LIVEKIT_WEBHOOK_SECRETS", "hunter2"),
        ("LIVEKIT_WEBHOOK_SECRETS", "key:"),
        ("LIVEKIT_WEBHOOK_SECRETS", "next:hunter2,:hunter2"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name}: ")
    assert "hunter2" not in message
    assert SHORT_KEY not in message
    assert len(message) < 200


STORAGE = {
    "BROADCAST_S3_BUCKET": "recordings",
    "BROADCAST_S3_ACCESS_KEY": "access-key",
    "BROADCAST_S3_SECRET_KEY": "secret-key",
}
ADDRESSES = ["LIVEKIT_URL", "LIVEKIT_PUBLIC_URL", "MUX_BASE_URL", "PLAYBACK_BASE_URL", "BROADCAST_S3_ENDPOINT"]


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "host",
    [
        "livekit.example.com",
        "8.8.8.8",
        "8.8.8.8.",
        "[2001:4860:4860::8888]",
        "[::ffff:8.8.8.8]",
        "134744072",
        "0x8.8.8.8",
    ],
)
def test_a_public_host_in_the_clear_is_refused_at_the_start(name: str, host: str) -> None:
    assert refusal(**STORAGE, **{name: f"http://{host}:8080"}).startswith(f"{name}: must be https")
    if name.startswith("LIVEKIT"):
        assert refusal(**{name: f"WS://user:hunter2@{host}"}).startswith(f"{name}: must be https (or wss)")


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.0.7",
        "169.254.1.1",
        "100.64.0.1",
        "[::1]",
        "[fe80::1%25eth0]",
        "[fd00::7]",
        "livekit",
        "livekit.media.svc.cluster.local",
        "livekit.media.svc",
        "mux.internal.",
        "a.localhost",
    ],
)
def test_a_host_that_is_not_public_may_be_asked_in_the_clear(name: str, host: str) -> None:
    from_environment({**REQUIRED, **STORAGE, name: f"http://{host}:8080"})
    from_environment({**REQUIRED, **STORAGE, name: "https://livekit.example.com"})


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("", "127.0.0.1:50051"),
        ("0.0.0.0", "127.0.0.1:50051"),
        ("::", "127.0.0.1:50051"),
        ("[::]", "127.0.0.1:50051"),
        ("10.1.2.3", "10.1.2.3:50051"),
        ("fd00::7", "[fd00::7]:50051"),
        ("[fd00::7]", "[fd00::7]:50051"),
        ("replica-1", "replica-1:50051"),
    ],
)
def test_the_probe_asks_where_the_replica_listens(host: str, target: str) -> None:
    assert grpc_target({"GRPC_HOST": host}) == target


@pytest.mark.parametrize("name", ["LIVEKIT_URL", "DATABASE_URL"])
def test_an_address_that_cannot_be_read_is_not_called_a_number(name: str) -> None:
    assert "number" not in refusal(**{name: "https://[::1"})


CHANGES = {
    "LIVEKIT_PUBLIC_URL": "wss://public.example",
    "MUX_BASE_URL": "http://127.0.0.1:8090",
    "MUX_INGEST_URL": "rtmps://eu.example/app/{key}",
    "LIVEKIT_WEBHOOK_SECRETS": "next:its-secret, last:other:secret",
    "MUX_WEBHOOK_SECRETS": " one , two ,,",
    "MUX_ENVIRONMENT_ID": "env-1",
    "MUX_STATS_URL": "http://127.0.0.1:8091/",
    "MUX_SIGNING_KEYS": f"k2:{PEM_IN_BASE64}, k1:{PEM}",
    "BROADCAST_S3_BUCKET": "recordings-of-ours",
    "BROADCAST_S3_ACCESS_KEY": "AK",
    "BROADCAST_S3_SECRET_KEY": "SK",
    "BROADCAST_S3_REGION": "eu-central-1",
    "BROADCAST_S3_ENDPOINT": "http://127.0.0.1:9000/",
    "BROADCAST_S3_PREFIX": "live/rec/",
    "BROADCAST_S3_FORCE_PATH_STYLE": "yes",
    "EGRESS_TEMPLATE_URL": "https://template.example/stage",
    "PLAYBACK_BASE_URL": "https://play.example/",
    "BROADCAST_SECRET_KEYS": f"{SECRETS['BROADCAST_SECRET_KEYS']}, {base64.b64encode(OLD_KEY).decode()}",
    "BROADCAST_ENVIRONMENT": "prod-1",
    "BROADCAST_REPLICA": "replica-1",
    "GRPC_HOST": "::1",
    "GRPC_PORT": "0",
    "GRPC_CALLS_PER_CONNECTION": "1000",
    "GRPC_CONNECTION_AGE_S": "600",
    "HTTP_HOST": "::",
    "HTTP_PORT": "65535",
    "GRPC_REFLECTION": "No",
    "LOG_LEVEL": "DEBUG",
    "DATABASE_POOLER": "true",
    "DATABASE_LISTEN_URL": "postgresql://u:p@direct/x",
    "DATABASE_POOL": "2",
    "DATABASE_LISTEN": "off",
    "BROADCAST_LEASE_S": "2",
    "BROADCAST_OBSERVE_S": "0.5",
    "BROADCAST_PROBE_S": "4",
    "BROADCAST_SWEEP_S": "1",
    "BROADCAST_SWEEP_GRACE_S": "7",
    "BROADCAST_POOL": "reduced:public=5, low:signed:audio:window-60=2",
    "BROADCAST_DELETED_KEPT_S": "99",
    "BROADCAST_EVENTS_KEPT_S": "86400",
    "BROADCAST_REQUESTS_KEPT_S": "3600",
    "BROADCAST_WEBHOOKS_KEPT_S": "7200",
    "BROADCAST_SESSION_S": "600",
    "BROADCAST_DRAIN_S": "3",
    "BROADCAST_COSTS_KEPT_S": "157680000",
    "BROADCAST_PRICE_EGRESS": "0",
    "BROADCAST_PRICE_DELIVERY_AUDIO": "0.000000001",
    "BROADCAST_LIMIT_MUX_POST": "0.5/3",
    "BROADCAST_LIMIT_MUX_OTHER": "8",
    "BROADCAST_LIMIT_LIVEKIT": "50/1.5",
    "BROADCAST_TIMING_HOST_WAIT_S": "600",
    "BROADCAST_TIMING_STARTS_LIMIT": "9",
    "BROADCAST_TIMING_FALLBACK_FAULTS": "4",
}


def test_every_setting_can_be_set() -> None:
    settings = from_environment({**REQUIRED, **CHANGES})
    expected = {
        "livekit_public_url": "wss://public.example",
        "mux_base_url": "http://127.0.0.1:8090",
        "mux_ingest_url": "rtmps://eu.example/app/{key}",
        "livekit_webhook_secrets": (("next", Secret("its-secret")), ("last", Secret("other:secret"))),
        "mux_webhook_secrets": (Secret("one"), Secret("two")),
        "mux_signing_keys": (SigningKey(id="k2", pem=Secret(PEM)), SigningKey(id="k1", pem=Secret(PEM))),
        "mux_environment_id": "env-1",
        "mux_stats_url": "http://127.0.0.1:8091",
        "storage": StorageSettings(
            bucket="recordings-of-ours",
            access_key=Secret("AK"),
            secret_key=Secret("SK"),
            region="eu-central-1",
            endpoint="http://127.0.0.1:9000",
            prefix="live/rec",
            force_path_style=True,
        ),
        "egress_template_url": "https://template.example/stage",
        "playback_base_url": "https://play.example",
        "secret_keys": (KEY, OLD_KEY),
        "environment": "prod-1",
        "replica": "replica-1",
        "grpc_host": "::1",
        "grpc_port": 0,
        "calls_per_connection": 1000,
        "connection_age": timedelta(minutes=10),
        "http_host": "::",
        "http_port": 65535,
        "reflection": False,
        "log_level": "debug",
        "database_pooler": True,
        "database_listen_url": Secret("postgresql://u:p@direct/x"),
        "database_pool": 2,
        "listen": False,
        "lease": timedelta(seconds=2),
        "observe_every": timedelta(seconds=0.5),
        "probe_every": timedelta(seconds=4),
        "sweep_every": timedelta(seconds=1),
        "sweep_grace": timedelta(seconds=7),
        "pool": (
            (Profile(latency_mode=LatencyMode.REDUCED, playback_policy=PlaybackPolicy.PUBLIC), 5),
            (
                Profile(
                    latency_mode=LatencyMode.LOW,
                    playback_policy=PlaybackPolicy.SIGNED,
                    audio_only=True,
                    reconnect_window_s=60.0,
                ),
                2,
            ),
        ),
        "deleted_kept": timedelta(seconds=99),
        "events_kept": timedelta(days=1),
        "requests_kept": timedelta(hours=1),
        "webhooks_kept": timedelta(hours=2),
        "session": timedelta(minutes=10),
        "drain": timedelta(seconds=3),
        "limits": Limits(
            mux_post=Limit(rate=0.5, burst=3), mux_other=Limit(rate=8, burst=8), livekit=Limit(rate=50, burst=1.5)
        ),
        "costs_kept": timedelta(days=1825),
        "prices": Prices(egress=0, delivery_audio=1),
        "timing": Timing(host_wait_s=600, starts_limit=9, fallback_faults=4),
    }
    assert {name: getattr(settings, name) for name in expected} == expected
    # Nothing was left out above.
    unset = {"database_url", "livekit_url", "livekit_api_key", "livekit_api_secret", "mux_token_id", "mux_token_secret"}
    assert {f.name for f in dataclasses.fields(Settings)} == set(expected) | unset


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_the_help_lists_everything_that_can_be_set(command: tuple[str, ...]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "service", *command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    waits = {f"BROADCAST_TIMING_{f.name.upper()}" for f in dataclasses.fields(Timing) if f.type in (int, float)}
    assert {*REQUIRED, *CHANGES, *waits} <= set(re.findall(r"[A-Z0-9_]+", shown))
    assert "BROADCAST_TIMING_HOST_WAIT_S (1800)" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_the_table_of_the_docs_is_the_one_of_the_settings() -> None:
    assert table() in OPERATIONS.read_text(), "`make docs` writes it anew"
    for variable in variables():
        rows = [row for row in table().splitlines() if row.startswith(f"| `{variable.name}` |")]
        assert len(rows) == 1
        # A variable without a meaning would be a riddle.
        assert len(rows[0].split("|")[4].strip()) > 5, variable.name


def test_every_variable_has_a_name_of_its_own() -> None:
    names = [variable.name for variable in variables()]
    assert len(names) == len(set(names))


def test_an_outage_is_seen_and_health_is_known_with_the_longest_rounds() -> None:
    longest = {"BROADCAST_OBSERVE_S": "15", "BROADCAST_PROBE_S": "15"}
    settings = from_environment({**REQUIRED, **longest})
    rounds = (settings.observe_every.total_seconds(), settings.probe_every.total_seconds())
    [lately] = {int(seconds) for seconds in re.findall(r"checked_at > now\(\) - interval '(\d+) s'", OUTAGES)}
    assert 2 * rounds[0] <= min(SEEN_S, lately)
    assert 2 * rounds[1] <= PROBED_S


@pytest.mark.parametrize("each", [f.name for f in dataclasses.fields(Timing) if f.type is float])
def test_every_wait_has_a_variable_of_its_own(each: str) -> None:
    timing = from_environment({**REQUIRED, f"BROADCAST_TIMING_{each.upper()}": "12.5"}).timing
    assert timing == dataclasses.replace(Timing(), **{each: 12.5})
    assert refusal(**{f"BROADCAST_TIMING_{each.upper()}": "-1"}).startswith(f"BROADCAST_TIMING_{each.upper()}: ")


@pytest.mark.parametrize("each", [f.name for f in dataclasses.fields(Prices)])
def test_every_price_has_a_variable_that_reads_its_default_as_it_is_written(each: str) -> None:
    name = f"BROADCAST_PRICE_{each.upper()}"
    [variable] = [variable for variable in variables() if variable.name == name]
    assert variable.read({name: variable.default_text}) == getattr(Prices(), each)
    assert from_environment({**REQUIRED, name: "0.5"}).prices == dataclasses.replace(Prices(), **{each: 500_000_000})


def test_settings_that_are_printed_show_no_secret() -> None:
    environment = {
        **REQUIRED,
        "MUX_WEBHOOK_SECRETS": "webhook-secret-12",
        "LIVEKIT_WEBHOOK_SECRETS": "next:rotated-secret-13",
        "BROADCAST_S3_BUCKET": "bucket",
        "BROADCAST_S3_ACCESS_KEY": "access-key-14",
        "BROADCAST_S3_SECRET_KEY": "storage-secret-15",
    }
    printed = repr(from_environment(environment))
    given = ("webhook-secret-12", "rotated-secret-13", "access-key-14", "storage-secret-15")
    for secret in (*SECRETS.values(), *given, "hunter2", repr(KEY), "kkkkkkkk"):
        assert secret not in printed


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%23%2F%3F%40%5B@db/d",
        "postgres://db",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/d",
        "postgresql://u:p@[::1]:5432/d",
        "postgresql://u:p@a:5432,b:5433/d?target_session_attrs=read-write",
        "postgresql:///d?user=me@server&host=db",
        "postgresql://u:@db:5432/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_addresses_of_every_other_form_are_taken_as_they_are(url: str) -> None:
    assert from_environment({**REQUIRED, "DATABASE_URL": url}).database_url == Secret(url)


def run_service(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **REQUIRED, **environment},
    )


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize("url", MISREAD_URLS[:3])
def test_a_password_that_splits_the_address_ends_in_one_line_without_it(command: str, url: str) -> None:
    ended = run_service(command, DATABASE_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("DATABASE_URL: ")
    assert len(ended.stderr.splitlines()) == 1
    for piece in ("hunter2", "more"):
        assert piece not in ended.stdout + ended.stderr


def test_a_probe_names_the_port_that_is_none_and_reads_no_secret() -> None:
    ended = run_service("probe", DATABASE_URL=MISREAD_URLS[0], GRPC_PORT="hunter2")
    assert (ended.returncode, ended.stderr) == (1, "GRPC_PORT: not a number\n")
