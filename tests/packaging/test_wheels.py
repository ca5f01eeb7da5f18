"""The wheels of `make dist`, installed into empty environments as another project would."""

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What uv says when the registry, and not the wheel, is the trouble.
_NO_REGISTRY = ("error sending request", "Could not connect", "dns error", "Failed to fetch", "network connectivity")

pytestmark = pytest.mark.registry


def _uv(*arguments: str | Path) -> str:
    found = shutil.which("uv") or ROOT / "build/uv/bin/uv"
    if not Path(found).exists():
        pytest.skip("!!! SKIPPED: there is no uv here: run `make test`")
    environment = os.environ | {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode and any(text in done.stderr for text in _NO_REGISTRY):
        pytest.skip(f"!!! SKIPPED: no package registry can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    for package in ("broadcast-client", "broadcast-service"):
        _uv("build", "--wheel", "--out-dir", folder, "--package", package)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


class Environment:
    """A virtual environment with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._python = self._bin / "python"
        _uv("venv", "--python", sys.executable, folder)

    def install(self, requirement: str | Path) -> None:
        _uv("pip", "install", "--python", self._python, requirement)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._bin / program, *arguments], cwd=self._bin, capture_output=True, text=True, check=False, timeout=60
        )

    def packages(self) -> set[str]:
        frozen = _uv("pip", "freeze", "--python", self._python)
        return {line.partition("==")[0].partition(" @ ")[0] for line in frozen.splitlines()}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def _files(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def _requirements(wheel: Path) -> list[str]:
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])


def test_no_wheel_depends_on_a_name_that_somebody_else_could_publish(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"broadcast_client", "broadcast_service"}
    for wheel in wheels.values():
        requirements = _requirements(wheel)
        assert requirements
        assert not [each for each in requirements if each.startswith("broadcast")]
        assert "broadcast/v1/broadcast_service_pb2_grpc.py" in _files(wheel)


def test_the_service_contains_no_simulator(wheels: dict[str, Path]) -> None:
    tops = {name.partition("/")[0] for name in _files(wheels["broadcast_service"])}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"service", "broadcast", "buf"}
    assert not [name for name in _files(wheels["broadcast_service"]) if "sandbox" in name]


def test_the_library_needs_neither_rich_nor_cyclopts(wheels: dict[str, Path], environment: Environment) -> None:
    environment.install(wheels["broadcast_client"])
    assert not {"rich", "cyclopts"} & environment.packages()
    done = environment.run("python", "-c", "import broadcast_client, broadcast.v1.health_pb2, buf.validate")
    assert (done.returncode, done.stderr) == (0, "")

    done = environment.run("broadcastctl", "list")
    assert done.returncode == 2
    assert done.stderr == "broadcastctl: not installed whole: pip install 'cyclopts>=5.5' 'rich>=15' (the extra cli)\n"


def test_broadcastctl_is_installed_with_its_extra(wheels: dict[str, Path], environment: Environment) -> None:
    environment.install(f"broadcast-client[cli] @ {wheels['broadcast_client'].as_uri()}")
    done = environment.run("broadcastctl", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "broadcastctl 0.1.0\n", "")


def test_the_service_is_installed_without_the_simulator(wheels: dict[str, Path], environment: Environment) -> None:
    environment.install(wheels["broadcast_service"])
    done = environment.run("broadcast-service", "--help")
    assert done.returncode == 0, done.stderr
    done = environment.run("python", "-c", "import broadcast_sandbox")
    assert "No module named 'broadcast_sandbox'" in done.stderr
