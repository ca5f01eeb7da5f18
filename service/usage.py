"""What can be set, for `--help`: the names and defaults are those that `settings` reads."""

import textwrap
from typing import Final

from service.settings import LONGEST_ROUND, variables

_WAITS = "BROADCAST_TIMING_"
_TIE = "\N{NO-BREAK SPACE}"
_STORAGE = "BROADCAST_S3_"
_ROUND = f"at most {LONGEST_ROUND.total_seconds():g}: one round may be lost before health says UNKNOWN"

NOTES: Final = {
    "DATABASE_URL": "postgresql://..., migrated with `migrate`",
    "LIVEKIT_PUBLIC_URL": "what browsers connect to, where it differs",
    "LIVEKIT_WEBHOOK_SECRETS": "key:secret, comma separated: further keys that may sign webhooks",
    "MUX_WEBHOOK_SECRETS": "comma separated; empty: no Mux webhook is believed",
    "MUX_ENVIRONMENT_ID": "webhooks of another environment are foreign; empty: told by our mark alone",
    "BROADCAST_SECRET_KEYS": "32 bytes in base64, comma separated; the first encrypts, all decrypt",
    "BROADCAST_ENVIRONMENT": "part of every mark at the providers",
    "BROADCAST_REPLICA": "the name of this one in leases and traces",
    "BROADCAST_LEASE_S": "after a crash the others take over after so long",
    "BROADCAST_OBSERVE_S": _ROUND,
    "BROADCAST_PROBE_S": _ROUND,
    "BROADCAST_LIMIT_MUX_POST": "a rate a second and a burst, like the next two",
}
_OWN_DEFAULT: Final = {"BROADCAST_REPLICA": "host-pid"}


def usage() -> str:
    defaults = {**variables(), **_OWN_DEFAULT}
    plain = [name for name in defaults if not name.startswith((_WAITS, _STORAGE))]
    width = max(map(len, plain))
    return "\n".join(
        [
            "environment of `serve`, with defaults:",
            *(f"  {name.ljust(width)}  {_told(defaults[name], NOTES.get(name, ''))}".rstrip() for name in plain),
            "\nwhere recordings go while Mux cannot be reached; nowhere, while none of these is set:",
            _several(defaults, _STORAGE),
            "\nwaits in seconds, and limits of a number:",
            _several(defaults, _WAITS),
            "\nOTEL_EXPORTER_OTLP_ENDPOINT and its relatives send traces and metrics.",
        ]
    )


def _told(default: str | None, note: str) -> str:
    return "  ".join(part for part in (_default(default), note) if part)


def _default(default: str | None) -> str:
    if default is None:
        return "(must be set)"
    return f"({default})" if default else ""


def _several(defaults: dict[str, str | None], prefix: str) -> str:
    told = (f"{name} {_default(text)}".rstrip() for name, text in defaults.items() if name.startswith(prefix))
    # A default stays in the line of its name.
    joined = ", ".join(each.replace(" ", _TIE) for each in told)
    return textwrap.fill(joined, 118, initial_indent="  ", subsequent_indent="  ").replace(_TIE, " ")
