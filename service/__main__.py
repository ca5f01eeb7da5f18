"""The commands: serve, migrate, probe. Each ends with exit code 0, or with 1 and one line on standard error that shows
no secret.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from service.settings.declared import SettingError
from service.settings.settings import Settings, database_url, from_environment, grpc_target
from service.settings.usage import usage

if TYPE_CHECKING:
    from collections.abc import Coroutine


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="The control plane of live broadcasts.",
        epilog=usage(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "serve",
        help="run the service against what the environment names",
        epilog=parser.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    migrate = commands.add_parser("migrate", help="bring the database of DATABASE_URL up to date")
    migrate.add_argument(
        "--rebind", action="store_true", help="bind it to the environment and the accounts of these variables"
    )
    migrate.add_argument(
        "--forget-keys", action="store_true", help="forget keys that BROADCAST_SECRET_KEYS has no more: end a rotation"
    )
    migrate.add_argument(
        "--restored", action="store_true", help="say that commits may be missing, as after a volume was rolled back"
    )
    probe = commands.add_parser("probe", help="exit 0 if the service on this machine is serving")
    probe.add_argument(
        "--target",
        default="",
        help="HOST:PORT; by default GRPC_HOST, or 127.0.0.1 where that is no single address, and GRPC_PORT",
    )
    arguments = parser.parse_args()
    match arguments.command:
        case "serve":
            code = _serve()
            # A provider call that was given up still runs in its thread, and the interpreter would wait for it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        case "migrate":
            code = _run(_migrate(arguments))
        case _:
            code = _run(_probe(arguments.target))
    sys.exit(code)


def _run(main: Coroutine[Any, Any, int]) -> int:
    return asyncio.run(main)


def _say(problem: str) -> int:
    sys.stderr.write(f"{problem}\n")
    return 1


def _serve() -> int:
    import uvloop  # noqa: PLC0415 - the probe need not load it

    from service import telemetry  # noqa: PLC0415

    try:
        settings = from_environment(os.environ)
    except SettingError as error:
        return _say(f"{error} (see `python -m service --help`)")
    telemetry.configure_logs(settings.log_level)
    exporting = telemetry.configure_export(instance=settings.replica, environment=settings.environment)
    try:
        return uvloop.run(_serve_until_told(settings))
    finally:
        exporting.close()


async def _serve_until_told(settings: Settings) -> int:
    from service.api.transport.server import CannotListen  # noqa: PLC0415 - as below
    from service.app.run import run  # noqa: PLC0415 - 300 ms that `probe` does not need
    from service.app.shared import SchemaBehind  # noqa: PLC0415 - as above
    from service.domain.errors import StoreUnavailable  # noqa: PLC0415
    from service.store.bound import Refused  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await run(settings, stop=stop)
    except (CannotListen, Refused) as error:
        return _say(str(error))
    except SchemaBehind as error:
        return _say(f"DATABASE_URL: {error}")
    except (StoreUnavailable, OSError) as error:
        return _say(f"cannot start: {error}")
    return 0


async def _migrate(arguments: argparse.Namespace) -> int:
    from service.app.owner import (  # noqa: PLC0415 - the probe need not load it
        begin_history,
        bind_database,
        forget_old_keys,
    )
    from service.domain.errors import StoreUnavailable  # noqa: PLC0415
    from service.store.bound import Refused  # noqa: PLC0415
    from service.store.migrate import MigrationFailed, migrate  # noqa: PLC0415

    try:
        applied = await migrate(database_url(os.environ).reveal())
    except SettingError as error:
        return _say(str(error))
    except MigrationFailed as error:
        return _say(f"migrate: {error}")
    sys.stdout.write(f"applied: {', '.join(applied) or 'nothing, up to date'}\n")
    rebind, forget = arguments.rebind, arguments.forget_keys
    if arguments.restored:
        try:
            await begin_history(database_url(os.environ))
        except StoreUnavailable as error:
            return _say(f"migrate: {error}")
    try:
        settings = from_environment(os.environ)
    except SettingError as error:
        # A migration needs nothing but the database; then the first replica binds it.
        return _say(str(error)) if rebind or forget else 0
    try:
        await bind_database(settings, again=rebind)
        if forget:
            sys.stdout.write(f"keys forgotten: {await forget_old_keys(settings)}\n")
    except (StoreUnavailable, Refused) as error:
        return _say(f"migrate: {error}")
    return 0


async def _probe(target: str) -> int:
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    try:
        target = target or grpc_target(os.environ)
    except SettingError as error:
        return _say(str(error))
    async with grpc.aio.insecure_channel(target) as channel:
        # grpcio-health-checking is not typed.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError as error:
            return _say(f"{target}: {error.code().name}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else _say(f"{target}: not serving")


if __name__ == "__main__":
    main()
