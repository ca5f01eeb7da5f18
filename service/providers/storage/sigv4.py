"""Presigned addresses by botocore, of which no more than its signature is used: no client, no files, no environment.

It has no types; they end here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import botocore.auth
import botocore.awsrequest
import botocore.credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.domain.secret import Secret


def signer(*, access_key: Secret, secret_key: Secret, region: str, valid_s: int) -> Callable[[str], str]:
    """Makes, of an address, one with a signature that lets anybody GET it for *valid_s* seconds."""
    auths, requests = cast("Any", botocore.auth), cast("Any", botocore.awsrequest)
    credentials = cast("Any", botocore.credentials).Credentials(access_key.reveal(), secret_key.reveal())
    auth = auths.S3SigV4QueryAuth(credentials, "s3", region, expires=valid_s)

    def sign(address: str) -> str:
        request = requests.AWSRequest(method="GET", url=address)
        auth.add_auth(request)
        return str(request.url)

    return sign
