"""Rules about what a caller sends that the contract's own annotations cannot express: where a destination or a slate
may point, and which fields of a spec exclude each other.

An egress worker sits in our network, so an address that a caller chooses must not lead to a neighbour of it. A slate is
downloaded by the provider of live streams, and is held to the same rule: no show needs an image of a private network.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from service.domain.broadcast import Carrier, Destination, LatencyMode, Spec, StaticRendition
from service.domain.errors import Violation
from service.domain.secret import Secret

_URL = re.compile(r"(?P<scheme>[^:/]*)://(?P<authority>[^/]*)(?P<path>/.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?P<port>:.*)?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_PRIVATE_NAMES = ("localhost", "local", "internal", "localdomain", "home.arpa")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MAX_PORT = 65535
_BYTE = 0xFF
_MAX_NAME = 253

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def destination_violations(destinations: Sequence[Destination], keys: Mapping[str, Secret]) -> list[Violation]:
    """The violations of urls and of given keys. *keys*: by the destination's name."""
    violations: list[Violation] = []
    for index, destination in enumerate(destinations):
        where = f"spec.destinations[{index}]"
        key = keys.get(destination.name, Secret(""))
        if (wrong := _wrong_with_url(destination.url)) is not None:
            violations.append(Violation(field=f"{where}.url", description=wrong))
        if (wrong := _wrong_with_key(key.reveal())) is not None:
            violations.append(Violation(field=f"{where}.stream_key", description=wrong))
    return violations


def slate_violations(url: str) -> list[Violation]:
    """The violations of `spec.slate_url`. An empty *url* has none."""
    wrong = _wrong_with_image(url) if url else None
    return [] if wrong is None else [Violation(field="spec.slate_url", description=wrong)]


def combination_violations(spec: Spec) -> list[Violation]:
    """The violations of fields that exclude each other in *spec*, which is whole: with an update merged into it."""
    violations: list[Violation] = []
    if spec.captions_language and spec.latency_mode is LatencyMode.LOW:
        # mux.com/docs, Add auto-generated live captions: "Do live captions work with low latency live streams? Not at
        # this time."
        why = "must be empty with the latency mode LOW, for which no captions are generated"
        violations.append(Violation(field="spec.captions_language", description=why))
    if spec.audio_only and spec.static_rendition is StaticRendition.HIGHEST:
        why = "must be AUDIO_ONLY or unset with audio_only: there is no picture"
        violations.append(Violation(field="spec.static_rendition", description=why))
    if spec.slate_url and not spec.reconnect_window_s:
        why = "must be empty without a reconnect window: it is shown within that alone"
        violations.append(Violation(field="spec.slate_url", description=why))
    return violations


def missing_keys(destinations: Sequence[Destination], keys: Mapping[str, Secret]) -> list[Violation]:
    """A violation for each destination without a stream key. Not for a key that an update keeps: merge first."""
    return [
        Violation(field=f"spec.destinations[{index}].stream_key", description="is required")
        for index, destination in enumerate(destinations)
        if not keys.get(destination.name)
    ]


def look_alikes(destinations: Sequence[Destination], keys: Mapping[str, Secret]) -> list[Violation]:
    """A violation for each destination that cannot be told from an earlier one. The provider of egresses shows of an
    address only the ends of its key, so one of two with the same url and the same ends would be told for the other,
    and who removes what is told FAILED would cut off the one that lives. *keys*: as of `missing_keys`.
    """
    first: dict[tuple[str, str], str] = {}
    violations: list[Violation] = []
    for index, destination in enumerate(destinations):
        if destination.carrier is not Carrier.EGRESS:
            continue
        key = keys.get(destination.name, Secret("")).reveal()
        other = first.setdefault((destination.url, shown_ends(key)), destination.name)
        if other != destination.name:
            why = f"begins and ends like the key of {other!r}, with the same url: the two could not be told apart"
            violations.append(Violation(field=f"spec.destinations[{index}].stream_key", description=why))
    return violations


def alike_of(name: str, destinations: Sequence[Destination], keys: Mapping[str, Secret]) -> frozenset[str]:
    """The names of the destinations that the provider shows as it shows *name*, itself included."""
    shown = {
        each.name: (each.url, shown_ends(keys.get(each.name, Secret("")).reveal()))
        for each in destinations
        if each.carrier is Carrier.EGRESS and keys.get(each.name)
    }
    return frozenset(other for other, address in shown.items() if address == shown.get(name))


