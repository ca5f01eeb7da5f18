"""The command line: what may be written, and what it means."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf.descriptor import EnumDescriptor

from broadcast.v1.broadcast_pb2 import DeliveryPolicy, Destination, EncodingPreset, LatencyMode
from broadcast.v1.webhook_service_pb2 import WebhookOutcome, WebhookProvider
from broadcast_client.values import State, broadcast_state, by_short_name

OK = 0
RPC_ERROR = 1
USAGE = 2
WAIT_TIMED_OUT = 3
ENDED_EARLY = 4
INTERRUPTED = 130

EXIT_CODES = f"""exit codes:
  {OK}    done
  {RPC_ERROR}    the service refused, failed or could not be reached
  {USAGE}    the command line is wrong
  {WAIT_TIMED_OUT}    what was waited for did not come in time
  {ENDED_EARLY}    the broadcast ended or failed while it was waited for
  {INTERRUPTED}  Ctrl-C
"""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, values converted.

    Raises:
        SystemExit: they are wrong (2), or ask for help (0).
    """
    return _parser().parse_args(argv)


def a_duration(text: str) -> float:
    """Seconds of "20s", "1h30m", "500ms", "90"."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 20s, 2m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def a_pair(text: str) -> tuple[str, str]:
    """Key and value of "key=value"."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    return key, value


