"""A file that a simulated egress makes, and puts into S3-compatible storage when it ends.

The error text of the real egress for a failed upload is not documented; here it is FAILED with "upload failed".
"""

import time
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import aiohttp
from livekit.protocol import egress as proto
from yarl import URL

from broadcast_sandbox.livekit.twirp import TwirpError
from broadcast_sandbox.mp4 import mp4
from broadcast_sandbox.storage.signature import Keys, Request, signed

_WITHIN = aiohttp.ClientTimeout(total=5)
"""Real seconds."""


class FileOutput:
    def __init__(self, output: proto.EncodedFileOutput) -> None:
        """Raises TwirpError for outputs that are not simulated: local files, other clouds, generated names."""
        if not output.HasField("s3") or not output.filepath or output.filepath.endswith("/"):
            raise TwirpError("unimplemented", "only named files in S3 are simulated")
        if output.file_type not in (proto.EncodedFileType.DEFAULT_FILETYPE, proto.EncodedFileType.MP4):
            raise TwirpError("unimplemented", "only MP4 is simulated")
        self._s3 = proto.S3Upload()
        self._s3.CopyFrom(output.s3)
        self.key = output.filepath if output.filepath.endswith(".mp4") else f"{output.filepath}.mp4"
        self.info = proto.FileInfo(filename=self.key)
        self._began = self._ended = 0.0

    def begin(self, now: float) -> None:
        """*now* in seconds of the provider's clock, which the duration is counted in too."""
        self._began = self._ended = now
        self.info.started_at = time.time_ns()

    def end(self, now: float) -> None:
        self._ended = now
        self.info.ended_at = time.time_ns()
        self.info.duration = int((now - self._began) * 1e9)

    async def upload(self, session: aiohttp.ClientSession) -> str:
        """The error text; empty if the file was uploaded."""
        content = mp4(self._ended - self._began)
        url = self._url()
        headers = {"host": urlsplit(url).netloc, "content-type": "video/mp4"}
        keys = Keys(access_key=self._s3.access_key, secret_key=self._s3.secret, region=self._s3.region)
        request = Request(method="PUT", path=urlsplit(url).path, headers=headers)
        try:
            signature = signed(request, keys, datetime.now(UTC))
            async with session.put(
                URL(url, encoded=True), data=content, headers=signature, timeout=_WITHIN
            ) as response:
                if response.status != 200:
                    return f"upload failed: status code {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"upload failed: {type(error).__name__}"
        self.info.size = len(content)
        self.info.location = url
        return ""

    def _url(self) -> str:
        scheme, host = urlsplit(self._s3.endpoint or f"https://s3.{self._s3.region}.amazonaws.com")[:2]
        bucket, key = self._s3.bucket, quote(self.key, safe="/~")
        return f"{scheme}://{host}/{bucket}/{key}" if self._s3.force_path_style else f"{scheme}://{bucket}.{host}/{key}"


def redact(output: proto.EncodedFileOutput) -> None:
    """livekit/protocol egress/redact.go."""
    for name in ("access_key", "secret", "session_token"):
        if getattr(output.s3, name):
            setattr(output.s3, name, f"{{{name}}}")
