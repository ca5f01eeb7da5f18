"""Directories of embedded servers: their path, their owner, and the leftovers of runs that were killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "broadcast-postgres-"
_ROOM_BYTES = 2 << 30


def scratch_directory() -> Path:
    """A new directory for a server that is not kept."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_scratch()))


def sweep() -> None:
    """Delete the directories of runs that ended by `kill -9`: no process holds their lock any more."""
    for path in _scratch().glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


def reachable(path: Path, user: int) -> bool:
    """Whether *user*, a user id that owns nothing else here, can enter the directory."""
    existing = [part.stat() for part in (path, *path.parents) if part.exists()]
    return user == os.geteuid() or all(stat.st_uid == user or stat.st_mode & 0o001 for stat in existing)


def hand_over(directory: Path, owner: int) -> None:
    """Give all of *directory* to *owner*: an earlier run on it may have had another identity."""
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != owner:
            os.chown(path, owner, -1, follow_symlinks=False)


def forget_stale_pid(data: Path) -> None:
    """Postgres would take any living process with the remembered id, ours or not, for its predecessor."""
    with contextlib.suppress(OSError, ValueError):
        file = data / "postmaster.pid"
        remembered = int(file.read_text().split()[0])
        if Path(f"/proc/{remembered}/cwd").readlink() != data.resolve():
            file.unlink()


def _scratch() -> Path:
    """Memory where there is plenty: a database from a template takes 10 ms there and 260 ms on a slow disk."""
    memory = Path("/dev/shm")  # noqa: S108 - names made there are random
    roomy = "TMPDIR" not in os.environ and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    return memory if roomy else Path(tempfile.gettempdir())