def a_destination(text: str) -> Destination:
    """The destination of "name=url" or "name=url,key"; "@path" as key reads it from a file."""
    name, rest = a_pair(text)
    url, _, key = rest.partition(",")
    if key.startswith("@"):
        try:
            key = Path(key[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise argparse.ArgumentTypeError(f"the key of {name}: {error}") from error
    return Destination(name=name, url=url, stream_key=key)


def a_state(text: str) -> State:
    try:
        return broadcast_state(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _one_of(enum: EnumDescriptor) -> Callable[[str], int]:
    """A converter from short names to values of an enum of the contract."""
    names = by_short_name(enum)

    def convert(text: str) -> int:
        try:
            return names[text.upper()]
        except KeyError:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}") from None

    return convert


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="broadcastctl",
        description="Live broadcasts from the command line.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    target = os.environ.get("BROADCAST_TARGET", "127.0.0.1:50051")
    _add_globals(parser, target=target, as_json=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, *, of_one: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # After the command as well; a default here would overwrite what was given before it.
        _add_globals(made, target=argparse.SUPPRESS, as_json=argparse.SUPPRESS)
        if of_one:
            made.add_argument("id", metavar="ID", help="of the broadcast")
        return made

    create = command("create", "store a broadcast; nothing is started", of_one=False)
    create.add_argument("--id", default="", help="default: the service makes one")
    _add_spec(create)
    create.add_argument("--file", metavar="SPEC.json", help="spec as protobuf JSON, - for stdin; options go over it")

    start = command("start", "ask for a broadcast to be live")
    start.add_argument("--wait", type=a_duration, metavar="DURATION", help="for READY, at most 30s")
    start.add_argument("--host", default="", metavar="IDENTITY", help="print a host token for this identity")

    stop = command("stop", "end a broadcast")
    stop.add_argument("--note", default="", help="why, for its story")
    stop.add_argument("--wait", type=a_duration, metavar="DURATION", help="for the end, at most 60s")

    on_air = command("on-air", "take a broadcast of delivery MANUAL on air, or back to its backstage")
    on_air.add_argument("on_air", metavar="on|off", choices=("on", "off"))

    command("get", "show one broadcast")

    listing = command("list", "show broadcasts, newest first", of_one=False)
    _add_filter(listing)
    listing.add_argument("--limit", type=int, default=50, help="how many at most, 0 for all (default: 50)")

    events = command("events", "tell the story of a broadcast, oldest first")
    events.add_argument("--follow", "-f", action="store_true", help="go on until the broadcast is over")

    watch = command("watch", "show every change as it happens, through restarts of the service", of_one=False)
    _add_filter(watch)
    watch.add_argument("--id", action="append", default=[], help="only this; may be repeated")
    watch.add_argument("--resume-token", default="", metavar="TOKEN", help="go on from here (as --json prints it)")

    command("health", "show every part of the chain, from the host to the viewers, and how it does")

    command("explain", "say why a broadcast is in its state, what happens next, and what overrides it")

    health = command("watch-health", "show the health of broadcasts as it changes", of_one=False)
    _add_filter(health)
    health.add_argument("--id", action="append", default=[], help="only this; may be repeated")
    health.add_argument("--interval", type=a_duration, default=5.0, metavar="DURATION", help="1s to 60s (5s)")

    access = command("host-access", "print a token with which a host enters")
    access.add_argument("identity", metavar="IDENTITY")
    access.add_argument("--display-name", default="", metavar="NAME")
    access.add_argument("--ttl", type=a_duration, metavar="DURATION", help="1m to 6h (default: 10m)")

    _add_services(command)

    delete = command("delete", "forget a broadcast that is at rest")
    delete.add_argument("--allow-missing", action="store_true", help="no error when there is none")

    _add_update(command("update", "change a broadcast"))
    _add_demo(command("demo", "run one whole broadcast and show what took how long", of_one=False))
    return parser


def _add_globals(parser: argparse.ArgumentParser, *, target: str, as_json: bool | str) -> None:
    parser.add_argument(
        "--target", default=target, metavar="HOST:PORT", help="of the service (BROADCAST_TARGET; 127.0.0.1:50051)"
    )
    parser.add_argument("--json", action="store_true", default=as_json, help="one line of protobuf JSON a message")


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=a_state, action="append", default=[], help="in this; may be repeated")
    parser.add_argument("--label", type=a_pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--owner", default="", metavar="ID")


def _add_services(command: Callable[..., argparse.ArgumentParser]) -> None:
    joining = command("join", "say how a viewer watches now, and take a place where that is in the room")
    joining.add_argument("viewer", metavar="VIEWER_ID", help="one for each device or tab")

    command("wake", "have everything of a broadcast looked at again, now")

    command("orphans", "show what is at the providers and belongs to no broadcast", of_one=False)

    reap = command("reap", "remove orphans that are old enough, up to 20", of_one=False)
    reap.add_argument("external_id", nargs="*", metavar="EXTERNAL_ID", help="only these (default: all)")
    reap.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")

    _add_inbox(command("webhooks", "show the inbox, newest first", of_one=False))

    replay = command("replay", "have a stored webhook taken into account once more", of_one=False)
    replay.add_argument("webhook_id", type=int, metavar="NUMBER", help="in the inbox")


def _add_inbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", type=_one_of(WebhookProvider.DESCRIPTOR), default=0, help="livekit or mux")
    parser.add_argument("--broadcast", default="", metavar="ID", help="about this one")
    parser.add_argument("--type", default="", help="such as egress_ended or video.live_stream.active")
    parser.add_argument(
        "--outcome",
        type=_one_of(WebhookOutcome.DESCRIPTOR),
        default=0,
        help="accepted, foreign, unknown_type or quarantined",
    )
    parser.add_argument("--bodies", action="store_true", help="show the bodies too, without secrets")
    parser.add_argument("--limit", type=int, default=50, help="how many at most, 0 for all (default: 50)")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title")
    parser.add_argument("--owner", metavar="ID")
    parser.add_argument("--label", type=a_pair, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--layout", help="such as grid or speaker")
    parser.add_argument("--encoding", type=_one_of(EncodingPreset.DESCRIPTOR), help="such as 720P_30")
    parser.add_argument("--latency", type=_one_of(LatencyMode.DESCRIPTOR), help="LOW, REDUCED or STANDARD")
    parser.add_argument("--delivery", type=_one_of(DeliveryPolicy.DESCRIPTOR), help="ON_PUBLISH or MANUAL")
    parser.add_argument(
        "--destination",
        type=a_destination,
        action="append",
        default=[],
        metavar="NAME=URL[,KEY]",
        help="also send there; KEY may be @FILE, which keeps it out of the process list",
    )
    parser.add_argument("--reconnect-window", type=a_duration, metavar="DURATION", help="0s to 30m (120s)")
    parser.add_argument("--max-duration", type=a_duration, metavar="DURATION", help="1m to 12h (12h)")
    parser.add_argument("--test", action="store_true", help="free, watermarked, cut after 5 minutes")


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title")
    parser.add_argument("--layout")
    parser.add_argument("--delivery", type=_one_of(DeliveryPolicy.DESCRIPTOR), help="ON_PUBLISH or MANUAL")
    parser.add_argument(
        "--label", type=a_pair, action="append", default=[], metavar="KEY=VALUE", help="set this one, keep the others"
    )
    parser.add_argument("--remove-label", action="append", default=[], metavar="KEY")
    parser.add_argument("--add-destination", type=a_destination, action="append", default=[], metavar="NAME=URL[,KEY]")
    parser.add_argument("--remove-destination", action="append", default=[], metavar="NAME")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", default="", help="default: the service makes one")
    parser.add_argument("--host", default="demo-host", metavar="IDENTITY")
    parser.add_argument("--live-for", type=a_duration, default=5.0, metavar="DURATION", help="(5s)")
    parser.add_argument(
        "--timeout", type=a_duration, default=120.0, metavar="DURATION", help="for READY, LIVE and ENDED each (2m)"
    )
    parser.add_argument(
        "--livekit-control",
        default="http://127.0.0.1:7880",
        metavar="URL",
        help="of the LiveKit simulator, which plays the host; where there is none a person is asked to",
    )
    _add_spec(parser)
