"""Settings of the Mux simulator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxSimulatorSettings:
    """`*_s` are seconds of the provider's time unless said otherwise. Undocumented behaviour is an option."""

    token_id: str
    token_secret: str
    environment_id: str = "sbx001"
    environment_name: str = "sandbox"
    webhook_url: str | None
    webhook_secret: str
    webhook_timeout_s: float = 5.0
    """Real seconds."""
    webhook_retry_waits_s: tuple[float, ...] = (10, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 28800)
    """Growing waits, 24 h in all (mux.com/docs, Listen for webhooks). The schedule itself is not documented."""
    post_rate: float = 1.0
    """POST /video/ a real second; 0 = no limit (mux.com/docs, Make API requests)."""
    post_burst: float = 5
    """Mux documents neither this burst nor `other_burst`."""
    other_rate: float = 5.0
    """All other calls a real second; 0 = no limit."""
    other_burst: float = 25
    connect_to_active_s: float = 10.0
    """From the first media of a connection to `active`."""
    asset_ready_s: float = 2.0
    """From `active` to the asset's `ready`."""
    upload_s: float = 4.0
    """From the creation of an asset of a file to the moment at which Mux fetches it; as long again to `ready`."""
    no_media_cut_s: float = 300.0
    complete_grace_s: float = 60.0
    """`complete` leaves the encoder connected for this long."""
    test_limit_s: float = 300.0
    test_asset_life_s: float = 86_400.0
    second_publisher: Literal["accept", "reject"] = "accept"
    """Undocumented. With `accept` a second publisher appears in the effect log as `ingest.double`."""
    reconnect_after_complete: Literal["new_asset", "reject"] = "new_asset"
    """The answer to a publish while `complete` still keeps the old connection."""
    reset_closes_publisher: bool = False
    """Undocumented: whether a key reset cuts the encoder that is connected with the old key."""
    ingest_protocol: str = "rtmp"
    """`active_ingest_protocol`; a value unknown to mux_python 5.1.2 makes its models raise ValueError."""
    signing_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """Key id -> RSA public key (PEM), registered from the start. More are made by `/system/v1/signing-keys`. As long as
    there is none, the signature of a playback token is not checked.
    """