def shown_ends(key: str) -> str:
    """The form in which LiveKit shows a stream key (livekit/protocol utils/redact.go)."""
    for length, shown in ((9, 3), (6, 2), (3, 1)):
        if len(key) >= length:
            return f"{{{key[:shown]}...{key[-shown:]}}}"
    return "{...}"


def host_of(url: str) -> str | None:
    """The host name that is to be resolved, of an url without violations. None: its host is an address."""
    host = _host_of(url)
    return None if _literal(host) is not None else host


def is_public(address: str) -> bool:
    """Whether an IP address, in the form of getaddrinfo, may be sent to."""
    try:
        return _is_public(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False


def _host_of(url: str) -> str:
    parts = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    return authority["host"].lower().removesuffix(".") if authority else ""


def _wrong_with_url(url: str) -> str | None:
    # Refused before anything is taken apart: parsers disagree on exactly these characters.
    if not _plain(url) or "%" in url:
        return (
            "must be plain ASCII without spaces, escapes and quotes; write a host with other letters in its xn-- form"
        )
    parts = _URL.fullmatch(url)
    if parts is None:
        return "must look like rtmps://host/application"
    if parts["scheme"] not in ("rtmp", "rtmps"):
        return "must begin with rtmp:// or rtmps://"
    if "?" in url or "#" in url:
        return "must not have a query: what belongs to the key goes into stream_key"
    if "@" in parts["authority"]:
        return "must not have a user or a password"
    return _wrong_with_authority(parts["authority"]) or _wrong_with_path(parts["path"] or "")


def _wrong_with_image(url: str) -> str | None:
    if not _plain(url):
        return "must be plain ASCII without spaces and quotes; write a host with other letters in its xn-- form"
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"] not in ("http", "https"):
        return "must begin with https:// or http://"
    if "#" in url:
        return "must not have a fragment"
    if "@" in parts["authority"]:
        return "must not have a user or a password"
    return _wrong_with_authority(parts["authority"])


def _plain(url: str) -> bool:
    return all("!" <= c <= "~" for c in url) and not any(c in url for c in '\\"<>^`{|}')


def _wrong_with_authority(text: str) -> str | None:
    authority = _AUTHORITY.fullmatch(text)
    if authority is None or not authority["host"]:
        return "must have a host"
    port = authority["port"]
    if port is not None and not (
        port[1:].isdecimal() and len(port) <= len(":65535") and 1 <= int(port[1:]) <= _MAX_PORT
    ):
        return "must have a port from 1 to 65535, or none"
    return _wrong_with_host(authority["host"].lower().removesuffix("."))


def _wrong_with_path(path: str) -> str | None:
    segments = path.split("/")[1:]
    if not any(segments):
        return "must have an application after the host, such as rtmps://host/app"
    if not all(segments):
        return "must not have empty parts in its path, and no slash at its end"
    if "." in segments or ".." in segments:
        return "must not have dots as parts of its path"
    return None


def _wrong_with_host(host: str) -> str | None:
    if host.startswith("["):
        try:
            address: _Address | None = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return "has no valid IPv6 address"
    else:
        address = _literal(host)
    if address is not None:
        return None if _is_public(address) else "must not be a private, loopback or otherwise special address"
    labels = host.split(".")
    # A host that ends in a number is an address to every resolver, or nothing at all.
    if _NUMBER.fullmatch(labels[-1]) or len(host) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        return "has no valid host"
    if any(host == name or host.endswith(f".{name}") for name in _PRIVATE_NAMES) or len(labels) == 1:
        return "must not be a name of a private network"
    return None


def _literal(host: str) -> _Address | None:
    """The address a host is, in any form that a resolver takes: 127.1, 0x7f.1 and 2130706433 are 127.0.0.1."""
    if host.startswith("["):
        return ipaddress.IPv6Address(host[1:-1])
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):  # noqa: PLR2004 - the bytes of an address
        return None
    try:
        *leading, last = (_number(part) for part in parts)
    except ValueError:
        return None
    if any(number > _BYTE for number in leading) or last >= 256 ** (4 - len(leading)):
        return None
    return ipaddress.IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(leading)) + last)


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") else int(text)


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _wrong_with_key(key: str) -> str | None:
    if not all("!" <= c <= "~" for c in key):
        return "must be printable ASCII without spaces"
    if "/" in key:
        return "must not have a slash: the part before it belongs to the url"
    return None
