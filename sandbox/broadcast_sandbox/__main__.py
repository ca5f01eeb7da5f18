"""The command `broadcast-sandbox`: everything a broadcast needs on this machine, and the service on top of it."""

import argparse
import asyncio
import sys

from broadcast_sandbox.command import Ports, run_sandbox


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="broadcast-sandbox", description="Postgres, a simulated LiveKit, Mux and S3 storage, and the service."
    )
    parser.add_argument("--time-scale", type=float, default=4.0, help="the providers' time runs this much faster (4)")
    parser.add_argument("--no-service", action="store_true", help="only what the service stands on")
    parser.add_argument(
        "--livekit-port", type=int, default=7880, metavar="PORT", help="of the simulated LiveKit (7880)"
    )
    parser.add_argument("--mux-port", type=int, default=8090, metavar="PORT", help="of the simulated Mux (8090)")
    parser.add_argument("--storage-port", type=int, default=9000, metavar="PORT", help="of the simulated S3 (9000)")
    arguments = parser.parse_args()
    ports = Ports(livekit=arguments.livekit_port, mux=arguments.mux_port, storage=arguments.storage_port)
    sys.exit(
        asyncio.run(run_sandbox(time_scale=arguments.time_scale, with_service=not arguments.no_service, ports=ports))
    )


if __name__ == "__main__":
    main()
