"""How the file descriptors of the process are divided: half for gRPC, a quarter for the HTTP port.

The rest is the reserve of what the service itself opens: connections to the database and the providers. Without it
callers could use up all descriptors, and the replica could reach neither.
"""

import contextlib
import resource

_MOST_GRPC, _MOST_HTTP = 2000, 512


def raise_limit() -> None:
    """Up to what the system allows: the common limit of 1024 is there for programs of another age."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def for_grpc() -> int:
    """Connections that the gRPC port may have."""
    return _share(_MOST_GRPC, 2)


def for_http() -> int:
    """Connections that the HTTP port may have."""
    return _share(_MOST_HTTP, 4)


def _share(most: int, part: int) -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(most, max(1, soft // part))
