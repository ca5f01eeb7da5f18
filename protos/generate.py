"""Writes the Python of the contract beside the .proto files, or below another root for comparison.

Plugins and the protos of google/ come from the installed packages, never from the network.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VALIDATE = Path("buf/validate/validate.proto")
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    parser.add_argument("root", type=Path, nargs="?", default=ROOT, help="where to write (default: beside the protos)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        stale = differing(fresh, arguments.root)
        if not arguments.check:
            replace(fresh, arguments.root)
            return 0
    if stale:
        print("not what `make protos` writes:", *stale, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def generate(root: Path) -> None:
    sources = sorted(path.relative_to(ROOT) for path in (ROOT / "broadcast").rglob("*.proto"))
    # A module of stubs for a file without a service would be empty.
    services = [source for source in sources if "\nservice " in (ROOT / source).read_text()]
    run(root, [*sources, VALIDATE], "--python_out=", "--mypy_out=quiet:")
    run(root, services, "--grpc_python_out=", "--mypy_grpc_out=quiet:")


def run(root: Path, sources: list[Path], *outputs: str) -> None:
    beside_python = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT}",
            f"--plugin=protoc-gen-mypy={beside_python / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={beside_python / 'protoc-gen-mypy_grpc'}",
            *(f"{output}{root}" for output in outputs),
            *map(str, sources),
        ],
        check=True,
    )


def generated(root: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(root): path.read_bytes()
        for package in ("broadcast", "buf")
        for pattern in PATTERNS
        for path in (root / package).rglob(pattern)
    }


def differing(fresh: Path, root: Path) -> list[Path]:
    wanted, present = generated(fresh), generated(root)
    return sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))


def replace(fresh: Path, root: Path) -> None:
    for path in generated(root).keys() - generated(fresh).keys():
        (root / path).unlink()
    for path in generated(fresh):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / path, root / path)


if __name__ == "__main__":
    raise SystemExit(main())
