"""The S3-compatible storage where LiveKit puts recordings, and Mux fetches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from service.domain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

_VALID_S = 24 * 3600
"""Mux fetches within minutes; a day is for what waits in its queue. SigV4 allows 7 days at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    bucket: str
    access_key: Secret
    secret_key: Secret
    region: str = "us-east-1"
    endpoint: str = ""
    """Empty: Amazon's."""
    prefix: str = "recordings"
    """What object keys begin with, without slashes around it."""
    force_path_style: bool = False
    """The bucket stands in the path and not in the host's name."""

    def address_of(self, file: str) -> str:
        scheme, host = urlsplit(self.endpoint or f"https://s3.{self.region}.amazonaws.com")[:2]
        base = f"{scheme}://{host}/{self.bucket}" if self.force_path_style else f"{scheme}://{self.bucket}.{host}"
        return f"{base}/{quote(file, safe='/~')}"


class Storage:
    def __init__(self, settings: StorageSettings) -> None:
        # The library costs 100 ms and some megabytes to import, so only who has a storage pays.
        from service.providers.storage.sigv4 import signer  # noqa: PLC0415

        self._address_of = settings.address_of
        self._sign: Callable[[str], str] = signer(
            access_key=settings.access_key, secret_key=settings.secret_key, region=settings.region, valid_s=_VALID_S
        )

    def url_of(self, file: str) -> Secret:
        return Secret(self._sign(self._address_of(file)))
