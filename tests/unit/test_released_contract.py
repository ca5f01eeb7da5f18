"""The protos against the contract of the last release, as `make check` compares them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
RELEASED = PROTOS / "released.binpb"
BUF = Path(sys.executable).parent / "buf"
HEALTH = Path("broadcast/v1/health.proto")


def _compare(protos: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, "breaking", protos, "--against", RELEASED], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("*.py", "*.pyi")))


def test_protos_keep_what_was_released() -> None:
    compared = _compare(PROTOS)
    assert (compared.returncode, compared.stdout) == (0, "")


def test_a_field_may_be_added(copy: Path) -> None:
    _replace(copy / HEALTH, "string command = 2;", "string command = 2;\n  // Added.\n  string added = 99;")
    compared = _compare(copy)
    assert (compared.returncode, compared.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "breaking", "told"),
    [
        ("string value = 2;", "", 'Previously present field "2" with name "value"'),
        ("string value = 2;", "bytes value = 2;", 'changed type from "string" to "bytes"'),
        ("HEALTH_STATE_DOWN = 5;", "HEALTH_STATE_BROKEN = 5;", "HEALTH_STATE_DOWN"),
        ('go_package = "broadcast.internal/', 'go_package = "elsewhere.internal/', "go_package"),
    ],
)
def test_a_breaking_change_is_refused(copy: Path, text: str, breaking: str, told: str) -> None:
    _replace(copy / HEALTH, text, breaking)
    compared = _compare(copy)
    assert compared.returncode != 0
    assert told in compared.stdout


def _replace(file: Path, text: str, other: str) -> None:
    before = file.read_text()
    assert before.count(text) == 1
    file.write_text(before.replace(text, other))
