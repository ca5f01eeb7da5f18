"""The command `broadcast-sandbox`: everything a broadcast needs on this machine, and the service on top of it."""

import argparse
import asyncio
import math
import os
import sys

from broadcast_sandbox.command import Options, run_sandbox
from broadcast_sandbox.ports import Port, SandboxPorts, port_number


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="broadcast-sandbox",
        description="Postgres, a simulated LiveKit, Mux and S3 storage, and the service.",
        epilog="GRPC_PORT (50051) and HTTP_PORT (8080) in the environment are the ports of the service.",
    )
    parser.add_argument(
        "--time-scale", type=_scale, default=4.0, help="the providers' time runs this many times as fast (4)"
    )
    parser.add_argument("--no-service", action="store_true", help="start only what the service needs")
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help="a Postgres of yours instead of the embedded one; it is migrated and written to. DATABASE_URL is ignored",
    )
    for name, number, what in (("livekit", 7880, "LiveKit"), ("mux", 8090, "Mux"), ("storage", 9000, "S3")):
        text = f"port of the simulated {what} ({number})"
        parser.add_argument(f"--{name}-port", type=_port, default=number, metavar="PORT", help=text)
    arguments = parser.parse_args()
    try:
        ports = SandboxPorts(
            livekit=Port(purpose="the simulated LiveKit", number=arguments.livekit_port, option="--livekit-port"),
            mux=Port(purpose="the simulated Mux", number=arguments.mux_port, option="--mux-port"),
            storage=Port(purpose="the simulated storage", number=arguments.storage_port, option="--storage-port"),
            grpc=_of_service("GRPC", "50051", "the gRPC API"),
            http=_of_service("HTTP", "8080", "webhooks and health"),
        )
    except ValueError as error:
        parser.error(str(error))
    options = Options(
        time_scale=arguments.time_scale,
        with_service=not arguments.no_service,
        database_url=arguments.database_url,
        ports=ports,
    )
    sys.exit(asyncio.run(run_sandbox(options)))


def _of_service(name: str, default: str, purpose: str) -> Port:
    """Raises ValueError with the name of the variable."""
    try:
        number = port_number(os.environ.get(f"{name}_PORT") or default)
    except ValueError as error:
        raise ValueError(f"{name}_PORT: {error}") from None
    host = os.environ.get(f"{name}_HOST") or "127.0.0.1"
    return Port(purpose=purpose, number=number, option=f"{name}_PORT in the environment", host=host)


def _port(text: str) -> int:
    try:
        return port_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number greater than 0")
    return scale


if __name__ == "__main__":
    main()
