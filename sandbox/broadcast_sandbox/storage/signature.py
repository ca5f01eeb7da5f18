"""AWS Signature Version 4 for S3, both sides: in the query (presigned) and in the Authorization header.

Written from docs.aws.amazon.com/AmazonS3/latest/API (sigv4-query-string-auth, sig-v4-header-based-auth) and on purpose
without the library that the service signs with, so that an error of the library is seen.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
_LONGEST = timedelta(days=7)
_SKEW = timedelta(minutes=15)
_UNSIGNED = "UNSIGNED-PAYLOAD"


class SignatureError(Exception):
    """The text is S3's error code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    access_key: str
    secret_key: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    """Encoded, as it was sent."""
    query: tuple[tuple[str, str], ...] = ()
    """Decoded."""
    headers: Mapping[str, str]
    """Names in lower case."""


def check(request: Request, keys: Keys, now: datetime) -> None:
    """Raises SignatureError unless *request* is signed with *keys* and valid at *now* (UTC)."""
    query = dict(request.query)
    if "X-Amz-Signature" in query:
        _check_query(request, query, keys, now)
    elif request.headers.get("authorization", "").startswith(_ALGORITHM):
        _check_header(request, keys, now)
    else:
        raise SignatureError("AccessDenied")


def signed(request: Request, keys: Keys, now: datetime) -> dict[str, str]:
    """The headers of *request* and those that sign it. *now* is in UTC."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {**request.headers, "x-amz-date": stamp, "x-amz-content-sha256": _UNSIGNED}
    scope = f"{stamp[:8]}/{keys.region}/s3/aws4_request"
    names = sorted(headers)
    canonical = _canonical(request, request.query, {name: headers[name] for name in names}, _UNSIGNED)
    signature = _signature(canonical, stamp, scope, keys)
    signed_names = ";".join(names)
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={signed_names}, Signature={signature}"
    )
    return headers


def _check_query(request: Request, query: Mapping[str, str], keys: Keys, now: datetime) -> None:
    try:
        stamp, scope = query["X-Amz-Date"], _scope(query["X-Amz-Credential"], keys)
        lasts = timedelta(seconds=int(query["X-Amz-Expires"]))
        names = query["X-Amz-SignedHeaders"].split(";")
        headers = {name: request.headers[name] for name in names}
    except (KeyError, ValueError):
        raise SignatureError("AuthorizationQueryParametersError") from None
    began = _time(stamp)
    if not timedelta() < lasts <= _LONGEST:
        raise SignatureError("AuthorizationQueryParametersError")
    if now > began + lasts or now < began - _SKEW:
        raise SignatureError("AccessDenied")
    parts = tuple((name, value) for name, value in request.query if name != "X-Amz-Signature")
    canonical = _canonical(request, parts, headers, _UNSIGNED)
    _compare(_signature(canonical, stamp, scope, keys), query["X-Amz-Signature"])


def _check_header(request: Request, keys: Keys, now: datetime) -> None:
    parts = request.headers["authorization"].removeprefix(_ALGORITHM).split(",")
    fields = {name: value for name, _, value in (part.strip().partition("=") for part in parts)}
    try:
        scope = _scope(fields["Credential"], keys)
        headers = {name: request.headers[name] for name in fields["SignedHeaders"].split(";")}
        stamp, payload = request.headers["x-amz-date"], request.headers["x-amz-content-sha256"]
        given = fields["Signature"]
    except KeyError:
        raise SignatureError("AuthorizationHeaderMalformed") from None
    if abs(now - _time(stamp)) > _SKEW:
        raise SignatureError("RequestTimeTooSkewed")
    _compare(_signature(_canonical(request, request.query, headers, payload), stamp, scope, keys), given)


def _scope(credential: str, keys: Keys) -> str:
    access_key, _, scope = credential.partition("/")
    if access_key != keys.access_key:
        raise SignatureError("InvalidAccessKeyId")
    if scope.split("/")[1:] != [keys.region, "s3", "aws4_request"]:
        raise SignatureError("AuthorizationHeaderMalformed")
    return scope


def _time(stamp: str) -> datetime:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise SignatureError("AccessDenied") from None


def _canonical(request: Request, query: tuple[tuple[str, str], ...], headers: Mapping[str, str], payload: str) -> str:
    pairs = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in query)
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in headers]
    return "\n".join(
        (
            request.method,
            request.path,
            "&".join(f"{name}={value}" for name, value in pairs),
            "".join(lines),
            ";".join(headers),
            payload,
        )
    )


def _signature(canonical: str, stamp: str, scope: str, keys: Keys) -> str:
    text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _compare(expected: str, given: str) -> None:
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise SignatureError("SignatureDoesNotMatch")
